"""Shell text as the commands in it: the one module that knows the shell's grammar.

The grammar is tree-sitter's for bash, from the extra ``shell``; where that is not installed,
`parse` says so with None. A command is found wherever it stands: in a pipe, a branch, a loop, a
function, a substitution, a here-document. Which of them will run is not asked.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_BYTES = 1 << 16
MAX_BARS = 1_000
MAX_NODES = 5_000
LIMIT_S = 0.05
"""Longer text is not parsed, nor text with more bars (an open pipe costs the parser their square);
the parser is stopped after `LIMIT_S`, and trees of more nodes are not read: the loop waits for all
of it. A usual command takes 0.1 ms."""

Word = str | None
"""A word as the command will get it; None where it is known only when it runs."""


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command.

    Attributes:
        words: its name and its arguments, quotes removed.
        sets: names of variables set for it alone (``PATH=... cmd``).
        stdin: the text of its here-document or here-string; None where there is none, or where it
            is known only when it runs.
    """

    words: tuple[Word, ...]
    sets: tuple[str, ...] = ()
    stdin: str | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """What is in a text.

    Attributes:
        commands: in the order in which they stand.
        writes: where output is redirected to.
        functions: names that the text defines.
        background: whether something is sent to the background with ``&``.
        whole: whether all of the text was understood.
    """

    commands: tuple[Command, ...] = ()
    writes: tuple[Word, ...] = ()
    functions: frozenset[str] = frozenset()
    background: bool = False
    whole: bool = True


@dataclass(slots=True)
class _Found:
    """A script in the making."""

    commands: list[Command] = field(default_factory=list)
    writes: list[Word] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    stdin: dict[int, str | None] = field(default_factory=dict)
    background: bool = False


def available() -> bool:
    """Whether there is a grammar to parse with. Loads it, which takes some 30 ms once."""
    return _language() is not None


def parse(text: bytes) -> Script | None:
    """The commands in `text`; None if there is no grammar, or parsing would take too long.

    Any bytes will do: where they are not understood, `Script.whole` is false.
    """
    language = _language()
    if language is None or len(text) > MAX_BYTES or text.count(b"|") > MAX_BARS:
        return None
    from tree_sitter import Parser  # noqa: PLC0415 - an extra that may not be installed

    until = time.perf_counter() + LIMIT_S
    try:
        # Only a parser that reads by callback can be stopped.
        tree = Parser(language).parse(
            lambda offset, _point: text[offset : offset + MAX_BYTES],
            progress_callback=lambda _offset, _error: time.perf_counter() > until,
        )
    except ValueError:  # stopped
        return None
    if tree.root_node.descendant_count > MAX_NODES:
        return None
    found = _Found()
    stack = [(tree.root_node, "")]
    while stack:
        node, above = stack.pop()
        _take(node, above, found)
        stack.extend([(child, node.type) for child in reversed(node.children)])
    return Script(
        commands=tuple(found.commands),
        writes=tuple(found.writes),
        functions=frozenset(found.functions),
        background=found.background,
        whole=not tree.root_node.has_error,
    )


@functools.cache
def _language() -> Any:
    try:
        import tree_sitter_bash  # noqa: PLC0415 - an extra, and 25 ms
        from tree_sitter import Language  # noqa: PLC0415

        return Language(tree_sitter_bash.language())
    except (ImportError, ValueError):  # absent; or the two packages do not fit each other
        return None


def _take(node: Node, above: str, found: _Found) -> None:
    """Note what `node`, in a node of type `above`, itself says; what is in it has its own turn."""
    match node.type:
        case "command":
            found.commands.append(_command(node, found.stdin.get(node.id)))
        case "redirected_statement":
            body = node.child_by_field_name("body")
            here = [one for one in node.children if one.type == "heredoc_redirect"]
            if body is not None and len(here) == 1:
                found.stdin[body.id] = _here_text(here[0])
        case "file_redirect":
            signs = {one.type for one in node.children if not one.is_named}
            if signs & _WRITING:
                found.writes += [_value(one) for one in node.children_by_field_name("destination")]
        case "function_definition":
            name = node.child_by_field_name("name")
            if name is not None:
                found.functions.add(_text(name))
        case "&":
            if above not in _ARITHMETIC:
                found.background = True
        case _:
            pass


_WRITING = frozenset({">", ">>", ">|", "&>", "&>>", "<>"})  # >& has a descriptor on its right
_ARITHMETIC = frozenset({"binary_expression", "arithmetic_expansion", "expansion", "ERROR"})


def _command(node: Node, stdin: str | None) -> Command:
    words: list[Word] = []
    sets: list[str] = []
    for child in node.children:
        match child.type:
            case "command_name":
                words.append(_value(child.children[0]) if child.children else _text(child))
            case "variable_assignment":
                name = child.child_by_field_name("name")
                sets.append("" if name is None else _text(name))
            case "herestring_redirect":
                text = _value(child.children[-1])
                stdin = None if text is None else text + "\n"
            case "file_redirect" | "heredoc_redirect" | "subshell":
                pass
            case _:
                words.append(_value(child))
    return Command(tuple(words), tuple(sets), stdin)


def _here_text(node: Node) -> str | None:
    for child in node.children:
        if child.type == "heredoc_body":
            known = all(one.type == "heredoc_content" for one in child.named_children)
            return _text(child) if known else None
    return ""


_ESCAPED = re.compile(r"\\(\n|.)", re.DOTALL)
_ESCAPED_IN_QUOTES = re.compile(r'\\([\n"$`\\])')


def _value(node: Node) -> Word:
    """A word with its quotes removed; None where something in it is expanded."""
    parts: list[str] = []
    for one in _pieces(node):
        unquote = _UNQUOTE.get(one.type)
        value = None if unquote is None else unquote(one)
        if value is None:
            return None
        parts.append(value)
    return "".join(parts)


def _pieces(node: Node) -> Iterator[Node]:
    """What a word is put together from."""
    stack = [node]
    while stack:
        one = stack.pop()
        if one.type in {"concatenation", "translated_string"}:
            stack.extend(reversed(one.children))
        else:
            yield one


def _bare(node: Node) -> str | None:
    return _ESCAPED.sub(lambda m: "" if m[1] == "\n" else m[1], _text(node))


def _quoted(node: Node) -> str | None:
    if any(one.type != "string_content" for one in node.named_children):
        return None
    inside = _text(node)[1:-1]
    return _ESCAPED_IN_QUOTES.sub(lambda m: "" if m[1] == "\n" else m[1], inside)


def _ansi(node: Node) -> str | None:
    inside = _text(node)[2:-1]
    return None if "\\" in inside else inside


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "backslashreplace")


_UNQUOTE: dict[str, Callable[[Node], str | None]] = {
    "word": _bare,
    "number": lambda node: None if node.children else _text(node),
    "raw_string": lambda node: _text(node)[1:-1],
    "string": _quoted,
    "ansi_c_string": _ansi,
    "brace_expression": _text,
    "extglob_pattern": _text,
    "regex": _text,
    "$": lambda _: "",
    "==": lambda _: "==",
    "=": lambda _: "=",
    "=~": lambda _: "=~",
}
"""How the text of a piece is had, by its type in the grammar; what is not here is an expansion."""
