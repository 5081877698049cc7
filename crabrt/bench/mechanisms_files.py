"""File rows of ``crab bench mechanisms``: a workspace, kept and put back in every way.

All but the container work on one directory; the container has the same bytes in the upper directory
of an overlay, above the same base. What a mechanism writes is timed twice: until its command is
done, and until that would survive power loss, which crabrt's *durable* is by itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from crabrt.bench import trees
from crabrt.bench.harness import Case, interleave, settle, timed
from crabrt.bench.keeping import State, read_state
from crabrt.bench.mechanisms_content import change_files, write_files
from crabrt.bench.mechanisms_found import Found
from crabrt.bench.mechanisms_peers import Mechanism
from crabrt.bench.report import OURS, Times
from crabrt.bench.subject import Subject

BASE_ENTRIES = 1_000


class Files:
    """One round for one size of files.

    Args:
        ground: made here, and removed.
        size_bytes: of the large files.
        number: of the round.
        classes: those who can be had here.
        observer: of crabrt, as in the configuration.
        environ: what commands see.
        found: is told everything.
    """

    def __init__(
        self,
        ground: Path,
        size_bytes: int,
        number: int,
        classes: Sequence[type[Mechanism]],
        *,
        observer: str,
        environ: Mapping[str, str],
        found: Found,
    ) -> None:
        self._ground, self._size, self._number, self._found = ground, size_bytes, number, found
        self._observer = observer
        self._base, self._work = ground / "base", ground / "ws"
        self._others = [cls(self._work, ground / cls.name, environ) for cls in classes]

    def measure(self) -> None:
        """Snapshots and restores, first and second.

        Raises:
            PeerFailed, CrabError, OSError, subprocess.CalledProcessError: something gave an error.
        """
        trees.make_tree(self._base, BASE_ENTRIES)
        shutil.copytree(self._base, self._work, symlinks=True)
        begun: list[Mechanism] = []
        try:
            with Subject(self._work, self._ground / "store", self._observer) as subject:
                subject.checkpoint()
                for other in self._others:
                    begun.append(other)
                    other.begin(self._base)
                write_files(self._work, self._size, self._number)
                for other in self._others:
                    other.prefix(self._size, self._number)
                self._keep_and_restore("first", subject, self._lose)
                change_files(self._work, self._size, 1_000 + self._number)
                for other in self._others:
                    other.change(self._size, 1_000 + self._number)
                self._keep_and_restore("second", subject, self._change)
        finally:
            for other in begun:
                other.close()

    def _lose(self) -> None:
        """All that was done since the base is gone."""
        shutil.rmtree(self._work / "small")
        shutil.rmtree(self._work / "large", ignore_errors=True)  # none where it has no bytes

    def _change(self) -> None:
        """One more turn changed a small part."""
        change_files(self._work, self._size, 2_000 + self._number)

    def _keep_and_restore(self, which: str, subject: Subject, spoil: Callable[[], None]) -> None:
        times = self._found.times
        interleave(self._snapshots(which, subject), times, self._number, self._ground)
        expected, root = read_state(self._work), subject.root

        def ours() -> Times:
            spoil()
            settle(self._ground)
            plan_ms, apply_ms, _ = subject.restore(root)
            self._check(OURS, which, self._work, expected)
            return {
                f"{which} restore, durable": plan_ms + apply_ms,
                f"{which} restore after its plan": apply_ms,
            }

        cases: dict[str, Case] = {OURS: ours}
        for other in self._others:
            cases[other.name] = self._restore_by(other, which, expected, spoil)
        interleave(cases, times, self._number, self._ground)

    def _snapshots(self, which: str, subject: Subject) -> dict[str, Case]:
        def ours() -> Times:
            made = subject.checkpoint()
            stored_bytes = made.stored_bytes + made.journal_bytes
            self._found.stored.add(OURS, {f"{which} snapshot": stored_bytes})
            captured_ms = made.scan_ms + made.captured_ms
            return {
                f"{which} snapshot": captured_ms,
                f"{which} snapshot, durable": captured_ms + made.durable_ms,
            }

        cases: dict[str, Case] = {OURS: ours}
        for other in self._others:
            cases[other.name] = self._snapshot_by(other, which)
        return cases

    def _snapshot_by(self, other: Mechanism, which: str) -> Case:
        def work() -> Times:
            other.make_ready()
            settle(self._ground)
            before = other.stored_bytes()
            took_ms, synced_ms = self._timed(other.snapshot)
            self._found.stored.add(other.name, {f"{which} snapshot": other.stored_bytes() - before})
            return {
                f"{which} snapshot": took_ms,
                f"{which} snapshot, durable": took_ms + synced_ms,
            }

        return work

    def _restore_by(
        self, other: Mechanism, which: str, expected: State, spoil: Callable[[], None]
    ) -> Case:
        target = self._work if other.in_place else self._ground / f"restored-{other.name}"

        def work() -> Times:
            if other.in_place:
                spoil()
            else:
                other.make_room(target)
            settle(self._ground)
            took_ms, synced_ms = self._timed(lambda: other.restore(target))
            self._check(other.name, which, other.seen(target), expected)
            if not other.in_place:
                other.clear(target)
            return {
                f"{which} restore": took_ms,
                f"{which} restore, durable": took_ms + synced_ms,
            }

        return work

    def _timed(self, work: Callable[[], object]) -> tuple[float, float]:
        """How long it takes, and how long to write it all back then, in ms."""
        return timed(work)[0], timed(lambda: settle(self._ground))[0]

    def _check(self, who: str, which: str, restored: Path, expected: State) -> None:
        if read_state(restored) != expected:
            self._found.wrong.append(f"{who}, {which} restore: other files")
