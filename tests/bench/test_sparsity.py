import json

import pytest

from crabrt.bench import SparsityOptions, judged, measure_sparsity
from crabrt.bench.causes import causes_of, largest, path_kind
from crabrt.bench.sparsity import in_turn
from crabrt.core.verdicts import Effect, Verdict
from crabrt.journal import RunIndex
from crabrt.runtime import checkpoints, open_run
from crabrt.store import Store
from crabrt.traces import Judgement, OracleAnswer

COMMANDS = ("echo two > a.py", "cat a.py", "touch -d '2020-01-01' docs/b.md", "ls -la")


def quiet(what):
    assert what


def rows_of(report, scenario):
    return {(row.what, row.who): row.series.median for row in report.rows
            if row.scenario == scenario}  # fmt: skip


def generated(tmp_path, *, turns=12, observer="scan"):
    arguments = {"seed": 3, "kind": "here", "turns": turns, "observer": observer}
    return judged.generated(arguments | {"home": str(tmp_path / "store")}, None)


def test_recorded_and_hostile_runs_are_judged_turn_by_turn(tmp_path, scratch, environ, record):
    traces = record(tmp_path / "traces", "small", *COMMANDS)
    options = SparsityOptions(
        scratch, turns=25, run_turns=15, file_systems=("here",), observers=("scan",),
        traces=(traces,), workers=2,
    )  # fmt: skip
    report = measure_sparsity(options, environ, quiet)
    assert report.wrong == []
    recorded = rows_of(report, "recorded, ours, scan")
    assert recorded["turns", "crabrt"] == 4
    assert recorded["none", "crabrt"] == 2
    assert recorded["files", "crabrt"] == 2
    assert recorded["none", "share"] == 50
    assert recorded["right", "crabrt"] == 4
    assert recorded["observed by scan", "crabrt"] == 4
    hostile = rows_of(report, "generated, scan")
    assert hostile["turns", "crabrt"] == 25
    assert hostile["false_none", "crabrt"] == 0
    assert hostile["right", "crabrt"] + hostile["undecided", "crabrt"] == 25
    assert hostile["right", "crabrt"] > 15
    causes = rows_of(report, "recorded, ours, scan: causes by turns")
    assert causes["*.py", "changed"] == 1
    assert causes["*.md", "and alone"] == 1
    assert all(bar.met for bar in report.bars)
    json.dumps(report.data())


def test_a_verdict_that_misses_a_change_is_found_with_its_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "classify", lambda calls, seen: Verdict())
    tally = generated(tmp_path)
    assert tally["judgements"]["false_none"] > 5
    case = tally["wrong"][0]
    assert case["judgement"] == "false_none"
    assert case["did"].startswith(f"turn {case['turn']}: ")
    assert case["difference"]


def test_a_verdict_that_claims_a_change_is_found(tmp_path, monkeypatch):
    lie = Verdict(effects=(Effect.FILES,), evidence=("files: it says so",))
    monkeypatch.setattr(checkpoints, "classify", lambda calls, seen: lie)
    tally = generated(tmp_path, turns=25)
    assert tally["judgements"]["false_changed"] > 0
    assert "false_none" not in tally["judgements"]


@pytest.mark.root
def test_turns_under_fanotify_say_who_observed_them(tmp_path):
    tally = generated(tmp_path, observer="fanotify")
    assert tally["observers"]["fanotify"] > 5
    assert tally["missed"] == []
    assert not tally["wrong"]


def test_a_false_none_makes_the_benchmark_fail_and_a_false_changed_is_noted(
    tmp_path, scratch, environ, record, monkeypatch
):
    tally = judged.Tally()
    tally.turn(1, judged.Said((), ()), OracleAnswer.CHANGED, "", "nothing said")
    tally.turn(2, judged.Said(("none",), ()), OracleAnswer.CHANGED, "+ a", "it wrote a")
    tally.turn(3, judged.Said(("files",), ("files: caches only",)), OracleAnswer.SAME, "", "x")
    tally.unsupported = {"reflink a file over another": "Operation not supported"}
    tally.turn(4, judged.Said(("none",), ()), OracleAnswer.UNSTEADY, "", "x")
    assert tally.judgements == {
        Judgement.UNDECIDED: 2, Judgement.FALSE_NONE: 1, Judgement.FALSE_CHANGED: 1
    }  # fmt: skip
    assert tally.caches_only == 1
    keep = scratch / "state"
    options = SparsityOptions(scratch, turns=5, file_systems=("here",), observers=("scan",),
                              seed=77, keep=keep)  # fmt: skip
    measure_sparsity(options, environ, quiet)
    head, line = keep.read_text().splitlines()
    unit = json.loads(line)
    unit["found"] = tally.data()
    keep.write_text(f"{head}\n{json.dumps(unit)}\n")
    report = measure_sparsity(options, environ, quiet)
    (wrong,) = report.wrong
    assert "seed 77 on here, scan, turn 2: false_none" in wrong
    assert "it wrote a" in wrong
    assert any("turn 3: false_changed" in note for note in report.notes)
    assert "not possible on here, and left out there: reflink a file over another" in report.notes
    assert [bar.met for bar in report.bars] == [False, False]


