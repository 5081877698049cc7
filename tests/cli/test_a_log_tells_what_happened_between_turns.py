"""Resumes, rollbacks, forks, ends, restores and undos stand in the log where they happened."""

from __future__ import annotations

import json
import re

import pytest

from crabrt.core.entries import Ended, Resumed, RolledBack, TurnOpened
from crabrt.journal import Journal, Lease


@pytest.fixture
def run(builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.close()
    return run


def marks(lines):
    """The words of what stands between the turns, and below which turn each stands."""
    found, turn = [], None
    for line in lines:
        first = line.split()[0]
        if first[0].isdigit():
            turn = int(first.split("<")[0])
        elif first in "▷↶⑂⤷↺↻■":
            found.append((turn, " ".join(line.split()[:-1])))
    return found


@pytest.fixture
def eventful(crab, builder, home, workspace, tmp_path):
    """A fork at turn 1, a restore and its undo after turn 3; then it is resumed, and it ends."""
    run = builder.small_run(home, workspace)
    run.close()
    crab("fork", f"{run.run}@1", "--to", tmp_path / "beside")
    fork = crab("runs", "--json").data[0]["run"]
    assert crab("restore", f"{run.run}@1").code == 0
    assert crab("undo").code == 0
    run.lease = Lease.acquire(run.directory)
    run.journal = Journal.open(run.directory, run.lease)
    run.journal.append(Resumed("in-place", 3, run.journal.seq, 1), turn=3)
    run.turns = 4
    run.journal.append(TurnOpened(4, 1), turn=4)
    run.journal.append(RolledBack(1, run.root), turn=4)
    run.journal.append(Ended("done", 1.0), turn=4)
    run.journal.sync()
    run.journal.close()
    run.lease.release()
    return run, fork


EVENTS = [(1, "⑂ fork {fork}@1"), (3, "↺ files restored {run}@1"), (3, "↻ restore undone"),
          (3, "▷ resumed in-place"), (4, "↶ rolled back to 1"), (4, "■ ended done")]  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--follow"]])
def test_a_log_tells_what_happened_between_the_turns(crab, eventful, words):
    run, fork = eventful
    expected = [(turn, text.format(fork=fork, run=run.run)) for turn, text in EVENTS]
    lines = crab("log", run.run, *words).out.splitlines()[2:]
    assert marks(lines) == expected
    last = crab("log", run.run, *words, "-n", "2").out.splitlines()[2:]
    assert marks(last) == expected[1:]


def test_a_log_on_a_terminal_tells_it_too_and_no_line_is_too_long(eventful, on_a_terminal):
    run, _ = eventful
    text = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal("log", run.run))
    words = [words for _, words in marks(text.splitlines()[2:])]
    assert [one.split()[0] for one in words] == ["⑂", "↺", "↻", "▷", "↶", "■"]
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_a_log_of_a_path_has_turns_alone(crab, eventful):
    run, _ = eventful
    lines = crab("log", run.run, "--", "app.py").out.splitlines()[2:]
    assert marks(lines) == []


def test_a_log_for_programs_has_the_marks_beside_the_turns(crab, eventful):
    run, fork = eventful
    data = crab("log", run.run, "--json").data
    assert [turn["turn"] for turn in data["turns"]] == [0, 1, 2, 3, 4]
    kinds = [(mark["kind"], mark["after"], mark["to"], mark["run"]) for mark in data["marks"]]
    assert kinds == [
        ("fork", 1, 1, fork), ("restored", 3, 1, run.run), ("undone", 3, None, None),
        ("resumed", 3, 3, None), ("rolled back", 4, 1, None), ("ended", 4, None, None),
    ]  # fmt: skip
    assert data["not_shown"] == []
    for line in crab("log", run.run, "--follow", "--json").out.splitlines():
        assert json.loads(line)["data"].keys() == {"run", "turns"}


def test_a_log_says_that_it_cannot_tell_what_was_restored(crab, run, home):
    [workspace] = (home / "workspaces").iterdir()
    (workspace / "restores").write_bytes(b"no log of restores")
    done = crab("log", run.run)
    assert done.code == 3
    assert "restores of the workspace are not shown: " in " ".join(done.out.split())
    assert "○ inherited" in done.out
    data = crab("log", run.run, "--json").data
    assert len(data["turns"]) == 4
    assert len(data["not_shown"]) == 1
