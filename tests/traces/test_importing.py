"""Sessions of other agents as traces. The files here are made up, in the forms that they write."""

import contextlib
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crabrt.errors import CrabError, NotFound, UsageError
from crabrt.traces import (
    FORMATS,
    DamagedTrace,
    NotATrace,
    import_file,
    read_trace,
    trace_lines,
    write_file,
)
from crabrt.traces.importing import session_files

TOKEN = "sk-" + "abcDEF123" * 4


def save(path, document):
    path.write_text(json.dumps(document))
    return path


def save_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


# -- SWE-agent --------------------------------------------------------------------------------


def step(action, cwd="/repo", **given):
    return {
        "action": action,
        "observation": "seen",
        "response": f"I do {action}",
        "thought": "hm",
        "execution_time": 0.5,
        "state": {"working_dir": cwd, "open_file": "n/a"},
        "a_later_field": [1],
        **given,
    }


@pytest.fixture
def traj(tmp_path):
    document = {
        "environment": "swe_main",
        "trajectory": [
            step("ls -F\n"),
            step("create src/a.py"),
            step("edit 1:1\nx = 1\nend_of_edit"),
            step("cd src && ls", state=json.dumps({"working_dir": "/repo/src"})),
            step(f"export KEY={TOKEN}; cat a.py > b.py"),
            step("", observation=None, execution_time=None),
        ],
        "history": [
            {"role": "system", "content": "You are a tester."},
            {"role": "user", "content": "a demonstration", "is_demo": True},
            {"role": "user", "content": [{"type": "text", "text": "Fix it."}]},
            {"role": "assistant", "content": "ok", "action": "ls -F\n"},
        ],
        "info": {"exit_status": "submitted", "model_stats": {"api_calls": 9}},
    }
    return save(tmp_path / "case-1.traj", document)


def test_a_traj_of_swe_agent(traj):
    trace = import_file(traj)
    header = trace.header
    assert (header.id, header.source, header.status) == ("case-1", "SWE-agent", "submitted")
    assert (header.workspace, header.timing) == ("/repo", "unknown")
    assert "9 model calls" in header.notes[1]
    assert [len(turn.tools) for turn in trace.turns] == [1, 1, 1, 1, 1, 0]
    first = trace.turns[0]
    assert [said.text for said in first.models[0].request.new] == ["You are a tester.", "Fix it."]
    assert first.models[0].wait_ms is None
    assert first.tools[0].duration_ms == 500.0
    assert trace.turns[4].tools[0].cwd == "/repo/src"
    assert trace.turns[4].tools[0].redacted
    assert TOKEN not in b"".join(trace_lines(trace)).decode()


def test_an_imported_session_is_replayed(traj, tmp_path, replay, workspace):
    path = tmp_path / "t.jsonl"
    trace = import_file(traj)
    write_file(path, trace_lines(trace))
    assert read_trace(path) == trace
    (workspace / "src").mkdir()
    report = replay(read_trace(path))
    assert (workspace / "src" / "b.py").read_text() == "x = 1\n"
    assert {turn.judgement for turn in report.turns} == {"right"}
    assert report.skipped == ()


def test_a_demonstration_without_steps_is_taken_from_its_history(tmp_path):
    history = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": "first", "action": "ls", "thought": "x"},
        {"role": "tool", "content": "a b"},
        {"role": "assistant", "content": "then", "action": "submit"},
    ]
    trace = import_file(save(tmp_path / "demo.traj", {"history": history}))
    assert [turn.tools[0].arguments["command"] for turn in trace.turns] == ["ls", "submit"]


@pytest.mark.parametrize("broken", [{"action": 3}, {"action": None}, {"state": "{not json"}])
def test_a_step_that_is_not_one_is_named(tmp_path, broken):
    path = save(tmp_path / "x.traj", {"trajectory": [step("ls"), step("ls") | broken]})
    with pytest.raises(DamagedTrace) as caught:
        import_file(path)
    assert "trajectory[1]" in caught.value.where


# -- mini-swe-agent ---------------------------------------------------------------------------


def reply(*commands, at, **given):
    extra = {
        "actions": [{"command": c, "tool_call_id": f"c{i}"} for i, c in enumerate(commands)],
        "response": {"model": "m-1", "usage": {"prompt_tokens": 50, "completion_tokens": 5}},
        "cost": 0.01,
        "timestamp": at,
    }
    return {"role": "assistant", "content": "Next.", "extra": extra, **given}


def output(code, at, text="out", why=""):
    extra = {"raw_output": text, "returncode": code, "timestamp": at, "exception_info": why}
    return {"role": "tool", "content": f"<{text}>", "extra": extra}


