"""A feed follows a run as it goes on, and says what is wrong instead of raising it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from crabrt.core.entries import Forked, Lineage, Resumed
from crabrt.errors import UsageError
from crabrt.journal import RunIndex, label_turn, pin_turn, read_journal, run_dir, thin_turns
from crabrt.journal.layout import journal_dir
from crabrt.journal.restores import Begin, End, RestoreLog
from crabrt.store import Store
from crabrt.timeline.feed import RunFeed
from crabrt.timeline.folding import Folding
from crabrt.timeline.marks import MarkKind
from crabrt.timeline.watching import POLL_S, SLOW_S, Watch

WRITER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("told", sys.argv[1])
told = importlib.util.module_from_spec(spec); spec.loader.exec_module(told)
from pathlib import Path
run = told.Told(Path(sys.argv[2]), sys.argv[3]).open().start()
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


@pytest.fixture
def loop(home):
    """A process that writes a run's journal as it is told."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(Path(__file__).with_name("conftest.py")),
         str(home), "fixer-1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"

    def do(line):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    do.process = process
    with process:
        yield do
        process.kill()


def kinds(timeline):
    return [problem.kind for problem in timeline.problems]


def as_read_now(run):
    folding = Folding(run.run)
    folding.feed(read_journal(run.directory))
    return views(folding.timeline())


def views(timeline):
    return [row.view for row in timeline.rows]


@pytest.mark.parametrize("inotify", [True, False])
def test_what_another_process_writes_is_seen_as_it_comes(loop, home, feed, until, inotify):
    followed = feed(watch=Watch(inotify=inotify))
    state = until(followed, lambda s: s.live)
    assert len(state.rows) == 1
    loop("call = run.begin()")
    state = until(followed, lambda s: s.activity.kind == "model")
    [call] = state.activity.calls
    assert (call.name, call.model, state.activity.turn) == ("think", "scripted", 1)
    assert abs(time.time_ns() - state.activity.since_ns) < 60 * 10**9
    loop("run.answer(call)")
    until(followed, lambda s: s.activity.kind == "loop")
    loop("call = run.act('make')")
    state = until(followed, lambda s: s.activity.kind == "tool")
    assert state.changed == {1}
    loop("run.done(call); run.commit(1)")
    until(followed, lambda s: s.rows.at(1).checkpoint.word == "durable")
    loop("run.end()")
    state = until(followed, lambda s: s.state == "done")
    assert state.activity is None
    assert state.marks[-1].kind is MarkKind.ENDED


def test_a_process_that_is_killed_leaves_a_crashed_run_and_calls_that_were_cut_off(
    loop, feed, until
):
    followed = feed()
    loop("run.begin()")
    until(followed, lambda s: s.live and s.activity.kind == "model")
    loop.process.send_signal(signal.SIGKILL)
    assert loop.process.wait() == -signal.SIGKILL
    state = until(followed, lambda s: not s.live)
    assert state.state == "crashed"
    assert state.activity is None
    assert state.rows.at(1).verdict.word == "cut off"
    assert [call.name for call in state.rows.at(1).open_calls] == ["think"]


def test_following_ends_when_it_is_stopped_from_another_thread(run, feed):
    followed, seen = feed(), []

    def go():
        seen.extend(followed.follow())

    thread = threading.Thread(target=go)
    thread.start()
    while not seen and thread.is_alive() and followed.timeline.revision == 0:
        time.sleep(0.01)
    followed.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert followed.timeline.live


def test_segments_that_follow_each_other_are_one_journal(told, feed, until):
    run = told().open(segment_bytes=2_000).start()
    followed = feed()
    for number in range(1, 12):
        run.turn()
        until(followed, lambda s, number=number: s.rows.at(number) is not None)
    assert len(list(journal_dir(run.directory).glob("*.seg"))) > 3
    assert views(followed.timeline) == as_read_now(run)


def test_a_long_journal_is_shown_while_it_is_still_read(run, feed):
    for _ in range(40):
        run.turn()
    followed = feed()
    state = followed.poll(slice_s=0.0)
    assert state.reading is not None
    assert 0 < state.reading.share < 1
    assert state.state == "running"
    shares = []
    while state.reading is not None:
        shares.append(state.reading.share)
        state = followed.poll(slice_s=0.0)
    assert shares == sorted(shares)
    assert views(state) == as_read_now(run)


def test_while_it_is_read_nobody_says_it_crashed(run, feed):
    for _ in range(5):
        run.turn()
    run.end()
    followed = feed()
    states = {followed.poll(slice_s=0.0).state}
    while followed.timeline.reading is not None:
        states.add(followed.poll(slice_s=0.0).state)
    assert states == {"", "done"}


def test_it_goes_on_from_the_index_even_if_that_is_behind(run, feed, refreshed):
    for _ in range(3):
        run.turn()
    refreshed()
    run.turn()
    state = feed().poll(slice_s=0.0)
    assert len(state.rows) >= 4  # before a slice was read
    assert views(feed().read_all()) == as_read_now(run)


