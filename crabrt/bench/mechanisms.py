"""``crab bench mechanisms``: ways to keep a state and get it back, beside each other.

Replay of the calls, CRIU alone, a container's commit, a full copy, a shadow repository, and crabrt,
for memory and for files of several sizes: a first snapshot, and a second one after a small, stated
change. Whoever cannot keep a kind of state has no row there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crabrt.bench import mechanisms_bars as bars
from crabrt.bench.apart import environment
from crabrt.bench.harness import Progress, machine
from crabrt.bench.kept import Kept, Unit
from crabrt.bench.mechanisms_content import EXTENTS, SHARE, SMALL
from crabrt.bench.mechanisms_criu import room_in_memory
from crabrt.bench.mechanisms_files import BASE_ENTRIES, Files
from crabrt.bench.mechanisms_found import Found
from crabrt.bench.mechanisms_images import Memory, Where
from crabrt.bench.mechanisms_peers import MECHANISMS, Mechanism
from crabrt.bench.mechanisms_shell import ShellAndServer
from crabrt.bench.report import Report
from crabrt.core.config import Config
from crabrt.errors import UsageError
from crabrt.operations.alive import imaging
from crabrt.process.criu import Criu

MIB = 1 << 20
MEMORY, SHELL, FILES = ROWS = ("memory", "shell", "files")
"""Kinds of state."""

_ROOM = 6
"""How many times a process's memory has to be free: it, two plain images, a spool, a restored one,
and what the kernel needs to write some of that."""


@dataclass(frozen=True)
class MechanismsOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in, on the file system to be measured.
        memory: bytes that a process holds.
        disk: bytes of large files in a workspace.
        rows: of which kinds of state, of `ROWS`.
        repetitions: rounds; at least 5 for figures that count.
        observer: who says where to look, as in the configuration.
        keep: file that holds what is done, to go on from.
    """

    scratch: Path
    memory: tuple[int, ...] = (0, 64 * MIB, 500 * MIB, 1_024 * MIB, 2_048 * MIB)
    disk: tuple[int, ...] = (0, 1_024 * MIB, 2_048 * MIB)
    rows: tuple[str, ...] = ROWS
    repetitions: int = 5
    observer: str = "auto"
    keep: Path | None = None


def measure_mechanisms(
    options: MechanismsOptions, environ: Mapping[str, str], progress: Progress
) -> Report:
    """Run it.

    Args:
        options: what.
        environ: what commands see.
        progress: told what is done now.

    Raises:
        PeerFailed, WorkFailed: a mechanism gave an error.
        UsageError: `keep` is of other options, or nothing of what is asked for can be done here.
        CrabError, OSError, subprocess.CalledProcessError: something else did.
    """
    settings = {
        "memory": [size // MIB for size in options.memory],
        "disk": [size // MIB for size in options.disk],
        "rows": list(options.rows),
        "repetitions": options.repetitions,
        "observer": options.observer,
    }
    report = Report("mechanisms", machine(options.scratch), settings)
    criu = {name: environ[name] for name in ("CRAB_CRIU", "XDG_DATA_HOME") if name in environ}
    seen = environment(environ, options.scratch) | criu
    with Kept(options.keep, "mechanisms", settings) as kept:
        bench = _Bench(options, report, seen, progress, kept)
        if options.rows != (FILES,):
            by = imaging(Config.from_env(environ=seen))
            if isinstance(by, str):
                report.absent["criu, and all rows of processes"] = by
            else:
                if MEMORY in options.rows:
                    bench.memory(by)
                if SHELL in options.rows:
                    bench.shell(by)
        if FILES in options.rows:
            bench.files()
    if not report.rows:
        why = "; ".join(f"{name}: {why}" for name, why in report.absent.items())
        raise UsageError(f"nothing can be measured here: {why}")
    return report


class _Bench:
    """All rows."""

    def __init__(
        self,
        options: MechanismsOptions,
        report: Report,
        environ: Mapping[str, str],
        progress: Progress,
        kept: Kept,
    ) -> None:
        self._options, self._report, self._kept = options, report, kept
        self._environ, self._progress = environ, progress

    def memory(self, criu: Criu) -> None:
        """Processes of every size."""
        report = self._report
        for size_bytes in self._options.memory:
            scenario = f"{size_bytes // MIB:,} MiB of memory"
            why_not = room_in_memory(_ROOM * size_bytes)
            if why_not is not None:
                report.absent[scenario] = why_not
                continue

            def one(ground: Path, number: int, found: Found, size: int = size_bytes) -> None:
                Memory(Where(ground, criu, self._environ), size, number, found).measure()

            found = self._rounds(scenario, one)
            bars.image_bars(report, scenario, size_bytes, found)
        report.absent["commit, cp, git: rows of memory"] = "they keep files alone"
        report.notes.append(
            f"memory: one page in {SHARE} changes between the images, in {EXTENTS} places; "
            "then one in as many, scattered"
        )

    def shell(self, criu: Criu) -> None:
        """A shell and a server, of a run that died."""
        scenario = "a shell and a server"

        def one(ground: Path, number: int, found: Found) -> None:
            ShellAndServer(Where(ground, criu, self._environ), number, found).measure()

        found = self._rounds(scenario, one)
        bars.shell_bars(self._report, scenario, found.times)

    def files(self) -> None:
        """Workspaces of every size."""
        options, report = self._options, self._report
        classes = self._mechanisms()
        for size_bytes in options.disk:
            scenario = f"{size_bytes // MIB:,} MiB of files"

            def one(ground: Path, number: int, found: Found, size: int = size_bytes) -> None:
                Files(
                    ground / "files", size, number, classes,
                    observer=options.observer, environ=self._environ, found=found,
                ).measure()  # fmt: skip

            found = self._rounds(scenario, one)
            bars.file_bars(report, scenario, found.times)
        report.absent["criu: rows of files"] = "it keeps processes alone"
        report.notes.append(
            f"files: above a base of {BASE_ENTRIES:,} entries; {SMALL} small files and one in "
            f"{SHARE} of the large ones, of 1 MiB, change before the second snapshot"
        )

    def _mechanisms(self) -> list[type[Mechanism]]:
        """Those that can be had here."""
        found = []
        for one in MECHANISMS:
            why_not = one.absence(self._options.scratch, self._environ)
            if why_not is None:
                found.append(one)
            else:
                self._report.absent[one.name] = why_not
        return found

    def _rounds(self, scenario: str, one: Callable[[Path, int, Found], None]) -> Found:
        """All of one scenario, told to the report; each round in a new directory."""
        found = Found()
        for number in range(self._options.repetitions):
            self._progress(f"{scenario}: round {number + 1} of {self._options.repetitions}")
            found.add(self._kept.once(f"{scenario} {number}", partial(self._round, number, one)))
        found.tell(self._report, scenario)
        return found

    def _round(self, number: int, one: Callable[[Path, int, Found], None]) -> Unit:
        found, ground = Found(), self._options.scratch / "mechanisms"
        ground.mkdir()
        one(ground, number, found)
        shutil.rmtree(ground)
        return found.data()
