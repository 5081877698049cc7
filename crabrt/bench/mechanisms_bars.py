"""The bars of `mechanisms`: images beside CRIU alone, files beside everybody who keeps them."""

from __future__ import annotations

from crabrt.bench.mechanisms_found import Found
from crabrt.bench.mechanisms_images import CRIU
from crabrt.bench.mechanisms_replay import REPLAY
from crabrt.bench.mechanisms_shell import ALIVE, DEAD
from crabrt.bench.report import OURS, Bar, Report, Samples, Series, against, ratios

FIRST_IMAGE = 1.15
"""How long a first image may stop a tree, beside a plain dump of it."""

SECOND_SHARE = 0.03
"""What of a process a second image may store, of which 1 % changed in 20 places."""

SECOND_FROM_BYTES = 500 << 20
"""From this size on: below, the blocks that few changed pages are in count for more."""

SHELL_MS = 300.0
"""In which a shell and a server are back."""


def image_bars(report: Report, scenario: str, size_bytes: int, found: Found) -> None:
    """Of memory, beside CRIU alone."""
    times, stored = found.times, found.stored

    def bar(what: str, goal: str, ratio: Series) -> None:
        report.bars.append(Bar(scenario, what, goal, ratio))

    first = "first snapshot"
    allowed = [FIRST_IMAGE * ms for ms in times.get(CRIU, first)]
    goal = f"{FIRST_IMAGE:g} times a plain dump to tmpfs"
    bar(f"{first}, frozen", goal, ratios(times.get(OURS, f"{first}, frozen"), allowed))
    second = "second snapshot"
    durable = f"{second}, durable"
    ahead = ratios(times.get(OURS, durable), times.get(CRIU, durable))
    bar(durable, "faster than a plain dump to disk and a sync", ahead)
    less = ratios(stored.get(OURS, second), stored.get(CRIU, second))
    bar(f"{second}, stored", "less than a plain dump", less)
    if size_bytes >= SECOND_FROM_BYTES:
        share = [count / (SECOND_SHARE * size_bytes) for count in stored.get(OURS, second)]
        bar(f"{second}, stored", f"{SECOND_SHARE:.0%} of the memory", Series(tuple(share)))
    taken = Series(tuple(against(count, 0) for count in found.images.get(OURS, "asleep")))
    bar("asleep, images", "none", taken)


def file_bars(report: Report, scenario: str, times: Samples) -> None:
    """Of files, beside everybody; replay has no snapshots to be faster than."""
    everybody = dict.fromkeys(who for (who, _), _ in times.items() if who != OURS)
    for (who, what), values in times.items():
        if who != OURS:
            continue
        for peer in everybody:
            if times.has(peer, what) and not (peer == REPLAY and "snapshot" in what):
                ratio = ratios(values, times.get(peer, what))
                report.bars.append(Bar(scenario, what, f"faster than {peer}", ratio))


def shell_bars(report: Report, scenario: str, times: Samples) -> None:
    """Of a shell and a server."""
    for what in (ALIVE, DEAD):
        for name in (what, f"{what}, CRIU tried out first"):
            ratio = Series(tuple(ms / SHELL_MS for ms in times.get(OURS, name)))
            report.bars.append(Bar(scenario, name, f"{SHELL_MS:g} ms", ratio))
