"""``crab report``: where the file goes, what is said of it, and what is refused."""

import os
from importlib import resources

import pytest

from crabrt.report.embedding import SCRIPTS, STYLES


@pytest.fixture
def run(builder, home, workspace):
    """A run of three turns, recorded without a runtime."""
    built = builder.small_run(home, workspace)
    built.end()
    return built.run


def test_a_report_is_written_whole_and_its_size_is_told(crab, run, tmp_path):
    path = tmp_path / "report.html"
    done = crab("report", "last", "-o", path)
    assert done.code == 0, done.err
    assert f"{run}: 4 states in {path}" in done.out
    assert "redacted" in done.out
    content = path.read_text()
    assert content.startswith("<!doctype html>")
    assert content.endswith("</html>\n")
    assert os.listdir(tmp_path).count("report.html") == 1
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]
    assert crab("report", run, "-o", path, "--json").data == {
        "run": run,
        "turns": 4,
        "output": str(path),
        "size_bytes": path.stat().st_size,
        "redacted": True,
        "cut": 0,
        "omitted": 0,
        "problems": [],
        "in_workspace": False,
    }


def test_it_goes_to_stdout_and_is_the_same(crab, run, tmp_path):
    path = tmp_path / "report.html"
    crab("report", run, "-o", path)
    assert crab("report", run, "-o", "-").out == path.read_text()
    assert crab("report", run, "-o", "-", "--json").data["html"] == path.read_text()


def test_it_is_redacted_unless_asked_otherwise(crab, run, tmp_path, workspace):
    redacted = crab("report", run, "-o", "-").out
    whole = crab("report", run, "-o", "-", "--no-redact").out
    for text in ("reply 1", str(workspace)):
        assert text not in redacted
        assert text in whole


def test_values_of_variables_named_like_keys_are_nowhere_in_it(builder, crab, home, workspace):
    built = builder.small_run(home, workspace)
    built.turn(None, argument="echo planted-value-of-a-key", result="planted-value-of-a-key")
    built.end()
    environ = {"SOME_SERVICE_TOKEN": "planted-value-of-a-key"}
    assert "planted-value-of-a-key" in crab("report", "last", "-o", "-", "--no-redact").out
    for more in ((), ("--no-redact",)):
        assert "planted-value" not in crab("report", "last", "-o", "-", *more, env=environ).out


def test_a_file_in_the_workspace_is_warned_of(crab, run, workspace):
    done = crab("report", run, "-o", "report.html")
    assert done.code == 0
    assert "inside of the workspace" in done.err
    assert (workspace / "report.html").exists()
    assert crab("report", run, "-o", "report.html", "--json").data["in_workspace"] is True


def test_nothing_but_a_file_is_replaced(crab, run, tmp_path):
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, word in (("directory", "a directory"), ("pipe", "no ordinary file")):
        error = crab("report", run, "-o", tmp_path / name, "--json").error
        assert error["kind"] == "cannot-write"
        assert word in error["message"]
    assert os.listdir(tmp_path / "directory") == []
    error = crab("report", run, "-o", tmp_path / "no" / "report.html", "--json").error
    assert error["kind"] == "cannot-write"


def test_what_makes_no_sense_is_usage(crab, run, tmp_path):
    assert crab("report", run).code == 2
    assert crab("report", run, "-o", tmp_path / "x", "--max-bytes", "10K").code == 2
    assert crab("report", "nobody", "-o", tmp_path / "x").code == 4
    assert not (tmp_path / "x").exists()


def test_a_report_of_what_cannot_be_read_is_incomplete(crab, run, home, tmp_path):
    for pack in (home / "packs").rglob("*.pack"):
        pack.unlink()
    (home / "chunks.sqlite").unlink(missing_ok=True)
    done = crab("report", run, "-o", tmp_path / "report.html")
    assert done.code == 3
    assert "cannot be read: turn 1" in done.err
    assert (tmp_path / "report.html").exists()


def test_a_wheel_has_the_page_in_it():
    """Style and script are files of the package; what builds wheels takes all of those."""
    static = resources.files("crabrt.report") / "static"
    names = {entry.name for entry in static.iterdir()}
    assert names == {*STYLES, *SCRIPTS}
