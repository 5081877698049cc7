"""Words that bash printed so that it can read them again, told from words that would do something.

A recorded state comes from a store. Before any of it is evaluated it must have exactly the form in
which bash prints values: quoted throughout, with nothing that is expanded, substituted or run.
"""

from __future__ import annotations

import re
from typing import Final

_DOUBLE = rb'"(?:[^"\\$`]++|\\.)*+"'
_ANSI = rb"\$'(?:[^'\\]++|\\.)*+'"
_BARE = rb"(?![~#])[^]\[\s\"'`$\\(){}<>|&;*?!^]++"
_SCALAR = rb"(?:" + _DOUBLE + rb"|" + _ANSI + rb")"
_ELEMENT = rb"\[(?:" + _SCALAR + rb"|" + _BARE + rb")\]=" + _SCALAR
_COMPOUND = rb"\((?:" + _ELEMENT + rb" ?)*+\)"
_SINGLE = rb"'[^']*+'"
_SINGLES = rb"(?:" + _SINGLE + rb"|\\')++"

NAME: Final = rb"[A-Za-z_][A-Za-z0-9_]*"

_DECLARATION = re.compile(
    rb"declare -([-A-Za-z]+) (" + NAME + rb")(?:=(" + _SCALAR + rb"|" + _COMPOUND + rb"))?\n?",
    re.DOTALL,
)
_ALIAS = re.compile(rb"alias (?:-- )?([^\s=/$`'\"\\]+)=(" + _SINGLES + rb")\n?", re.DOTALL)
_TRAP = re.compile(rb"trap -- (?:" + _SINGLES + rb"|'') ([A-Z0-9+_-]+)\n", re.DOTALL)
_SET = re.compile(rb"set [-+]o ([a-z-]+)\n")
_SHOPT = re.compile(rb"shopt -[su] ([a-z0-9_]+)\n")
_FUNCTION_NAME = re.compile(rb"[A-Za-z0-9_.:@%,+/-][A-Za-z0-9_.:@%,+/=-]*")


def declaration(text: bytes) -> tuple[str, bytes, bytes | None] | None:
    """Attributes, name and quoted value (None: it has none) that ``declare -p`` printed."""
    found = _DECLARATION.fullmatch(text)
    if found is None:
        return None
    return found[1].decode().replace("-", ""), found[2], found[3]


def each_alias(text: bytes) -> list[bytes] | None:
    """The definitions that ``alias -p`` printed; None if that is something else."""
    return _each(_ALIAS, text)


def each_trap(text: bytes) -> list[bytes] | None:
    """The commands that ``trap -p`` printed; None if that is something else."""
    return _each(_TRAP, text)


def each_set(text: bytes) -> list[bytes] | None:
    """The commands that ``set +o`` printed; None if that is something else."""
    return _each(_SET, text)


def each_shopt(text: bytes) -> list[bytes] | None:
    """The commands that ``shopt -p`` printed; None if that is something else."""
    return _each(_SHOPT, text)


def is_function_name(name: bytes) -> bool:
    """Whether a function of this name can be defined again as bash prints it."""
    return _FUNCTION_NAME.fullmatch(name) is not None


def _each(pattern: re.Pattern[bytes], text: bytes) -> list[bytes] | None:
    found, at = [], 0
    while at < len(text):
        match = pattern.match(text, at)
        if match is None:
            return None
        found.append(match[0])
        at = match.end()
    return found
