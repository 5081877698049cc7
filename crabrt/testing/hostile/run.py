"""A run of hostile turns on one directory: the same seed does the same things."""

from __future__ import annotations

import os
import random
import types
from dataclasses import dataclass
from typing import Self

from crabrt.testing.hostile.hand import OPERATIONS, Hand, NotApplicable, Unsupported
from crabrt.testing.hostile.holder import Holder

_STEPS_MOST = 6
_TRIES = 40
_QUIET_TURNS = 0.2  # of all turns: nothing but operations whose net change is nothing
_START_FILES = 12


@dataclass(frozen=True)
class Step:
    """One operation that was done: its name, and what it did to what."""

    operation: str
    what: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.what}"


@dataclass(frozen=True)
class Turn:
    """What a turn did.

    Attributes:
        number: counted from 1.
        steps: in order.
        undone: every step undid itself, so the turn should have changed nothing.
    """

    number: int
    steps: tuple[Step, ...]
    undone: bool

    def __str__(self) -> str:
        return f"turn {self.number}: " + "; ".join(map(str, self.steps))


class HostileRun:
    """Hostile turns on `root`, which is filled first if it is empty.

    Between two calls of `turn` nothing of this run writes to the tree, though its holders live on
    with their mappings and descriptors; so a digest taken there is a digest of the turn.

    Args:
        seed: printed with every failure; the same seed does the same things.
        root: the tree; made if absent.
        outside: a directory beside the tree, on its file system, for operations that reach in from
            there (a hard link written outside, a file moved in); None leaves those out.
    """

    def __init__(
        self,
        seed: int,
        root: str | bytes | os.PathLike[str],
        *,
        outside: str | bytes | os.PathLike[str] | None = None,
    ) -> None:
        self.seed = seed
        self.turns = 0
        self.unsupported: dict[str, str] = {}
        """Operations that this kernel or file system could not do, and what it answered."""
        self._hand = Hand(
            os.path.abspath(os.fsencode(root)),
            None if outside is None else os.path.abspath(os.fsencode(outside)),
            random.Random(f"{seed}"),
        )
        for directory in (self._hand.root, self._hand.outside):
            if directory is not None:
                os.makedirs(directory, exist_ok=True)
        if not os.listdir(self._hand.root):
            self._fill()

    def _fill(self) -> None:
        for name in ("make a directory", "make a directory"):
            OPERATIONS[name].act(self._hand)
        for _ in range(_START_FILES):
            OPERATIONS["make a file"].act(self._hand)

    def turn(self) -> Turn:
        """Do the next turn; what it did.

        Raises:
            OSError: an operation failed in a way that is no answer of the kernel to its kind.
        """
        self.turns += 1
        hand = self._hand
        hand.turn = self.turns
        hand.rng = random.Random(f"{self.seed}/{self.turns}")
        quiet = hand.rng.random() < _QUIET_TURNS
        names = [name for name in sorted(OPERATIONS) if OPERATIONS[name].undone or not quiet]
        weights = [OPERATIONS[name].weight for name in names]
        wanted = hand.rng.randint(1, _STEPS_MOST)
        steps: list[Step] = []
        for _ in range(_TRIES):
            if len(steps) == wanted:
                break
            step = self._try(*hand.rng.choices(names, weights))
            if step is not None:
                steps.append(step)
        return Turn(self.turns, tuple(steps), all(OPERATIONS[s.operation].undone for s in steps))

    def do(self, name: str) -> Step:
        """Do one operation by name, outside of any turn.

        Raises:
            NotApplicable: there is nothing to do it to, or this file system cannot.
        """
        return Step(name, OPERATIONS[name].act(self._hand))

    @property
    def root(self) -> bytes:
        """The tree's absolute path."""
        return self._hand.root

    def held(self) -> dict[bytes, Holder]:
        """The live processes of this run, by the path that each holds."""
        return dict(self._hand.held)

    def _try(self, name: str) -> Step | None:
        try:
            return self.do(name)
        except Unsupported as error:
            self.unsupported[name] = str(error)
        except NotApplicable:
            pass
        return None

    def close(self) -> None:
        """End every process that this run started."""
        for holder in self._hand.held.values():
            holder.close()
        self._hand.held.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()
