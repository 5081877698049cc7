"""``crab bench tui``: the interface in a real terminal, on a long run and on one that goes on.

The long run is a journal, as a loop would have written it, in a store that has other content, too,
which nobody looks at: what a store holds must cost nothing. The live one is written by this
process, entry by entry, so that the moment at which an entry is durable is known.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crabrt.bench.apart import Link, apart, environment
from crabrt.bench.harness import Progress, machine
from crabrt.bench.on_screen import NothingCame, Terminal
from crabrt.bench.report import OURS, Bar, Report, Samples, Series, percentile, ratios
from crabrt.bench.written import Written
from crabrt.journal import RunIndex
from crabrt.runtime import Run, open_run
from crabrt.store import Store

FIRST_PAINT_MS = 1_000.0
KEY_MS = 50.0
MEMORY_MIB = 150.0
IDLE_PERCENT = 2.0
LIVE_MS = 300.0
SLOWED = 1.005
"""An agent that somebody watches may take so much of the time of one that nobody watches."""

_OBJECT_BYTES = 1 << 18
_KEYS = 100
_ENTRIES = 30
_IDLE_S = 8.0
_WATCHED_TURNS = 40
_WAIT_S = 0.1
_LIMIT_S = 120.0
_RUN, _GO = "run", "go"  # files by which a loop and who measures it meet


@dataclass(frozen=True)
class TuiOptions:
    """What to run.

    Attributes:
        scratch: an existing directory to work in.
        turns: of the long run.
        store_bytes: what the store holds besides.
        repetitions: rounds.
    """

    scratch: Path
    turns: int = 10_000
    store_bytes: int = 1 << 30
    repetitions: int = 5


def measure_tui(options: TuiOptions, environ: Mapping[str, str], progress: Progress) -> Report:
    """Run it.

    Raises:
        NothingCame: the interface did not show what it should.
    """
    settings = {
        "turns": options.turns,
        "store bytes": options.store_bytes,
        "repetitions": options.repetitions,
    }
    report = Report("tui", machine(options.scratch), settings)
    seen = environment(environ, options.scratch)
    home = options.scratch / "interface"
    try:
        _measure_screen(report, options, home, seen, progress)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    _slowed(report, options, seen, progress)
    return report


def _measure_screen(
    report: Report,
    options: TuiOptions,
    home: Path,
    environ: Mapping[str, str],
    progress: Progress,
) -> None:
    progress(f"filling a store with {options.store_bytes:,} bytes")
    with Store.open(home, create=True) as store, store.writer() as writer:
        for _ in range(options.store_bytes // _OBJECT_BYTES):
            writer.put(os.urandom(_OBJECT_BYTES))
    progress(f"writing a journal of {options.turns:,} turns")
    written = Written(home, "long")
    for number in range(options.turns):
        written.turn("last" if number + 1 == options.turns else "sh")
    written.end()
    with RunIndex.open(home) as index:
        index.refresh()
    figures = Samples()
    for number in range(options.repetitions):
        progress(f"round {number + 1} of {options.repetitions}")
        figures.add(OURS, _looked_at(home, environ))
        figures.add(OURS, _followed(home, environ, f"live-{number}"))
    scenario = f"{options.turns:,} turns"
    for what, unit, allowed in (
        ("first paint", "ms", FIRST_PAINT_MS),
        ("first paint, CPU time", "ms", None),
        ("key to screen, p50", "ms", None),
        ("key to screen, p95", "ms", KEY_MS),
        ("key to screen, CPU time", "ms", None),
        ("peak memory", "MiB", MEMORY_MIB),
        ("CPU when nothing happens", "%", IDLE_PERCENT),
        ("CPU when a live run waits", "%", IDLE_PERCENT),
        ("durable entry to screen, p50", "ms", LIVE_MS),
        ("durable entry to screen, max", "ms", LIVE_MS),
    ):
        one = Samples()
        for value in figures.get(OURS, what):
            one.add(OURS, {what: value})
        report.add(scenario, one, unit)
        if allowed is None:  # where other work takes the processors, it tells what is ours
            continue
        ratio = ratios(one.get(OURS, what), [allowed] * options.repetitions)
        report.bars.append(Bar(scenario, what, f"{allowed:g} {unit}", ratio))


def _argv(home: Path, run: str) -> list[str]:
    return [sys.executable, "-m", "crabrt", "tui", run, "--home", str(home)]


def _looked_at(home: Path, environ: Mapping[str, str]) -> dict[str, float]:
    """The long run: how soon it is there, how soon a key is answered, what it takes."""
    with Terminal(_argv(home, "long"), environ) as terminal:
        first_ms = 1e3 * (terminal.until("last") - terminal.began_s)
        first_cpu_s = terminal.cpu_s()
        terminal.quiet(0.4)
        idle = terminal.idle(_IDLE_S)
        before_s = terminal.cpu_s()
        keys = [terminal.press(b"k") for _ in range(_KEYS)]
        keys_cpu_s = terminal.cpu_s() - before_s
        for key in (b"g", b"G", b"\r", b"3", b"2", b"\x1b"):
            terminal.press(key)
        terminal.quiet(0.4)
        return {
            "first paint": first_ms,
            "first paint, CPU time": 1e3 * first_cpu_s,
            "key to screen, p50": percentile(keys, 0.5),
            "key to screen, p95": percentile(keys, 0.95),
            "key to screen, CPU time": 1e3 * keys_cpu_s / len(keys),
            "peak memory": terminal.peak_mib(),
            "CPU when nothing happens": idle,
        }


def _followed(home: Path, environ: Mapping[str, str], run: str) -> dict[str, float]:
    """A run that goes on: how soon what it wrote is on the screen."""
    written = Written(home, run)
    try:
        written.turn("begun")
        written.sync()
        late = []
        with Terminal(_argv(home, run), environ) as terminal:
            terminal.until("begun")
            terminal.quiet(0.4)
            idle = terminal.idle(_IDLE_S)
            for number in range(_ENTRIES):
                written.turn(f"tool{number:03d}")
                written.sync()
                durable_s = time.monotonic()
                late.append(1e3 * (terminal.until(f"tool{number:03d}") - durable_s))
    finally:
        written.end()
    return {
        "CPU when a live run waits": idle,
        "durable entry to screen, p50": percentile(late, 0.5),
        "durable entry to screen, max": max(late),
    }


def _slowed(
    report: Report, options: TuiOptions, environ: Mapping[str, str], progress: Progress
) -> None:
    """A real loop with somebody watching, and with nobody, by turns."""
    samples = Samples()
    for number in range(options.repetitions):
        progress(f"a loop that is watched, round {number + 1} of {options.repetitions}")
        order = (True, False) if number % 2 else (False, True)
        for watched in order:
            who = "watched" if watched else "not watched"
            samples.add(who, {"wall": _loop(options.scratch, environ, watched=watched)})
    scenario = f"a loop of {_WATCHED_TURNS} turns, {_WAIT_S:g} s of waiting each"
    report.add(scenario, samples)
    cost = samples.get("watched", "wall")
    allowed = [SLOWED * plain for plain in samples.get("not watched", "wall")]
    goal = f"{SLOWED:g} of the loop that nobody watches"
    report.bars.append(Bar(scenario, "wall time", goal, Series(ratios(cost, allowed).values)))


def _loop(scratch: Path, environ: Mapping[str, str], *, watched: bool) -> float:
    """Milliseconds that the loop takes, from its second turn on.

    The loop has a process of its own: the interface is none of those that it started.
    """
    ground = scratch / "loop"
    (ground / "workspace").mkdir(parents=True)
    work = functools.partial(
        apart, "crabrt.bench.interface:looped", {"ground": str(ground)}, dict(environ)
    )
    try:
        with ThreadPoolExecutor(max_workers=1) as pool, contextlib.ExitStack() as shown:
            loop = pool.submit(work)
            run = _await(ground / _RUN, loop)
            if watched:
                terminal = shown.enter_context(Terminal(_argv(ground / "store", run), environ))
                terminal.until("write")
                terminal.quiet(0.4)
                shown.enter_context(terminal.drained())
            (ground / _GO).touch()
            took: float = loop.result().result["took_ms"]
            return took
    finally:
        shutil.rmtree(ground)


def looped(arguments: dict[str, Any], link: Link) -> dict[str, Any]:
    """A loop that begins, says so, waits for a word, and goes on. A `Work`."""
    del link
    ground = Path(arguments["ground"])
    workspace = ground / "workspace"
    with open_run(workspace=workspace, home=ground / "store", name="loop") as run:
        _turn(run, workspace, 0)
        (ground / "run.new").write_text(run.id)
        (ground / "run.new").rename(ground / _RUN)
        _await(ground / _GO)
        return {"took_ms": _turns(run, workspace)}


def _await(file: Path, other: Future[Any] | None = None) -> str:
    """The content of a file that another process writes; what `other` raises, if it does.

    Raises:
        NothingCame: the file does not come.
    """
    end = time.monotonic() + _LIMIT_S
    while not file.exists():
        if other is not None and other.done():
            other.result()
        if time.monotonic() > end:
            raise NothingCame(f"{file.name} did not come in {_LIMIT_S:g} s")
        time.sleep(0.01)
    return file.read_text()


def _turns(run: Run, workspace: Path) -> float:
    began = time.monotonic()
    for number in range(1, _WATCHED_TURNS + 1):
        _turn(run, workspace, number)
    return 1e3 * (time.monotonic() - began)


def _turn(run: Run, workspace: Path, number: int) -> None:
    run.model_call([{"turn": number}], lambda: time.sleep(_WAIT_S))
    file = workspace / f"file-{number % 7}"
    run.tool_call("write", {"number": number}, lambda: file.write_text(f"{number}"))
