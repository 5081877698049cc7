"""``crab bench traffic``: how many bytes a turn costs, beside what has to be stored at least.

Generated turns are those of `turns`; recorded runs are replayed without waits on the workspaces
they began on. Every peer keeps every turn (`keeping`).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from crabrt.bench import trees
from crabrt.bench.apart import Link, apart, environment
from crabrt.bench.harness import Progress, machine
from crabrt.bench.keeping import Keepers, Stored
from crabrt.bench.kept import Kept, Unit
from crabrt.bench.peers import present
from crabrt.bench.recorded import CannotMake, Grounds, Recorded, find_recorded
from crabrt.bench.report import OURS, Bar, Report, Samples, Series
from crabrt.bench.turns import Turns
from crabrt.traces import ReplayOptions, read_trace, replay

_GOAL = "1.25 times zstd -3 of changed files and 4 KiB a changed directory"


@dataclass(frozen=True)
class TrafficOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in.
        entries: size of the tree of generated turns.
        turns: how many of them; 0: none.
        seed: of the turns.
        peers: names from `peers.PEERS`; copies are counted without being made.
        traces: directories of recorded runs.
        only: parts of names of them; none: all.
        run_turns: only so many turns of each; None: all.
        keep: file that holds what is done, to go on from.
    """

    scratch: Path
    entries: int = 1_000
    turns: int = 42
    seed: int = 1
    peers: tuple[str, ...] = ("git", "restic", "borg")
    traces: tuple[Path, ...] = ()
    only: tuple[str, ...] = ()
    run_turns: int | None = None
    keep: Path | None = None


def measure_traffic(
    options: TrafficOptions, environ: Mapping[str, str], progress: Progress
) -> Report:
    """Run it.

    Args:
        options: what.
        environ: what the peers' commands see.
        progress: told what is done now.

    Raises:
        PeerFailed, WorkFailed: a peer's command gave an error.
        NotFound: a directory has no recorded runs.
        UsageError: `keep` is of other options.
        CrabError, OSError, subprocess.CalledProcessError: something else did.
    """
    runs, absent = find_recorded(options.traces, options.only)
    settings = {
        "entries": options.entries,
        "turns": options.turns,
        "seed": options.seed,
        "runs": [run.name for run in runs],
        "run_turns": options.run_turns,
    }
    report = Report("traffic", machine(options.scratch), settings)
    keepers_can = [name for name in options.peers if name not in ("cp", "reflink")]
    classes, report.absent = present(keepers_can, options.scratch, environ)
    report.absent.update({} if options.only else absent)
    bench = _Traffic(options, environ, [peer.name for peer in classes], progress)
    with Kept(options.keep, "traffic", settings | {"peers": bench.peers}) as kept:
        generated = kept.once("generated", bench.generated) if options.turns else {}
        by_run: dict[str, list[Stored]] = {}
        for run in runs:
            progress(f"{run.name}: replayed")
            try:
                by_run[run.name] = kept.once(run.name, partial(bench.replayed, run))["turns"]
            except CannotMake as error:
                report.absent[run.name] = error.message
    _summarise(report, "all turns", generated)
    _summarise(report, "all recorded turns", by_run)
    return report


class _Traffic:
    """The units of one measurement."""

    def __init__(
        self,
        options: TrafficOptions,
        environ: Mapping[str, str],
        peers: list[str],
        progress: Progress,
    ) -> None:
        self.peers = peers
        self._options, self._progress = options, progress
        self._environ = environment(environ, options.scratch)
        self._grounds = Grounds(options.scratch, self._environ)

    def generated(self) -> Unit:
        """What each turn stored, by kind of turn."""
        options, found = self._options, dict[str, list[Stored]]()
        ground = options.scratch / "traffic"
        self._progress("making a tree")
        tree = trees.make_tree(ground / "work", options.entries)
        turns = Turns(tree, trees.seeded(options.seed), self._environ)
        turns.prepare()
        with Keepers(tree.path, ground, self.peers, self._environ) as keepers:
            for number in range(options.turns):
                kind = turns.play(number)
                self._progress(f"turn {number + 1}: {kind}")
                found.setdefault(kind, []).append(keepers.turn())
        shutil.rmtree(ground)
        return found

    def replayed(self, run: Recorded) -> Unit:
        """What each turn of a recorded run stored.

        Raises:
            CannotMake: its workspace cannot be made here.
            WorkFailed: it could not be run, or a peer failed.
        """
        ground = self._options.scratch / "kept"
        try:
            with self._grounds.workspace(run) as (workspace, seen):
                arguments = {
                    "file": str(run.file),
                    "trajectory": run.trajectory,
                    "workspace": str(workspace),
                    "environ": seen,
                    "turns": self._options.run_turns,
                    "ground": str(ground),
                    "peers": self.peers,
                    "peer_environ": self._environ,
                }
                return apart("crabrt.bench.traffic:recorded", arguments, self._environ).result
        finally:
            shutil.rmtree(ground, ignore_errors=True)


def recorded(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """A recorded run, again, its workspace kept at the end of every turn. A `Work`.

    Args:
        arguments: ``file``, ``trajectory``, ``workspace``, ``environ`` of its commands, ``turns``
            (None: all), ``ground`` of the stores, ``peers``, ``peer_environ``.
        link: not needed.
    """
    del link
    trace = read_trace(Path(arguments["file"]), trajectory=arguments["trajectory"])
    workspace, ground = Path(arguments["workspace"]), Path(arguments["ground"])
    ground.mkdir()
    found: list[Stored] = []
    with Keepers(workspace, ground, arguments["peers"], arguments["peer_environ"]) as keepers:
        options = ReplayOptions(
            environ=arguments["environ"],
            speed=math.inf,
            protected=False,
            turns=arguments["turns"],
            between=lambda: found.append(keepers.turn()),
        )
        replay(trace, workspace, options)
    return {"turns": found}


def _summarise(report: Report, everything: str, found: Mapping[str, list[Stored]]) -> None:
    """Rows by kind of turn, or by run, then over all; and the bars."""
    if not found:
        return
    total = Samples()
    ours_in: list[tuple[str, Samples]] = []
    for scenario, turns in found.items():
        samples = Samples()
        for turn in turns:
            for who, figures in turn.items():
                samples.add(who, figures)
                total.add(who, figures)
        report.add(scenario, samples, "bytes")
        ours_in.append((scenario, samples))
    report.add(everything, total, "bytes")
    for scenario, samples in ((everything, total), *ours_in):
        ours, allowed = samples.get(OURS, "stored"), samples.get("allowed", "stored")
        report.bars.append(Bar(scenario, "stored", _GOAL, _in_all(ours, allowed)))
    for (who, what), values in total.items():
        if what == "stored" and who not in (OURS, "allowed"):
            ratio = _in_all(total.get(OURS, "stored"), values)
            report.bars.append(Bar(everything, "stored", f"less than {who}", ratio))


def _in_all(cost: list[float], allowed: list[float]) -> Series:
    """One ratio: of the sums, as turns differ by orders of magnitude."""
    return Series((sum(cost) / max(1.0, sum(allowed)),))
