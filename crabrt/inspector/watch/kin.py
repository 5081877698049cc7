"""Which processes belong to a run: its own process, what descends from it, and what says so itself.

Only of live processes can that be told. A daemon that left its family is known by a variable that
everything started in the run inherits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_ANCESTORS_MOST: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Kin:
    """The processes of one run.

    Attributes:
        pid: its own process.
        mark: ``NAME=VALUE`` in the environment of everything it starts; empty if there is none. Of
            several runs in one process the variable names all, with commas between them.
    """

    pid: int
    mark: bytes = b""

    def owns(self, pid: int) -> bool | None:
        """Whether `pid` is one of them; None if that can no longer be told."""
        if pid == self.pid:
            return True
        if pid <= 0:
            return None
        at = pid
        for _ in range(_ANCESTORS_MOST):
            parent = _parent(at)
            if parent is None:
                return None
            if parent == self.pid:
                return True
            if parent <= 1:
                return self._is_marked(pid)
            at = parent
        return None

    def _is_marked(self, pid: int) -> bool | None:
        if not self.mark:
            return False
        name, _, run = self.mark.partition(b"=")
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                found = [line.partition(b"=") for line in file.read().split(b"\0")]
        except OSError:
            return None
        return any(known == name and run in runs.split(b",") for known, _, runs in found)


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None