@pytest.fixture
def mini(tmp_path):
    document = {
        "trajectory_format": "mini-swe-agent-1.1",
        "info": {
            "mini_version": "2.4.6",
            "exit_status": "Submitted",
            "config": {"environment": {"cwd": "/testbed"}},
        },
        "messages": [
            {"role": "system", "content": "You are a tester."},
            {"role": "user", "content": "Do it."},
            reply("echo 1 > a", at=100.0),
            output(0, 100.25),
            reply("false", "cat /testbed/a", at=103.0),
            output(1, 104.0),
            output(0, 104.0),
            reply("sleep 99", "ls", at=106.5),
            output(-1, 136.5, why="An error occurred while executing the command: timed out"),
            output(-1, 136.5, text="", why="action was not executed"),
            reply("echo DONE", at=140.0),
            {"role": "exit", "content": "", "extra": {"exit_status": "Submitted"}},
        ],
    }
    return save(tmp_path / "run.traj.json", document)


def test_a_trajectory_of_mini_swe_agent(mini, replay, workspace):
    trace = import_file(mini)
    assert (trace.header.source, trace.header.source_version) == ("mini-swe-agent", "2.4.6")
    assert (trace.header.workspace, trace.header.timing) == ("/testbed", "recorded")
    assert [turn.models[0].wait_ms for turn in trace.turns] == [None, 2750.0, 2500.0, 3500.0]
    tools = [tool for turn in trace.turns for tool in turn.tools]
    assert [tool.exit_code for tool in tools] == [0, 1, 0, None, None, None]
    assert [tool.ran for tool in tools] == [True, True, True, True, False, True]
    assert tools[0].duration_ms == 250.0
    assert tools[0].result == "out"
    assert trace.turns[0].models[0].tokens_in == 50
    report = replay(trace, command_timeout_s=0.2)
    assert (workspace / "a").read_text() == "1\n"
    assert report.exit_agreement == (3, 3)


def test_an_older_one_has_its_command_in_the_text_and_its_times_in_the_responses(tmp_path):
    def old_reply(text, created):
        return {"role": "assistant", "content": text, "extra": {"response": {"created": created}}}

    document = {
        "trajectory_format": "mini-swe-agent-1",
        "info": {"mini_version": "1.15.0"},
        "messages": [
            {"role": "user", "content": "Do it."},
            old_reply("First\n```bash\nls -l\n```", 10),
            {"role": "user", "content": "<returncode>2</returncode>\n<output>x</output>"},
            old_reply("no command at all", 14),
            {"role": "user", "content": "exactly one, please"},
            old_reply("```bash\na\n```\n```bash\nb\n```", 15),
        ],
    }
    trace = import_file(save(tmp_path / "old.json", document))
    assert [len(turn.tools) for turn in trace.turns] == [1, 0, 0]
    assert trace.turns[0].tools[0].exit_code == 2
    assert [turn.models[0].wait_ms for turn in trace.turns] == [None, 4000.0, 1000.0]
    assert "from reply to reply" in trace.header.notes[0]


def test_an_action_without_a_command_is_named(tmp_path, mini):
    document = json.loads(mini.read_text())
    document["messages"][2]["extra"]["actions"] = [{"cmd": "x"}]
    with pytest.raises(DamagedTrace, match="command") as caught:
        import_file(save(mini, document))
    assert "messages[2]" in caught.value.where


# -- Claude Code ------------------------------------------------------------------------------


def said(kind, content, second, uuid, **given):
    message = {"role": kind, "content": content, **given.pop("message", {})}
    return {
        "type": kind,
        "uuid": uuid,
        "parentUuid": None,
        "sessionId": "s-1",
        "cwd": given.pop("cwd", "/home/me/app"),
        "version": "2.0.1",
        "timestamp": f"2026-01-01T00:00:{second:06.3f}Z",
        "message": message,
        **given,
    }


def use(call, name, **arguments):
    return {"type": "tool_use", "id": call, "name": name, "input": arguments}


def answer(call, text, **given):
    return {"type": "tool_result", "tool_use_id": call, "content": text, **given}


USAGE = {"input_tokens": 3, "cache_read_input_tokens": 90, "output_tokens": 8}


