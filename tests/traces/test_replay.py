"""A trace run again: tools really act, verdicts are compared with what really happened."""

import math
import os

import pytest

from crabrt.errors import NotFound, UsageError
from crabrt.journal import RunIndex
from crabrt.testing import oracle
from crabrt.traces import ModelCall, OracleAnswer, ToolCall, Turn


def test_commands_and_edits_really_happen_and_verdicts_are_right(make, replay, workspace):
    trace = make.trace(
        "ls -l",
        ToolCall("write_file", {"path": "src/a.py", "content": "one\ntwo\n"}),
        ToolCall("edit_file", {"path": "/app/src/a.py", "old": "two", "new": "2"}),
        "grep -q 2 src/a.py",
        "echo gone > x && rm x",
        "cat /app/src/a.py > /app/copy && touch -d @1 kept.txt",
        "exit 3",
        workspace="/app",
    )
    report = replay(trace)
    verdicts = ["".join(turn.verdict) for turn in report.turns]
    assert verdicts == ["none", "files", "files", "none", "none", "files", "none"]
    answers = [turn.oracle for turn in report.turns]
    assert answers == ["same", "changed", "changed", "same", "same", "changed", "same"]
    assert {turn.judgement for turn in report.turns} == {"right"}
    assert (workspace / "copy").read_text() == "one\n2\n"
    assert [call.exit_code for turn in report.turns for call in turn.calls] == [0] * 6 + [3]
    assert report.skipped == ()
    assert report.data()["counts"]["right"] == 7


def test_the_replay_is_a_run_whose_first_state_can_be_had_back(make, replay, home):
    report = replay(make.trace("echo more >> kept.txt"))
    with RunIndex.open(home) as index:
        index.refresh()
        rows = index.turns(report.run)
    assert [row.turn for row in rows] == [0, 1]
    assert rows[0].restorable
    assert rows[0].root != rows[1].root


def test_the_model_waits_as_recorded_divided_by_the_speed(make, replay):
    turns = [make.turn(n, make.shell("true"), wait_ms=1000.0 * n) for n in (1, 2)]
    turns.append(Turn(3, models=(ModelCall(wait_ms=None),), tools=(make.shell("true"),)))
    waited = []
    report = replay(make.trace(*turns), speed=4.0, sleep=waited.append)
    assert waited == [0.25, 0.5]
    assert report.unknown_waits == 1
    waited.clear()
    replay(make.trace(*turns), speed=math.inf, sleep=waited.append)
    assert waited == [0.0, 0.0]
    with pytest.raises(UsageError):
        replay(make.trace(*turns), speed=0)


def test_a_change_that_was_not_seen_is_a_false_none_that_says_what_changed(make, replay, workspace):
    """crabrt is blinded by an exclude that the oracle does not know of."""
    (workspace / "hidden").mkdir()
    trace = make.trace("true", "echo x > hidden/file", "echo y > seen")
    report = replay(trace, config={"exclude": ("hidden/",)})
    (wrong,) = report.false_none
    assert (workspace / "hidden" / "file").exists()
    assert wrong.turn == 2
    assert wrong.verdict == ("none",)
    assert "hidden/file" in wrong.difference
    assert report.false_changed == ()


def test_a_change_that_never_was_is_a_false_changed(make, replay, workspace):
    """It is the oracle that is blinded here."""
    (workspace / "hidden").mkdir()
    report = replay(make.trace("echo x > hidden/file", "true"), oracle_exclude=("hidden",))
    assert [turn.turn for turn in report.false_changed] == [1]
    assert report.false_none == ()


def test_a_process_that_goes_on_writing_makes_turns_undecided_and_is_stopped(
    make, replay, workspace
):
    writer = "(while :; do echo $RANDOM >> busy; done) > /dev/null 2>&1 & echo $! > pid"
    report = replay(make.trace("true", writer, "true", "true"), sleep=lambda _: None)
    assert report.false_none == ()
    assert OracleAnswer.UNSTEADY in {turn.oracle for turn in report.turns}
    assert report.turns[0].judgement == "right"
    assert len(report.left_processes) >= 1
    pid = (workspace / "pid").read_text().strip()
    assert _is_dead(pid)


