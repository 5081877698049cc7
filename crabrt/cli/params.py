"""The parameter types of the command line: runs, targets, sizes, ages; with their completion.

A value is parsed here, so that a malformed one is a usage error before anything is opened; what it
names is looked up by ``operations``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from crabrt.core.ids import valid_name
from crabrt.core.targets import LAST, Target, parse_target
from crabrt.errors import CrabError, UsageError
from crabrt.timeline import amounts

if TYPE_CHECKING:
    from crabrt.journal import RunIndex

_COMPLETED = 50


@dataclass(frozen=True)
class FileTarget:
    """``RUN@TURN`` with the ``:PATH`` behind it, if there was one."""

    target: Target
    path: bytes | None


class TargetParam(click.ParamType[Target]):
    """``RUN`` or ``RUN@TURN``.

    Args:
        allow_turn: a target with ``@TURN`` is no usage error.
    """

    name = "target"

    def __init__(self, *, allow_turn: bool = True) -> None:
        self._allow_turn = allow_turn

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Target:
        """Parse it; a malformed one fails as usage."""
        del param, ctx
        if isinstance(value, Target):
            return value
        target = parse_target(str(value))
        if not self._allow_turn and target.at is not None:
            raise UsageError(f"a whole run is meant here, not a turn: {value!r}")
        return target

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Runs; behind an ``@``, turns and labels."""
        del param
        return _complete(ctx, incomplete, turns=self._allow_turn)


class FileTargetParam(click.ParamType[FileTarget]):
    """``RUN[@TURN][:PATH]``."""

    name = "target"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> FileTarget:
        """Parse it; names have no colon, so the first one begins the path."""
        del param, ctx
        if isinstance(value, FileTarget):
            return value
        text, colon, path = str(value).partition(":")
        if colon and not path:
            raise UsageError(f"{value!r} has nothing behind the colon", hint="RUN@TURN:PATH")
        return FileTarget(parse_target(text), os.fsencode(path) if colon else None)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Runs; behind an ``@``, turns and labels."""
        del param
        return _complete(ctx, incomplete, turns=True)


class LabelParam(click.ParamType[str]):
    """A label: ``[A-Za-z0-9._-]+``, no integer and not ``last``."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        if not valid_name(str(value)):
            self.fail(f"{value!r} is no label: [A-Za-z0-9._-]+, no number, not 'last'", param, ctx)
        return str(value)


class SizeParam(click.ParamType[int]):
    """A size in bytes: ``500M``, ``20GiB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it."""
        if isinstance(value, int):
            return value
        try:
            return amounts.parse_size(str(value))
        except (ValueError, IndexError):
            self.fail(f"{value!r} is not a size, e.g. 500M or 20G", param, ctx)


class AgeParam(click.ParamType[float]):
    """An age in seconds: ``12h``, ``14d``."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse it."""
        if isinstance(value, float):
            return value
        try:
            return amounts.parse_duration_s(str(value))
        except (ValueError, IndexError):
            self.fail(f"{value!r} is not an age, e.g. 12h or 14d", param, ctx)


RUN = TargetParam(allow_turn=False)
TARGET = TargetParam()
FILE_TARGET = FileTargetParam()
LABEL = LabelParam()
SIZE = SizeParam()
AGE = AgeParam()


def _complete(ctx: click.Context, incomplete: str, *, turns: bool) -> list[CompletionItem]:
    from crabrt.cli.app import App  # noqa: PLC0415 - completion is a program run of its own

    run_text, at, begun = incomplete.partition("@")
    try:
        with App("completion", home=ctx.params.get("home")) as app:
            if not app.has_store():
                return []
            found = _turns(app.index, run_text, app.cwd) if at else _runs(app.index)
    except CrabError:
        return []  # a shell that asks for suggestions has no place for an error
    if at:
        if not turns:
            return []
        return [
            CompletionItem(f"{run_text}@{text}", help=hint)
            for text, hint in found
            if text.startswith(begun)
        ][:_COMPLETED]
    matching = [(text, hint) for text, hint in found if text.startswith(incomplete)]
    items = [CompletionItem(text, help=hint) for text, hint in matching]
    if turns and len(matching) == 1:  # a second answer keeps the shell from ending the word here
        items.append(CompletionItem(f"{matching[0][0]}@", help="a turn of it"))
    return items[:_COMPLETED]


def _runs(index: RunIndex) -> list[tuple[str, str]]:
    rows = index.runs()
    return [(LAST, "the last run here"), *((row.run, row.name) for row in rows)]


def _turns(index: RunIndex, run_text: str, here: bytes) -> list[tuple[str, str]]:
    from crabrt.operations.targets import last_run  # noqa: PLC0415 - as above

    row = last_run(index, here) if run_text == LAST else index.find(run_text)
    found: list[tuple[str, str]] = [("-1", "the latest turn")]
    for turn in reversed(index.turns(row.run)):
        found += [(label, f"turn {turn.turn}") for label in turn.labels]
        found.append((str(turn.turn), " ".join(turn.verdict)))
    return found
