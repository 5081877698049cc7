"""How a run is taken up again: by which command, where some of its entries may be missing."""

from __future__ import annotations

from crabrt.cli.app import App
from crabrt.core.ids import RunId
from crabrt.errors import CrabError
from crabrt.journal import RunRow, read_journal, run_dir
from crabrt.timeline.runs import how_to_go_on


def going_on(app: App, row: RunRow) -> tuple[str, ...]:
    """Lines to be shown as they are; the last one ends in the command. See `how_to_go_on`."""
    lines = how_to_go_on(row.run, row.status, row.view, app.typed("resume"))
    if not lines or not row.view.lacks_entries:
        return lines
    from crabrt.runtime.recovery import find_stop  # noqa: PLC0415  it loads the whole runtime

    try:
        stop = find_stop(read_journal(run_dir(app.home, RunId(row.run))))
    except CrabError:
        return lines  # that it is damaged is told beside this
    if stop.buried_gap is None:
        return lines
    if stop.unburied is None:
        return ("Entries of it are missing: it cannot be taken up again, start it anew",)
    named = f"{row.run}@{stop.unburied.name}"
    return (
        f"Entries are missing behind turn {stop.unburied.name}, as the store could not be written.",
        f"Take it up from there: {app.typed('resume', named)}",
    )