def test_a_stranger_who_writes_between_two_turns_makes_both_undecided(make, replay, workspace):
    """He writes after the oracle has looked, while the model thinks; the verdict is nobody's."""
    thoughts = iter(range(9))

    def sleep(_):
        if next(thoughts) == 1:
            (workspace / "his").write_text("written while the model thinks\n")

    report = replay(make.trace("true", "true", "true", "true"), sleep=sleep)
    assert (workspace / "his").exists()
    assert [turn.oracle for turn in report.turns] == ["unsteady", "unsteady", "same", "same"]
    assert [str(turn.judgement) for turn in report.turns][:2] == ["undecided"] * 2
    assert report.false_none == ()


def test_the_same_loop_without_crabrt_does_the_same(make, replay, workspace, tmp_path, home):
    trace = make.trace("echo a > a; touch -d @7 a", "true", "mkdir d; ln a d/b")
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept.txt").write_text("kept\n")
    plain = replay(trace, other, protected=False)
    assert not home.exists()
    assert plain.run == ""
    assert [turn.oracle for turn in plain.turns] == ["changed", "same", "changed"]
    assert {turn.judgement for turn in plain.turns} == {None}
    replay(trace)
    ours, theirs = (oracle.manifest(path, times=False) for path in (workspace, other))
    assert ours == theirs


def test_replies_without_calls_belong_to_the_turn_that_they_end(make, replay):
    talk = Turn(2, models=(ModelCall(), ModelCall()))
    trace = make.trace(
        make.turn(1, make.shell("echo 1 > a")), talk, make.turn(3, make.shell("true"))
    )
    for protected in (True, False):
        report = replay(trace, protected=protected)
        assert [turn.recorded for turn in report.turns] == [(1,), (2, 3)]


def test_turns_without_a_call_at_the_beginning_are_judged_as_others(make, replay):
    """As long as no tool was called, every reply may be a turn of its own."""
    talk = (Turn(1, models=(ModelCall(),)), Turn(2, models=(ModelCall(), ModelCall())))
    act = (make.turn(3, make.shell("echo 1 > a")), make.turn(4, make.shell("true")))
    report = replay(make.trace(*talk, *act))
    assert [turn.recorded for turn in report.turns] == [(1,), (2,), (2,), (3,), (4,)]
    assert [turn.oracle for turn in report.turns] == ["same", "same", "same", "changed", "same"]
    assert {turn.judgement for turn in report.turns} == {"right"}
    plain = replay(make.trace(*talk, *act), protected=False)
    assert [turn.recorded for turn in plain.turns] == [(1,), (2,), (2,), (3,), (4,)]


def test_a_stranger_who_writes_before_the_first_call_makes_both_turns_undecided(
    make, replay, workspace
):
    thoughts = iter(range(9))

    def sleep(_):
        if next(thoughts) == 1:
            (workspace / "his").write_text("written while the model thinks\n")

    talk = Turn(1, models=(ModelCall(wait_ms=1.0),))
    acts = [make.turn(n, make.shell("true"), wait_ms=1.0) for n in (2, 3)]
    report = replay(make.trace(talk, *acts), sleep=sleep)
    assert (workspace / "his").exists()
    assert [turn.oracle for turn in report.turns] == ["unsteady", "unsteady", "same"]


def test_calls_that_nobody_understands_are_listed_and_not_run(make, replay, workspace):
    trace = make.trace(ToolCall("deploy", {"command": "touch deployed"}), "true")
    report = replay(trace)
    ((turn, call),) = report.skipped
    assert (turn, call.tool) == (1, "deploy")
    assert not (workspace / "deployed").exists()
    replay(trace, tools={"deploy": "shell"})
    assert (workspace / "deployed").exists()


def test_edits_outside_the_workspace_are_not_made(make, replay, workspace, tmp_path):
    (workspace / "out").symlink_to(tmp_path)
    outside = [str(tmp_path / "x"), "../x", "out/x", "/app/../x", "a\0b"]
    calls = [ToolCall("write_file", {"path": path, "content": "x"}) for path in outside]
    report = replay(make.trace(*calls, workspace="/app"))
    assert len(report.skipped) == len(outside)
    assert not (tmp_path / "x").exists()


def test_an_edit_that_does_not_fit_fails_as_it_would_have(make, replay, workspace):
    edits = [("nope", "x"), ("e", "x"), ("kept", "was")]
    calls = [ToolCall("edit_file", {"path": "kept.txt", "old": o, "new": n}) for o, n in edits]
    (workspace / "kept.txt").write_text("kept here\n")
    report = replay(make.trace(*calls, ToolCall("edit_file", {"path": "absent", "old": "a"})))
    assert [call.exit_code for turn in report.turns for call in turn.calls] == [1, 1, 0, 1]
    assert (workspace / "kept.txt").read_text() == "was here\n"