def test_an_index_that_is_broken_costs_time_and_changes_nothing(run, feed, refreshed, home):
    run.turn()
    refreshed()
    (home / "runs.sqlite").write_bytes(b"this is no database" * 100)
    for suffix in ("-wal", "-shm"):
        Path(f"{home}/runs.sqlite{suffix}").unlink(missing_ok=True)
    assert views(feed().read_all()) == as_read_now(run)


def test_a_run_that_is_deleted_while_it_is_shown_is_gone_and_stays_readable(run, feed, until):
    run.turn()
    followed = feed()
    until(followed, lambda s: len(s.rows) == 2)
    run.close()
    shutil.rmtree(run.directory)
    state = until(followed, lambda s: s.gone)
    assert len(state.rows) == 2
    assert state.rows.at(1).view.verdict == ("files",)
    assert followed.poll() is None


@pytest.mark.timeout(30)
def test_a_run_that_is_deleted_while_it_is_still_read_ends_the_reading(run, feed):
    for _ in range(40):
        run.turn()
    followed = feed()
    assert followed.poll(slice_s=0.0).reading is not None
    run.close()
    shutil.rmtree(run.directory)
    state = followed.read_all()
    assert (state.state, state.reading, kinds(state)) == ("gone", None, ["not-found"])
    assert "went away" in state.problems[0].message
    assert 1 <= len(state.rows) < 41
    assert followed.poll() is None


@pytest.mark.timeout(30)
def test_who_follows_a_run_that_is_deleted_while_it_is_read_waits(run, feed):
    for _ in range(40):
        run.turn()
    followed = feed()
    assert followed.poll(slice_s=0.0).reading is not None
    run.close()
    shutil.rmtree(run.directory)
    waited = []
    followed.wait = lambda timeout_s: (waited.append(timeout_s), followed.stop())
    assert [state.state for state in followed.follow()] == ["gone"]
    assert waited == [SLOW_S]


def test_a_journal_that_comes_back_is_read_on(run, feed, tmp_path):
    for _ in range(40):
        run.turn()
    run.close()
    followed = feed()
    assert followed.poll(slice_s=0.0).reading is not None
    os.rename(run.directory, tmp_path / "elsewhere")
    assert followed.read_all().gone
    os.rename(tmp_path / "elsewhere", run.directory)
    state = followed.read_all()
    assert (state.state, kinds(state)) == ("crashed", [])
    assert views(state) == as_read_now(run)


def test_a_run_that_never_was_is_gone(feed, home):
    assert feed("nobody-1").poll().state == "gone"
    with pytest.raises(UsageError):
        RunFeed(home, "../outside")


def test_a_run_that_has_not_begun_yet_is_waited_for(told, feed, until):
    run = told()
    run.directory.mkdir(parents=True)
    followed = feed()
    assert followed.poll().state == ""
    run.open().start()
    assert until(followed, lambda s: s.live).view.name == "fixer"


def test_damage_in_the_middle_is_told_and_what_is_before_it_is_shown(run, feed):
    run.turn()
    good = run.directory / "journal"
    [segment] = good.glob("*.seg")
    whole = segment.stat().st_size
    run.turn()
    run.close()
    data = bytearray(segment.read_bytes())
    data[whole + 40] ^= 0xFF
    segment.write_bytes(data)
    state = feed().read_all()
    assert (state.state, kinds(state)) == ("damaged", ["damaged-journal"])
    assert state.rows.at(1).checkpoint.word == "durable"
    assert state.problems[0].where.startswith("fixer-1/")


def test_damage_that_comes_while_it_is_shown_is_told_too(run, feed, until):
    run.turn()
    followed = feed()
    until(followed, lambda s: len(s.rows) == 2)
    run.turn()
    run.close()
    [segment] = journal_dir(run.directory).glob("*.seg")
    os.truncate(segment, 10)
    state = until(followed, lambda s: s.problems)
    assert state.state == "damaged"
    assert len(state.rows) >= 2


def test_a_journal_that_went_on_otherwise_is_read_again(told, feed, until, tmp_path):
    """As after a power cut: entries that were read were never durable, and others came."""
    run = told().open().start()
    run.turn()
    run.close()
    shutil.copytree(run.directory, tmp_path / "durable")
    run.open()
    run.turns = 5
    run.turn()
    followed = feed()
    until(followed, lambda s: s.view.turn == 6)
    run.close()
    shutil.rmtree(run.directory)
    shutil.copytree(tmp_path / "durable", run.directory)
    run.open()
    run.turns = 1
    run.turn(tool="other")
    state = until(followed, lambda s: s.view.turn == 2)
    assert views(state) == as_read_now(run)
    assert state.changed is None
    assert state.rows.at(2).tool_counts() == {"other": 1}


def test_a_store_of_a_newer_format_is_a_state(run, feed, home):
    Store.open(home, create=True).close()
    text = (home / "format.json").read_text()
    (home / "format.json").write_text(text.replace('"version": 1', '"version": 99'))
    assert '"version": 99' in (home / "format.json").read_text()
    state = feed().poll()
    assert (state.state, kinds(state)) == ("damaged", ["format-too-new"])
    assert len(state.rows) == 0


