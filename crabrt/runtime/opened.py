"""`open_run`: a run without decorators, as a context manager, sync and async."""

from __future__ import annotations

import asyncio
import os
from contextvars import Token
from pathlib import Path
from typing import Any, cast

from crabrt.core.config import Config, resume_request
from crabrt.core.targets import parse_target
from crabrt.errors import NotResumable, StoreUnavailable
from crabrt.journal import RunView
from crabrt.runtime import registry
from crabrt.runtime.calls import Acting, Outcome, begin
from crabrt.runtime.entering import Entry, enter, enter_child, enter_sealed_child
from crabrt.runtime.exceptions import seal_exception
from crabrt.runtime.loops import close, give_back
from crabrt.runtime.meaning import meant, refuse_disabled
from crabrt.runtime.opening import Setup, check_name
from crabrt.runtime.replay import Species
from crabrt.runtime.run import NULL_RUN, Run
from crabrt.runtime.scopes import FRAME, Frame, leave, watch_tasks
from crabrt.runtime.session import CODECS, Session
from crabrt.runtime.settings import load_config
from crabrt.runtime.specs import Effects, Spec
from crabrt.runtime.waits import Steps, adrive, drive, in_thread


class OpenRun:
    """The context manager that `open_run` gives; entering it gives the `Run`.

    Inside another run of the same directory it is a child run, and one call to its parent. The
    block of a ``with`` cannot be skipped: where the parent's record answers that call, the block is
    run all the same, and the child's record answers what it calls.
    """

    def __init__(
        self, workspace: str | os.PathLike[str], name: str | None, resume: str | None, options: Any
    ) -> None:
        self._workspace = workspace
        self._name = name
        self._resume = resume
        self._options = options
        self._session: Session | None = None
        self._call: Acting | None = None
        self._token: Token[Frame | None] | None = None

    def _config(self) -> Config:
        return load_config(self._workspace, **self._options)

    def _called(self, configured: str | None = None) -> str:
        """What the run is called; the setting ``name`` is that of the outermost one."""
        directory = Path(self._workspace).resolve().name
        return check_name(self._name or configured or directory or "run")

    def _open(self) -> Entry | None:
        """The run of its own; None where everything is disabled."""
        config = self._config()
        if config.disable and self._resume is None:
            return None
        setup = Setup(config, Path(self._workspace), self._called(config.name))
        if self._resume is None:
            return enter(setup, None, resume_request())
        refuse_disabled(config, self._resume)
        target = meant(
            config, self._workspace, parse_target(self._resume), "of open_run ", self._is_mine
        )
        entry = enter(setup, target, None)
        if entry.session is None:
            where = entry.recorded.run if entry.recorded is not None else target.run
            raise NotResumable("it is finished", where=where)
        return entry

    def _is_mine(self, run: RunView) -> bool:
        return run.agent is None and self._name in (None, run.name)

    # -- as a run of its own -----------------------------------------------------------------

    def _begin(self, entry: Entry | None) -> Run:
        if entry is None:
            return cast("Run", NULL_RUN)  # it has the whole face of one
        assert entry.session is not None
        self._session = session = entry.session
        session.scope.adopt()
        return self._inside(Frame(session, session.scope))

    def _inside(self, frame: Frame) -> Run:
        self._token = FRAME.set(frame)
        return Run(frame.session, frame)

    def _end(self, error: BaseException | None) -> Steps[None]:
        if self._token is not None:
            leave(self._token)
        if self._session is None:
            return
        failure = seal_exception(CODECS, error, {}) if error is not None else None
        yield from self._session.end(None, failure, error)

    def _close(self) -> None:
        if self._session is not None:
            close(self._session)

    # -- as a child run ----------------------------------------------------------------------

    def _outer(self) -> Frame | None:
        """The frame it is nested in; None for a run of its own."""
        directory = os.fsencode(os.path.realpath(self._workspace))
        if self._resume is not None:
            return None
        outer = registry.frame_in(directory)
        if outer is None or not registry.overlap(directory, outer.session.engine.workspace.path):
            return None
        if FRAME.get() is None and self._config().shared:
            return None
        return outer

    def _asked(self, outer: Frame) -> Steps[Outcome]:
        spec = Spec(self._called(), {}, effects=Effects())
        named = {"workspace": os.fspath(self._workspace)}
        return begin(outer, spec, Species.TOOL, named, lasting=True)

    def _child(self, outer: Frame, outcome: Outcome) -> Entry:
        """The child run; without a session where its journal cannot be written."""
        parent = outer.session
        setup = Setup(parent.engine.config, Path(self._workspace), self._called())
        try:
            if isinstance(outcome, Acting):
                before = outcome.settled_before
                return enter_child(setup, parent, outcome.call, settled_before=before)
            return enter_sealed_child(setup, parent, outcome.sealed.call)
        except StoreUnavailable as error:
            parent.degrade(f"the child run {setup.name}: {error}")
            return Entry(None)

    def _nest(self, outer: Frame, outcome: Outcome, entry: Entry) -> Run:
        call = outcome.call if isinstance(outcome, Acting) else outcome.sealed.call
        self._call = outcome if isinstance(outcome, Acting) else None
        if entry.session is not None:
            return self._begin(entry)
        # Its calls are the parent's.
        return self._inside(Frame(outer.session, outer.scope.inside(call), Species.TOOL.value))

    def _end_call(self, error: BaseException | None) -> Steps[None]:
        """To its parent it is over."""
        call = self._call
        if call is None:
            return
        if error is not None:
            yield from call.fail(error)
        else:
            yield from call.finish(None)
        call.session.inner_checkpoint()

    # -- the two faces -----------------------------------------------------------------------

    def __enter__(self) -> Run:
        outer = self._outer()
        if outer is None:
            return self._begin(self._open())
        outcome = drive(self._asked(outer))
        try:
            return self._nest(outer, outcome, self._child(outer, outcome))
        except BaseException as error:
            if isinstance(outcome, Acting):
                drive(outcome.fail(error))
            raise

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            try:
                drive(self._end(error))
            finally:
                self._close()
        except BaseException as own:
            drive(self._end_call(own))
            raise
        drive(self._end_call(error))
        if error is None and self._session is not None:
            self._session.tell()

    async def __aenter__(self) -> Run:
        watch_tasks()
        outer = self._outer()
        if outer is None:
            return self._begin(await in_thread(self._open, give_back))
        outcome = await adrive(self._asked(outer))
        try:
            entry = await in_thread(lambda: self._child(outer, outcome), give_back)
            return self._nest(outer, outcome, entry)
        except BaseException as error:
            if isinstance(outcome, Acting):
                await adrive(outcome.fail(error))
            raise

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            try:
                await adrive(self._end(error))
            finally:
                await asyncio.to_thread(self._close)
        except BaseException as own:
            await adrive(self._end_call(own))
            raise
        await adrive(self._end_call(error))
        if error is None and self._session is not None:
            self._session.tell()


def open_run(
    *,
    workspace: str | os.PathLike[str] = ".",
    name: str | None = None,
    resume: str | None = None,
    **options: Any,
) -> OpenRun:
    """A run for a block of code: ``with crabrt.open_run(workspace=".") as run``.

    Inside another run of the same directory it is a child run.

    Decorated tools and models called inside belong to it, as do `Run.model_call` and
    `Run.tool_call`.

    Args:
        workspace: the directory it works in, protected in place.
        name: what the run is called (default: the setting ``name``, else the directory's name; a
            child run's: the directory's).
        resume: ``RUN`` or ``RUN@TURN`` to take up instead of beginning a new one. ``last`` is the
            last run that was opened so in this directory (and has that name, if one is given).
        options: any field of `crabrt.Config`. With ``disable``, the run is a null run: calls act,
            and nothing is recorded.

    Raises:
        WorkspaceRefused, WorkspaceBusy, RunBusy, NotFound, NotResumable, StoreUnavailable, Damaged.
    """
    return OpenRun(workspace, name, resume, options)
