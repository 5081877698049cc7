"""What a writer relies on before a journal says so: its half of the gc protocol.

The whole protocol, and why it is safe, is in ``docs/internals/store.md``. In short: gc removes a
pack only after every writer that is *active* has answered the list that condemns it. A writer is
active from its first `put` to the end of the commit that the `put` belongs to. It publishes that
before it reads the lists, gc publishes a list before it reads who is active: one of the two sees
the other.
"""

from __future__ import annotations

import os
from pathlib import Path

from crabrt.core.ids import ObjectId
from crabrt.store import condemned, layout
from crabrt.store.locks import HeldLock

ACTIVE = b"+"
IDLE = b"-"
"""What a writer's lock file begins with."""

_FOUND_MAX = 32_768


class References:
    """The references of one writer. Its lock guards it.

    Attributes:
        active: whether gc has to wait for this writer.
        loose: whether something was put outside of any commit, so that it stays active.
    """

    def __init__(self, home: Path, writer: str, held: HeldLock) -> None:
        self.active = False
        self.loose = False
        self._home = home
        self._writer = writer
        self._held = held
        self._commits = 0
        self._lists: dict[int, frozenset[str]] = {}
        self._answered: set[int] = set()
        self._condemned: frozenset[str] = frozenset()
        self._present: set[str] = set()
        self._found: dict[ObjectId, str] = {}
        self._needed: set[str] = set()

    def begin(self) -> list[int]:
        """A commit begins; the lists to answer, as `activate`."""
        self._commits += 1
        return self._activate()

    def end(self) -> None:
        """A commit ended. With the last one, nothing is relied on any more."""
        self._commits -= 1
        if self._commits == 0 and not self.loose:
            self._found.clear()
            self._needed.clear()
            self.active = False
            self._held.set_state(IDLE)

    def activate(self) -> list[int]:
        """A `put` outside of any commit: active from now on until the writer closes."""
        self.loose = True
        return self._activate()

    def _activate(self) -> list[int]:
        if self.active:
            return []
        self._held.set_state(ACTIVE)
        self.active = True
        return self.read_lists()

    def read_lists(self) -> list[int]:
        """Read what is condemned now; the numbers of the lists not answered yet."""
        self._present.clear()
        numbers = condemned.lists(self._home)
        self._lists = {n: self._lists.get(n) or condemned.read_list(self._home, n) for n in numbers}
        self._condemned = frozenset().union(*self._lists.values())
        self._answered &= self._lists.keys()
        return [number for number in numbers if number not in self._answered]

    def condemned(self, pack: str) -> bool:
        """Whether a list names the pack."""
        return pack in self._condemned

    def usable(self, pack: str) -> bool:
        """Whether an object in that pack needs no other copy: it exists and is not condemned."""
        if pack in self._condemned:
            return False
        if pack not in self._present:
            if not os.path.exists(layout.pack_path(self._home, pack)):
                return False
            self._present.add(pack)
        return True

    def found(self, object_id: ObjectId, pack: str) -> None:
        """An object was put and found in `pack`. Beyond a limit, the whole pack is remembered."""
        if len(self._found) < _FOUND_MAX:
            self._found[object_id] = pack
        else:
            self._needed.add(pack)

    def sealed(self, pack: str) -> None:
        """A pack of this writer is sealed: from now on gc may look at it."""
        self._needed.add(pack)

    def threatened(self) -> list[ObjectId]:
        """The objects that were found in packs which are condemned now."""
        return [object_id for object_id, pack in self._found.items() if pack in self._condemned]

    def lost(self, object_id: ObjectId) -> None:
        """An object that was found cannot be read any more."""
        self._found.pop(object_id, None)

    def answer(self, number: int) -> None:
        """Tell gc that list `number` is known, and which packs on it must stay.

        Raises:
            OSError: it cannot be written.
        """
        keep = self._lists.get(number, frozenset()) & self._needed
        condemned.answer(self._home, number, self._writer, keep)
        self._answered.add(number)
