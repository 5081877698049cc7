"""Facts about observers: who would say here what a turn changed and reached, and why they."""

from __future__ import annotations

from crabrt.core.config import Config
from crabrt.inspector.network import probe_network
from crabrt.inspector.observers import WATCH_FROM_S
from crabrt.inspector.watch import Facts, Reason
from crabrt.operations.fact import Fact, Standing


def observer_fact(config: Config, watching: Facts) -> Fact:
    """Which observer a run here would have, and why."""
    match config.observer:
        case "scan":
            seen = "scan, as observer=scan asks"
            meaning = "what changed is found by a scan: exact, slower on large trees"
        case "auto" if watching.usable:
            seen = f"auto: scan; fanotify as soon as a scan takes over {1e3 * WATCH_FROM_S:g} ms"
            meaning = "the cheaper one of two that are both exact"
        case "auto":
            seen = f"auto: scan, as nothing can be watched here ({watching.why})"
            meaning = "what changed is found by a scan: exact, slower on large trees"
        case _ if watching.usable:
            seen = "fanotify, as observer=fanotify asks"
            meaning = "each turn is looked at where something was reported"
        case _:
            return Fact(
                "observer",
                Standing.BAD,
                f"observer=fanotify is asked for and refused: {watching.why}",
                "no run can begin here",
                "observer=auto (CRAB_OBSERVER=auto) scans where nothing can be watched",
            )
    return Fact("observer", Standing.OK, seen, meaning)


def fanotify_fact(watching: Facts) -> Fact:
    """Whether the workspace can be watched, tried out; who then observes is `observer_fact`'s."""
    if watching.usable:
        return Fact(
            "fanotify",
            Standing.OK,
            f"changes on {watching.file_system} are reported as they happen",
            "large trees need no scan of everything at every turn",
        )
    return Fact(
        "fanotify",
        Standing.LIMITED,
        watching.why,
        "only a scan can say what a turn changed: exact, slower on large trees",
        "root, or CAP_SYS_ADMIN in the initial namespace, would allow watching"
        if watching.reason is Reason.PRIVILEGE
        else None,
    )


def network_fact(config: Config) -> Fact:
    """Whether connections of a run's processes can be watched, tried out."""
    if config.network_observer == "off":
        meaning = "what a turn sent elsewhere is unknown: calls taken for external count as such"
        return Fact("network", Standing.LIMITED, "off", meaning, 'set network_observer to "auto"')
    refused = probe_network()
    if refused is None:
        return Fact(
            "network",
            Standing.OK,
            "connections of a run's processes are reported, with their destinations",
            "each turn says what it connected to; calls taken for external are checked",
        )
    return Fact(
        "network",
        Standing.LIMITED,
        refused.message,
        "what a turn sent elsewhere is unknown: calls taken for external count as such",
        refused.hint,
    )
