"""``crab bench latency``: how long checkpoints, restores, diffs and forks take, and what they must.

Everything runs on warm caches, on the same tree, interleaved with the peers and with the floor: the
same bytes moved by plain calls. "Known dirty set" is a checkpoint without its scan: what it costs
when a watcher has already said which files changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crabrt.bench import big_file, floor, trees
from crabrt.bench import latency_bars as bars
from crabrt.bench import latency_elsewhere as elsewhere
from crabrt.bench import latency_steps as steps
from crabrt.bench.harness import Case, Progress, interleave, machine, observers_here
from crabrt.bench.peers import Git, Peer, present
from crabrt.bench.report import FLOOR, OURS, Report, Samples
from crabrt.bench.subject import Subject

_BAR_CHANGED = 20
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
        elsewhere: measure restores to another directory, and forks, too.
        observer: who says where to look, as in the configuration.
    """

    scratch: Path
    entries: tuple[int, ...] = (1_000, 60_000)
    changed: tuple[int, ...] = (1, 20, 1_000)
    repetitions: int = 5
    peers: tuple[str, ...] = ("git", "restic", "borg", "cp", "reflink")
    big_file_bytes: int = 1 << 30
    elsewhere: bool = True
    observer: str = "scan"


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
        UsageError: the observer cannot be had here.
        CrabError, OSError: ours did.
    """
    settings = {
        "entries": list(options.entries),
        "changed": list(options.changed),
        "repetitions": options.repetitions,
        "big_file_bytes": options.big_file_bytes,
        "observer": options.observer,
    }
    observers_here([options.observer])
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
        tree = big_file.write_big(ground / "work", options.big_file_bytes)
        _Bench(options, report, environ, progress, tree=tree, ground=ground).run_big(peers)
        shutil.rmtree(ground)
        progress("the memory that a big file takes")
        size_bytes, rounds = options.big_file_bytes, options.repetitions
        big_file.measure_memory(report, options.scratch, size_bytes, rounds, environ)
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
        self._observer = options.observer
        self._wants_elsewhere = options.elsewhere
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
            if self._wants_elsewhere:
                self._restores_elsewhere(scenario, subject, peers)
            self._tell_looks(scenario, subject)

    def _tell_looks(self, scenario: str, subject: Subject) -> None:
        """With an observer: who really looked."""
        if self._observer != "scan":
            looks = ", ".join(f"{count} by {who}" for who, count in subject.looks.most_common())
            self._report.notes.append(f"{scenario}: looks: {looks}")

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
                big_file.overwrite(self._tree, self._rng)
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
            subject = Subject(self._tree.path, self._ground / "store", self._observer)
            peers = [
                cls(self._tree.path, self._ground / cls.name, self._environ) for cls in classes
            ]
            cases: dict[str, Case] = {
                OURS: steps.first_checkpoint(subject),
                FLOOR: lambda: {
                    "read": floor.read_ms(self._tree.path, self._tree.files),
                },
            }
            for peer in peers:
                peer.prepare()
                cases[peer.name] = steps.first_backup(peer)
            interleave(cases, samples, number, self._ground)
        self._report.add(scenario, samples)
        bars.faster(self._report, scenario, samples, "baseline", peer="restic", times=1.0)
        assert subject is not None, "there is at least one round"
        return subject, peers

    def _snapshots(self, scenario: str, subject: Subject, peers: list[Peer], count: int) -> None:
        samples = Samples()
        for number in self._rounds:
            self._progress(f"{scenario}: round {number + 1}")
            edit = self._tree.edit(count, self._rng)
            subject.nothing_ms()  # what was just written is read once more
            samples.add(OURS, {"decision none": subject.nothing_ms()})
            edit.apply()
            interleave(
                self._snapshot_cases(subject, peers, edit.after), samples, number, self._ground
            )
        self._report.add(scenario, samples)
        if count == _BAR_CHANGED:
            bars.snapshot_bars(self._report, scenario, samples, self._observer)

    def _snapshot_cases(
        self, subject: Subject, peers: list[Peer], dirty: list[str] | dict[str, bytes]
    ) -> dict[str, Case]:
        cases: dict[str, Case] = {
            OURS: lambda: steps.checkpoint_times(subject),
            FLOOR: lambda: {
                "two appends and syncs": self._logs.append_ms(),
                "read": floor.read_ms(self._tree.path, dirty),
            },
        }
        for peer in peers:
            cases[peer.name] = steps.next_backup(peer)
        return cases

    def _restores(self, scenario: str, subject: Subject, peers: list[Peer], count: int) -> None:
        samples = Samples()
        git = next((peer for peer in peers if isinstance(peer, Git)), None)
        for number in self._rounds:
            self._progress(f"{scenario}: restore, round {number + 1}")
            edit = self._tree.edit(count, self._rng)
            cases = steps.restore_cases(subject, git, edit)
            interleave(cases, samples, number, self._ground)
            edit.revert()
        self._report.add(scenario, samples)
        bars.restore_bar(self._report, scenario, samples)

    def _restores_elsewhere(self, scenario: str, subject: Subject, peers: list[Peer]) -> None:
        samples = Samples()
        self._progress(f"{scenario}: a run to fork")
        with elsewhere.Elsewhere(self._tree, self._ground, subject, peers) as into:
            for number in self._rounds:
                self._progress(f"{scenario}: elsewhere, round {number + 1}")
                interleave(into.cases(), samples, number, self._ground)
        self._report.add(scenario, samples)