def test_labels_pins_and_thinning_of_others_appear(run, feed, until):
    run.turn()
    run.turn()
    followed = feed()
    until(followed, lambda s: len(s.rows) == 3)
    label_turn(run.directory, "good", 1)
    assert until(followed, lambda s: s.labels).rows.at(1).view.labels == ("good",)
    pin_turn(run.directory, 1)
    until(followed, lambda s: s.rows.at(1).view.pinned)
    thin_turns(run.directory, [2], reason="prune")
    assert until(followed, lambda s: s.rows.at(2).checkpoint.word == "thinned")


def test_a_message_that_cannot_be_read_is_told_and_hides_nothing(run, feed, until):
    run.turn()
    label_turn(run.directory, "good", 1)
    (run.directory / "inbox" / "00000002.msg").write_bytes(b"not a message")
    state = feed().read_all()
    assert kinds(state) == ["damaged-journal"]
    assert state.live
    assert len(state.rows) == 2


def test_restores_and_undos_of_the_workspace_stand_where_they_happened(run, feed, home, until):
    run.turn()
    log = RestoreLog(home / "workspaces" / "w1")
    one, two = b"1" * 32, b"2" * 32

    def restored(number, label):
        name = f"{number:016x}"
        log.append(Begin(name, one, two, None, (), False, label, time.time_ns(), "boot"))
        log.append(End(name, two, True, time.time_ns()))

    restored(1, "restore fixer-1@0")
    run.turn()
    restored(2, "undo")
    restored(3, "rollback of fixer-1 to 1")
    followed = feed()
    marks = followed.read_all().marks
    assert [(m.kind, m.after, m.run, m.to) for m in marks] == [
        (MarkKind.RESTORED, 1, "fixer-1", 0),
        (MarkKind.UNDONE, 2, None, None),
    ]
    log.append(Begin("4" * 16, one, two, None, (), False, "undo", time.time_ns(), "boot"))
    state = until(followed, lambda s: len(s.marks) == 3)
    assert state.marks[-1].kind is MarkKind.RESTORING


def test_a_log_of_restores_that_is_broken_is_told(run, feed, home):
    path = home / "workspaces" / "w1" / "restores"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no log of restores")
    state = feed().read_all()
    assert kinds(state) == ["damaged-journal"]
    assert len(state.rows) == 1


def test_a_workspace_id_that_leads_elsewhere_is_not_followed(told, feed):
    told().open().start(workspace="../../outside")
    assert kinds(feed().read_all()) == []


def test_forks_made_while_it_is_shown_appear(run, told, feed, until):
    run.turn()
    followed = feed()
    until(followed, lambda s: len(s.rows) == 2)
    fork = told("fork-1", parent="fixer-1").open().start()
    lineage = Lineage("fixer-1", "fixer-1", fork.journal.seq, b"c" * 32)
    fork.say(Forked("fork-1", "fork", b"/elsewhere", "w2", lineage, 0))
    fork.journal.sync()
    state = until(followed, lambda s: s.marks)
    assert [(m.kind, m.after, m.run) for m in state.marks] == [(MarkKind.FORK, 0, "fork-1")]


def test_a_resumed_run_is_running_again(run, feed, until):
    run.turn()
    run.close()
    followed = feed()
    assert followed.read_all().state == "crashed"
    run.open()
    until(followed, lambda s: s.state == "running")
    run.say(Resumed("in-place", 1, run.journal.seq, 1))
    state = until(followed, lambda s: s.marks)
    assert state.marks[-1].text == "in-place"


def test_nothing_is_written_to_the_run(run, feed):
    run.turn()

    def files():
        found = sorted(run.directory.rglob("*"))
        return [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in found]

    before = files()
    followed = feed()
    followed.read_all()
    followed.poll()
    assert files() == before


def test_a_still_run_costs_nothing_but_a_look_a_second(run, feed):
    followed = feed()
    followed.read_all()
    followed.wait(0)  # what told of the beginning is forgotten
    began = time.monotonic()
    assert followed.wait(0.3) is False
    assert time.monotonic() - began >= 0.3
    assert followed.poll() is None
    assert SLOW_S >= 10 * POLL_S >= 1


def test_without_inotify_it_looks_by_itself():
    watch = Watch(inotify=False)
    assert watch.wait(60.0) is True
    watch.close()
    watch.close()
    watch.wake()


def test_a_directory_that_is_made_again_is_watched_again(tmp_path):
    place = tmp_path / "place"
    with Watch() as watch:
        for _ in range(2):
            place.mkdir()
            watch.watch([place])
            watch.wait(0)
            (place / "file").write_text("x")
            assert watch.wait(20.0) is True
            shutil.rmtree(place)
            watch.wait(0)
            watch.watch([place])


def test_the_index_gives_a_run_as_it_was_folded_or_says_there_is_none(run, refreshed, home):
    run.turn()
    refreshed()
    with RunIndex.open(home) as index:
        assert len(index.folded(run.run).turns) == 2
    assert run_dir(home, run.run).is_dir()