def test_a_turn_of_several_classes_counts_in_each_and_older_kept_runs_count_none(
    tmp_path, scratch, environ
):
    tally = judged.Tally()
    both = ("files", "processes")
    for number, verdict in enumerate([both, (*both, "external"), ("external",), ("none",)], 1):
        tally.turn(number, judged.Said(verdict, ()), OracleAnswer.UNSTEADY, "", "x")
    keep = scratch / "state"
    options = SparsityOptions(scratch, turns=4, file_systems=("here",), observers=("scan",),
                              keep=keep)  # fmt: skip

    def told(verdicts):
        head, line = keep.read_text().splitlines()
        unit = json.loads(line)
        unit["found"] = {**tally.data(), "verdicts": verdicts}
        keep.write_text(f"{head}\n{json.dumps(unit)}\n")
        return rows_of(measure_sparsity(options, environ, quiet), "generated, scan")

    measure_sparsity(options, environ, quiet)
    rows = told(dict(tally.verdicts))
    classes = ("none", "files", "processes", "external")
    assert [rows[name, "crabrt"] for name in classes] == [1, 2, 2, 2]
    assert [rows[name, "share"] for name in classes] == [25, 50, 50, 50]
    rows = told({"none": 1, "files": 3})
    assert [rows[name, "crabrt"] for name in classes] == [1, 3, 0, 0]


def test_what_cannot_be_made_is_absent_and_says_why(tmp_path, scratch, environ, record):
    traces = record(tmp_path / "traces", "broken", "true", setup="setup = 'echo no wheel; exit 9'")
    options = SparsityOptions(scratch, turns=3, file_systems=("here",), observers=("scan",),
                              traces=(traces,))  # fmt: skip
    report = measure_sparsity(options, environ, quiet)
    assert report.absent == {"broken, scan": "its script ended with 9: no wheel"}
    assert report.wrong == []
    assert {row.scenario for row in report.rows} == {"generated, scan"}


def test_kinds_of_paths():
    kinds = {
        b".git/index": ".git/index",
        b".git/objects/ab/cd": ".git, the rest",
        b"src/__pycache__/a.pyc": "__pycache__",
        b".venv/lib/site-packages/x.py": "site-packages",
        b"src/a.py": "*.py",
        b"Makefile": "no suffix",
        b"\xff\xfe.txt": "*.txt",
    }
    assert {path: path_kind(path) for path in kinds} == kinds


def write(tree, files):
    if files is None:
        (tree / "empty").mkdir()
        return
    for name, size in files.items():
        (tree / name).write_text("x" * size)


def test_causes_are_counted_by_turn_and_by_byte(tmp_path):
    tree, home = tmp_path / "tree", tmp_path / "store"
    tree.mkdir()
    writes = ({"a.py": 10, "b.py": 20}, {}, {"a.py": 1, "c.md": 500}, None)
    with open_run(workspace=tree, home=home) as run:
        for number, files in enumerate(writes):
            run.model_call([number], lambda: "go on")
            run.tool_call("write", {"number": number}, lambda files=files: write(tree, files))
    with RunIndex.open(home) as index, Store.open(home) as store:
        index.refresh()
        found = causes_of(store, index.turns(run.id))
    assert found.turns == {"*.py": 2, "*.md": 1, "directories alone": 1}
    assert found.alone == {"*.py": 1, "directories alone": 1}
    assert found.size_bytes == {"*.py": 31, "*.md": 500, "directories alone": 0}
    assert list(largest(found.size_bytes, 1)) == [("*.md", 500)]


@pytest.mark.parametrize(
    ("kinds", "observer", "expected"),
    [
        (("tmpfs", "overlay"), "scan", ["tmpfs", "overlay", "tmpfs", "overlay"]),
        (("tmpfs", "xfs", "overlay"), "fanotify", ["tmpfs", "xfs", "tmpfs", "tmpfs", "xfs", "xfs"]),
        (("overlay",), "fanotify", ["overlay"]),
    ],
)
def test_fanotify_leaves_what_it_cannot_watch_to_other_file_systems(kinds, observer, expected):
    assert [in_turn(number, kinds, observer) for number in range(len(expected))] == expected
