"""What shell text will probably do: every command in it, and the commands that those run in turn.

A wrapper (``sudo``, ``xargs``, ``find -exec``), a shell in the shell, ``eval`` and a here-document
for a shell are read through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from crabrt.core.verdicts import Guess, Likely
from crabrt.inspector import priors_table as table
from crabrt.inspector import shell
from crabrt.inspector.priors_commands import judge
from crabrt.inspector.priors_databases import CLIENTS, HOSTED
from crabrt.inspector.priors_words import (
    STRENGTH,
    Place,
    has,
    leaves,
    reads,
    redirection,
    runs_code,
    starts,
    unknown,
)
from crabrt.inspector.shell import Command, Word

_DEPTH_MAX = 12
"""How often a command may be called by a command (a shell, ``sudo``, ``xargs``) and be read."""

_REASON_MAX = 160
_REASONS = 3

_TOO_DEEP = "too many commands in commands"


def guess_command(command: str, place: Place = Place()) -> Guess:  # noqa: B008 - frozen
    """What the shell text `command` will probably do."""
    return guess_all([command], place)


def guess_all(commands: Iterable[str | Sequence[Word]], place: Place) -> Guess:
    """What `commands` will probably do: shell text, or the words of a program and no shell."""
    return strongest(
        one
        for command in commands
        for one in (
            _script(command, place, 0)
            if isinstance(command, str)
            else _run(Command(tuple(command)), _Around(place))
        )
    )


def strongest(found: Iterable[Guess]) -> Guess:
    """One guess for all: the strongest effect, and the reasons for it."""
    reasons: dict[Likely, dict[str, None]] = {}
    for one in found:
        reasons.setdefault(one.effect, {}).setdefault(one.reason)
    effect = next((one for one in STRENGTH if one in reasons), Likely.NONE)
    said = [reason for reason in reasons.get(effect, {}) if reason]
    if effect is Likely.NONE:
        text = f"reads only: {', '.join(said)}" if said else "nothing to run"
    else:
        text = "; ".join(said[:_REASONS])
        if len(said) > _REASONS:
            text += f"; {len(said) - _REASONS} more"
    if len(text) > _REASON_MAX:
        text = text[: _REASON_MAX - 3] + "..."
    return Guess(effect, encodable(text))


def encodable(text: str) -> str:
    """`text`, with whatever UTF-8 cannot say spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


# -- scripts -----------------------------------------------------------------------------------


def _script(text: str, place: Place, depth: int) -> Iterator[Guess]:
    if depth > _DEPTH_MAX:
        yield Guess(Likely.UNKNOWN, _TOO_DEEP)
        return
    script = shell.parse(text.encode("utf-8", "backslashreplace"))
    if script is None:
        why = "too long to be read" if shell.available() else "no shell grammar is installed"
        yield Guess(Likely.UNKNOWN, why)
        return
    if not script.whole:
        yield Guess(Likely.UNKNOWN, "not understood as shell")
    if script.background:
        yield Guess(Likely.PROCESSES, "runs in the background: &")
    for path in script.writes:
        found = redirection(path, place)
        if found is not None:
            yield found
    around = _Around(place, depth, script.functions, hosted=HOSTED.search(text) is not None)
    for command in script.commands:
        yield from _run(command, around)


@dataclass(frozen=True, slots=True)
class _Around:
    """What is round a command: its place, how deep it is in shells, the functions defined.

    With `hosted`, the text may name a host for clients of databases by a variable.
    """

    place: Place
    depth: int = 0
    functions: frozenset[str] = frozenset()
    hosted: bool = False


_AT_HOME = re.compile(r"(/(usr/(local/)?)?s?bin|/opt/[^/]+/bin)/[^/]+")


def _run(command: Command, around: _Around) -> Iterator[Guess]:
    """What one command, and what it runs in its turn, will do."""
    if not command.words:
        return
    if around.depth > _DEPTH_MAX:
        yield Guess(Likely.UNKNOWN, _TOO_DEEP)
        return
    if table.REPLACED.intersection(command.sets):
        yield Guess(Likely.UNKNOWN, "sets where commands are found")
    first = command.words[0]
    if first is None:
        yield Guess(Likely.UNKNOWN, "the command is known only when it runs")
        return
    name = first.rpartition("/")[2]
    if first in around.functions:
        return  # what it does is in the same text
    if name != first and not _AT_HOME.fullmatch(first):
        yield runs_code(first)
        return
    if around.hosted and name in CLIENTS:
        yield leaves(name)
    through = _wrapped if name in table.WRAPPERS else _THROUGH.get(name)
    if through is None:
        yield judge(name, command.words[1:], around.place)
    else:
        yield from through(name, command, replace(around, depth=around.depth + 1))


