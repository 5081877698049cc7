"""Asking about runs and turns: quick, incremental, and never anything but what the journals say."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading

import msgspec
import pytest

from crabrt.core.entries import (
    CallId,
    Ended,
    Intent,
    Labelled,
    Noted,
    Observed,
    Payload,
    Pinned,
    Resumed,
    TurnOpened,
)
from crabrt.core.targets import TurnRef, parse_turn
from crabrt.core.verdicts import Effect, Guess, Likely, Protection, Verdict
from crabrt.errors import Ambiguous, CrabError, DamagedJournal, NotFound, UsageError
from crabrt.journal import (
    RunIndex,
    fold,
    label_turn,
    pin_turn,
    read_journal,
    read_marks,
    rows,
    thin_turns,
    unlabel,
)


def _answers(home):
    with RunIndex.open(home) as index:
        index.refresh()
        return [(row, index.turns(row.run)) for row in index.runs()]


def _some_runs(make_run):
    for number in range(3):
        run = make_run(f"fixer-{number}")
        run.open(segment_bytes=3000)
        run.start(name="fixer" if number else "other", workspace=f"w{number % 2}")
        for turn in range(1, 6 + number):
            run.turn(turn)
            run.journal.sync()
        run.journal.append(Labelled(2, "from-the-loop"), turn=2)
        label_turn(run.directory, "good", 3)
        if number == 1:
            run.journal.append(Ended("done", 1.0), turn=5)
        run.close()
    return run.home


def test_an_index_kept_up_step_by_step_answers_like_one_built_at_once(run):
    run.open(segment_bytes=2000)
    run.start()
    rng = random.Random(3)
    with RunIndex.open(run.home) as index:
        for turn in range(1, 40):
            run.turn(turn)
            if rng.random() < 0.3:
                run.journal.sync()
            if rng.random() < 0.5:
                index.refresh()
        index.refresh()
        kept = (index.runs(), index.turns(run.id))
        index.rebuild()
        assert (index.runs(), index.turns(run.id)) == kept
    assert kept[1] == fold(read_journal(run.directory)).turns()


def test_deleted_while_open_it_is_built_again_and_answers_the_same(make_run):
    home = _some_runs(make_run)
    before = _answers(home)
    with RunIndex.open(home) as index:
        index.refresh()
        os.unlink(home / "runs.sqlite")
        assert [(row, index.turns(row.run)) for row in index.runs()] == before
        assert _answers(home) == before
        index.refresh()
        assert [(row, index.turns(row.run)) for row in index.runs()] == before


def test_damaged_anywhere_it_answers_the_same(make_run):
    home = _some_runs(make_run)
    before = _answers(home)
    path = home / "runs.sqlite"
    size = path.stat().st_size
    rng = random.Random(5)
    for round_ in range(120):
        data = bytearray(path.read_bytes())
        how = round_ % 4
        at = rng.randrange(size)
        if how == 0:
            data[at : at + 64] = rng.randbytes(64)
        elif how == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            del data[at:]
        else:
            data = bytearray(rng.randbytes(at))
        for suffix in ("-wal", "-shm"):
            (home / f"runs.sqlite{suffix}").unlink(missing_ok=True)
        path.write_bytes(data)
        assert _answers(home) == before, (round_, at)


def test_a_newer_or_older_schema_is_replaced(make_run):
    home = _some_runs(make_run)
    before = _answers(home)
    connection = sqlite3.connect(home / "runs.sqlite")
    connection.execute("PRAGMA user_version=77")
    connection.close()
    assert _answers(home) == before


def test_turns_that_acted_outside_are_found_by_verdict_or_by_guess(make_run):
    run = _outside(make_run)
    with RunIndex.open(run.home) as index:
        index.refresh()
        assert _outside_turns(index) == [2, 3]
        index.rebuild()
        assert _outside_turns(index) == [2, 3]


def test_an_index_that_knew_declared_calls_only_is_replaced(make_run):
    run = _outside(make_run)
    with RunIndex.open(run.home) as index:
        index.refresh()
    connection = sqlite3.connect(run.home / "runs.sqlite", isolation_level=None)
    stored = rows.load_run(connection, run.id)
    connection.execute("UPDATE turns SET external = 0")
    rows.save_run(connection, run.id, msgspec.structs.replace(stored, external=0))
    connection.execute("PRAGMA user_version = 4")
    connection.close()
    with RunIndex.open(run.home) as index:
        index.refresh()
        assert _outside_turns(index) == [2, 3]


def _outside(make_run):
    """Turn 2 has a call that was taken for external; turn 3 was seen to reach the world."""
    run = make_run("fixer-1")
    run.open()
    run.start()
    for turn in range(1, 5):
        run.turn(turn)
    push = Guess(Likely.EXTERNAL, "git push: leaves the machine")
    call = CallId("0", "push", 0)
    run.journal.append(Intent(call, b"d", Payload(b"x"), guess=push), turn=2)
    seen = Verdict((Effect.EXTERNAL,), ("external: connected to 203.0.113.9:443 (seen)",))
    run.journal.append(Observed(3, seen), turn=3)
    return run


def _outside_turns(index):
    return [turn.turn for turn in index.external_turns("fixer-1")]


def test_one_damaged_run_does_not_keep_the_others_from_being_listed(make_run):
    home = _some_runs(make_run)
    before = {row.run: row for row, _ in _answers(home)}
    victim = sorted((home / "runs" / "fixer-1" / "journal").iterdir())[1]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with RunIndex.open(home) as index:
        index.rebuild()
        rows = {row.run: row for row in index.runs()}
        assert rows["fixer-1"].status == "damaged"
        assert "fixer-1/" in rows["fixer-1"].problem
        assert index.checkpoint("fixer-1", parse_turn("1")).turn == 1
        assert rows["fixer-0"] == before["fixer-0"]
        assert index.find("last").run == "fixer-2"
    _answers(home)


def test_a_removed_run_goes_and_one_made_anew_under_its_name_is_read_anew(make_run):
    home = _some_runs(make_run)
    _answers(home)
    shutil.rmtree(home / "runs" / "fixer-0")
    run = make_run("fixer-0")
    run.open()
    run.start(name="new")
    run.close()
    with RunIndex.open(home) as index:
        index.refresh()
        assert index.run("fixer-0").name == "new"
        assert len(index.turns("fixer-0")) == 1
        shutil.rmtree(run.directory)
        index.refresh()
        with pytest.raises(NotFound):
            index.run("fixer-0")


def test_runs_are_found_by_id_name_prefix_and_last(make_run):
    home = _some_runs(make_run)
    with RunIndex.open(home) as index:
        index.refresh()
        assert index.find("fixer-1").run == "fixer-1"
        assert index.find("other").run == "fixer-0"
        assert index.find("last").run == "fixer-2"
        with pytest.raises(Ambiguous) as caught:
            index.find("fixer")
        assert caught.value.candidates == ["fixer-2", "fixer-1"]
        with pytest.raises(NotFound):
            index.find("nobody")


def test_status_tells_running_crashed_and_done_apart(run):
    run.open()
    run.start()
    with RunIndex.open(run.home) as index:
        index.refresh()
        assert index.run(run.id).status == "running"
        run.lease.release()
        assert index.run(run.id).status == "crashed"
        run.close()
        run.open()
        run.journal.append(Resumed("in-place", 0, 1, 1), turn=0)
        run.journal.append(Ended("done", 0.0), turn=0)
        index.refresh()
        assert index.run(run.id).status == "done"


def test_targets_are_resolved_and_what_cannot_be_restored_says_why(run):
    run.open()
    run.start()
    for turn in range(1, 6):
        run.turn(turn)
    inner = b"i" * 32
    run.commit(5, inner, inner=2)
    run.journal.append(TurnOpened(6, 5), turn=6)
    label_turn(run.directory, "good", 3)
    label_turn(run.directory, "inside", 5, 2)
    pin_turn(run.directory, 4)
    thin_turns(run.directory, [1, 2])
    with RunIndex.open(run.home) as index:
        index.refresh()
        at = lambda text: index.checkpoint(run.id, parse_turn(text))  # noqa: E731
        assert at("0").root == b"\0" * 32
        assert at("good").turn == 3
        assert (at("-1").turn, at("-1").skipped) == (5, (6,))
        assert (at("-2").turn, at("-3").turn, at("-4").turn) == (4, 3, 0)
        assert at("-4").skipped == (1, 2, 6)
        assert at("5.2").root == at("inside").root == inner
        with pytest.raises(NotFound, match="turn 6 has no checkpoint: it was still open") as caught:
            at("6")
        assert caught.value.hint == f"the nearest before it: {run.id}@5"
        with pytest.raises(NotFound, match="turn 2 was thinned by retention on 20") as caught:
            at("2")
        assert caught.value.hint == f"the nearest before it: {run.id}@0"
        for bad in ("7", "-8", "5.3", "nolabel"):
            with pytest.raises(NotFound):
                at(bad)
        assert index.turns(run.id, 3, 4)[0].labels == ("good",)
        assert [t.pinned for t in index.turns(run.id, 3, 4)] == [False, True]
        assert index.turn(run.id, TurnRef(turn=-1)).turn == 5
        assert at("5").protection is Protection.DURABLE


def test_labels_move_and_go_and_people_outrank_the_loop(run):
    run.open()
    run.start()
    run.turn(1)
    run.turn(2)
    run.journal.append(Labelled(1, "a"), turn=1)
    run.journal.append(Pinned(1), turn=1)
    with RunIndex.open(run.home) as index:
        index.refresh()
        assert index.run(run.id).labels == {"a": (1, 0)}
        label_turn(run.directory, "a", 2)
        pin_turn(run.directory, 1, pinned=False)
        index.refresh()
        assert [t.labels for t in index.turns(run.id)] == [(), (), ("a",)]
        assert [t.pinned for t in index.turns(run.id)] == [False, False, False]
        unlabel(run.directory, "a")
        index.refresh()
        assert index.run(run.id).labels == {}
    with pytest.raises(UsageError):
        label_turn(run.directory, "last", 1)


def test_messages_of_many_writers_never_share_a_number(run):
    run.open()
    run.start()
    threads = [
        threading.Thread(target=label_turn, args=(run.directory, f"l{n}", n)) for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_marks(run.directory).labels == {f"l{n}": (n, 0) for n in range(12)}


def test_a_damaged_message_is_a_typed_error_and_shows_in_the_list(run):
    run.open()
    run.start()
    label_turn(run.directory, "a", 0)
    [path] = (run.directory / "inbox").iterdir()
    data = path.read_bytes()
    for broken in (b"", data[:10], data[:-1], data + b"x", data[:20] + b"\xff" + data[21:]):
        path.write_bytes(broken)
        with pytest.raises(DamagedJournal):
            read_marks(run.directory)
    with RunIndex.open(run.home) as index:
        index.refresh()
        assert index.run(run.id).status == "damaged"


def test_a_power_cut_behind_what_the_index_saw_does_not_confuse_it(run):
    run.open()
    run.start()
    run.journal.sync()
    kept = run.segments()[0].stat().st_size
    run.turn(1)
    with RunIndex.open(run.home) as index:
        index.refresh()
        assert index.run(run.id).turns == 1
        run.close()
        path = run.segments()[0]
        path.write_bytes(path.read_bytes()[:kept])
        index.refresh()
        assert index.run(run.id).turns == 0
        run.open()
        run.journal.append(TurnOpened(1, 0), turn=1)
        index.refresh()
        assert index.turns(run.id)[1].root is None


def test_a_directory_that_is_not_yet_a_run_is_no_run(run):
    (run.home / "runs" / "half").mkdir(parents=True)
    (run.home / "runs" / "half-2" / "journal").mkdir(parents=True)
    with RunIndex.open(run.home) as index:
        index.refresh()
        assert index.runs() == []
    with pytest.raises(CrabError):
        RunIndex.open(run.home / "nowhere")


REFRESH = """
import sys
from pathlib import Path
from crabrt.journal import RunIndex
sys.stdin.readline()
with RunIndex.open(Path(sys.argv[1])) as index:
    index.refresh()
    print(sum(len(index.turns(row.run)) for row in index.runs()), flush=True)
