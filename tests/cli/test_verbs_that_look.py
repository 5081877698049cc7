import base64
import json
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

import crabrt
from crabrt.core.content import Content
from crabrt.core.entries import CallId, Intent, Payload, Result, TurnOpened
from crabrt.core.ids import object_id
from crabrt.journal import RunIndex
from crabrt.journal.restores import RestoreLog
from crabrt.store import Store
from crabrt.store.contents import read_blocks
from crabrt.testing import crash
from crabrt.workspace import Workspace, find_entry


@pytest.fixture
def run(builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.close()
    return run


def test_runs_lists_them_newest_first(crab, builder, home, workspace, run):
    second = builder.RunBuilder(home, workspace, "tester")
    second.end()
    rows = crab("runs", "--json").data
    assert [row["run"] for row in rows] == [second.run, run.run]
    assert [row["status"] for row in rows] == ["done", "crashed"]
    assert rows[1]["turns"] == 3
    assert rows[0]["workspace"] == str(workspace)
    assert rows[0]["family"] == second.run
    assert rows[0]["parent"] is None
    text = crab("runs").out
    assert text.index(second.run) < text.index(run.run)
    assert len(crab("runs", "-n", "1", "--json").data) == 1
    assert crab("runs", "--here", "--json", cwd="/").data == []


def test_log_has_a_line_a_turn_and_all_promised_fields(crab, run):
    data = crab("log", "last", "--json").data
    assert data["run"] == run.run
    assert [turn["turn"] for turn in data["turns"]] == [0, 1, 2, 3]
    promised = {
        "turn", "started_at", "verdict", "evidence", "tools", "files_changed", "bytes_stored",
        "model_wait_ms", "capture_ms", "exposed_ms", "checkpoint", "consistency", "unprotected",
        "unobserved",
    }  # fmt: skip
    assert promised <= data["turns"][1].keys()
    assert data["turns"][1]["verdict"] == ["files"]
    assert data["turns"][1]["tools"] == [{"name": "sh", "ok": True}]
    assert data["turns"][3]["verdict"] == ["none"]
    assert data["turns"][3]["checkpoint"] == "inherited"
    lines = crab("log", run.run).out.splitlines()
    assert lines[0].startswith(f"{run.run} (crashed) in ")
    assert lines[1].split()[:2] == ["turn", "started"]
    assert "F files" in lines[3]
    assert "○ inherited" in lines[5]
    assert [t["turn"] for t in crab("log", "last", "-n", "2", "--json").data["turns"]] == [2, 3]


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5])
def test_a_log_is_read_in_windows_and_looks_the_same(crab, run, monkeypatch, window):
    whole = [crab("log", *words).out for words in ([], ["-n", "2"], ["--json"], ["--stats"])]
    asked = []
    turns = RunIndex.turns

    def counted(index, name, first=None, last=None):
        asked.append((first, last))
        return turns(index, name, first, last)

    monkeypatch.setattr(RunIndex, "turns", counted)
    monkeypatch.setattr("crabrt.cli.verbs.log._WINDOW", window)
    again = [crab("log", *words).out for words in ([], ["-n", "2"], ["--json"], ["--stats"])]
    assert again == whole
    assert all(last - first < window for first, last in asked)


def test_log_of_a_path_shows_the_turns_that_touched_it(crab, run, workspace):
    def turns(*words, **options):
        return [
            t["turn"] for t in crab("log", "last", "--json", "--", *words, **options).data["turns"]
        ]

    assert turns("app.py") == [1, 2]
    assert turns("kept.txt") == []
    assert turns(".") == [1, 2]
    (workspace / "sub").mkdir()
    assert turns("../app.py", cwd=workspace / "sub") == [1, 2]
    done = crab("log", "last", "--", "../elsewhere")
    assert done.code == 2
    assert "outside" in done.err


