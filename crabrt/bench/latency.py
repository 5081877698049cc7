"""``crab bench latency``: how long checkpoints, restores, diffs and forks take, and what they must.

Everything runs on warm caches, on the same tree, interleaved with the peers and with the floor: the
same bytes moved by plain calls. "Known dirty set" is a checkpoint without its scan: what it costs
when a watcher has already said which files changed.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from crabrt.bench import floor, trees
from crabrt.bench.harness import (
    Case,
    Progress,
    interleave,
    machine,
    settle,
    timed,
)
from crabrt.bench.peers import Git, Peer, present
from crabrt.bench.report import FLOOR, OURS, Bar, Report, Samples, Times, ratios
from crabrt.bench.subject import Subject
from crabrt.journal import RunIndex
from crabrt.operations.forking import fork_to
from crabrt.operations.targets import resolve
from crabrt.runtime import open_run
from crabrt.store import Store
from crabrt.workspace import diff_roots, restore_to

KNOWN_MS = 3.0
"""What a checkpoint of a known dirty set may take beside the floor."""

_BAR_CHANGED = 20
_BIG_CHANGE = 4096
_SEED = 1


@dataclass(frozen=True)
class LatencyOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in, on the file system to be measured.
        entries: sizes of the trees.
        changed: how many files change at once.
        repetitions: rounds; at least 5 for figures that count.
        peers: names from `peers.PEERS`.
        big_file_bytes: size of the one big file; 0 leaves it out.
    """

    scratch: Path
    entries: tuple[int, ...] = (1_000, 60_000)
    changed: tuple[int, ...] = (1, 20, 1_000)
    repetitions: int = 5
    peers: tuple[str, ...] = ("git", "restic", "borg", "cp", "reflink")
    big_file_bytes: int = 1 << 30


def measure_latency(
    options: LatencyOptions, environ: Mapping[str, str], progress: Progress
) -> Report:
    """Run it.

    Args:
        options: what.
        environ: what the peers' commands see.
        progress: told what is done now.

    Raises:
        PeerFailed: a peer's command gave an error.
        CrabError, OSError: ours did.
    """
    settings = {
        "entries": list(options.entries),
        "changed": list(options.changed),
        "repetitions": options.repetitions,
        "big_file_bytes": options.big_file_bytes,
    }
    report = Report("latency", machine(options.scratch), settings)
    peers, report.absent = present(options.peers, options.scratch, environ)
    for entries in options.entries:
        ground = options.scratch / f"tree{entries}"
        progress(f"making a tree of {entries:,} entries")
        tree = trees.make_tree(ground / "work", entries)
        bench = _Bench(options, report, environ, progress, tree=tree, ground=ground)
        bench.run(f"{tree.entries:,} entries", peers)
        shutil.rmtree(ground)
    if options.big_file_bytes:
        ground = options.scratch / "big"
        progress("making a big file")
        tree = _make_big(ground / "work", options.big_file_bytes)
        _Bench(options, report, environ, progress, tree=tree, ground=ground).run_big(peers)
        shutil.rmtree(ground)
    return report