@pytest.fixture
def lines():
    first = {"id": "m1", "model": "model-x", "usage": {"output_tokens": 1}}
    return [
        {"type": "summary", "summary": "x", "leafUuid": "l"},
        {"type": "file-history-snapshot", "messageId": "x", "snapshot": {}},
        said("user", "Caveat", 0, "u0", isMeta=True),
        said("user", "Please fix it.", 1, "u1"),
        said("assistant", [{"type": "thinking", "thinking": "hm"}], 4, "a1", message=first),
        said("assistant", [{"type": "text", "text": "Let me."}], 5, "a2", message=first),
        said(
            "assistant",
            [use("t1", "Write", file_path="/home/me/app/a.py", content="x = 1\n")],
            6,
            "a3",
            message={**first, "usage": USAGE},
        ),
        said("user", [answer("t1", "written")], 6.5, "u2", toolUseResult={"type": "create"}),
        said(
            "assistant",
            [
                use("t2", "Bash", command="grep y a.py", description="look"),
                use("t3", "Edit", file_path="a.py", old_string="1", new_string="2"),
                use("t4", "Bash", command="rm -rf /home/me/app"),
            ],
            9,
            "a4",
            message={"id": "m2"},
        ),
        said(
            "user",
            [answer("t2", "Exit code 1\nnothing", is_error=True)],
            9.5,
            "u3",
            toolUseResult="Error: Exit code 1\nnothing",
        ),
        said("user", [answer("t3", [{"type": "text", "text": "edited"}])], 9.75, "u4"),
        said(
            "user",
            [answer("t4", "no", is_error=True)],
            30,
            "u5",
            toolUseResult="User rejected tool use",
        ),
        said("assistant", [use("t9", "Bash", command="sub")], 31, "x1", isSidechain=True),
        said("assistant", [{"type": "text", "text": "again"}], 9, "a4", message={"id": "m9"}),
        said(
            "assistant",
            [use("t5", "Bash", command="ls > ../list")],
            40,
            "a5",
            cwd="/home/me/app/sub",
            message={"id": "m3"},
        ),
    ]


def test_a_session_of_claude_code(tmp_path, lines, replay, workspace):
    trace = import_file(save_lines(tmp_path / "s.jsonl", lines))
    header = trace.header
    assert (header.id, header.workspace, header.source_version) == ("s-1", "/home/me/app", "2.0.1")
    assert header.timing == "recorded"
    assert set(header.notes) == {"1 lines of sub-agents left out", "1 repeated lines passed over"}
    one, two, three = trace.turns
    assert one.models[0].reply == "Let me."
    assert one.models[0].wait_ms == 3000.0
    assert one.models[0].tokens_in == 93
    assert one.models[0].tokens_out == 8
    assert one.models[0].request.new[0].text == "Please fix it."
    assert one.tools[0].duration_ms == 500.0
    assert [tool.exit_code for tool in two.tools] == [1, None, None]
    assert [tool.ok for tool in two.tools] == [False, True, False]
    assert [tool.ran for tool in two.tools] == [True, True, False]
    assert three.tools[0].cwd == "/home/me/app/sub"
    assert three.tools[0].ok is None

    (workspace / "sub").mkdir()
    report = replay(trace)
    assert (workspace / "a.py").read_text() == "x = 2\n"
    assert (workspace / "list").exists()
    assert {turn.judgement for turn in report.turns} == {"right"}


@pytest.mark.parametrize(
    ("place", "change", "why"),
    [
        (6, lambda m: m.update(content=3), "content"),
        (6, lambda m: m["content"][0].update(input="x"), "input"),
        (6, lambda m: m["content"][0].pop("name"), "name"),
        (7, lambda m: m["content"][0].pop("tool_use_id"), "tool_use_id"),
        (7, lambda m: m.update(content=["x"]), "block"),
    ],
)
def test_a_message_that_is_not_one_is_named_by_its_line(tmp_path, lines, place, change, why):
    change(lines[place]["message"])
    with pytest.raises(DamagedTrace, match=why) as caught:
        import_file(save_lines(tmp_path / "s.jsonl", lines))
    assert caught.value.where.endswith(f"line {place + 1}")


def test_a_session_that_ends_in_half_a_line_says_so(tmp_path, lines):
    path = save_lines(tmp_path / "s.jsonl", lines)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DamagedTrace, match="no JSON") as caught:
        import_file(path)
    assert caught.value.where.endswith(f"line {len(lines)}")


