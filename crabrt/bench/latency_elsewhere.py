"""What `latency` times in another directory: restores, forks, plain copies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from crabrt.bench import floor, trees
from crabrt.bench.harness import Case, timed
from crabrt.bench.peers import Peer
from crabrt.bench.report import FLOOR, OURS, Times
from crabrt.bench.subject import Subject
from crabrt.journal import RunIndex
from crabrt.operations.forking import fork_to
from crabrt.operations.targets import resolve
from crabrt.runtime import open_run
from crabrt.store import Store
from crabrt.workspace import restore_to


class Elsewhere:
    """One tree, brought to an empty directory in every way. A context manager.

    A run of its own, made here, is what is forked.
    """

    def __init__(
        self, tree: trees.Tree, ground: Path, subject: Subject, peers: Sequence[Peer]
    ) -> None:
        self._tree, self._subject, self._peers = tree, subject, peers
        self._target = ground / "elsewhere"
        home = ground / "fork-store"
        with open_run(workspace=tree.path, name="bench", home=home):
            pass
        self._forked = Store.open(home)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._forked.close()

    def cases(self) -> dict[str, Case]:
        """Each way, by who goes it."""
        cases: dict[str, Case] = {OURS: self._ours, FLOOR: self._copy}
        for peer in self._peers:
            cases[peer.name] = lambda peer=peer: {  # type: ignore[misc]
                "restore elsewhere": self._into(lambda: peer.restore(self._target))
            }
        return cases

    def _ours(self) -> Times:
        store, root = self._subject.store, self._subject.root
        return {
            "restore elsewhere": self._into(lambda: restore_to(store, root, self._target)),
            "fork": self._into(self._fork),
        }

    def _copy(self) -> Times:
        tree = self._tree
        copy = self._into(lambda: floor.copy_ms(tree.path, tree.files, self._target))
        return {"copy": copy}

    def _fork(self) -> None:
        with RunIndex.open(self._forked.home) as index:
            index.refresh()
            state = resolve(index, "last@0")
        fork_to(self._forked, state, self._target)

    def _into(self, work: Callable[[], object]) -> float:
        """How long `work` takes to fill the target, which is removed again."""
        took_ms, _ = timed(work)
        shutil.rmtree(self._target)
        return took_ms