def test_an_unprotected_turn_is_explained_below_the_table(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.unprotected_turn("disk full\x1b[2J")
    run.close()
    done = crab("log", "last")
    assert "✗ unprotected" in done.out
    assert "turn 4: unprotected: disk full\\x1b[2J" in done.out
    assert "\x1b" not in done.out
    done = crab("restore", "last@4")
    assert done.code == 4
    assert "disk full" in done.err
    assert "@3" in done.err  # the nearest that can be restored
    status = crab("status", "--json")
    assert status.code == 3
    assert status.data["unprotected"] == ["disk full\x1b[2J"]
    assert status.data["restorable"] == 3


def test_show_tells_a_turn_in_full(crab, run):
    text = crab("show", "last@2").out
    assert 'sh("make")' in text
    assert "reply 2" in text
    assert "as staged" in text
    data = crab("show", "last@2", "--json").data
    model, tool = data["calls"]
    assert model["kind"] == "model"
    assert model["messages"][0] == {"role": "user", "content": "turn 1?"}
    assert model["result"]["content"] == "reply 2"
    assert tool["arguments"] == [["make"], {}]
    assert tool["result"] == "ok"


def test_show_cuts_long_results_and_escapes_what_they_hold(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.turn(None, result="\x1b]0;owned\x07" + "x" * 5000)
    run.close()
    text = crab("show", "last@-1").out
    assert "\x1b" not in text
    assert "\\x1b]0;owned\\x07" in text
    assert "more characters: --full" in text
    assert "x" * 5000 in crab("show", "last@-1", "--full").out


def odd_call(run, arguments, *, tool="odd", payload=None):
    """A call in a turn of its own, with arguments as they lie in the journal."""
    run.turns += 1
    run.journal.append(TurnOpened(run.turns, run.turns - 1), turn=run.turns)
    payload = payload or Payload(msgspec.msgpack.encode(arguments))
    for name, given in ((tool, payload), ("after", Payload(msgspec.msgpack.encode({"n": 1})))):
        call = CallId("0", name, run.turns)
        run.journal.append(Intent(call, object_id(b"a"), given), turn=run.turns)
        run.journal.append(Result(call, 1.0, Payload(msgspec.msgpack.encode("ok"))), turn=run.turns)
    run.journal.sync()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [({"args": "make"}, 'odd(args="make")'), ({"args": {"a": 1}}, 'odd(args={"a": 1})'),
     ({"args": 5}, "odd(args=5)"), ({"kwargs": [1]}, "odd(kwargs=[1])"), ({1: 2}, "odd(1=2)")],
)  # fmt: skip
def test_show_tells_a_call_whatever_its_parameters_are_called(
    crab, builder, home, workspace, arguments, shown
):
    run = builder.small_run(home, workspace)
    odd_call(run, arguments)
    run.close()
    done = crab("show", "last@4")
    assert done.code == 0
    assert shown in done.out
    assert "after(n=1)" in done.out


def test_one_call_that_cannot_be_shown_hides_no_other(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    odd_call(run, None, payload=Payload(content=Content(3, 0, (object_id(b"nowhere"),))))
    run.close()
    done = crab("show", "last@4")
    assert "odd: the rest of this call cannot be shown: " in done.out
    assert "after(n=1)" in done.out
    assert done.code == 7
    assert "traceback" not in done.err.lower()
    assert done.err


def test_no_character_of_a_file_is_cut_in_two_on_a_terminal(
    crab, builder, home, workspace, on_a_terminal
):
    run = builder.small_run(home, workspace)
    text = "x" + "漢" * 400_000
    run.turn(lambda: (workspace / "long.txt").write_text(text))
    with Store.open(home) as store:
        state = find_entry(store, run.root, b"long.txt")
        blocks = list(read_blocks(state.content, store))
    assert any(block[0] & 0xC0 == 0x80 for block in blocks)  # it lies across pieces of the store
    run.close()
    assert crab("show", "last@4:long.txt", binary=True, process=True).out == text.encode()
    assert on_a_terminal("show", "last@4:long.txt") == text


def test_show_of_a_path_gives_the_exact_bytes(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    blob = bytes(range(256)) * 3000

    def change():
        (workspace / "blob").write_bytes(blob)
        os.mkdir(workspace / "dir")
        os.symlink("../blob", workspace / "dir" / "link")
        os.mkfifo(workspace / "dir" / "pipe")

    run.turn(change)
    run.close()
    assert crab("show", "last@-1:blob", binary=True).out == blob
    assert crab("show", f"last@-1:{workspace}/blob", binary=True).out == blob
    data = crab("show", "last@-1:blob", "--json").data
    assert base64.b64decode(data["content_b64"]) == blob
    assert crab("show", "last@1:app.py").out == "one\ntwo\nthree\n"
    assert crab("show", "last@2:./app.py").out == "one\n2\nthree\n"
    assert crab("show", "last@-1:dir/link").out == "../blob\n"
    listing = crab("show", "last@-1:dir", "--json").data["entries"]
    assert listing == [{"name": "link", "kind": "symlink"}, {"name": "pipe", "kind": "fifo"}]
    for words, code in (
        (("last@0:app.py",), 4),
        (("last@1:../x",), 2),
        (("last@1:/etc/passwd",), 2),
    ):
        assert crab("show", *words).code == code


def test_names_that_hurt_are_shown_escaped_and_exact_in_json(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    name = b"\xff\x1b[2J\nname"

    def change():
        with open(os.path.join(os.fsencode(workspace), name), "wb") as file:
            file.write(b"x\n")

    run.turn(change)
    run.close()
    done = crab("diff", "last@3", "last@4", "--name-only")
    assert done.out == '"\\xff\\x1b[2J\\nname"\n'
    (change,) = crab("diff", "last@3", "last@4", "--json").data["changes"]
    assert base64.b64decode(change["path_b64"]) == name


def test_diff_is_a_patch_that_git_applies_to_the_same_bytes(
    crab, builder, home, workspace, tmp_path
):
    workspace.mkdir(exist_ok=True)
    (workspace / "gone").write_text("bye\n")
    (workspace / "mode").write_text("#!/bin/sh\n")
    (workspace / "latin").write_bytes(b"caf\xe9\r\nold\n")
    (workspace / "no end").write_text("a\nb")
    run = builder.RunBuilder(home, workspace)

    def change():
        (workspace / "gone").unlink()
        (workspace / "mode").chmod(0o755)
        (workspace / "latin").write_bytes(b"caf\xe9\r\nnew\n")
        (workspace / "no end").write_text("a\nb\nc")
        (workspace / "dir").mkdir()
        (workspace / "dir" / "new ü").write_text("".join(f"{i}\n" for i in range(50)))
        os.symlink("../mode", workspace / "dir" / "link")
        (workspace / "empty").write_text("")

    run.turn(change)
    run.close()
    copy = tmp_path / "copy"
    assert crab("restore", "last@0", "--to", copy).code == 0
    patch = crab("diff", "last@0", "last@1", binary=True).out
    subprocess.run(["git", "apply", "-"], input=patch, cwd=copy, check=True)
    left = subprocess.run(
        ["diff", "-r", "--no-dereference", copy, workspace], capture_output=True, check=False
    )
    assert left.stdout == b""
    assert left.returncode == 0
    assert (copy / "mode").stat().st_mode & 0o111


def test_diff_says_binary_mode_and_what_a_patch_cannot_say(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)

    def change():
        (workspace / "bin").write_bytes(b"\0\1")
        os.utime(workspace / "kept.txt", ns=(1, 1))
        (workspace / "app.py").chmod(0o700)

    run.turn(change)
    run.close()
    text = crab("diff", "last@3", "last@4").out
    assert "Binary files /dev/null and b/bin differ" in text
    assert "# kept.txt: times" in text
    assert "new mode 100700" in text
    stat = crab("diff", "last@3", "last@4", "--stat").out
    assert "bin | binary 0 -> 2 bytes" in stat
    assert "kept.txt | times" in stat
    changes = {c["path"]: c for c in crab("diff", "last@3", "last@4", "--json").data["changes"]}
    assert changes["app.py"]["how"] == ["mode"]
    assert changes["bin"]["before"] is None


def test_a_binary_file_whose_bytes_stayed_is_not_counted_by_them(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    (workspace / "touched").write_bytes(b"\0\1")
    (workspace / "changed").write_bytes(b"\0\1")
    run.turn(lambda: None)

    def change():
        os.utime(workspace / "touched", ns=(1, 1))
        (workspace / "changed").write_bytes(b"\0\2\3")

    run.turn(change)
    run.close()
    stat = crab("diff", "last@4", "last@5", "--stat").out
    assert " touched | times\n" in stat
    assert " changed | binary 2 -> 3 bytes\n" in stat


def test_diff_against_the_workspace_sees_it_as_it_is_and_stores_nothing(crab, run, workspace, home):
    before = json.loads(crab("du", "--json").out)["data"]["store"]["pack_bytes"]
    assert crab("diff", "last@-1").out == ""
    (workspace / "app.py").write_text("one\nmine\nthree\n")
    done = crab("diff", "last@-1")
    assert "+mine" in done.out
    assert crab("diff", "last@-1", "--name-only", "--", "kept.txt").out == ""
    assert crab("diff", "last@-1", "--name-only", "app.py").out == "app.py\n"
    assert json.loads(crab("du", "--json").out)["data"]["store"]["pack_bytes"] == before
    assert crab("diff", "last@-1", "--stat", "--name-only").code == 2
    assert crab("diff", "last@1", "last@99").code == 4


def killed_restore(workspace, home, tmp_path, *words):
    program = Path(crabrt.__file__).with_name("__main__.py")
    argv = [*words, "--home", home]
    mark = tmp_path / "mark"
    crash.kill_at("restore.committed", 1, program, argv, mark=mark, cwd=workspace)


def test_a_killed_restore_is_told_by_what_looks_at_the_workspace_until_it_is_finished(
    crab, run, workspace, home, tmp_path
):
    killed_restore(workspace, home, tmp_path, "restore", "last@1")
    for words, code in ((["status"], 3), (["diff"], 3), (["log"], 0), (["log", "--stats"], 0)):
        done = crab(*words)
        assert done.code == code
        assert f"A restore here was killed (`restore {run.run}@1`)" in done.out + done.err
        assert f"`crab restore {run.run}@1` finishes it, `crab undo` also" in done.out + done.err
    for words in (["status"], ["diff"], ["log"]):
        told = json.loads(crab(*words, "--json").out)["data"]["killed_restore"]
        assert told["what"] == f"restore {run.run}@1"
        assert told["finish"] == f"crab restore {run.run}@1"
        assert told["undo"] == f"crab undo {workspace}"
        assert told["files_done"] is False
    assert crab("status", "--json").data["restore_interrupted"] is True
    assert "finished first" in crab("undo").out
    assert crab("diff").code == 0
    for words in (["status"], ["diff"], ["log"]):
        assert crab(*words, "--json").data["killed_restore"] is None


def test_what_a_dry_run_lists_while_a_killed_restore_waits_is_what_is_done(
    crab, run, workspace, home, tmp_path
):
    (workspace / "kept.txt").write_text("mine\n")
    for words in (["undo"], ["restore", "last@0", "--force"], ["restore", "last@1", "app.py"]):
        killed_restore(workspace, home, tmp_path, "restore", "last@1", "app.py", "--force")
        looked = crab(*words, "--dry-run")
        assert looked.code == 0
        assert "A restore that was killed will be finished first" in looked.out
        told = crab(*words, "--dry-run", "--json").data
        assert told["finished_killed_restore"] is True
        if words == ["undo"]:
            assert told["undone"] == f"restore {run.run}@1"
            assert [change["path"] for change in told["changes"]] == ["app.py"]
        else:
            assert not [one for one in told["conflicts"] if one["path"] == "app.py"]
        assert crab("status", "--json").data["killed_restore"] is not None
        done = crab(*words, "--expect", told["preview"], "--json")
        assert done.code == 0
        assert done.data["changes"] == told["changes"]
        assert crab("restore", "last@3", "--force").code == 0
        (workspace / "kept.txt").write_text("mine\n")


def test_the_command_that_is_told_finishes_a_killed_restore_of_paths_and_no_more(
    crab, run, workspace, home, tmp_path
):
    (workspace / "kept.txt").write_text("mine\n")
    killed_restore(workspace, home, tmp_path, "restore", "last@1", "app.py")
    finish = crab("log", "--json").data["killed_restore"]["finish"]
    assert finish == f"crab restore {run.run}@1 {workspace / 'app.py'}"
    done = crab(*finish.split()[1:], "--json", cwd=tmp_path)
    assert done.data["finished_killed_restore"] is True
    assert (workspace / "app.py").read_text() == "one\ntwo\nthree\n"
    assert (workspace / "kept.txt").read_text() == "mine\n"
    assert crab("log", "--json").data["killed_restore"] is None


def test_a_killed_undo_is_finished_by_the_next_restore_or_run(crab, run, workspace, home, tmp_path):
    assert crab("restore", "last@1").code == 0
    killed_restore(workspace, home, tmp_path, "undo")
    assert "the next restore or run finishes it" in crab("status").out
    assert crab("status", "--json").data["killed_restore"]["finish"] is None


def test_a_restore_whose_processes_are_not_back_is_told(crab, run, workspace, home):
    assert crab("restore", "last@1").code == 0
    (log,) = (RestoreLog(path.parent) for path in (home / "workspaces").glob("*/restores"))
    begun, ended = log.records()
    assert crab("log", "--json").data["killed_restore"] is None
    log.append(msgspec.structs.replace(begun, id="0" * 16, alive_target=begun.target))
    log.append(msgspec.structs.replace(ended, id="0" * 16))
    told = crab("status", "--json").data["killed_restore"]
    assert told["files_done"] is True
    assert told["finish"] == f"crab restore --files-only {run.run}@1"
    assert "its processes are not back" in crab("log").out


def test_a_restore_that_is_under_way_is_not_told_as_killed(crab, run, workspace, home, tmp_path):
    killed_restore(workspace, home, tmp_path, "restore", "last@1")
    claim = Workspace.open(os.fsencode(workspace), home, force=True).claim("other", shared=False)
    try:
        for process in (False, True):
            assert crab("status", "--json", process=process).data["killed_restore"] is None
    finally:
        claim.release()
    assert crab("status", "--json").data["killed_restore"] is not None


def test_status_tells_whether_a_live_run_protects_the_directory(crab, builder, home, workspace):
    assert "Not protected" in crab("status").out
    run = builder.small_run(home, workspace)
    data = crab("status", "--json").data
    assert data["protected"] is True
    assert data["run"]["run"] == run.run
    assert data["checkpoint"] == "inherited"
    (workspace / "sub").mkdir()
    assert crab("status", "sub", "--json").data["run"]["run"] == run.run
    run.close()
    done = crab("status")
    assert "Not protected now" in done.out
    assert f"crab resume {run.run}" in done.out
    assert crab("status", "absent").code == 4


@pytest.mark.parametrize(
    "verb", ["log", "show", "diff", "restore", "resume", "fork", "label", "pin", "rm"]
)
def test_unknown_and_ambiguous_runs_exit_4_everywhere(crab, builder, home, workspace, run, verb):
    extra = {"fork": ["--to", "x"], "label": ["name"], "rm": ["--yes"]}.get(verb, [])
    done = crab(verb, "nobody", *extra, "--json")
    assert done.code == 4
    assert done.error["kind"] == "not-found"
    other = builder.RunBuilder(home, workspace)
    other.end()
    done = crab(verb, "fixer", *extra, "--json")
    assert done.code == 4
    assert done.error["kind"] == "ambiguous"
    assert set(done.error["candidates"]) == {run.run, other.run}


def test_du_adds_up_by_kind_and_by_run(crab, run):
    data = crab("du", "--live", "--json").data
    assert data["store"]["kinds"]["root"]["objects"] == 3
    assert data["store"]["live_bytes"] > 0
    assert data["runs"][0]["run"] == run.run
    assert data["runs"][0]["turns"] == 4
    assert run.run in crab("du").out


def test_doctor_says_what_is_protected_and_what_is_not(crab, workspace):
    done = crab("doctor", "--json")
    assert done.code == 0
    assert {fact["name"] for fact in done.data["facts"]} >= {"kernel", "fanotify", "store"}
    text = crab("doctor", "--quick").out
    assert "Protected here:" in text
    assert "Not protected:" in text
    assert crab("doctor", "absent").code == 4
    assert crab("doctor", env={"CRAB_HOME": "/proc/nowhere"}).code == 3
