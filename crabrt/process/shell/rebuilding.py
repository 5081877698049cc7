"""Giving a new shell a state that was recorded, piece by piece, and listing what did not take.

Each piece is evaluated by itself, so that one that fails takes no other with it. What is stored is
not trusted: a piece that has not the form in which bash prints it is refused (`literals`). Values
come before attributes: bash evaluates what is assigned to an integer, and an integer may have been
made of anything. Functions come before aliases, which would be expanded in them.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from crabrt.process.shell import literals, script
from crabrt.process.shell.recording import BASH_OWN, RESOURCES, record_state
from crabrt.process.shell.session import Session
from crabrt.process.shell.state import Function, ShellState, Variable
from crabrt.process.table import Process

_LIMIT_S: Final = 60.0
_MOST_BYTES: Final = 1 << 20
_KINDS: Final = "aA"
_NAMED_MOST: Final = 10
_NAMED_LENGTH: Final = 200
_JOB: Final = "process in the background: "


class _Piece(NamedTuple):
    """A command for bash, and what to say if it fails."""

    text: bytes
    what: str


def rebuild(session: Session, state: ShellState) -> tuple[str, ...]:
    """Give the new shell of `session` the state `state`.

    Returns:
        What could not be brought back, a line each.

    Raises:
        ShellUnavailable: it does not answer.
    """
    lost = list(state.left_out)
    fresh = record_state(session)
    pieces = [*_pieces(state, fresh, lost)]
    text = b"".join(
        b"\\builtin eval -- %s >/dev/null 2>&1 || \\builtin printf '%%s\\0' %d\n"
        % (script.quoted(piece.text), at)
        for at, piece in enumerate(pieces)
    )
    kept = session.ask(text, limit_s=_LIMIT_S, most_bytes=_MOST_BYTES)
    if kept is None:
        lost.append("all of it: the shell ended, or did not answer")
        return tuple(lost)
    failed = [int(field) for field in kept.beginning().split(b"\0") if field.isdigit()]
    lost += [pieces[at].what for at in failed if at < len(pieces)]
    if session.shell is not None:
        lost += _set_limits(session.shell, state, fresh)
    session.directory = _directory(session, state)
    if session.directory != state.directory:
        lost.append(f"directory {os.fsdecode(state.directory)}: gone")
    lost += [_JOB + os.fsdecode(job) for job in state.jobs]
    lost += [f"open descriptor {os.fsdecode(one)}" for one in state.descriptors]
    return tuple(lost)


def note_of(lost: tuple[str, ...]) -> str | None:
    """A sentence for the model on a rebuilt shell that lacks `lost`; None if it lacks nothing."""
    if not lost:
        return None
    named = [one[:_NAMED_LENGTH] for one in lost[:_NAMED_MOST]]
    if len(lost) > _NAMED_MOST:
        named.append(f"{len(lost) - _NAMED_MOST} more")
    jobs = any(one.startswith(_JOB) for one in lost)
    return (
        "the shell had ended; this is a new one with what was recorded of it, but without: "
        + "; ".join(named)
        + (" (what was started again is no job of this shell)" if jobs else "")
    )


def _pieces(state: ShellState, fresh: ShellState, lost: list[str]) -> Iterator[_Piece]:
    yield from _checked(state.shopts, fresh.shopts, literals.each_shopt, "shell option", lost)
    kept = {variable.name for variable in state.variables}
    for variable in fresh.variables:
        if variable.name not in kept:
            yield _Piece(b"\\builtin unset -v -- " + variable.name.encode(), f"no {variable.name}")
    for function in fresh.functions:
        yield _Piece(b"\\builtin unset -f -- " + script.quoted(function.name), "")
    for function in state.functions:
        yield from _function(function, lost)
    told = {variable.name: variable for variable in fresh.variables}
    changed = [one for one in state.variables if told.get(one.name) != one]
    checked = [one for one in changed if _is_sound(one, lost)]
    for variable in sorted(checked, key=lambda one: "n" in one.attributes):
        yield from _variable(variable)
    yield from _checked(state.aliases, fresh.aliases, literals.each_alias, "alias", lost)
    if state.positional:
        words = b" ".join(map(script.quoted, state.positional))
        yield _Piece(b"\\builtin set -- " + words, "positional parameters")
    yield _Piece(b"\\builtin umask " + script.quoted(state.umask.encode()), "umask")
    for directory in reversed(state.directory_stack):
        name = script.quoted(directory)
        yield _Piece(b"\\builtin pushd -n " + name, f"{os.fsdecode(directory)} on the stack")
    yield from _checked(state.traps, fresh.traps, literals.each_trap, "trap", lost)
    yield from _checked(state.set_options, fresh.set_options, literals.each_set, "option", lost)


def _checked(
    stored: tuple[bytes, ...],
    fresh: tuple[bytes, ...],
    each: Callable[[bytes], list[bytes] | None],
    what: str,
    lost: list[str],
) -> Iterator[_Piece]:
    for one in stored:
        if one in fresh:
            continue
        if each(one) != [one]:
            lost.append(f"{what} {os.fsdecode(one[:80])!r}: not in a form that is safe to evaluate")
            continue
        yield _Piece(b"\\builtin " + one, f"{what}: {os.fsdecode(one).strip()}")


def _function(function: Function, lost: list[str]) -> Iterator[_Piece]:
    name = os.fsdecode(function.name)
    starts = (function.name + b" () ", b"function " + function.name + b" () ")
    if not literals.is_function_name(function.name) or not function.definition.startswith(starts):
        lost.append(f"function {name!r}: not in a form that is safe to evaluate")
        return
    yield _Piece(function.definition, f"function {name}")
    for letter in function.attributes:
        flag = {"x": b"x", "t": b"t", "r": b"r"}.get(letter)
        if flag is not None:
            word = script.quoted(function.name)
            yield _Piece(
                b"\\builtin declare -f%s -- %s" % (flag, word), f"function {name}: -{letter}"
            )


def _is_sound(variable: Variable, lost: list[str]) -> bool:
    if variable.name in BASH_OWN:
        return False
    value = b"" if variable.value is None else b"=" + variable.value
    flags = variable.attributes or "-"
    text = b"declare -%s %s%s" % (flags.encode(), variable.name.encode(), value)
    if literals.declaration(text) == (variable.attributes, variable.name.encode(), variable.value):
        return True
    lost.append(f"variable {variable.name!r}: not in a form that is safe to evaluate")
    return False


def _variable(variable: Variable) -> Iterator[_Piece]:
    """Its kind and value, and what it is else when it has that."""
    name, what = variable.name.encode(), f"variable {variable.name}"
    kind = "".join(letter for letter in variable.attributes if letter in _KINDS)
    value = b"" if variable.value is None else b"=" + variable.value
    reset = b"\\builtin unset -v -n -- %s; \\builtin unset -v -- %s; " % (name, name)
    if "n" in variable.attributes:
        yield _Piece(reset + b"\\builtin declare -n %s%s" % (name, value), what)
        kind = "n"
    elif kind:
        # No ``\\builtin`` can be before a compound value; an assignment, though, is no command.
        assigned = b" && " + name + value if value else b""
        yield _Piece(reset + b"\\builtin declare -%s %s%s" % (kind.encode(), name, assigned), what)
    elif value:
        yield _Piece(reset + b"\\builtin declare -- %s%s" % (name, value), what)
    rest = "".join(letter for letter in variable.attributes if letter not in kind)
    if rest or not (value or kind):
        flag = b"-" + rest.encode() if rest else b"--"
        yield _Piece(b"\\builtin declare %s %s" % (flag, name), f"{what}: -{rest}")


def _set_limits(shell: Process, state: ShellState, fresh: ShellState) -> list[str]:
    lost = []
    now = {limit.name: limit for limit in fresh.limits}
    for limit in state.limits:
        if now.get(limit.name) == limit:
            continue
        number = RESOURCES.get(limit.name, -1)
        try:
            resource.prlimit(shell.pid, number, (limit.soft, limit.hard))
        except (OSError, ValueError, OverflowError) as error:
            lost.append(f"limit {limit.name} {limit.soft}/{limit.hard}: {error}")
    return lost


def _directory(session: Session, state: ShellState) -> bytes:
    """Where the shell is; named as in `state` if that is the same place."""
    found = session.directory
    try:
        if os.path.samefile(found, state.directory):
            return state.directory
    except OSError:
        return found
    return found
