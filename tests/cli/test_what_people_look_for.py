import asyncio
import io
import json
import os
import subprocess
import sys

import pytest

from crabrt.cli.screen import Screen
from crabrt.cli.table import Column, cell_width, render_table
from crabrt.cli.turn_lines import COLUMNS, turn_row
from crabrt.core.entries import (
    CallId,
    Checkpoint,
    Ended,
    External,
    Failure,
    Intent,
    Payload,
    TurnOpened,
)
from crabrt.core.ids import object_id
from crabrt.core.verdicts import Prior, Protection
from crabrt.errors import InDoubt, RestoreFailed
from crabrt.journal.views import ModelView, ToolView, TurnView
from crabrt.runtime.structured import type_tag
from crabrt.timeline.rows import Row
from crabrt.timeline.values import message_text


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return Screen(Terminal(), {"NO_COLOR": "1"})


@pytest.fixture
def run(builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.close()
    return run


def expensive_turn(number):
    call = CallId("0", "think", number)
    return TurnView(
        turn=number,
        base=max(0, number - 1),
        started_ns=1_700_000_000_000_000_000,
        verdict=("files",),
        files_added=12,
        files_changed=3,
        files_removed=9,
        tools=(ToolView(CallId("0", "write_file", number), True, 3),),
        models=(
            ModelView(
                call, True, 1, wait_ms=12_345, tokens_in=12_345, tokens_out=678, cost_usd=0.1
            ),
        ),
        protection=Protection.DURABLE,
        bytes_stored=2_345_678,
        exposed_ms=12,
        labels=("before",),
    )


def test_a_log_with_all_there_is_fits_80_columns_and_keeps_what_matters(narrow):
    rows = [turn_row(Row(expensive_turn(n), 61_000.0)) for n in range(3)]
    heading, *lines = render_table(narrow, COLUMNS, rows)
    assert max(map(cell_width, [heading, *lines])) <= 80
    for title in ("turn", "verdict", "tools", "files", "exposed", "checkpoint", "marks"):
        assert title in heading.split()
    assert all("● durable" in line for line in lines)


def test_rows_that_are_shown_one_by_one_stand_under_their_heading(narrow):
    turns = [TurnView(turn=0, base=0, started_ns=0), *map(expensive_turn, (1, 2))]
    rows = (turn_row(Row(turn, 10.0, live=True)) for turn in turns)
    heading, *lines = render_table(narrow, COLUMNS, rows, live=True)
    assert max(map(cell_width, [heading, *lines])) <= 80
    place = heading.index("checkpoint")
    assert [line[place] for line in lines] == ["…", "●", "●"]


def test_a_path_is_cut_at_its_beginning(narrow):
    columns = [Column("run"), Column("workspace", flexible=True, keeps_end=True)]
    (_, line) = render_table(narrow, columns, [["fix", "/home/" + "x" * 90 + "/project"]])
    assert cell_width(line) <= 80
    assert line.endswith("/project")
    assert "…" in line


def test_a_long_hint_is_broken_between_words_and_indented(narrow):
    narrow.paragraph("word " * 30 + "end", lead="  hint:  ", indent=9)
    first, *more = narrow._stream.getvalue().splitlines()
    assert first.startswith("  hint:  word word")
    assert all(line.startswith(" " * 9 + "word") for line in more)
    assert max(map(len, [first, *more])) <= 80


def test_a_piped_hint_is_one_line():
    screen = Screen(io.StringIO(), {})
    screen.paragraph("word " * 60 + "end", lead="x ", indent=2)
    assert screen._stream.getvalue().count("\n") == 1


def test_a_command_is_not_broken_where_lines_are(narrow):
    """It is copied, and pasted; broken in its middle it is two."""
    command = "`crab restore some-run-0123abcd@12 --to ../elsewhere/beside`"
    narrow.paragraph(f"to have it beside what is here: {command} and so on", lead="x ", indent=2)
    lines = narrow._stream.getvalue().splitlines()
    assert lines == ["x to have it beside what is here:", f"  {command} and so on"]


def test_a_log_says_whose_it_is_and_how_to_go_on(crab, run):
    first, *_, last = crab("log", "last").out.splitlines()
    assert first.startswith(f"{run.run} (crashed) in ")
    assert last == f"Take it up again: crab resume {run.run}"


def test_a_run_that_failed_says_why(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    why = Failure("ValueError", "no such\nmodel\x1b[2J", Payload())
    run.journal.append(Ended("failed", 1.0, failure=why), turn=run.turns)
    run.close()
    assert "It ended with ValueError: no such …" in crab("log", "last").out
    assert "It ended with ValueError: no such …" in crab("status").out
    assert crab("runs", "--json").data[0]["failure"]["tag"] == "ValueError"


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_a_run_that_was_interrupted_says_so(crab, builder, home, workspace, error):
    run = builder.small_run(home, workspace)
    why = Failure(type_tag(error), "", Payload())
    run.journal.append(Ended("failed", 1.0, failure=why), turn=run.turns)
    run.close()
    out = crab("log", "last").out
    assert f"It was interrupted ({error.__name__})\n" in out
    assert "failed failed" not in out


def test_a_run_that_waits_for_a_decision_is_advised_to_make_it_and_not_to_charge_twice(
    crab, builder, home, workspace
):
    """A resume from a turn before the call makes it, also if it happened."""
    run = builder.small_run(home, workspace)
    why = Failure(type_tag(InDoubt), "it may or may not have happened", Payload())
    run.journal.append(Ended("failed", 1.0, failure=why), turn=run.turns)
    run.close()
    for verb in ("log", "status"):
        ask, did, did_not, last = crab(verb).out.splitlines()[-4:]
        assert ask.startswith("Find out whether that call happened")
        assert "skip" in did
        assert "retry" in did_not
        assert last == f"Then take it up again: crab resume {run.run}"
        assert max(map(len, (ask, did, did_not))) < 80


def test_a_turn_that_was_cut_off_is_not_shown_as_if_it_still_went_on(
    crab, builder, home, workspace
):
    run = builder.small_run(home, workspace)
    run.journal.append(TurnOpened(4, 3), turn=4)
    run.close()
    assert "? cut off" in crab("log", "last").out.splitlines()[-2]
    status = crab("status")
    assert "4, cut off before its checkpoint" in status.out
    assert f"crab restore {run.run}@3" in status.out


def test_last_is_the_last_run_of_the_workspace_one_is_in(crab, builder, home, workspace, tmp_path):
    here = builder.small_run(home, workspace)
    here.close()
    elsewhere = builder.small_run(home, tmp_path / "elsewhere")
    elsewhere.close()
    (workspace / "sub").mkdir()
    for cwd in (workspace, workspace / "sub"):
        assert crab("log", "last", "--json", cwd=cwd).data["run"] == here.run
    assert crab("log", "--json", cwd=tmp_path / "elsewhere").data["run"] == elsewhere.run
    assert crab("log", "--json", cwd=tmp_path).data["run"] == elsewhere.run
    said = f"no run of this directory: the last one anywhere is {elsewhere.run}, in {tmp_path}"
    assert said in crab("log", cwd=tmp_path).err
    for cwd in (workspace, workspace / "sub"):
        assert crab("log", cwd=cwd).err == ""


@pytest.mark.parametrize("words", [("restore", "last@1"), ("resume", "last@1", "--yes")])
def test_what_changes_a_workspace_is_never_the_last_run_of_another_directory(
    crab, builder, home, workspace, tmp_path, words
):
    run = builder.small_run(home, workspace)
    run.close()
    now = (workspace / "app.py").read_text()
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    error = crab(*words, "--json", cwd=wrong).error
    assert (error["exit"], error["where"]) == (4, str(wrong))
    assert error["message"] == "no run was made in this directory"
    assert error["hint"] == (
        f"the last one anywhere is {run.run}, in {workspace}; if you mean that: "
        f"crab {words[0]} {run.run}@1"
    )
    assert (workspace / "app.py").read_text() == now
    looked = crab(words[0], "last@1", "--dry-run", cwd=wrong)
    assert looked.code == 0
    assert "no run of this directory" in looked.err
    if words[0] == "restore":
        assert crab(*words, "--to", tmp_path / "copy", cwd=wrong).code == 0
        assert crab(*words, "--conversation-only", cwd=wrong).code == 0
    assert crab(*words, cwd=workspace, process=True).code == 0


def test_last_is_the_last_run_that_was_started_here_if_none_worked_here(
    crab, builder, home, workspace, tmp_path
):
    started = tmp_path / "started"
    started.mkdir()
    run = builder.small_run(home, workspace, cwd=os.fsencode(started))
    run.close()
    assert crab("fork", f"{run.run}@1", "--to", tmp_path / "fork").code == 0
    newer = builder.small_run(home, tmp_path / "elsewhere")
    newer.close()
    shown = crab("log", "--json", cwd=started)
    assert (shown.data["run"], shown.err) == (run.run, "")
    assert crab("restore", "last@1", cwd=started).code == 0
    assert (workspace / "app.py").read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize("verb", ["log", "show", "diff"])
def test_a_verb_that_looks_is_about_the_last_run_without_being_told(crab, run, verb):
    done = crab(verb, "--json")
    assert done.code == 0
    assert run.run in json.dumps(done.data)


def test_paths_behind_dashes_are_never_taken_for_a_run(crab, run, workspace):
    assert [t["turn"] for t in crab("log", "--json", "--", "app.py").data["turns"]] == [1, 2]
    (workspace / "app.py").write_text("mine\n")
    (workspace / "kept.txt").write_text("mine\n")
    changes = crab("diff", "--json", "--", "app.py").data["changes"]
    assert [change["path"] for change in changes] == ["app.py"]
    assert "No turn touched that" in crab("log", "-n", "2", "--", "kept.txt").out


def test_a_diff_takes_a_run_without_a_turn_as_its_other_side(crab, run, workspace):
    data = crab("diff", "last@0", "last", "--json").data
    assert data["after"] == f"{run.run}@3"
    assert [change["path"] for change in data["changes"]] == ["app.py"]
    assert crab("diff", "last@0", "nowhere").code == 4
    (workspace / "last").write_text("a file of that name comes first\n")
    assert crab("diff", "last@0", "last", "--json").data["after"] == "workspace"


def test_show_lists_what_the_turn_changed(crab, run):
    assert crab("show", "last@1", "--json").data["changes"] == [
        {"path": "app.py", "how": ["added"]}
    ]
    assert "+ app.py" in crab("show", "last@1").out
    assert "~ app.py" in crab("show", "last@2").out
    assert crab("show", "last@0", "--json").data["changes"] == []


def test_following_some_paths_is_refused_and_not_ignored(crab, run):
    assert crab("log", "--follow", "--", "app.py").code == 2


def test_a_mistyped_verb_is_told_the_nearest(crab):
    done = crab("lgo")
    assert done.code == 2
    assert "'log'" in done.err


def test_a_label_that_moves_says_from_where(crab, run):
    assert "until now" not in crab("label", "last@1", "good").out
    assert "until now it was @1" in crab("label", "last@2", "good").out


def test_undo_names_the_restore_that_it_takes_back(crab, run, workspace):
    crab("restore", "last@1")
    status = crab("status")
    assert f"restore {run.run}@1 at " in status.out
    assert crab("status", "--json").data["restored_since"]["what"] == f"restore {run.run}@1"
    done = crab("undo")
    assert f"before `restore {run.run}@1` of " in done.out
    assert "Redo it: crab undo" in done.out


def test_a_dry_run_that_would_be_refused_does_not_claim_to_overwrite(crab, run, workspace):
    (workspace / "app.py").write_text("mine\n")
    done = crab("restore", "last@1", "--dry-run")
    assert done.code == 5
    assert "Refused without --force" in done.out
    assert "overwritten" not in done.out
    forced = crab("restore", "last@1", "--dry-run", "--force")
    assert forced.code == 0
    assert "overwritten" in forced.out


def test_resume_shows_what_it_puts_back_and_what_of_it_is_in_no_checkpoint(crab, run, workspace):
    assert (
        crab("resume", "last", "--dry-run", "--json").data["reverts"] == []
    )  # it goes on in place
    assert crab("restore", "last@1").code == 0
    (workspace / "kept.txt").write_text("mine\n")
    reverts = crab("resume", "last", "--dry-run", "--json").data["reverts"]
    assert [(one["path"], one["in_no_checkpoint"]) for one in reverts] == [
        ("app.py", False),
        ("kept.txt", True),
    ]
    done = crab("resume", "last", "--yes", process=True)
    assert f"Put back to {run.run}@3 first (`crab undo` brings it back):" in done.err
    assert "~ kept.txt  (in no checkpoint)" in done.err


def test_a_current_directory_that_is_gone_keeps_nobody_from_looking(crab, run, workspace):
    gone = workspace / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && exec {sys.executable} -m crabrt"
    for words in ("log last", "status", "restore last@1", "undo"):
        gone.mkdir(exist_ok=True)
        done = subprocess.run(
            ["sh", "-c", f"{script} {words}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stderr)


def test_nothing_protected_yet_says_how_to_begin(crab):
    assert "crabrt.agent" in crab("status").out


def test_resume_shows_the_point_inside_a_turn_that_it_really_goes_back_to(
    crab, builder, home, workspace
):
    run = builder.small_run(home, workspace)
    run.turns += 1
    run.journal.append(TurnOpened(4, 3), turn=4)
    (workspace / "inside.txt").write_text("before the external call\n")
    snapshot = run.tracker.capture(run.tracker.scan(), run.writer)
    run.writer.sync()
    point = Checkpoint(4, 1, snapshot.root, run.journal.seq, Protection.DURABLE)
    run.journal.append(point, turn=4)
    call = CallId("0", "mail", 0)
    intent = Intent(call, object_id(b"a"), Payload(), Prior.EXTERNAL, External(target="bob"))
    run.journal.append(intent, turn=4)  # it was killed in there: not gone on from in place
    (workspace / "half.txt").write_text("half")
    run.close()
    data = crab("resume", "last", "--dry-run", "--json").data
    assert data["from"] == f"{run.run}@4.1"
    assert [one["path"] for one in data["reverts"]] == ["half.txt"]


def test_a_clients_chat_completion_is_shown_as_the_message_in_it():
    message = {"role": "assistant", "content": "hello", "extra": {"refusal": None}}
    completion = {"id": "x", "choices": [{"index": 0, "message": message}]}
    for stored in (completion, {"$crab": ["litellm.ModelResponse", {"fields": completion}]}):
        assert message_text(stored) == ("assistant", "hello")
    several = {"choices": [{"message": message}, {"message": message}]}
    assert "choices" in message_text(several)[1]


@pytest.mark.parametrize(
    "hostile", [{"$crab": []}, {"choices": [None]}, {"$crab": [1, {"fields": 2}]}]
)
def test_what_only_looks_like_a_completion_is_shown_as_it_is(hostile):
    assert message_text(hostile)[1]


def test_many_troubles_do_not_push_the_table_away(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    for _ in range(30):
        run.unprotected_turn("disk full")
    run.close()
    lines = crab("log", "last").out.splitlines()
    assert len([line for line in lines if "disk full" in line]) == 8
    assert any("and 22 more" in line for line in lines)
    assert len(crab("log", "last", "--json").data["turns"]) == 34


def test_a_workspace_that_cannot_be_written_is_no_dead_end(crab, run, workspace, monkeypatch):
    def refuse(*_args, **_options):
        raise RestoreFailed("Read-only file system: nothing was changed", where="app.py")

    monkeypatch.setattr("crabrt.cli.verbs.restore.restore_state", refuse)
    done = crab("restore", "last@1")
    assert done.code == 1
    assert "--to DIR" in done.err
