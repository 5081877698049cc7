"""``crab repair``: rebuild what is derived, cut what is torn, set aside what is unreadable."""

from __future__ import annotations

import click
import msgspec

from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.operations.repairing import repair_everything
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text


@verb(
    "repair",
    examples=("crab repair", "crab repair --cut-journals   # go on before the damage"),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
)
@click.option(
    "--cut-journals",
    is_flag=True,
    help="Give up what lies behind damage in a journal, so that its run can go on.",
)
def command(app: App, *, cut_journals: bool) -> Outcome:
    """Put right what can be put right.

    Torn packs are sealed, damaged ones salvaged, the catalog and the list of runs built again.
    Nothing is deleted: damaged packs are set aside under damaged/ in the store. A damaged journal
    is left as it is, and listed, unless --cut-journals. Exits with 3 when that is so, or when
    objects were lost.
    """
    with app.progress("repairing"):
        done = repair_everything(app.home, cut_journals=cut_journals)
    packs = done.store
    data = {
        "store": msgspec.to_builtins(packs),
        "journals_cut": list(done.cut),
        "messages_set_aside": list(done.set_aside),
        "left": [{"area": one.area, "where": one.where, "text": one.text} for one in done.left],
    }

    def text(out: Screen) -> None:
        out.line(
            f"Catalog rebuilt: {amounts.count(packs.objects, 'object')} in "
            f"{amounts.count(packs.packs, 'pack')}; list of runs rebuilt."
        )
        if packs.format_rewritten:
            out.line("format.json was rewritten.")
        if packs.directories_closed:
            closed = amounts.count(packs.directories_closed, "directory", "directories")
            out.line(f"{closed} closed to others (mode 700).")
        if packs.packs_sealed:
            out.line(f"{amounts.count(packs.packs_sealed, 'unfinished pack')} sealed.")
        if packs.packs_set_aside:
            out.line(
                f"{amounts.count(len(packs.packs_set_aside), 'damaged pack')} set aside: "
                f"{packs.objects_salvaged:,} objects saved, {packs.objects_lost:,} lost."
            )
        for run in done.cut:
            out.line(f"The journal of {safe_text(run)} was cut behind its last whole entry.")
        for path in done.set_aside:
            out.line(f"A damaged message was set aside: {safe_text(path)}")
        for one in done.left:
            out.line(out.style(f"{safe_text(one.where)}: {safe_text(one.text)}", "red"))
        if done.left:
            out.line("Give up what lies behind the damage: crab repair --cut-journals")
        out.line("See what is affected: crab check")

    whole = not done.left and not packs.objects_lost
    return Outcome(data, text, Exit.DONE if whole else Exit.INCOMPLETE)
