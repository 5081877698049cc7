"""Bad input of every kind: the exit code, the kind of the error, and a message with a next step."""

import json
import os
import shutil
from pathlib import Path

import pytest

FIXER = Path(__file__).with_name("fixer.py")


def assert_says(said, exit_code, kind, *words):
    """The command ended with that code and error; the message has the words."""
    assert said.exit == exit_code, said
    assert "Traceback" not in said.err
    error = said.error
    assert (error["kind"], error["exit"]) == (kind, exit_code)
    text = f"{error['message']} {error['where']} {error['hint']}"
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nobody@1", ["there is no such run", "crab runs"]),
        ("last@99", ["99", "turn"]),
        ("last@-99", ["turn"]),
        ("last@nolabel", ["no turn has that label"]),
        ("last@1.7", ["1.7"]),
    ],
)
def test_an_unknown_target_is_not_found(place, target, words):
    for verb in (["show"], ["restore", "--to", place.top / "copy"]):
        assert_says(place.crab_json(verb[0], target, *verb[1:]), 4, "not-found", *words)
    assert not (place.top / "copy").exists()


@pytest.mark.parametrize("target", ["last@", "@1", "a b@1", "last@1@2", "last@x/y", "../../etc@1"])
def test_a_malformed_target_is_a_usage_error(place, target):
    assert_says(place.crab_json("show", target), 2, "usage")


def test_an_unknown_path_is_not_found(place):
    said = place.crab_json("show", "last@1:no/such/file")
    assert_says(said, 4, "not-found")
    assert_says(place.crab_json("restore", "last@1", "no/such/file"), 4, "not-found")


def test_an_ambiguous_prefix_lists_the_candidates(fresh):
    for _ in range(2):
        assert fresh.fix(turns=1).exit == 0
    runs = [row["run"] for row in fresh.crab_json("runs").data]
    assert len(runs) == 2
    for text in ("fixer@1", "fixer-@1", "fi@1"):
        assert_says(fresh.crab_json("show", text), 4, "ambiguous", *runs)


def test_an_absent_store_is_not_found(fresh):
    for verb in (["log", "last"], ["check"], ["restore", "last@1"], ["gc"]):
        assert_says(fresh.crab_json(*verb), 4, "not-found")
    assert not fresh.home.exists()


def test_a_damaged_pack_is_named_and_nothing_wrong_is_restored(place):
    (pack,) = place.home.glob("packs/*/*.pack")
    data = bytearray(pack.read_bytes())
    for at in range(100, len(data) - 3_000, 500):
        data[at] ^= 0x10
    pack.write_bytes(data)
    said = place.crab_json("check", "--read-data")
    assert said.exit == 7
    assert pack.stem in said.out
    copy = place.top / "copy"
    assert_says(place.crab_json("restore", "last@2", "--to", copy), 7, "damaged-object")
    assert not copy.exists()


def test_a_torn_tail_of_a_journal_is_no_damage(place):
    segment = place.journal()
    os.truncate(segment, segment.stat().st_size - 7)
    assert place.crab_json("check", "--read-data").exit == 0
    log = place.crab_json("log", "last")
    assert log.exit == 0
    assert [row["turn"] for row in log.data["turns"]][-1] == 4
    assert place.crab_json("restore", "last@4", "--to", place.top / "copy").exit == 0


def test_a_journal_broken_in_the_middle_says_where_and_keeps_the_turns_before(place):
    segment = place.journal()
    middle = segment.stat().st_size * 2 // 3
    with segment.open("r+b") as file:
        file.seek(middle)
        file.write(b"\xa5" * 16)
    said = place.crab_json("check")
    assert said.exit == 7
    assert segment.name in said.out
    run = place.run_id()
    (place.home / "runs.sqlite").unlink()  # else what was folded before the damage is still known
    (row,) = place.crab_json("runs").data
    assert row["status"] == "damaged"
    assert "damaged" in place.crab_json("log", run).out
    copy = place.top / "copy"
    assert place.crab_json("restore", f"{run}@1", "--to", copy).exit == 0
    assert (copy / "log").read_text() == "1\n"
    assert place.crab_json("repair").exit in (0, 3, 7)
    assert place.crab_json("restore", f"{run}@1", "--to", place.top / "again").exit == 0