def _opaque(name: str, command: Command, around: _Around) -> Iterator[Guess]:
    del command, around
    yield runs_code(name)


def _eval(name: str, command: Command, around: _Around) -> Iterator[Guess]:
    known = [one for one in command.words[1:] if one is not None]
    if len(known) == len(command.words) - 1:
        yield from _script(" ".join(known), around.place, around.depth)
    else:
        yield unknown(name)


def _shell(name: str, command: Command, around: _Around) -> Iterator[Guess]:
    rest, stdin, depth = list(command.words[1:]), command.stdin, around.depth
    while rest and rest[0] is not None and rest[0].startswith(("-", "+")):
        option = rest.pop(0)
        assert option is not None
        if option == "--version":
            yield reads(name)
            return
        if not option.startswith("--") and "c" in option:
            text: Word = rest[0] if rest else ""
            if text is None:
                yield unknown(f"{name} -c with a text made as it runs")
            else:
                yield from _script(text, around.place, depth)
            return
        if option in {"-o", "+o", "-O", "+O"} and rest:
            rest.pop(0)
    if not rest and stdin is not None:
        yield from _script(stdin, around.place, depth)
    else:
        yield runs_code(f"{name} {rest[0]}" if rest and rest[0] else name)


def _env(name: str, command: Command, around: _Around) -> Iterator[Guess]:
    rest = list(command.words[1:])
    sets: list[str] = []
    while rest and rest[0] is not None:
        word = rest[0]
        if word in {"-u", "-C", "--unset", "--chdir"}:
            del rest[:2]
        elif word in {"-S", "--split-string"} or word.startswith("--split-string="):
            yield unknown(f"{name} -S")
            return
        elif word.startswith("-"):
            del rest[0]
        elif "=" in word:
            sets.append(word.partition("=")[0])
            del rest[0]
        else:
            break
    if rest:
        yield from _run(Command(tuple(rest), tuple(sets)), around)
    else:
        yield reads(name)


_FIND_WRITES = frozenset({"-fprint", "-fprint0", "-fprintf", "-fls"})
_FIND_RUNS = frozenset({"-exec", "-execdir", "-ok", "-okdir"})


def _find(name: str, command: Command, around: _Around) -> Iterator[Guess]:
    args = command.words[1:]
    yield reads(name)
    if "-delete" in args:
        yield Guess(Likely.FILES, "find -delete: writes files")
    if _FIND_WRITES.intersection(args):
        yield Guess(Likely.FILES, "find -fprint: writes files")
    rest = list(args)
    while rest:
        if rest.pop(0) in _FIND_RUNS:
            inside: list[Word] = []
            while rest and rest[0] not in {";", "+"}:
                inside.append(rest.pop(0))
            yield from _run(Command(tuple(inside)), around)


def _wrapped(name: str, command: Command, around: _Around) -> Iterator[Guess]:
    """A command whose arguments are a command."""
    valued, skip = table.WRAPPERS[name]
    args = command.words[1:]
    rest = list(args)
    if name == "command" and has(args[:1], "vV"):
        yield reads("command -v")
        return
    if name == "sudo" and has(args[:1], "eils"):
        yield unknown(f"sudo {args[0]}")
        return
    while rest and rest[0] is not None and rest[0].startswith("-") and len(rest[0]) > 1:
        option = rest.pop(0)
        assert option is not None
        if not option.startswith("--") and option[-1] in valued and len(option) == 2:
            del rest[:1]
    del rest[:skip]
    if name == "sudo":
        while rest and rest[0] is not None and re.match(r"\w+=", rest[0]):
            del rest[0]
    if name in {"script", "flock"} and has(args, "c", "--command"):
        yield runs_code(f"{name} -c")
        return
    if rest:
        fed: tuple[Word, ...] = (None,) if name in {"xargs", "parallel"} else ()
        yield from _run(Command((*rest, *fed)), around)
    elif name == "unshare":
        yield starts(name)
    else:
        yield reads(name)


_THROUGH: dict[str, Callable[[str, Command, _Around], Iterator[Guess]]] = {
    **dict.fromkeys(table.SHELLS, _shell),
    **dict.fromkeys((".", "source", "alias", "su", "enable"), _opaque),
    "eval": _eval,
    "env": _env,
    "find": _find,
}
"""Commands that run others, or text that is not here."""
