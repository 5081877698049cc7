"""What a task is: a scripted agent that makes processes, and questions only they can answer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

_POSTGRES = Path("/usr/lib/postgresql")
"""Where Debian has its programs, a directory for each version."""


class Tool(StrEnum):
    """Which of the agent's tools a call is for.

    Attributes:
        SH: a shell command in a process of its own; what it leaves in the background lives on.
        BASH: a command in the agent's one `crabrt.Shell`.
    """

    SH = "sh"
    BASH = "bash"


@dataclass(frozen=True)
class Call:
    """One call: which tool, and the command it gets.

    Commands run in the workspace. ``$PY`` is a Python, ``$PORT`` a free port of this machine.
    """

    tool: Tool
    command: str


@dataclass(frozen=True)
class Task:
    """A task, the same at every run: what its calls print does not depend on time or luck.

    Attributes:
        name: as ``--task`` names it.
        about: what process state it makes.
        turns: the calls that the scripted model asks for, turn by turn.
        questions: asked in a last turn, and after a restore of any. They change nothing; the
            answers come out of the memory of processes.
        files: what the workspace begins with: text by relative path.
        programs: that it needs besides Python.
        apart: paths whose bytes are never the same twice (a write-ahead log): not compared.
    """

    name: str
    about: str
    turns: tuple[tuple[Call, ...], ...]
    questions: tuple[Call, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    @property
    def script(self) -> tuple[tuple[Call, ...], ...]:
        """All turns, the last of which asks the questions."""
        return (*self.turns, self.questions)

    def missing(self, path: str) -> tuple[str, ...]:
        """Those of its programs that are not installed, looked for in `path`."""
        return tuple(name for name in self.programs if shutil.which(name, path=path) is None)


def sh(command: str) -> Call:
    """A call of the tool that runs each command in a process of its own."""
    return Call(Tool.SH, command)


def bash(command: str) -> Call:
    """A call of the tool that is one shell."""
    return Call(Tool.BASH, command)


def search_path(path: str) -> str:
    """`path` and where this machine keeps programs that are not on it."""
    found = sorted(_POSTGRES.glob("*/bin")) if _POSTGRES.is_dir() else []
    return ":".join([path, *(str(one) for one in found[-1:])])
