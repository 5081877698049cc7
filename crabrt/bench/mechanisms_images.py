"""Memory rows of ``crab bench mechanisms``: one process, imaged and brought back in every way.

CRIU alone and crabrt image the very same tree, one right before or after the other, and which is
first changes from round to round.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crabrt.bench import trees
from crabrt.bench.apart import WorkFailed
from crabrt.bench.brood import Brood
from crabrt.bench.harness import Case, interleave, settle, timed
from crabrt.bench.mechanisms_criu import Alone, images_bytes, in_memory
from crabrt.bench.mechanisms_found import Found
from crabrt.bench.mechanisms_loop import LIMIT_S, ask, start_holder
from crabrt.bench.mechanisms_replay import REPLAY, Log
from crabrt.bench.report import OURS, Times
from crabrt.core.entries import Checkpoint, Exposed
from crabrt.core.ids import RunId
from crabrt.journal import read_journal, run_dir
from crabrt.process.criu import Criu

CRIU = "criu"
_ENTRIES = 200
_POLL_S = 0.01
_LOOP = "crabrt.bench.mechanisms_loop"


class Loop:
    """A run that does as it is told, and what its checkpoints say.

    Args:
        brood: ends it at last.
        arguments: as of ``mechanisms_loop.hosted``.
        environ: what it sees; it has ``CRAB_HOME``.

    Raises:
        WorkFailed: it gave an error.
    """

    def __init__(
        self, brood: Brood, arguments: Mapping[str, Any], environ: Mapping[str, str]
    ) -> None:
        self._worker = brood.worker(f"{_LOOP}:hosted", arguments, environ)
        self._home = Path(environ["CRAB_HOME"])
        said = self._worker.hear()
        self.run: str = said["run"]
        self.turn: int = said["thinks"]

    @contextlib.contextmanager
    def call(self, *words: object) -> Iterator[str]:
        """A turn of one tool call: what it gave, while it has not ended yet.

        Raises:
            WorkFailed: it gave an error.
        """
        self._worker.tell(" ".join(map(str, words)))
        yield str(self._worker.hear()["did"])
        self._worker.tell("go on")
        self.turn = self._worker.hear()["thinks"]

    def checkpoint(self, turn: int) -> Checkpoint:
        """That of a turn, once it is durable.

        Raises:
            WorkFailed: it never is.
        """
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            for record in read_journal(run_dir(self._home, RunId(self.run))):
                body = record.body
                if isinstance(body, Exposed) and body.turn == turn:
                    raise WorkFailed(f"turn {turn} is unprotected: {body.reason}")
                if isinstance(body, Checkpoint) and (body.turn, body.inner) == (turn, 0):
                    if body.unimaged:
                        raise WorkFailed(f"turn {turn} is incomplete: {body.unimaged[0]}")
                    return body
            time.sleep(_POLL_S)
        raise WorkFailed(f"turn {turn} does not become durable")

    def take(self, *words: object) -> Checkpoint:
        """A turn of one call, and its checkpoint."""
        turn = self.turn
        with self.call(*words):
            pass
        return self.checkpoint(turn)

    def end(self) -> None:
        """Let it end. What its tools have started goes on."""
        self._worker.tell("")
        self._worker.finish()

    def kill(self) -> None:
        """SIGKILL for it, and for nothing that it has started."""
        os.kill(self._worker.pid, signal.SIGKILL)
        self._worker.stop()


@dataclass(frozen=True)
class Where:
    """What a measurement of processes needs.

    Attributes:
        ground: a directory on the file system to be measured; made, and removed by whoever made it.
        criu: who images.
        environ: what commands and workers see.
    """

    ground: Path
    criu: Criu
    environ: Mapping[str, str]

    @property
    def workspace(self) -> Path:
        """Of the run."""
        return self.ground / "ws"

    @property
    def seen(self) -> dict[str, str]:
        """What the run sees: a store of its own, and this CRIU."""
        return {
            **self.environ,
            "CRAB_HOME": str(self.ground / "store"),
            "CRAB_CRIU": str(self.criu.program),
            "CRAB_NETWORK_OBSERVER": "off",
        }


class Memory:
    """One round for one size of memory.

    Args:
        where: a ground of its own.
        size_bytes: of the memory.
        number: of the round.
        found: is told everything.
    """

    def __init__(self, where: Where, size_bytes: int, number: int, found: Found) -> None:
        self._where, self._size, self._number, self._found = where, size_bytes, number, found
        self._address = where.ground / "address"
        self._known = ""
        self._said: dict[str, str] = {}
        self._turns: dict[str, int] = {}
        self._changes: list[tuple[object, ...]] = []

    def measure(self) -> None:
        """Snapshots, then restores.

        Raises:
            WorkFailed: something could not be done.
        """
        where, found = self._where, self._found
        trees.make_tree(where.workspace, _ENTRIES)
        with Brood() as brood, in_memory() as memory:
            alone = Alone(where.criu, where.ground, brood, where.environ)
            loop = Loop(brood, self._arguments(), where.seen)
            loop.checkpoint(0)
            self._snapshots(loop, _Plain(alone, memory, where, found), found)
            self._sleeping(loop, found)
            loop.end()
            for which in ("first", "second"):
                cases = self._restores(which, brood, alone, memory / which, loop.run)
                interleave(cases, found.times, self._number, where.ground)

    def _arguments(self) -> dict[str, Any]:
        return {
            "workspace": str(self._where.workspace),
            "size": self._size,
            "seed": self._number,
            "address": str(self._address),
        }

    def _snapshots(self, loop: Loop, plain: _Plain, found: Found) -> None:
        """First and second image, by both; then one where scattered pages changed."""
        log = Log(self._where.ground / "log")
        for which, words in (
            ("first", ("start",)),
            ("second", ("change", 1_000 + self._number, "extents")),
            ("scattered", ("change", 2_000 + self._number, "scattered")),
        ):
            turn = self._turns[which] = loop.turn
            settle(self._where.ground)
            with loop.call(*words) as answer:
                if which == "first":
                    plain.pid, self._known = int(answer), self._address.read_text()
                else:
                    self._changes.append(words)
                self._said[which] = ask(self._address)
                if self._number % 2 == 0:
                    plain.take(which)
            _add(loop.checkpoint(turn), which, found)
            found.times.add(REPLAY, {f"{which} snapshot": log.append_ms(list(words))})
            if self._number % 2:
                plain.take(which)

    def _sleeping(self, loop: Loop, found: Found) -> None:
        """Turns in which nothing runs: in the first one that is proved, the others know it."""
        proof = loop.take("nothing")
        asleep = [loop.take("nothing") for _ in range(3)]
        found.times.add(OURS, {"asleep, proved once": proof.capture_ms})
        found.times.add(OURS, {"asleep": max(one.capture_ms for one in asleep)})
        found.stored.add(OURS, {"asleep": sum(one.bytes_stored for one in (proof, *asleep))})
        found.images.add(OURS, {"asleep": sum(one.frozen_ms > 0 for one in (proof, *asleep))})

    def _restores(
        self, which: str, brood: Brood, alone: Alone, images: Path, run: str
    ) -> dict[str, Case]:
        target = f"{run}@{self._turns[which]}"
        words = {"workspace": str(self._where.workspace), "target": target}

        def ours() -> Times:
            done = brood.apart(f"{_LOOP}:restored", words, self._where.seen).result
            self._found.wrong.extend(f"{which} restore: {why}" for why in done["missing"])
            return {f"{which} restore": done["restore_ms"], "CRIU tried out": done["trial_ms"]}

        def again() -> Times:
            return {f"{which} restore": timed(lambda: self._replay(which))[0]}

        def plain() -> Times:
            return {f"{which} restore": alone.restore_ms(images)}

        cases = {OURS: ours, CRIU: plain, REPLAY: again}
        return {who: self._checked(who, which, brood, case) for who, case in cases.items()}

    def _replay(self, which: str) -> None:
        start_holder(self._address, self._size, self._number, self._where.workspace)
        if which == "second":
            ask(self._address, *self._changes[0])

    def _checked(self, who: str, which: str, brood: Brood, case: Case) -> Case:
        """The case where nobody is alive before, and who is alive then is who was."""

        def work() -> Times:
            brood.end_all()
            self._address.write_text(self._known)  # a replay has another one
            took = case()
            said = ask(self._address)
            if said != self._said[which]:
                text = f"{who}, {which} restore: {said!r} instead of {self._said[which]!r}"
                self._found.wrong.append(text)
            brood.end_all()
            return took

        return work


def _add(made: Checkpoint, which: str, found: Found) -> None:
    found.times.add(
        OURS,
        {
            f"{which} snapshot, frozen": made.frozen_ms,
            f"{which} snapshot": made.capture_ms,
            f"{which} snapshot, durable": made.durable_ms,
        },
    )
    found.stored.add(OURS, {f"{which} snapshot": made.bytes_stored})


class _Plain:
    """CRIU alone on the tree `pid`; images in memory, kept; and durable ones on the disk."""

    def __init__(self, alone: Alone, memory: Path, where: Where, found: Found) -> None:
        self.pid = 0
        self._alone, self._memory, self._where = alone, memory, where
        self._found = found

    def take(self, which: str) -> None:
        """One image; of scattered pages CRIU knows nothing."""
        if which == "scattered":
            return
        into = self._memory / which
        self._found.times.add(CRIU, {f"{which} snapshot": self._alone.dump_ms(self.pid, into)})
        self._found.stored.add(CRIU, {f"{which} snapshot": images_bytes(into)})
        on_disk = self._alone.durable_ms(self.pid, self._where.ground / "images")
        self._found.times.add(CRIU, {f"{which} snapshot, durable": on_disk})