def test_a_journal_cut_in_its_middle_by_truncation_ends_there(place):
    segment = place.journal()
    os.truncate(segment, segment.stat().st_size // 2)
    said = place.crab_json("log", "last")
    assert said.exit in (0, 7)
    assert "Traceback" not in said.err
    assert place.crab_json("restore", "last@0", "--to", place.top / "copy").exit == 0


@pytest.mark.parametrize(
    "change", [{"version": 99}, {"requires": ["time-travel"]}], ids=["version", "requires"]
)
def test_a_store_of_a_newer_format_is_refused_by_everything(place, change):
    path = place.home / "format.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = sorted(str(p) for p in place.home.rglob("*"))
    for verb in (
        ["log", "last"],
        ["check"],
        ["restore", "last@1", "--to", "x"],
        ["repair"],
        ["gc"],
    ):
        assert_says(place.crab_json(*verb), 7, "format-too-new", "upgrade")
    assert sorted(str(p) for p in place.home.rglob("*")) == before
    place.ws = place.top / "another"
    place.ws.mkdir()
    said = place.fix(turns=1)
    assert said.exit != 0
    assert "FormatTooNew" in said.err


def test_a_workspace_that_is_gone_can_be_restored_elsewhere(fresh):
    assert fresh.fix(turns=2).exit == 0
    shutil.rmtree(fresh.ws)
    said = fresh.crab_json("restore", "last@1")
    assert_says(said, 4, "not-found", "--to")
    copy = fresh.top / "copy"
    assert fresh.crab_json("restore", "last@1", "--to", copy).exit == 0
    assert (copy / "log").read_text() == "1\n"
    assert fresh.crab_json("log", "last").exit == 0
    assert fresh.crab_json("check").exit == 0
    again = fresh.fix(turns=1)
    assert again.exit != 0
    assert "NotFound" in again.err


def test_a_workspace_replaced_by_a_file_is_refused(fresh):
    assert fresh.fix(turns=1).exit == 0
    shutil.rmtree(fresh.ws)
    fresh.ws.write_text("a file")
    said = fresh.crab_json("restore", "last@1")
    assert said.exit in (2, 4)
    assert fresh.ws.read_text() == "a file"


@pytest.fixture
def waiting(fresh):
    """A run that is alive in another process until `go` is deleted."""
    go = fresh.top / "go"
    go.touch()
    process = fresh.start(FIXER, fresh.ws, "2", "--wait", go)
    assert process.stdout.readline() == "waiting\n", process.stderr.read()
    yield fresh
    go.unlink(missing_ok=True)
    out, err = process.communicate()
    assert (process.returncode, out) == (0, "done\n"), err


def test_a_run_that_is_alive_elsewhere_is_not_touched(waiting):
    before = (waiting.ws / "log").read_text()
    for verb in (["restore", "last@0"], ["resume", "last"], ["rm", "last"], ["undo"]):
        said = waiting.crab_json(*verb, cwd=waiting.ws)
        assert said.exit == 6, (verb, said)
        assert said.error["kind"] in ("run-busy", "workspace-busy")
    other = waiting.fix(turns=1)
    assert other.exit != 0
    assert "WorkspaceBusy" in other.err
    assert (waiting.ws / "log").read_text() == before
    assert waiting.crab_json("restore", "last@0", "--to", waiting.top / "copy").exit == 0
    assert [row["status"] for row in waiting.crab_json("runs").data] == ["running"]


def test_of_two_resumes_at_once_one_is_refused(fresh):
    go, die = fresh.top / "go", fresh.top / "died"
    go.touch()
    assert fresh.fix("--die-at", die, "--wait", go, turns=2).exit == -9
    first = fresh.start("-m", "crabrt", "resume", "last", "--yes")
    while (line := first.stdout.readline()) and line != "waiting\n":
        pass
    assert line == "waiting\n", first.stderr.read()
    second = fresh.crab_json("resume", "last", "--yes")
    assert_says(second, 6, "run-busy", str(first.pid))
    go.unlink()
    _, err = first.communicate()
    assert first.returncode == 0, err
    assert (fresh.ws / "log").read_text() == "1\n2\n"


def test_resumes_that_race_never_both_run(fresh):
    die = fresh.top / "died"
    assert fresh.fix("--die-at", die, turns=3).exit == -9
    racing = [fresh.start("-m", "crabrt", "resume", "last", "--yes") for _ in range(3)]
    ends = []
    for process in racing:
        _, err = process.communicate()
        ends.append(process.returncode)
        assert "Traceback" not in err or process.returncode != 0
    assert 0 in ends
    assert (fresh.ws / "log").read_text() == "1\n2\n3\n"
    assert fresh.crab_json("check", "--read-data").exit == 0