class _Bench:
    """All measurements on one tree."""

    def __init__(
        self,
        options: LatencyOptions,
        report: Report,
        environ: Mapping[str, str],
        progress: Progress,
        *,
        tree: trees.Tree,
        ground: Path,
    ) -> None:
        self._rounds = range(options.repetitions)
        self._changed = options.changed
        self._report = report
        self._environ = environ
        self._progress = progress
        self._tree = tree
        self._ground = ground
        self._logs = floor.TwoLogs(ground / "logs")
        self._rng = trees.seeded(_SEED)

    def run(self, scenario: str, classes: list[type[Peer]]) -> None:
        """The baseline, changes of every size, restores, and copies elsewhere."""
        subject, peers = self._baseline(scenario, classes)
        with subject:
            for count in self._changed:
                self._snapshots(f"{scenario}, {count:,} changed", subject, peers, count)
            for count in self._changed:
                self._restores(f"{scenario}, {count:,} changed", subject, peers, count)
            self._elsewhere(scenario, subject, peers)

    def run_big(self, classes: list[type[Peer]]) -> None:
        """A small change in one big file."""
        size_mib = self._tree.size_bytes >> 20
        subject, peers = self._baseline(f"one file of {size_mib:,} MiB", classes)
        scenario = f"one file of {size_mib:,} MiB, 4 KiB changed"
        samples = Samples()
        name = self._tree.files[0]
        with subject:
            for number in self._rounds:
                self._progress(f"{scenario}: round {number + 1}")
                _overwrite(self._tree.path / name, self._tree.size_bytes, self._rng)
                interleave(
                    self._snapshot_cases(subject, peers, [name]), samples, number, self._ground
                )
        self._report.add(scenario, samples)

    def _baseline(self, scenario: str, classes: list[type[Peer]]) -> tuple[Subject, list[Peer]]:
        """First backups into empty stores; those of the last round."""
        samples = Samples()
        subject: Subject | None = None
        peers: list[Peer] = []
        for number in self._rounds:
            self._progress(f"{scenario}: baseline, round {number + 1}")
            if subject is not None:
                subject.__exit__(None, None, None)
                shutil.rmtree(subject.home)
            for peer in peers:
                shutil.rmtree(peer.scratch)
            subject = Subject(self._tree.path, self._ground / "store")
            peers = [
                cls(self._tree.path, self._ground / cls.name, self._environ) for cls in classes
            ]
            cases: dict[str, Case] = {
                OURS: _first_checkpoint(subject),
                FLOOR: lambda: {
                    "read": floor.read_ms(self._tree.path, self._tree.files),
                },
            }
            for peer in peers:
                peer.prepare()
                cases[peer.name] = _first_backup(peer)
            interleave(cases, samples, number, self._ground)
        self._report.add(scenario, samples)
        self._bar(scenario, samples, "baseline", "restic", 1.0)
        assert subject is not None, "there is at least one round"
        return subject, peers

    def _snapshots(self, scenario: str, subject: Subject, peers: list[Peer], count: int) -> None:
        samples = Samples()
        for number in self._rounds:
            self._progress(f"{scenario}: round {number + 1}")
            edit = self._tree.edit(count, self._rng)
            edit.apply()
            interleave(
                self._snapshot_cases(subject, peers, edit.after), samples, number, self._ground
            )
        self._report.add(scenario, samples)
        if count == _BAR_CHANGED:
            self._snapshot_bars(scenario, samples)

    def _snapshot_cases(
        self, subject: Subject, peers: list[Peer], dirty: list[str] | dict[str, bytes]
    ) -> dict[str, Case]:
        cases: dict[str, Case] = {
            OURS: lambda: _checkpoint_times(subject),
            FLOOR: lambda: {
                "two appends and syncs": self._logs.append_ms(),
                "read": floor.read_ms(self._tree.path, dirty),
            },
        }
        for peer in peers:
            cases[peer.name] = _next_backup(peer)
        return cases

    def _snapshot_bars(self, scenario: str, samples: Samples) -> None:
        known = samples.get(OURS, "known dirty set")
        allowed = [KNOWN_MS + ms for ms in samples.get(FLOOR, "two appends and syncs")]
        goal = f"captured and durable within {KNOWN_MS:g} ms and two appends and syncs"
        bars = self._report.bars
        bars.append(Bar(scenario, "known dirty set", goal, ratios(known, allowed)))
        if samples.has("git", "status"):
            allowed = [1.5 * ms for ms in samples.get("git", "status")]
            ratio = ratios(samples.get(OURS, "scan"), allowed)
            bars.append(Bar(scenario, "scan", "1.5 times `git status`", ratio))
        self._bar(scenario, samples, "known dirty set", "git", 1.0)
        for name in ("restic", "borg"):
            self._bar(scenario, samples, "known dirty set", name, 20.0)
            self._bar(scenario, samples, "with its scan", name, 8.0)

    def _bar(
        self, scenario: str, samples: Samples, what: str, peer: str, times_faster: float
    ) -> None:
        """Ours against a peer's snapshot, if it was there."""
        if samples.has(peer, "snapshot"):
            factor = "" if times_faster == 1 else f"{times_faster:g} times "
            allowed = [ms / times_faster for ms in samples.get(peer, "snapshot")]
            ratio = ratios(samples.get(OURS, what), allowed)
            self._report.bars.append(Bar(scenario, what, f"{factor}faster than {peer}", ratio))

    def _restores(self, scenario: str, subject: Subject, peers: list[Peer], count: int) -> None:
        samples = Samples()
        git = next((peer for peer in peers if isinstance(peer, Git)), None)
        for number in self._rounds:
            self._progress(f"{scenario}: restore, round {number + 1}")
            edit = self._tree.edit(count, self._rng)
            self._restore_round(samples, number, edit, subject=subject, git=git)
        self._report.add(scenario, samples)
        allowed = [2 * ms for ms in samples.get(FLOOR, "replace")]
        ratio = ratios(samples.get(OURS, "restore after its plan"), allowed)
        goal = "twice temporary file, rename and one sync of the same files"
        self._report.bars.append(Bar(scenario, "restore after its plan", goal, ratio))

    def _restore_round(
        self,
        samples: Samples,
        number: int,
        edit: trees.Edit,
        *,
        subject: Subject,
        git: Git | None,
    ) -> None:
        subject.checkpoint()
        before = subject.root
        git_before = git.write_tree() if git else ""
        edit.apply()
        subject.checkpoint()
        after = subject.root
        git_after = git.write_tree() if git else ""

        def ours() -> Times:
            diff_ms, _ = timed(lambda: list(diff_roots(subject.writer, before, after)))
            plan_ms, apply_ms, _ = subject.restore(before)
            return {
                "diff": diff_ms,
                "restore": plan_ms + apply_ms,
                "restore: scan and plan": plan_ms,
                "restore after its plan": apply_ms,
            }

        cases: dict[str, Case] = {
            OURS: _edited(edit, ours),
            FLOOR: _edited(
                edit, lambda: {"replace": floor.replace_ms(self._tree.path, edit.before)}
            ),
        }
        if git is not None:
            cases[git.name] = _edited(
                edit,
                lambda: {
                    "diff": timed(lambda: git.diff(git_before, git_after))[0],
                    "restore": timed(lambda: git.checkout(git_before))[0],
                },
            )
        interleave(cases, samples, number, self._ground)
        edit.revert()

    def _elsewhere(self, scenario: str, subject: Subject, peers: list[Peer]) -> None:
        samples = Samples()
        target = self._ground / "elsewhere"
        home = self._ground / "fork-store"
        self._progress(f"{scenario}: a run to fork")
        with open_run(workspace=self._tree.path, name="bench", home=home):
            pass
        with Store.open(home) as forked:
            for number in self._rounds:
                self._progress(f"{scenario}: elsewhere, round {number + 1}")
                cases: dict[str, Case] = {
                    OURS: lambda: {
                        "restore elsewhere": _into(
                            target, lambda: restore_to(subject.store, subject.root, target)
                        ),
                        "fork": _into(target, lambda: _fork(forked, target)),
                    },
                    FLOOR: lambda: {
                        "copy": _into(
                            target,
                            lambda: floor.copy_ms(self._tree.path, self._tree.files, target),
                        )
                    },
                }
                for peer in peers:
                    cases[peer.name] = _restore_elsewhere(peer, target)
                interleave(cases, samples, number, self._ground)
        self._report.add(scenario, samples)


