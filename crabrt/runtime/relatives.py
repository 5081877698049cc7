"""The other runs of a run's family: what they did outside, and which of them are dead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from crabrt.core.entries import Lineage, Noted
from crabrt.core.ids import RunId
from crabrt.errors import CrabError
from crabrt.journal import RunIndex, lease_holder, read_journal, run_dir
from crabrt.runtime.replay import Replay, Sealed
from crabrt.runtime.session import Session


def family_externals(session: Session, home: Path) -> Iterator[Sealed]:
    """Sealed external calls of the other runs of the family: none is ever made twice."""
    with RunIndex.open(home) as index:
        index.refresh()
        lineages = {
            row.run: row.view.lineage for row in index.runs() if row.family == session.family
        }
    mine = _calls_down(lineages, session.id)
    for run in lineages:
        if run == session.id or _calls_down(lineages, run) != mine:
            continue  # another child's calls only look alike
        try:
            yield from Replay(read_journal(run_dir(home, RunId(run))), 0).externals
        except CrabError as error:
            session.append(Noted("family", f"the external calls of {run} cannot be read: {error}"))


def _calls_down(lineages: Mapping[str, Lineage], run: str) -> tuple[str, ...]:
    """The calls that lead from the family's agent down to `run`; none for itself and its forks."""
    calls: list[str] = []
    at: str | None = run
    seen: set[str] = set()
    while at is not None and at in lineages and at not in seen:
        seen.add(at)
        if lineages[at].call is not None:
            calls.append(str(lineages[at].call))
        at = lineages[at].parent
    return tuple(calls)


def dead_relatives(home: Path, family: str) -> list[str]:
    """Runs of the family whose owner is gone: what they left behind may write to the same files."""
    with RunIndex.open(home) as index:
        index.refresh()
        runs = [row.run for row in index.runs() if row.family == family]
    return [run for run in runs if not _is_live(home, run)]


def _is_live(home: Path, run: str) -> bool:
    return lease_holder(run_dir(home, RunId(run))) is not None
