"""What a command tells people to type does what it says, pasted where they stand."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from crabrt.testing import oracle


@pytest.fixture
def run(builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.close()
    return run


@pytest.fixture
def pasted(home):
    """Run a printed command line in a shell, as pasted in a directory; ``crab`` is this one."""

    def paste(line, cwd, *, home=None):
        crab = f'crab() {{ {shlex.quote(sys.executable)} -m crabrt "$@"; }}\n'
        kept = {key: value for key, value in os.environ.items() if key != "CRAB_HOME"}
        done = subprocess.run(
            ["bash", "-c", crab + line],
            cwd=cwd,
            env=kept | ({} if home is None else {"CRAB_HOME": str(home)}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)

    return paste


def told(text, lead):
    """The command behind `lead`."""
    (found,) = re.findall(rf"{re.escape(lead)}(.*)", text)
    return found


@pytest.mark.parametrize("name", ["work space", "it's", 'quo"te$HOME', "bad\udcff\tname"])
def test_an_undo_names_a_workspace_that_one_does_not_stand_in(
    crab, builder, home, tmp_path, pasted, name
):
    workspace, elsewhere = tmp_path / name, tmp_path / "elsewhere"
    workspace.mkdir()
    elsewhere.mkdir()
    run = builder.small_run(home, workspace)
    run.close()
    now = oracle.digest(workspace)
    done = crab("restore", f"{run.run}@1", cwd=elsewhere)
    assert oracle.digest(workspace) != now
    pasted(told(done.out, "Take it back: "), elsewhere, home=home)
    assert oracle.digest(workspace) == now


def test_an_undo_is_of_the_restored_workspace_and_not_of_the_one_around(
    crab, builder, home, tmp_path, pasted
):
    mine, other = tmp_path / "mine", tmp_path / "other"
    for place in (mine, other):
        place.mkdir()
        builder.small_run(home, place).close()
    assert crab("restore", "last@0", cwd=mine).code == 0  # what a plain `crab undo` would undo
    before, now = oracle.digest(mine), oracle.digest(other)
    with_runs = crab("runs", "--json").data
    (run,) = [one["run"] for one in with_runs if one["workspace"] == str(other)]
    done = crab("restore", f"{run}@1", cwd=mine)
    pasted(told(done.out, "Take it back: "), mine, home=home)
    assert oracle.digest(other) == now
    assert oracle.digest(mine) == before


def test_inside_the_workspace_the_undo_is_short_and_works(crab, run, workspace, home, pasted):
    (workspace / "sub").mkdir()
    now = oracle.digest(workspace)
    done = crab("restore", "last@1", "app.py", cwd=workspace / "sub")
    assert told(done.out, "Take it back: ") == "crab undo"
    pasted("crab undo", workspace / "sub", home=home)
    assert oracle.digest(workspace) == now


def test_redo_and_status_name_the_workspace_as_well(crab, run, workspace, home, tmp_path, pasted):
    crab("restore", "last@1")
    at_one = oracle.digest(workspace)
    status = crab("status", workspace, cwd=tmp_path)
    assert told(status.out, "take it back: ") == f"crab undo {workspace}"
    done = crab("undo", workspace, cwd=tmp_path)
    assert oracle.digest(workspace) != at_one
    pasted(told(done.out, "Redo it: "), tmp_path, home=home)
    assert oracle.digest(workspace) == at_one


def test_the_undo_for_programs_always_names_the_workspace(crab, run, workspace, tmp_path):
    assert crab("restore", "last@1", "--json").data["undo"] == f"crab undo {workspace}"
    assert crab("undo", "--json").data["undo"] == f"crab undo {workspace}"
    elsewhere = crab("restore", f"{run.run}@1", "--json", cwd=tmp_path).data
    assert elsewhere["undo"] == f"crab undo {workspace}"
    assert crab("restore", "last@0", "--dry-run", "--json").data["undo"] is None


def test_a_store_named_on_the_command_line_is_named_again(
    crab, run, workspace, home, monkeypatch, pasted
):
    monkeypatch.delenv("CRAB_HOME")
    now = oracle.digest(workspace)
    done = crab("restore", "last@1", "--home", home)
    pasted(told(done.out, "Take it back: "), workspace)
    assert oracle.digest(workspace) == now
    step = told(crab("status", "--home", home).out, "Take it up again: ")
    assert step == f"crab resume --home {home} {run.run}"
    assert step in crab("log", "--home", home).out
    pasted(f"{step} --dry-run", workspace)


def test_the_command_that_a_resume_shows_finds_the_store(crab, run, workspace, home, monkeypatch):
    monkeypatch.delenv("CRAB_HOME")
    shown = crab("resume", "last", "--dry-run", "--home", home).out
    assert f"CRAB_HOME={home} CRAB_RESUME={run.run} " in shown


def test_a_resume_names_the_undo_of_its_workspace(crab, run, workspace, tmp_path):
    assert crab("restore", "last@1").code == 0
    (workspace / "kept.txt").write_text("mine\n")
    shown = crab("resume", run.run, "--dry-run", cwd=tmp_path).out
    assert f"`crab undo {workspace}`" in shown, "a command is not broken between lines"
    assert "`crab undo`" in crab("resume", run.run, "--dry-run").out
