"""What a recorded call does, told from the tool's name and arguments, whoever's tool it was.

Agents call the same few things by many names. A table knows the usual ones; a caller can name
more. What no rule fits is `Unknown` and is not run: a replay says so instead of guessing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crabrt.errors import UsageError
from crabrt.traces import values
from crabrt.traces.schema import ToolCall


@dataclass(frozen=True)
class Shell:
    """A command line for a shell, and where it ran (None: in the workspace)."""

    command: str
    cwd: str | None = None


@dataclass(frozen=True)
class WriteFile:
    """A file gets this content, whatever it was."""

    path: str
    content: bytes


@dataclass(frozen=True)
class Replacement:
    """One text for another, once (it must be there just once) or wherever it is."""

    old: str
    new: str
    everywhere: bool = False


@dataclass(frozen=True)
class EditFile:
    """Replacements in a file, one after the other."""

    path: str
    edits: tuple[Replacement, ...]


@dataclass(frozen=True)
class InsertLines:
    """Text goes behind a line (0: before the first one)."""

    path: str
    behind: int
    text: str


@dataclass(frozen=True)
class Patch:
    """A patch in the form between ``*** Begin Patch`` and ``*** End Patch``."""

    text: str


@dataclass(frozen=True)
class ReadFile:
    """A file is read."""

    path: str


@dataclass(frozen=True)
class Editor:
    """A command of the editor that SWE-agent gives its agents, which has a file open."""

    command: str
    cwd: str | None = None


@dataclass(frozen=True)
class Nothing:
    """It cannot touch a workspace: a plan, a search, a question."""

    why: str


@dataclass(frozen=True)
class Unknown:
    """It is not run again, and why."""

    why: str


Action = (
    Shell
    | WriteFile
    | EditFile
    | InsertLines
    | Patch
    | ReadFile
    | Editor
    | Nothing
    | Unknown
)  # fmt: skip

KINDS = ("shell", "write", "edit", "patch", "read", "nothing")
"""What a caller may say that a tool is."""

_TOOLS: dict[str, str] = {
    **dict.fromkeys(
        (
            "bash", "sh", "shell", "exec", "exec_command", "execute", "execute_bash",
            "execute_command", "run", "run_command", "run_shell_command", "run_in_terminal",
            "run_terminal_cmd", "terminal", "local_shell", "container.exec", "cmd",
        ),
        "shell",
    ),
    **dict.fromkeys(("write", "write_file", "write_to_file", "create", "create_file"), "write"),
    **dict.fromkeys(
        ("edit", "edit_file", "multiedit", "replace", "replace_in_file", "str_replace"), "edit"
    ),
    **dict.fromkeys(("apply_patch", "patch"), "patch"),
    **dict.fromkeys(("read", "read_file", "view", "view_file", "cat", "open_file"), "read"),
    **dict.fromkeys(
        (
            "grep", "glob", "ls", "list_dir", "list_directory", "list_files", "find", "search",
            "search_files", "codebase_search", "grep_search", "file_search",
            "todowrite", "todoread", "update_plan", "think", "finish", "submit",
            "websearch", "webfetch", "web_search", "web_fetch", "askuserquestion",
            "exitplanmode", "enterplanmode", "task", "agent", "taskcreate", "taskupdate",
            "tasklist", "taskget", "taskoutput", "bashoutput", "skill", "toolsearch",
        ),
        "nothing",
    ),
    "str_replace_editor": "editor",
    "str_replace_based_edit_tool": "editor",
    "swe-agent": "swe-agent",
}  # fmt: skip

_PATH = ("file_path", "path", "filepath", "filePath", "filename", "file", "target_file")
_COMMAND = ("command", "cmd", "script", "commandLine", "args")
_CONTENT = ("content", "contents", "file_text", "text", "code_edit")
_OLD = ("old_string", "oldText", "old_str", "oldString", "old", "search")
_NEW = ("new_string", "newText", "new_str", "newString", "new", "replace")
_CWD = ("workdir", "cwd", "working_directory", "dir_path")
_ALL = ("replace_all", "replaceAll", "all")
_OMITTED = "_omitted_chars"

_EDITOR_WORDS = re.compile(
    r"(open|goto|scroll_up|scroll_down|create|edit|insert|append|undo_edit|str_replace_editor|"
    r"find_file|search_dir|search_file|view|submit|exit_forfeit|set_cursors|edit_anthropic|"
    r"filemap|state)(?=\s|$)"
)


def tool_kinds(extra: Mapping[str, str]) -> dict[str, str]:
    """The table of tools, with `extra` ones (name to one of `KINDS`).

    Raises:
        UsageError: a kind that there is not.
    """
    for name, kind in extra.items():
        if kind not in KINDS:
            raise UsageError(
                f"tool {name!r} cannot be {kind!r}", hint=f"one of: {', '.join(KINDS)}"
            )
    return _TOOLS | {name.lower(): kind for name, kind in extra.items()}


def action_of(call: ToolCall, kinds: Mapping[str, str]) -> Action:
    """What `call` does."""
    if not call.ran:
        return Nothing("it never ran")
    if call.cut or values.is_cut(call.arguments):
        return Unknown("the trace does not hold all of its arguments")
    try:
        arguments = values.revive(call.arguments)
    except ValueError as error:
        return Unknown(str(error))
    if not isinstance(arguments, dict) or _OMITTED in arguments:
        return Nothing("the trace leaves out what it was asked")
    inner = arguments.get("action")
    if isinstance(inner, dict):  # tools that get one map, as mini-swe-agent's environments do
        arguments = {**arguments, **inner}
    kind = kinds.get(call.name.lower(), "nothing" if call.name.startswith("mcp__") else "")
    reader = _READERS.get(kind)
    if reader is None:
        return Unknown("no tool of that name is known here: say what it is with --tool")
    return reader(arguments, call.cwd)


def _swe_agent(arguments: Mapping[str, Any], cwd: str | None) -> Action:
    """A command of SWE-agent: one of its own, or one for the shell."""
    command = _text(arguments, _COMMAND)
    if command is None:
        return Unknown("it has no command")
    if _EDITOR_WORDS.match(command):
        return Editor(command, cwd)
    return Shell(command, cwd)


def editor_action(arguments: Mapping[str, Any]) -> Action:
    """A call of the editor tool that takes a ``command``, as the arguments say."""
    path = _text(arguments, _PATH)
    if path is None:
        return Unknown("it names no file")
    old, new = _text(arguments, _OLD), _text(arguments, _NEW)
    match arguments.get("command"):
        case "view":
            return ReadFile(path)
        case "create":
            return WriteFile(path, (_text(arguments, _CONTENT) or "").encode())
        case "str_replace" if old is not None:
            return EditFile(path, (Replacement(old, new or ""),))
        case "insert":
            line = arguments.get("insert_line")
            text = new if new is not None else _text(arguments, ("insert_text",))
            if isinstance(line, int) and text is not None:
                return InsertLines(path, line, text)
            return Unknown("it lacks the line or the text")
        case other:
            return Unknown(f"the editor's command {other!r} is not known here")


def _shell(arguments: Mapping[str, Any], cwd: str | None) -> Action:
    command: Any = next((arguments[key] for key in _COMMAND if key in arguments), None)
    if isinstance(command, list) and all(isinstance(word, str) for word in command):
        words = [str(word) for word in command]
        shell = len(words) == 3 and words[0].endswith("sh") and words[1] in {"-c", "-lc"}
        command = words[2] if shell else " ".join(map(_quoted, words))
    if not isinstance(command, str):
        return Unknown("it has no command")
    return Shell(command, _text(arguments, _CWD) or cwd)


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def _write(arguments: Mapping[str, Any], _: str | None) -> Action:
    path = _text(arguments, _PATH)
    content: Any = next((arguments[key] for key in _CONTENT if key in arguments), None)
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    if path is None or not isinstance(content, bytes):
        return Unknown("it lacks the file's name or content")
    return WriteFile(path, content)


def _edit(arguments: Mapping[str, Any], _: str | None) -> Action:
    path = _text(arguments, _PATH)
    if path is None:
        return Unknown("it names no file")
    steps = arguments.get("edits")
    found = []
    for step in steps if isinstance(steps, list) else [arguments]:
        old = _text(step, _OLD) if isinstance(step, dict) else None
        if old is None:
            return Unknown("it does not say what it replaces")
        everywhere = any(step.get(key) is True for key in _ALL)
        found.append(Replacement(old, _text(step, _NEW) or "", everywhere))
    return EditFile(path, tuple(found))


def _text(arguments: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = arguments.get(name)
        if isinstance(value, str):
            return value
    return None


def _patch(arguments: Mapping[str, Any], _: str | None) -> Action:
    text = _text(arguments, ("input", "patch", "patchText", "diff"))
    return Unknown("it has no patch") if text is None else Patch(text)


def _read(arguments: Mapping[str, Any], _: str | None) -> Action:
    path = _text(arguments, _PATH)
    return Unknown("it names no file") if path is None else ReadFile(path)


_READERS: dict[str, Callable[[Mapping[str, Any], str | None], Action]] = {
    "shell": _shell,
    "write": _write,
    "edit": _edit,
    "patch": _patch,
    "read": _read,
    "editor": lambda arguments, _: editor_action(arguments),
    "swe-agent": _swe_agent,
    "nothing": lambda _, __: Nothing("it only looks"),
}
