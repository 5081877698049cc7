"""What a call does is told from names and arguments that agents really use."""

import pytest

from crabrt.errors import UsageError
from crabrt.traces import ToolCall
from crabrt.traces.actions import (
    EditFile,
    Editor,
    InsertLines,
    Nothing,
    Patch,
    ReadFile,
    Replacement,
    Shell,
    Unknown,
    WriteFile,
    action_of,
    tool_kinds,
)

KINDS = tool_kinds({})


@pytest.mark.parametrize(
    ("name", "arguments", "action"),
    [
        ("Bash", {"command": "make", "description": "x"}, Shell("make")),
        ("exec_command", {"cmd": "ls", "workdir": "/w/sub"}, Shell("ls", "/w/sub")),
        ("shell", {"command": ["bash", "-lc", "ls | wc"]}, Shell("ls | wc")),
        ("shell", {"command": ["ls", "a b"]}, Shell("'ls' 'a b'")),
        ("execute", {"action": {"command": "pwd"}, "cwd": "/w"}, Shell("pwd", "/w")),
        ("Write", {"file_path": "/w/a", "content": "x"}, WriteFile("/w/a", b"x")),
        ("write", {"path": "a", "content": {"$crab": ["base64", "/w=="]}}, WriteFile("a", b"\xff")),
        (
            "Edit",
            {"file_path": "a", "old_string": "o", "new_string": "n", "replace_all": True},
            EditFile("a", (Replacement("o", "n", everywhere=True),)),
        ),
        (
            "edit",
            {"path": "a", "oldText": "o", "newText": "n"},
            EditFile("a", (Replacement("o", "n"),)),
        ),
        (
            "MultiEdit",
            {"file_path": "a", "edits": [{"old_string": "1", "new_string": "2"}] * 2},
            EditFile("a", (Replacement("1", "2"),) * 2),
        ),
        ("apply_patch", {"input": "*** Begin Patch"}, Patch("*** Begin Patch")),
        ("Read", {"file_path": "a", "limit": 3}, ReadFile("a")),
        (
            "str_replace_editor",
            {"command": "create", "path": "a", "file_text": "x"},
            WriteFile("a", b"x"),
        ),
        (
            "str_replace_based_edit_tool",
            {"command": "insert", "path": "a", "insert_line": 2, "new_str": "x"},
            InsertLines("a", 2, "x"),
        ),
        ("swe-agent", {"command": "open src/a.py 10"}, Editor("open src/a.py 10")),
        ("swe-agent", {"command": "ls -F"}, Shell("ls -F")),
    ],
)
def test_calls_are_understood(name, arguments, action):
    assert action_of(ToolCall(name, arguments), KINDS) == action


@pytest.mark.parametrize(
    "call",
    [
        ToolCall("Grep", {"pattern": "x"}),
        ToolCall("mcp__tracker__create", {"title": "x"}),
        ToolCall("Task", {"_omitted_chars": 90}),
        ToolCall("anything", {"_omitted_chars": 90}),
        ToolCall("Bash", {"command": "rm -rf ."}, ran=False),
    ],
)
def test_what_cannot_touch_a_workspace_is_nothing(call):
    assert isinstance(action_of(call, KINDS), Nothing)


@pytest.mark.parametrize(
    "call",
    [
        ToolCall("deploy", {"to": "prod"}),
        ToolCall("Bash", {}),
        ToolCall("Bash", {"command": 3}),
        ToolCall("Bash", {"command": {"$cut": {"chars": 9, "head": "rm "}}}),
        ToolCall("Bash", {"command": {"$out": {"chars": 9}}}),
        ToolCall("Write", {"file_path": "a"}),
        ToolCall("Edit", {"file_path": "a", "new_string": "n"}),
        ToolCall("Write", {"file_path": "a", "content": {"$crab": ["base64", "?"]}}),
        ToolCall("str_replace_editor", {"command": "undo_edit", "path": "a"}),
    ],
)
def test_what_is_not_understood_is_not_guessed(call):
    action = action_of(call, KINDS)
    assert isinstance(action, Unknown)
    assert action.why


def test_people_can_say_what_their_tools_are():
    kinds = tool_kinds({"Do_It": "shell"})
    assert action_of(ToolCall("do_it", {"command": "x"}), kinds) == Shell("x")
    with pytest.raises(UsageError, match="one of"):
        tool_kinds({"x": "magic"})