# -- anything else ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"[]", b"{}", b'{"a": 1}\n{"b": 2}\n', b"\xff\x00", b'{"messages": []}'],
)
def test_other_files_are_refused_with_what_would_do(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(NotATrace) as caught:
        import_file(path)
    assert caught.value.exit_code == 2


def test_the_refusal_names_every_format(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"hello")
    with pytest.raises(NotATrace) as caught:
        import_file(path)
    assert ", ".join(FORMATS) in caught.value.hint


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_does_not_matter(tmp_path, traj, mini, lines, mark):
    for path in (traj, mini, save_lines(tmp_path / "s.jsonl", lines)):
        expected = import_file(path)
        path.write_bytes(path.read_text().encode(mark))
        assert import_file(path) == expected


def test_a_trace_with_a_byte_order_mark_is_read(tmp_path, make):
    path = tmp_path / "t.jsonl"
    write_file(path, trace_lines(make.trace("true", "true")))
    expected = read_trace(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_trace(path) == expected


@pytest.mark.parametrize("data", [b"\xff\xfe{", b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf{}"])
def test_a_mark_and_nothing_behind_it_is_no_session(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(NotATrace):
        import_file(path)


def test_a_document_behind_a_mark_is_cut_off_as_any_other(traj):
    traj.write_bytes(b"\xef\xbb\xbf" + traj.read_bytes()[:-30])
    with pytest.raises(DamagedTrace, match="cut off"):
        import_file(traj)


@pytest.mark.parametrize("name", ["x.traj.json", "x.traj", "x.json", "x.jsonl"])
def test_a_session_without_a_name_is_called_as_its_file(tmp_path, traj, name):
    assert import_file(traj.rename(tmp_path / name)).header.id == "x"


def test_one_enormous_line_is_refused_before_it_fills_memory(tmp_path):
    path = tmp_path / "x.json"
    with open(path, "wb") as file:
        file.write(b'{"a": "')
        file.truncate(300 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="the line is over 64 MiB") as caught:
            import_file(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150 << 20
    assert caught.value.where == f"{path}, line 1"


def test_what_is_too_large_is_told_apart(tmp_path, traj, lines, monkeypatch):
    save_lines(tmp_path / "s.jsonl", lines)
    expected = import_file(tmp_path / "s.jsonl")
    longest = max(len(line) for line in (tmp_path / "s.jsonl").read_bytes().splitlines(True))
    monkeypatch.setattr(session_files, "VALUE_MAX_BYTES", longest)
    assert (tmp_path / "s.jsonl").stat().st_size > longest
    assert import_file(tmp_path / "s.jsonl") == expected  # line by line
    (tmp_path / "s.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "s.jsonl").read_bytes())
    assert import_file(tmp_path / "s.jsonl") == expected
    traj.write_text(json.dumps(json.loads(traj.read_text()), indent=1))
    assert traj.stat().st_size > longest
    with pytest.raises(UsageError, match="one document over"):
        import_file(traj)
    monkeypatch.setattr(session_files, "FILE_MAX_BYTES", longest)
    with pytest.raises(UsageError, match="no session of an agent"):
        import_file(tmp_path / "s.jsonl")


def test_a_device_without_an_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(session_files, "VALUE_MAX_BYTES", 1 << 10)
    with pytest.raises(UsageError, match="no regular file"):
        import_file(Path("/dev/zero"))


def test_a_document_that_is_cut_off_is_damage(traj):
    traj.write_text(traj.read_text()[:-30])
    with pytest.raises(DamagedTrace, match="cut off"):
        import_file(traj)


def test_a_session_without_a_reply_is_no_trace(tmp_path):
    path = save_lines(tmp_path / "s.jsonl", [said("user", "hi", 0, "u1")])
    with pytest.raises(NotATrace, match="no reply"):
        import_file(path)


def test_a_trace_is_not_imported_again(tmp_path, make):
    path = tmp_path / "t.jsonl"
    write_file(path, trace_lines(make.trace("true", "true")))
    with pytest.raises(NotATrace, match="already"):
        import_file(path)


def test_the_format_can_be_named_and_is_then_insisted_on(tmp_path, mini, lines):
    assert import_file(mini, "mini-swe-agent").header.source == "mini-swe-agent"
    with pytest.raises(CrabError):
        import_file(mini, "swe-agent")
    with pytest.raises(NotATrace):
        import_file(save_lines(tmp_path / "s.jsonl", lines), "swe-agent")


def test_absent_and_unreadable_files_are_told_apart(tmp_path):
    with pytest.raises(NotFound):
        import_file(tmp_path / "absent")
    with pytest.raises(UsageError):
        import_file(tmp_path)


_FIELDS = """role content extra actions command action observation response state working_dir
timestamp created text type id name input tool_use_id message uuid usage returncode is_error"""
_WORDS = "assistant user tool system text tool_use tool_result {} 2026-01-01T00:00:00Z x"
NAMES, WORDS = st.sampled_from(_FIELDS.split()), st.sampled_from(_WORDS.split())
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=15,
)
MESSAGES = st.lists(st.dictionaries(NAMES, ANYTHING, max_size=6) | ANYTHING, max_size=5)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(items=MESSAGES, kind=st.sampled_from(["trajectory", "history", "messages", "lines"]))
def test_whatever_a_session_holds_only_typed_errors_come_out(tmp_path, items, kind):
    path = tmp_path / "any"
    if kind == "lines":
        shell = {"type": "user", "sessionId": "s", "message": {"content": "x"}}
        kinds = [
            {"type": word, "message": item} for item in items for word in ("assistant", "user")
        ]
        save_lines(path, [shell, *kinds])
    else:
        save(path, {kind: items, "info": {"mini_version": "1"} if kind == "messages" else {}})
    with contextlib.suppress(CrabError):
        trace = import_file(path)
        write_file(path, trace_lines(trace))
        assert len(read_trace(path).turns) == len(trace.turns)
