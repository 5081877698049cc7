"""Asking a shell at rest for its state, in two rounds: which names there are, then each of them.

Round two prints every variable and function by itself, between NULs, so that no value can pretend
to be another variable. Each answer is checked for the form in which bash prints (`literals`).
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import string
import time
from typing import Final, NamedTuple

from crabrt.process.shell import literals, script
from crabrt.process.shell.errors import ShellUnavailable
from crabrt.process.shell.session import Session
from crabrt.process.shell.state import Function, Limit, ShellState, Variable
from crabrt.process.table import Process, command

STATE_MOST_BYTES: Final = 16 << 20
_LIMIT_S: Final = 30.0
_REDIRECTED_S: Final = 1.0  # at most, for the few instructions behind the last answer
_LOOK_AGAIN_S: Final = 0.001
_FIELDS_LEAST: Final = 11
_UMASK: Final = re.compile(rb"[0-7]{1,4}")

_BASH_OWN: Final = (
    "BASH BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND "
    "BASH_EXECUTION_STRING BASH_LINENO BASH_SOURCE BASH_SUBSHELL BASH_VERSINFO BASH_VERSION "
    "COMP_WORDBREAKS CRAB_SHELL DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HISTCMD "
    "LINENO PIPESTATUS PPID PWD RANDOM SECONDS SHELLOPTS SRANDOM UID _"
)
BASH_OWN: Final = frozenset(_BASH_OWN.split())
"""Variables that say what bash is and does: it sets them itself."""

_NUL: Final = b"\\builtin printf '\\0'\n"
_EVERY_NAME: Final = b"\\builtin echo " + b" ".join(
    b'"${!%c@}"' % first for first in (string.ascii_letters + "_").encode()
)
_ROUND_ONE: Final = b"".join(
    line + b"\n" + (b"" if line.startswith(b"\\builtin printf") else _NUL)
    for line in (
        _EVERY_NAME,
        b"\\builtin declare -F",
        b"\\builtin alias -p",
        b"\\builtin set +o",
        b"\\builtin shopt -p",
        b"\\builtin umask",
        b"\\builtin pwd",
        b'\\builtin printf \'%s\\0\' "${#DIRSTACK[@]}" "${DIRSTACK[@]}"',
        b'\\builtin printf \'%s\\0\' "$#" "$@"',
    )
)
_NAMES = re.compile(rb"^declare -[-A-Za-z]+ (" + literals.NAME + rb")(?:=|$)", re.MULTILINE)
_FUNCTIONS = re.compile(rb"^declare -([-A-Za-z]+) (.+)$", re.MULTILINE)
RESOURCES: Final[dict[str, int]] = {
    name: getattr(resource, name)
    for name in sorted(dir(resource))
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"  # another name of RLIMIT_NOFILE
}
"""The limits that there are."""


class _Names(NamedTuple):
    """What round one tells."""

    variables: list[bytes]
    functions: list[tuple[str, bytes]]
    rest: list[bytes]


def record_state(session: Session) -> ShellState:
    """The state of the shell of `session`, which is at rest.

    Raises:
        ShellUnavailable: it does not answer, or not as a shell does.
    """
    lost: list[str] = []
    names = _round_one(session, lost)
    variables, functions = _round_two(session, names, lost)
    aliases, set_options, shopts, umask, directory, *more = names.rest
    stack, more = _counted(more, "the directory stack")
    positional, more = _counted(more, "positional parameters")
    if _UMASK.fullmatch(umask.strip()) is None:
        raise _nonsense("umask")
    shell = session.shell
    return ShellState(
        directory=directory.removesuffix(b"\n"),
        directory_stack=tuple(stack[1:]),
        variables=tuple(variables),
        functions=tuple(functions),
        aliases=_checked(literals.each_alias(aliases), "aliases", lost),
        traps=_checked(literals.each_trap(b"".join(more)), "traps", lost),
        set_options=_checked(literals.each_set(set_options), "options", lost),
        shopts=_checked(literals.each_shopt(shopts), "shell options", lost),
        umask=umask.strip().decode(),
        limits=_limits(shell) if shell else (),
        positional=tuple(positional),
        jobs=tuple(_jobs(session)),
        descriptors=_descriptors(shell, os.path.join(session.record.directory, b"command"))
        if shell
        else (),
        left_out=tuple(lost),
    )


def _round_one(session: Session, lost: list[str]) -> _Names:
    where = session.record.inside
    # Traps at the top level: a sourced file does not see that of DEBUG. Last what may be cut; of
    # that only variables without a value are needed.
    last = [script.state_line(where, b"trap -p"), script.state_line(where, b"declare -p")]
    *fields, rest = _asked(session, _ROUND_ONE, *last)
    if rest:
        lost.append("variables without a value: there is too much in the others to find all")
        fields.append(rest.rpartition(b"\n")[0])
    if len(fields) < _FIELDS_LEAST:
        raise _nonsense("its state")
    variables, functions, *others, declared = fields
    return _Names(
        sorted({*variables.split(), *_NAMES.findall(declared)}),
        [(flags.decode(), name) for flags, name in _FUNCTIONS.findall(functions)],
        others,
    )


def _round_two(
    session: Session, names: _Names, lost: list[str]
) -> tuple[list[Variable], list[Function]]:
    own = [name for name in names.variables if name.decode() not in BASH_OWN]
    definable = [
        (flags, name) for flags, name in names.functions if literals.is_function_name(name)
    ]
    lost += [
        f"function {os.fsdecode(name)!r}: no name that can be defined again"
        for _, name in names.functions
        if not literals.is_function_name(name)
    ]
    text = b"".join(b"\\builtin declare -p -- %s\n%s" % (name, _NUL) for name in own)
    text += b"".join(
        b"\\builtin declare -f -- %s\n%s" % (script.quoted(name), _NUL) for _, name in definable
    )
    fields = _asked(session, text)[:-1] if text else []
    # What exceeds the limit is missing at the end.
    fields += [b""] * (len(own) + len(definable) - len(fields))
    variables = [
        variable
        for name, field in zip(own, fields, strict=False)
        if (variable := _variable(name, field, lost)) is not None
    ]
    functions = []
    for (flags, name), field in zip(definable, fields[len(own) :], strict=False):
        if field.startswith((name + b" () ", b"function " + name + b" () ")):
            functions.append(Function(name, flags.replace("-", "").replace("f", ""), field))
        else:
            lost.append(f"function {os.fsdecode(name)!r}: too large, or not told")
    return variables, functions


def _variable(name: bytes, field: bytes, lost: list[str]) -> Variable | None:
    found = literals.declaration(field)
    if found is not None and found[1] == name:
        return Variable(name.decode(), found[0], found[2])
    if field or len(name) < 1:
        lost.append(f"variable {name.decode()}: not printed in a form that is safe to read again")
    else:
        lost.append(f"variable {name.decode()}: too large, or not told")
    return None


def _asked(session: Session, text: bytes, *lines: bytes) -> list[bytes]:
    """What was told between NULs, and what comes behind the last."""
    kept = session.ask(text, *lines, limit_s=_LIMIT_S, most_bytes=STATE_MOST_BYTES)
    if kept is None:
        raise ShellUnavailable("the shell did not tell its state", hint="it is busy, or has ended")
    told = kept.beginning()
    return told.split(b"\0")


def _counted(fields: list[bytes], what: str) -> tuple[list[bytes], list[bytes]]:
    """A list that its length precedes, and the fields behind it."""
    if not fields or not fields[0].isdigit() or len(fields) <= int(fields[0]):
        raise _nonsense(what)
    count = int(fields[0])
    if count == 0 and fields[1:2] == [b""]:  # bash printed no argument as an empty one
        return [], fields[1:]
    return fields[1 : 1 + count], fields[1 + count :]


def _nonsense(what: str) -> ShellUnavailable:
    return ShellUnavailable(f"what the shell told of {what} makes no sense")


def _checked(found: list[bytes] | None, what: str, lost: list[str]) -> tuple[bytes, ...]:
    if found is None:
        lost.append(f"{what}: not printed in a form that is safe to read again")
        return ()
    return tuple(found)


def _limits(shell: Process) -> tuple[Limit, ...]:
    found = []
    for name, number in RESOURCES.items():
        with contextlib.suppress(OSError, ValueError):
            found.append(Limit(name, *resource.prlimit(shell.pid, number)))
    return tuple(found)


def _jobs(session: Session) -> list[bytes]:
    shell = session.shell.pid if session.shell is not None else 0
    return [b" ".join(command(one.pid)) for one in session.members() if one.pid != shell]


def _descriptors(shell: Process, command_channel: bytes) -> tuple[bytes, ...]:
    """What is open above 2, but for 255, which is bash's own.

    The last answer arrives before bash has undone the redirections of the line that gave it, for
    which it keeps copies of its own three. It undoes that of its input last.
    """
    of_fds = b"/proc/%d/fd/" % shell.pid
    until = time.monotonic() + _REDIRECTED_S
    found: tuple[bytes, ...] = ()
    while True:
        with contextlib.suppress(OSError):
            reads = os.stat(command_channel)
            numbers = sorted(map(int, os.listdir(of_fds)))
            above = [b"%d" % number for number in numbers if 2 < number < 255]
            found = tuple(name + b" " + os.readlink(of_fds + name) for name in above)
            copied = any(os.path.samestat(os.stat(of_fds + name), reads) for name in above)
            if not copied and os.path.samestat(os.stat(of_fds + b"0"), reads):
                return found
        if time.monotonic() > until:
            return found
        time.sleep(_LOOK_AGAIN_S)
