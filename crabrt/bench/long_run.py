"""A long run, made through the public API, and its turns restored: the work of `any_turn`."""

from __future__ import annotations

import os
import random
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crabrt.bench import trees
from crabrt.bench.apart import Link
from crabrt.bench.harness import timed
from crabrt.journal import RunIndex
from crabrt.operations.restoring import restore_beside, restore_state
from crabrt.operations.targets import State, resolve
from crabrt.runtime import open_run
from crabrt.store import Store
from crabrt.testing import oracle
from crabrt.workspace import Workspace

_GATE_LIMIT_MS = 120_000
_MADE_MOST = 30
_TOLD_EVERY = 200


class _Hand:
    """Does a little to a tree, so that it stays about as large as it is."""

    def __init__(self, tree: trees.Tree, rng: random.Random) -> None:
        self._tree, self._rng = tree, rng
        self._made: list[Path] = []
        self._number = 0

    def act(self) -> str:
        """One of many small changes, or none."""
        kinds: dict[str, Callable[[], None]] = {
            "nothing": lambda: None,
            "edit": lambda: self._tree.edit(1, self._rng).apply(),
            "edit three": lambda: self._tree.edit(3, self._rng).apply(),
            "make": self._make,
            "remove": self._remove,
            "rename": self._rename,
            "mode": self._mode,
            "link": self._link,
        }
        kind = self._rng.choices(list(kinds), (4, 6, 2, 2, 2, 1, 1, 1))[0]
        kinds[kind]()
        return kind

    def _new(self) -> Path:
        self._number += 1
        if len(self._made) >= _MADE_MOST:
            self._remove()
        directory = (self._tree.path / self._rng.choice(self._tree.files)).parent
        path = directory / f"made-{self._number}"
        self._made.append(path)
        return path

    def _make(self) -> None:
        self._new().write_bytes(self._rng.randbytes(self._rng.randrange(4_000)))

    def _link(self) -> None:
        self._new().symlink_to(self._rng.choice(self._tree.files))

    def _remove(self) -> None:
        if self._made:
            self._made.pop(self._rng.randrange(len(self._made))).unlink()

    def _rename(self) -> None:
        if self._made:
            old = self._made.pop(self._rng.randrange(len(self._made)))
            os.rename(old, self._new())

    def _mode(self) -> None:
        path = self._tree.path / self._rng.choice(self._tree.files)
        path.chmod(self._rng.choice((0o600, 0o640, 0o644, 0o755)))


def live(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """Make the run; a digest of the oracle for each of its turns, turn 0 first. A `Work`.

    Args:
        arguments: ``tree`` (made here), ``entries``, ``turns``, ``seed``, ``home``, ``observer``.
        link: told how far it is.
    """
    rng = trees.seeded(arguments["seed"])
    tree = trees.make_tree(Path(arguments["tree"]), arguments["entries"])
    hand = _Hand(tree, rng)
    digests = [oracle.digest(tree.path)]
    with open_run(
        workspace=tree.path,
        home=Path(arguments["home"]),
        name="long",
        observer=arguments["observer"],
        gate_limit_ms=_GATE_LIMIT_MS,
    ) as run:
        for number in range(1, arguments["turns"] + 1):
            run.model_call([{"role": "user", "content": f"turn {number}"}], lambda: "go on")
            run.tool_call("hand", {"number": number}, hand.act)
            digests.append(oracle.digest(tree.path))
            if number % _TOLD_EVERY == 0:
                link.say({"turn": number})
        if run.turn != arguments["turns"]:
            raise RuntimeError(f"{arguments['turns']} turns became {run.turn}")
    unprotected = [row.turn for row in run.history() if not row.restorable]
    return {"run": run.id, "digests": digests, "unprotected": unprotected}


def elsewhere(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """Restore turns to an empty directory, one after the other. A `Work`.

    Args:
        arguments: ``home``, ``run``, ``turns`` (numbers, in the order wanted), ``digests`` of all
            turns, ``target``.
        link: told how far it is.
    """
    target, digests = Path(arguments["target"]), arguments["digests"]
    took_ms: list[float] = []
    wrong: list[int] = []
    with Store.open(Path(arguments["home"])) as store, RunIndex.open(store.home) as index:
        index.refresh()
        for turn in arguments["turns"]:

            def work(turn: int = turn) -> object:
                state = resolve(index, f"{arguments['run']}@{turn}")
                return restore_beside(store, index, state, target)

            took_ms.append(timed(work)[0])
            if oracle.digest(target) != digests[turn]:
                wrong.append(turn)
            shutil.rmtree(target)
            if len(took_ms) % _TOLD_EVERY == 0:
                link.say({"restored": len(took_ms)})
    return {"took_ms": took_ms, "wrong": wrong}


def in_place(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """Put the workspace back by one turn, from many turns. A `Work`.

    Each restore is measured from the state of the turn after it, which changed something, so that
    all of them have about as much to do; getting there is a restore too, and is compared as well.

    Args:
        arguments: as of `elsewhere`, but ``tree`` instead of ``target``.
        link: told how far it is.
    """
    tree, digests = Path(arguments["tree"]), arguments["digests"]
    took_ms: list[float] = []
    wrong: list[int] = []
    with (
        Store.open(Path(arguments["home"])) as store,
        store.writer() as writer,
        RunIndex.open(store.home) as index,
    ):
        index.refresh()
        workspace = Workspace.open(tree, store.home)

        def back_to(turn: int) -> float:
            def work() -> object:
                state: State = resolve(index, f"{arguments['run']}@{turn}")
                return restore_state(index, writer, workspace, state)

            ms, _ = timed(work)
            if oracle.digest(tree) != digests[turn]:
                wrong.append(turn)
            return ms

        for turn in arguments["turns"]:
            back_to(turn + 1)
            took_ms.append(back_to(turn))
            if len(took_ms) % _TOLD_EVERY == 0:
                link.say({"restored in place": len(took_ms)})
    return {"took_ms": took_ms, "wrong": wrong}


def early_and_late(turns: list[int], took_ms: list[float], last: int) -> tuple[float, float]:
    """Medians over the first and the last tenth of a run's turns; 0 where none was restored."""
    tenth = max(1, last // 10)
    timed_turns = list(zip(turns, took_ms, strict=True))
    early = [ms for turn, ms in timed_turns if turn <= tenth]
    late = [ms for turn, ms in timed_turns if turn > last - tenth]
    if not early or not late:
        return 0.0, 0.0
    return statistics.median(early), statistics.median(late)