def _first_checkpoint(subject: Subject) -> Case:
    def work() -> Times:
        made = subject.checkpoint()
        captured = made.scan_ms + made.captured_ms
        return {
            "scan": made.scan_ms,
            "captured": captured,
            "baseline": captured + made.durable_ms,
        }

    return work


def _checkpoint_times(subject: Subject) -> Times:
    made = subject.checkpoint()
    known = made.captured_ms + made.durable_ms
    return {
        "scan": made.scan_ms,
        "captured": made.captured_ms,
        "durable": made.durable_ms,
        "known dirty set": known,
        "with its scan": made.scan_ms + known,
    }


def _first_backup(peer: Peer) -> Case:
    return lambda: {"snapshot": timed(peer.snapshot)[0]}


def _next_backup(peer: Peer) -> Case:
    def work() -> Times:
        peer.make_ready()
        times = {}
        if isinstance(peer, Git):
            times["status"] = timed(peer.status)[0]
        return {**times, "snapshot": timed(peer.snapshot)[0]}

    return work


def _edited(edit: trees.Edit, work: Case) -> Case:
    """The case, on files that were just edited and written back."""

    def prepared() -> Times:
        edit.apply()
        settle(edit.path)
        return work()

    return prepared


def _restore_elsewhere(peer: Peer, target: Path) -> Case:
    return lambda: {"restore elsewhere": _into(target, lambda: peer.restore(target))}


def _into(target: Path, work: Callable[[], object]) -> float:
    """How long `work` takes to fill `target`, which is removed again."""
    took_ms, _ = timed(work)
    shutil.rmtree(target)
    return took_ms


def _fork(store: Store, target: Path) -> None:
    with RunIndex.open(store.home) as index:
        index.refresh()
        state = resolve(index, "last@0")
    fork_to(store, state, target)


def _make_big(path: Path, size_bytes: int) -> trees.Tree:
    path.mkdir(parents=True)
    left = size_bytes
    with open(path / "big.bin", "wb") as file:
        while left:
            left -= file.write(os.urandom(min(left, 16 << 20)))
    return trees.Tree(path, ("big.bin",), 1, size_bytes)


def _overwrite(path: Path, size_bytes: int, rng: random.Random) -> None:
    with open(path, "r+b") as file:
        file.seek(rng.randrange(max(1, size_bytes - _BIG_CHANGE)))
        file.write(rng.randbytes(_BIG_CHANGE))