def test_a_command_over_its_time_is_killed_with_what_it_started(make, replay, workspace):
    command = "sleep 1000 & echo $! > pid; sleep 1000"
    report = replay(make.trace(command), command_timeout_s=0.5)
    assert report.turns[0].calls[0].exit_code == -9
    pid = (workspace / "pid").read_text().strip()
    assert _is_dead(pid)


def _is_dead(pid):
    """Gone, or a zombie that its new parent has not reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except FileNotFoundError:
        return True


def test_commands_see_a_scratch_home_and_neither_settings_nor_keys(make, replay, workspace):
    trace = make.trace('echo "$HOME" > home; env | grep "^CRAB_\\|KEY" > crab; cat > in')
    path = os.environ["PATH"]
    replay(trace, environ={"PATH": path, "CRAB_NAME": "mine", "MODEL_API_KEY": "hush"})
    home = (workspace / "home").read_text().strip()
    assert home != os.path.expanduser("~")
    assert not os.path.exists(home)
    (line,) = (workspace / "crab").read_text().splitlines()
    assert line.startswith("CRAB_RUN=replay-made-")
    assert (workspace / "in").read_bytes() == b""


@pytest.mark.root
def test_offline_commands_have_no_network(make, replay, workspace):
    replay(make.trace("tail -n +3 /proc/net/dev | cut -d: -f1 > devices"), offline=True)
    assert (workspace / "devices").read_text().split() == ["lo"]


@pytest.mark.root
def test_offline_commands_reach_what_an_earlier_one_serves(make, replay, workspace):
    serve = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "open('port', 'w').write(str(s.getsockname()[1])); s.accept()[0].sendall(b'hello')"
    )
    ask = (
        "import socket; port = int(open('port').read());"
        "open('said', 'wb').write(socket.create_connection(('127.0.0.1', port), 20).recv(99))"
    )
    start = f'python3 -c "{serve}" > /dev/null 2>&1 & until [ -s port ]; do :; done'
    report = replay(make.trace(start, f'python3 -c "{ask}"'), offline=True)
    assert [call.exit_code for turn in report.turns for call in turn.calls] == [0, 0]
    assert (workspace / "said").read_bytes() == b"hello"


def test_between_is_called_wherever_a_turn_may_have_ended(make, replay):
    seen = []
    trace = make.trace("echo 1 > a", "true", "true")
    replay(trace, between=lambda: seen.append(1), turns=2)
    assert len(seen) == 2


def test_a_workspace_that_is_not_there_is_told(make, replay, tmp_path):
    with pytest.raises(NotFound, match="no such directory"):
        replay(make.trace("true"), tmp_path / "absent")


def test_swe_agents_editor_keeps_its_file_open(make, replay, workspace):
    commands = [
        "create src/x.py",
        "edit 1:1\nprint(1)\nprint(2)\nend_of_edit",
        "edit 'print(2)' 'print(3)'",
        "insert 'print(4)' 2",
        "python src/x.py > out",
        "str_replace_editor str_replace /app/src/x.py --old_str 'print(1)' --new_str 'print(0)'",
        "edit 9:9\nx\nend_of_edit",
        "find_file x.py",
    ]
    (workspace / "src").mkdir()
    calls = [ToolCall("swe-agent", {"command": command}, cwd="/app") for command in commands]
    report = replay(make.trace(*calls, workspace="/app"))
    assert (workspace / "src" / "x.py").read_text() == "print(0)\nprint(3)\nprint(4)\n"
    assert [call.exit_code for turn in report.turns for call in turn.calls] == [0] * 6 + [1, None]
    assert {turn.judgement for turn in report.turns} == {"right"}


def test_patches_are_applied(make, replay, workspace):
    text = (
        "*** Begin Patch\n*** Add File: /app/n/new\n+hi\n*** Update File: kept.txt\n"
        "*** Move to: moved.txt\n-kept\n+was\n*** End Patch"
    )
    (workspace / "old").write_text("x")
    gone = "*** Begin Patch\n*** Delete File: old\n*** End Patch"
    calls = [ToolCall("apply_patch", {"input": item}) for item in (text, gone, "nonsense")]
    report = replay(make.trace(*calls, workspace="/app"))
    assert [call.exit_code for turn in report.turns for call in turn.calls] == [0, 0, 1]
    names = {path.name: path for path in workspace.rglob("*") if path.is_file()}
    assert set(names) == {"new", "moved.txt"}
    assert names["moved.txt"].read_text() == "was\n"
