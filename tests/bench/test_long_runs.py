import shutil
from pathlib import Path

import pytest

from crabrt.bench import AnyTurnOptions, any_turn, long_run, measure_any_turn
from crabrt.bench.apart import Link


class Silent(Link):
    def __init__(self):
        pass

    def say(self, message):
        assert message


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A run of 40 turns, and where it is."""
    top = tmp_path_factory.mktemp("long")
    where = {"home": str(top / "store"), "tree": str(top / "tree"), "target": str(top / "target")}
    given = {"entries": 60, "turns": 40, "seed": 5, "observer": "scan"}
    return where | long_run.live(where | given, Silent())


def test_every_turn_of_a_run_has_a_digest_and_most_differ(lived):
    assert len(lived["digests"]) == 41
    assert 10 < len(set(lived["digests"])) < 41, "some turns change nothing"
    assert lived["unprotected"] == []


def test_every_turn_comes_back_elsewhere(lived):
    found = long_run.elsewhere(lived | {"turns": [40, 0, 17, 3]}, Silent())
    assert found["wrong"] == []
    assert len(found["took_ms"]) == 4
    assert not Path(lived["target"]).exists()


def test_turns_come_back_in_place(lived):
    found = long_run.in_place(lived | {"turns": [30, 2, 11]}, Silent())
    assert found["wrong"] == []
    assert len(found["took_ms"]) == 3


def test_a_turn_that_comes_back_otherwise_is_named(lived):
    digests = list(lived["digests"])
    digests[17] = "0" * 64
    given = lived | {"digests": digests, "turns": [3, 17, 5]}
    assert long_run.elsewhere(given, Silent())["wrong"] == [17]
    assert long_run.in_place(given | {"turns": [16]}, Silent())["wrong"] == [17]


def test_any_turn_reports_mismatches_times_and_memory(scratch, environ):
    options = AnyTurnOptions(scratch, turns=(12, 30), entries=60, restores=40, repetitions=2)
    said = []
    report = measure_any_turn(options, environ, said.append)
    found = {(row.scenario, row.what, row.who): row.series for row in report.rows}
    assert found["30 turns", "restored elsewhere", "crabrt"].median == 31
    assert found["30 turns", "restored in place", "crabrt"].median == 16
    for turns in ("12 turns", "30 turns"):
        assert found[turns, "mismatches elsewhere", "crabrt"].median == 0
        assert found[turns, "mismatches in place", "crabrt"].median == 0
        assert len(found[turns, "crab log", "crabrt"].values) == 2
        assert 10 < found[turns, "crab log, memory", "crabrt"].low < 200
    assert any(bar.what == "memory of crab log" for bar in report.bars)
    assert report.wrong == []
    assert {path.name for path in scratch.iterdir()} <= {"config", "tmp"}


def test_a_mismatch_makes_any_turn_fail(scratch, environ, monkeypatch):
    real = any_turn._Long._work

    def damaged(self, name, arguments):
        found = real(self, name, arguments)
        if name == "live":
            found["digests"][2] = "f" * 64
        return found

    monkeypatch.setattr(any_turn._Long, "_work", damaged)
    options = AnyTurnOptions(scratch, turns=(4,), entries=60, restores=10, repetitions=1)
    report = measure_any_turn(options, environ, print)
    assert "4 turns, restored elsewhere: turns [2] differ" in report.wrong
    assert not all(bar.met for bar in report.bars if bar.what.startswith("mismatches"))


def test_early_and_late_are_the_first_and_the_last_tenth():
    turns = list(range(100))
    took_ms = [1.0 if turn <= 10 else 3.0 if turn > 90 else 50.0 for turn in turns]
    assert long_run.early_and_late(turns, took_ms, 100) == (1.0, 3.0)
    assert long_run.early_and_late([50], [1.0], 100) == (0.0, 0.0)


def test_done_runs_are_not_made_again(scratch, environ, monkeypatch):
    keep = scratch / "state"
    options = AnyTurnOptions(scratch, turns=(3,), entries=60, restores=5, repetitions=1, keep=keep)
    first = measure_any_turn(options, environ, print)
    monkeypatch.setattr(any_turn._Long, "measure", lambda self: pytest.fail("it is done"))
    shutil.rmtree(scratch / "tmp")
    again = measure_any_turn(options, environ, print)
    assert [row.series for row in again.rows] == [row.series for row in first.rows]
