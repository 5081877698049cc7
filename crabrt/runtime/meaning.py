"""Which run is meant by a loop that asks to resume one, and whether it is its to resume."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from crabrt.core.config import Config
from crabrt.core.targets import LAST, Target
from crabrt.errors import NotFound, NotResumable
from crabrt.journal import RunIndex, RunView
from crabrt.operations.targets import runs_near


def meant(
    config: Config,
    workspace: str | os.PathLike[str],
    target: Target,
    whose: str,
    is_mine: Callable[[RunView], bool],
) -> Target:
    """`target`, its ``last`` replaced: the last run of `workspace` that is nobody's child.

    It is never one of another directory, as on the command line, where that is said and asked.

    Args:
        config: says where the store is.
        workspace: of whoever asks.
        target: as it was asked for.
        whose: of whom such runs are, for the message.
        is_mine: whether a run may be meant.

    Raises:
        NotFound: there is none.
    """
    if target.run != LAST:
        return target
    here = os.path.realpath(workspace)
    with RunIndex.open(config.home) as index:
        index.refresh()
        for row in runs_near(index, os.fsencode(here)):
            view = row.view
            if view.run and view.lineage.call is None and is_mine(view):
                return msgspec.structs.replace(target, run=view.run)
    raise NotFound(
        f"no run {whose}was made here",
        where=here,
        hint="`crab runs` lists those of every directory",
    )


def refuse_anothers(run: str, made_by: str | None, agent: str) -> None:
    """Refuse `agent` a run that `made_by` made: the record would answer another loop's calls.

    Args:
        run: its id.
        made_by: the agent function that made it; None: `open_run` did.
        agent: the one that asks for it.

    Raises:
        NotResumable: they are not the same.
    """
    if made_by == agent:
        return
    if made_by is None:
        hint = f'crabrt.open_run(resume="{run}") takes it up'
    else:
        hint = f"call resume of that one; if it was renamed: @crabrt.agent(name={made_by!r})"
    whose = "open_run" if made_by is None else f"the agent {made_by!r}"
    raise NotResumable(f"it is a run of {whose}, not of {agent!r}", where=run, hint=hint)


def refuse_disabled(config: Config, run: str) -> None:
    """Refuse to resume where everything is to be plain functions.

    Raises:
        NotResumable: it is (``CRAB_DISABLE``).
    """
    if config.disable:
        raise NotResumable(
            "crabrt is disabled, and without it nothing can be resumed",
            where=run,
            hint="unset CRAB_DISABLE, or the setting disable",
        )
