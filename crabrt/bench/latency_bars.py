"""The bars of `latency`: what a checkpoint and a restore may take beside floors and peers."""

from __future__ import annotations

from crabrt.bench.report import FLOOR, OURS, Bar, Report, Samples, Series, ratios

KNOWN_MS = 3.0
"""What a checkpoint of a known dirty set may take beside the floor."""

DECISION_MS = 1.0
"""What it may take a watcher to say that nothing changed."""


def snapshot_bars(report: Report, scenario: str, samples: Samples, observer: str) -> None:
    """Of a checkpoint, beside plain calls and peers."""
    allowed = [KNOWN_MS + ms for ms in samples.get(FLOOR, "two appends and syncs")]
    goal = f"captured and durable within {KNOWN_MS:g} ms and two appends and syncs"
    whats = ["known dirty set"] if observer == "scan" else ["known dirty set", "with its scan"]
    for what in whats:
        report.bars.append(Bar(scenario, what, goal, ratios(samples.get(OURS, what), allowed)))
    if observer != "scan":
        decided = Series(tuple(ms / DECISION_MS for ms in samples.get(OURS, "decision none")))
        report.bars.append(Bar(scenario, "decision none", f"{DECISION_MS:g} ms", decided))
    if samples.has("git", "status"):
        allowed = [1.5 * ms for ms in samples.get("git", "status")]
        ratio = ratios(samples.get(OURS, "scan"), allowed)
        report.bars.append(Bar(scenario, "scan", "1.5 times `git status`", ratio))
    faster(report, scenario, samples, "known dirty set", peer="git", times=1.0)
    for name in ("restic", "borg"):
        faster(report, scenario, samples, "known dirty set", peer=name, times=20.0)
        faster(report, scenario, samples, "with its scan", peer=name, times=8.0)


def restore_bar(report: Report, scenario: str, samples: Samples) -> None:
    """Of a restore in place, beside plain calls."""
    allowed = [2 * ms for ms in samples.get(FLOOR, "replace")]
    ratio = ratios(samples.get(OURS, "restore after its plan"), allowed)
    goal = "twice temporary file, rename and one sync of the same files"
    report.bars.append(Bar(scenario, "restore after its plan", goal, ratio))


def faster(
    report: Report, scenario: str, samples: Samples, what: str, *, peer: str, times: float
) -> None:
    """Ours against a peer's snapshot, if it was there."""
    if samples.has(peer, "snapshot"):
        factor = "" if times == 1 else f"{times:g} times "
        allowed = [ms / times for ms in samples.get(peer, "snapshot")]
        ratio = ratios(samples.get(OURS, what), allowed)
        report.bars.append(Bar(scenario, what, f"{factor}faster than {peer}", ratio))
