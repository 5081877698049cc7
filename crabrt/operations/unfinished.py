"""Processes of a restore that was killed when its files were done: who is not back yet comes back.

Who is back goes on: nobody knows for how long it has been at work since. Who was to end, and had
not, ends now; its image is what that restore had taken.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import msgspec

from crabrt.core.clock import boot_id
from crabrt.core.processes import ProcessState
from crabrt.errors import DamagedObject
from crabrt.journal.restores import Begin, RestoreLog, Unrevived
from crabrt.operations.alive import FILES_ALONE, NOT_WANTED, Company, await_killed, scratch, settle
from crabrt.process.family import Identity
from crabrt.process.halfway import Found, found
from crabrt.process.parking import Parked
from crabrt.process.revivals import Missing, Revival
from crabrt.process.sighting import Sighting
from crabrt.process.state import read_state

_NOT_KEPT = "the restore that was killed has its image"


def finish(company: Company, newest_ns: int) -> Revival | None:
    """Finish a restore that was killed when its files were done; None if there is none such.

    If a run went on there since, that restore is a thing of the past. Where processes are to be
    left alone, who is not back is told.

    Args:
        company: whose.
        newest_ns: when the newest state of a run was made there (ns since the epoch).

    Raises:
        CrabError: the log, or what was alive, cannot be read.
    """
    unfinished = RestoreLog(company.workspace.state_dir).unrevived()
    if unfinished is None or newest_ns > unfinished.begin.wall_ns:
        return None
    by, begin = company.by(), unfinished.begin
    await_killed(company.workspace.home)
    try:
        before = _before(begin, company)
        wanted, back = _wanted(unfinished, company, before)
    except DamagedObject as error:
        if by != NOT_WANTED:
            raise DamagedObject(error.message, where=error.where, hint=FILES_ALONE) from error
        return Revival(notes=(f"who is not back cannot be told: {error.message}",))
    if by == NOT_WANTED:
        rest = [tree for tree in wanted.trees if tree not in back.whole]
        return Revival(missing=tuple(Missing(tree.top, NOT_WANTED) for tree in rest))
    company = replace(company, by=lambda: by)
    doomed = (before | set(back.halves)) - set(back.processes)
    ending = _of(company.alive(), doomed, set(back.processes))
    with scratch(company, ending, unfinished.alive, wanted) as directory:
        with Parked(ending, company.writer, _NOT_KEPT, directory) as parked:
            parked.end()
        return settle(company, directory, back)


def _wanted(
    unfinished: Unrevived, company: Company, before: Collection[Identity]
) -> tuple[ProcessState, Found]:
    """Who is to be alive, and who of them is back."""
    if unfinished.alive is None:
        return ProcessState(), Found()
    state, begin = read_state(unfinished.alive, company.writer), unfinished.begin
    if begin.boot != boot_id():
        return state, Found()
    here, stayed = company.workspace.path, unfinished.is_given_up
    return state, found(state, here, begin.wall_ns, before, stayed=stayed)


def _before(begin: Begin, company: Company) -> set[Identity]:
    """Who was to end."""
    if begin.alive_before is None or begin.boot != boot_id():
        return set()
    state = read_state(begin.alive_before, company.writer)
    return {one.identity for tree in state.trees for one in tree.processes}


def _of(alive: Sighting, doomed: Collection[Identity], spared: Collection[Identity]) -> Sighting:
    """The trees of `alive` that have any of `doomed`, and none of `spared`.

    Who began since that restore, and is neither, is no business of it.
    """
    trees = tuple(
        tree
        for tree in alive.state.trees
        if any(one.identity in doomed for one in tree.processes)
        and not any(one.identity in spared for one in tree.processes)
    )
    state = msgspec.structs.replace(alive.state, trees=trees)
    ours = {one.identity for tree in trees for one in tree.processes}
    pulses = {who: pulse for who, pulse in alive.pulses.items() if who in ours}
    return Sighting(state, pulses, alive.unseen)
