"""Captures of several runs in one process: in the order in which their loops need them."""

import threading
from dataclasses import dataclass

import pytest

import crabrt
from crabrt.core.entries import Captured
from crabrt.core.failpoints import ALL
from crabrt.runtime import turnstile as module
from crabrt.runtime.replies import ReplyTimes
from crabrt.runtime.turnstile import REPLIED, WAITED_FOR, Turnstile


@dataclass
class Need:
    due: float


class Crowd:
    """Threads at a turnstile that is one wide and taken."""

    def __init__(self, monkeypatch, dues, patience_s=60.0):
        monkeypatch.setattr(module, "PATIENCE_S", patience_s)
        self.turnstile = Turnstile(1)
        self.order = []
        self.needs = [Need(due) for due in dues]
        self._gate = self.turnstile.passed(Need(WAITED_FOR))
        self._gate.__enter__()
        self.threads = [threading.Thread(target=self._pass, args=(need,)) for need in self.needs]
        for number, thread in enumerate(self.threads, 1):
            thread.start()
            while len(self.turnstile._waiting) < number and thread.is_alive():
                pass

    def _pass(self, need):
        with self.turnstile.passed(need):
            self.order.append(need)

    def let_go(self):
        self._gate.__exit__(None, None, None)
        self.wait()

    def wait(self):
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


def test_who_is_waited_for_goes_first_then_whose_reply_came_then_whose_is_due(monkeypatch):
    crowd = Crowd(monkeypatch, [200.0, 100.0, REPLIED, WAITED_FOR])
    crowd.let_go()
    assert crowd.order == crowd.needs[::-1]
    assert crowd.turnstile._free == 1


def test_a_need_that_grows_while_it_waits_is_heard(monkeypatch):
    crowd = Crowd(monkeypatch, [100.0, 200.0, 300.0])
    crowd.needs[2].due = WAITED_FOR
    crowd.let_go()
    assert crowd.order == [crowd.needs[2], crowd.needs[0], crowd.needs[1]]


def test_nobody_waits_for_long_behind_one_that_takes_its_time(monkeypatch):
    crowd = Crowd(monkeypatch, [1.0, 2.0], patience_s=0.01)
    crowd.wait()
    assert len(crowd.order) == 2
    assert crowd.turnstile._free == 0, "the one that was there is there still"
    crowd.let_go()
    assert crowd.turnstile._free == 1


def test_a_reply_is_expected_when_three_of_four_take_longer():
    replies = ReplyTimes()
    assert replies.expected_ms("any") == 1000.0
    for waited_ms in (400.0, 100.0, 300.0, 200.0):
        replies.add("quick", waited_ms)
    assert replies.expected_ms("quick") == 200.0
    replies.add("slow", 9000.0)
    assert replies.expected_ms("slow") == 9000.0
    assert replies.expected_ms("new") == 200.0


def test_what_was_long_ago_is_forgotten():
    replies = ReplyTimes()
    for waited_ms in [1.0] * 50 + [500.0] * 16:
        replies.add("model", waited_ms)
    assert replies.expected_ms("model") == 500.0


def test_the_run_at_whose_gate_the_loop_stands_is_captured_first(
    tmp_path, home, store, monkeypatch
):
    """Three runs in a process that captures one at a time; the last to ask is waited for."""
    monkeypatch.setattr(module, "PATIENCE_S", 60.0)
    monkeypatch.setattr(module, "_here", None)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0})
    hold, held = threading.Event(), threading.Event()
    runs = []
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        context = crabrt.open_run(workspace=tmp_path / name, name=name)
        runs.append((context, context.__enter__()))
    for _, run in runs:
        run.model_call([{"role": "user", "content": "1"}], lambda: "ok")
        run.tool_call("nothing", {}, lambda: None)

    def stop() -> None:
        held.set()
        hold.wait(60)

    monkeypatch.setattr(ALL["checkpoint.scanned"], "action", stop)
    asked = [{"role": "user", "content": "2"}]
    runs[0][1].model_call(asked, lambda: held.wait(60) and "ok")  # its capture has the place
    runs[1][1].model_call(asked, lambda: "ok")
    third = threading.Thread(target=_both, args=(runs[2][1], asked))
    third.start()
    waiting = runs[2][1]._session.engine._turnstile._waiting
    while not any(job.due == WAITED_FOR for job, _ in list(waiting)):
        pass
    hold.set()
    third.join(60)
    for context, _ in runs:
        context.__exit__(None, None, None)
    moments = {
        name: next(
            record.entry.mono_ns
            for record in store.records(name)
            if isinstance(record.body, Captured) and record.body.turn == 1
        )
        for name in ("second", "third")
    }
    assert moments["third"] < moments["second"]


def _both(run, asked) -> None:
    run.model_call(asked, lambda: "ok")
    run.tool_call("nothing", {}, lambda: None)


@pytest.mark.parametrize("width", [1, 3])
def test_as_many_go_at_a_time_as_there_are_places(monkeypatch, width):
    monkeypatch.setattr(module, "PATIENCE_S", 60.0)
    turnstile, inside, most = Turnstile(width), [], []
    lock = threading.Lock()

    def work() -> None:
        with turnstile.passed(Need(1.0)):
            with lock:
                inside.append(1)
                most.append(len(inside))
            with lock:
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= width
    assert turnstile._free == width
