"""``--dry-run`` and ``--expect``: what was looked at is done, or nothing; lists are whole."""

import os
import re

import pytest

from crabrt.testing import oracle


@pytest.fixture
def run(builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.close()
    return run


def preview(crab, *words):
    """The id that a dry run gives, in its text as in its data."""
    text = crab(*words, "--dry-run").out
    found = re.search(r"^To do this and nothing else: --expect ([0-9a-f]{16})$", text, re.MULTILINE)
    assert crab(*words, "--dry-run", "--json").data["preview"] == found[1]
    return found[1]


def test_what_is_as_it_was_looked_at_is_done(crab, run, workspace):
    done = crab("restore", "last@1", "--expect", preview(crab, "restore", "last@1"), "--json")
    assert done.code == 0
    assert done.data["preview"] is None
    assert (workspace / "app.py").read_text() == "one\ntwo\nthree\n"
    assert crab("undo", "--expect", preview(crab, "undo")).code == 0
    assert (workspace / "app.py").read_text() == "one\n2\nthree\n"


def refused(crab, workspace, *words):
    """Whether a command is refused, says why, and touches nothing."""
    now = oracle.digest(workspace)
    done = crab(*words)
    error = crab(*words, "--json").error
    assert (done.code, error["kind"]) == (5, "preview-outdated")
    assert "not what was expected; nothing was touched" in done.err
    assert "--dry-run" in done.err
    return oracle.digest(workspace) == now


def test_a_file_that_somebody_changed_since_was_not_looked_at(crab, run, workspace):
    seen = preview(crab, "restore", "last@0")
    (workspace / "new.txt").write_text("mine\n")
    for words in ([], ["--force"]):
        assert refused(crab, workspace, "restore", "last@0", *words, "--expect", seen)
    assert crab("undo").code == 4


def test_what_the_agent_did_since_was_not_looked_at(crab, run, builder, home, workspace):
    words = ("restore", f"{run.run}@1")
    seen, listed = preview(crab, *words), crab(*words, "--dry-run", "--json").data["changes"]
    later = builder.RunBuilder(home, workspace)
    later.turn(lambda: (workspace / "app.py").write_text("another hour of work\n"))
    later.close()
    now = crab(*words, "--dry-run", "--json").data
    assert (now["changes"], now["conflicts"]) == (listed, [])  # nothing else would tell
    assert refused(crab, workspace, *words, "--expect", seen)
    assert crab(*words, "--expect", preview(crab, *words)).code == 0


def test_another_restore_since_is_not_the_one_to_be_undone(crab, run, workspace):
    crab("restore", "last@1")
    seen = preview(crab, "undo")
    crab("restore", "last@0")
    assert refused(crab, workspace, "undo", "--expect", seen)
    assert crab("undo", "--expect", preview(crab, "undo")).code == 0
    assert (workspace / "app.py").read_text() == "one\ntwo\nthree\n"


def test_other_paths_or_another_turn_are_something_else(crab, run, workspace):
    seen = preview(crab, "restore", "last@1")
    for words in (["last@0"], ["last@1", "kept.txt"]):
        assert refused(crab, workspace, "restore", *words, "--expect", seen)
    for none in ("", "0" * 16, "x"):
        assert refused(crab, workspace, "restore", "last@1", "--expect", none)


def test_a_listed_file_may_go_on_growing(crab, run, workspace):
    file = workspace / "app.py"
    file.write_text("mine\n")
    words = ("restore", "last@1", "--force")
    seen = preview(crab, *words)
    file.write_text("mine, and more of it\n")
    assert preview(crab, *words) == seen
    assert crab(*words, "--expect", seen).code == 0


def test_what_is_expected_is_about_a_restore_in_place(crab, run, tmp_path):
    assert crab("restore", "last@1", "--to", tmp_path / "x", "--expect", "0" * 16).code == 2
    assert crab("restore", "last@1", "--conversation-only", "--expect", "0" * 16).code == 2
    assert not (tmp_path / "x").exists()


def test_lists_are_cut_unless_all_is_wanted_and_the_longest_comes_last(crab, builder, home,
                                                                       workspace):  # fmt: skip
    run = builder.small_run(home, workspace)
    names = [f"many-{number:02}.txt" for number in range(40)]
    run.turn(lambda: [(workspace / name).write_text("x") for name in names])
    run.close()
    for name in names:
        (workspace / name).write_text("mine")
    short = crab("restore", "last@1", "--dry-run")
    assert "... and 10 more (--all lists all)" in short.out  # conflicts
    assert "... and 11 more (--all lists all)" in short.out  # app.py, too
    whole = crab("restore", "last@1", "--dry-run", "--all")
    assert whole.code == short.code == 5
    assert "lists all" not in whole.out
    for name in names:
        assert whole.out.count(name) == 2
    before, plan = whole.out.split("What would change:\n")
    assert before.startswith("Would restore")
    assert len(plan.splitlines()) == 41


def test_it_is_said_that_what_was_written_was_read_back(crab, run, tmp_path):
    said = "What was written was read back, and is right."
    assert said not in crab("restore", "last@1", "--dry-run").out
    assert said in crab("restore", "last@1").out
    assert said not in crab("restore", "last@1").out  # nothing was
    assert said in crab("undo").out
    assert said in crab("restore", "last@1", "--to", tmp_path / "copy").out
    assert said in crab("fork", "last@1", "--to", tmp_path / "fork").out


def test_a_fork_may_be_looked_at_first(crab, run, home, tmp_path):
    to = tmp_path / "deep" / "fork"
    done = crab("fork", "last@1", "--to", to, "--dry-run")
    assert done.code == 0
    assert f"Would restore {run.run}@1 in {to}: 2 created" in done.out
    assert "+ app.py" in done.out
    assert "New run" not in done.out
    data = crab("fork", "last@1", "--to", to, "--dry-run", "--json").data
    assert (data["run"], data["preview"], data["created"]) == (None, None, 2)
    assert not to.parent.exists()
    assert [one["run"] for one in crab("runs", "--json").data] == [run.run]
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path / "file", tmp_path / "file" / "fork", tmp_path):
        assert crab("fork", "last@1", "--to", taken, "--dry-run").code == 2
    assert crab("fork", "last@1", "--to", to).code == 0
    assert (to / "app.py").exists()


def test_a_fork_that_would_be_refused_is_refused_by_its_preview(
    crab, builder, home, workspace, tmp_path
):
    run = builder.small_run(home, workspace)
    run.turn(None, argument=f"cd {workspace}")
    run.close()
    done = crab("fork", "last", "--to", tmp_path / "fork", "--dry-run")
    assert done.code == 2
    assert "--paths=keep" in done.err


def test_an_absolute_path_is_a_name_in_the_workspace(crab, builder, home, workspace, tmp_path):
    run = builder.small_run(home, workspace)
    for name in ("src", "lib"):
        (workspace / name).mkdir()
        (workspace / name / "a").write_text(f"{name}\n")
    at = run.turn(None)
    (workspace / "lib/a").write_text("newer\n")
    (workspace / "src/a").unlink()
    (workspace / "src").rmdir()
    (workspace / "src").symlink_to("lib")
    run.turn(None)
    run.close()
    crab("restore", f"{run.run}@{at}", workspace / "src" / "a", cwd="/")
    assert (workspace / "lib/a").read_text() == "newer\n"
    os.symlink(workspace, tmp_path / "other-way")
    through = tmp_path / "other-way" / "lib" / "a"
    assert crab("restore", f"{run.run}@{at}", through, cwd="/").code == 0
    assert (workspace / "lib/a").read_text() == "lib\n"
