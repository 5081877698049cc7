"""One agent among many on a host: what `density` has each of its workers do.

It has a tree of its own and a script (how long the model thinks, how many files the turn then
changes), waits until all others are ready too, and lives it: under crabrt in a store that all
share, or plainly.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from crabrt.bench import trees
from crabrt.bench.apart import Link, cpu_s
from crabrt.runtime import Run, open_run
from crabrt.traces import Trace

Step = tuple[float, int]
"""How many ms the model takes, and how many files its tools then change."""


def steps_of(trace: Trace) -> list[Step]:
    """The script in a recorded run; empty where it tells neither waits nor changes."""
    steps: list[Step] = []
    for turn in trace.turns:
        waits = [model.wait_ms for model in turn.models if model.wait_ms is not None]
        if waits and turn.tools:
            files = turn.files
            changed = 0 if files is None else files.added + files.changed + files.removed
            steps.append((sum(waits), changed))
    return steps


def live(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """One agent. A `Work`: it says that it is ready, and begins when it is told.

    Args:
        arguments: ``tree`` (made if it is not there), ``entries``, ``steps``, ``speed``, ``seed``,
            ``home`` (None: without crabrt), ``observer``.
        link: to those who wait for all.
    """
    path, rng = Path(arguments["tree"]), trees.seeded(arguments["seed"])
    tree = trees.tree_at(path) if path.exists() else trees.make_tree(path, arguments["entries"])
    agent = _Agent(tree, rng, arguments)
    link.say({"entries": tree.entries})
    link.listen()
    return agent.live()


class _Agent:
    """Asks, acts, asks."""

    def __init__(self, tree: trees.Tree, rng: random.Random, arguments: dict[str, Any]) -> None:
        self._tree, self._rng, self._given = tree, rng, arguments

    def live(self) -> dict[str, Any]:
        """The whole life; what it took, in seconds, and what gates held, in ms."""
        steps: Sequence[Step] = self._given["steps"]
        began, began_cpu_s = time.perf_counter(), cpu_s()
        first_s = 0.0
        with ExitStack() as stack:
            run = self._open(stack)
            for number, (wait_ms, files) in enumerate(steps):
                self._turn(run, wait_ms, files)
                if number == 0:
                    first_s = time.perf_counter() - began
            loop_s = time.perf_counter() - began
        found: dict[str, Any] = {
            "wall_s": time.perf_counter() - began,
            "loop_s": loop_s,
            "first_s": first_s,
            "turns": len(steps),
            "cpu_s": cpu_s() - began_cpu_s,
        }
        if run is not None:
            rows = run.history()
            found["baseline_ms"] = rows[0].exposed_ms
            found["exposed_ms"] = [row.exposed_ms for row in rows if row.turn]
            found["unprotected"] = sum(bool(row.unprotected) for row in rows)
        return found

    def _open(self, stack: ExitStack) -> Run | None:
        home, observer = self._given["home"], self._given["observer"]
        if home is None:
            return None
        opened = open_run(
            workspace=self._tree.path, home=Path(home), name="agent", observer=observer
        )
        return stack.enter_context(opened)

    def _turn(self, run: Run | None, wait_ms: float, files: int) -> None:
        wait_s = wait_ms / 1e3 / self._given["speed"]

        def think() -> str:
            time.sleep(wait_s)
            return "go on"

        def act() -> int:
            if files:
                self._tree.edit(files, self._rng).apply()
            return files

        if run is None:
            think()
            act()
        else:
            run.model_call([{"role": "user", "content": "what next?"}], think)
            run.tool_call("edit", {"files": files}, act)