"""


def test_several_processes_refresh_at_once_and_agree(make_run):
    home = _some_runs(make_run)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", REFRESH, str(home)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    outputs = [child.communicate("\n")[0] for child in children]
    assert outputs == ["21\n"] * 4


def test_ten_thousand_turns_are_indexed_and_every_one_is_found(run):
    run.open()
    run.start()
    for turn in range(1, 10_001):
        run.turn(turn, root=turn.to_bytes(32, "big"))
    run.journal.append(Noted("t", "x"), turn=10_000)
    with RunIndex.open(run.home) as index:
        index.refresh()
        turns = index.turns(run.id)
        assert [t.turn for t in turns] == list(range(10_001))
        for number in (0, 10, 5_000, 9_990, 10_000):
            row = index.checkpoint(run.id, TurnRef(turn=number))
            assert row.root == number.to_bytes(32, "big")
    assert len(run.segments()) > 1 or run.segments()[0].stat().st_size < 16 << 20


def test_where_no_file_can_be_written_it_lives_in_memory(make_run):
    home = _some_runs(make_run)
    before = _answers(home)
    for suffix in ("", "-wal", "-shm"):
        (home / f"runs.sqlite{suffix}").unlink(missing_ok=True)
    (home / "runs.sqlite").mkdir()
    assert _answers(home) == before
    assert (home / "runs.sqlite").is_dir()
