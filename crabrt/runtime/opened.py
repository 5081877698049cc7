"""`open_run`: a run without decorators, as a context manager, sync and async."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from crabrt.core.config import resume_request
from crabrt.core.entries import Failure
from crabrt.core.targets import parse_target
from crabrt.errors import NotResumable
from crabrt.runtime import registry
from crabrt.runtime.entering import Entry, enter, look_up
from crabrt.runtime.exceptions import seal_exception
from crabrt.runtime.loops import give_back
from crabrt.runtime.opening import Setup, check_name
from crabrt.runtime.run import Run
from crabrt.runtime.scopes import FRAME, Frame, leave, watch_tasks
from crabrt.runtime.session import CODECS
from crabrt.runtime.settings import load_config
from crabrt.runtime.waits import Steps, adrive, drive, in_thread


class OpenRun:
    """The context manager that `open_run` gives; entering it gives the `Run`."""

    def __init__(
        self, workspace: str | os.PathLike[str], name: str | None, resume: str | None, options: Any
    ) -> None:
        self._workspace = workspace
        self._name = name
        self._resume = resume
        self._options = options

    def _open(self) -> Entry:
        config = load_config(self._workspace, **self._options)
        name = self._name or config.name or Path(self._workspace).resolve().name or "run"
        setup = Setup(config, Path(self._workspace), check_name(name))
        if self._resume is None:
            return enter(setup, None, resume_request())
        target = parse_target(self._resume)
        entry = enter(setup, target, None)
        if entry.session is None:
            raise NotResumable("it is finished", where=look_up(config, target).run)
        return entry

    def _begin(self, entry: Entry) -> Run:
        assert entry.session is not None
        self._session = entry.session
        self._session.scope.adopt()
        frame = Frame(self._session, self._session.scope)
        self._token = FRAME.set(frame)
        return Run(self._session, frame)

    def _end(self, error: BaseException | None) -> Steps[None]:
        leave(self._token)
        failure: Failure | None = None
        if error is not None:
            failure = seal_exception(CODECS, error, {})
        yield from self._session.end(None, failure)

    def _close(self) -> None:
        registry.remove(self._session)
        self._session.close()

    def __enter__(self) -> Run:
        return self._begin(self._open())

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            drive(self._end(error))
        finally:
            self._close()
        if error is None:
            self._session.tell()

    async def __aenter__(self) -> Run:
        run = self._begin(await in_thread(self._open, give_back))
        watch_tasks()
        return run

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            await adrive(self._end(error))
        finally:
            await asyncio.to_thread(self._close)
        if error is None:
            self._session.tell()


def open_run(
    *,
    workspace: str | os.PathLike[str] = ".",
    name: str | None = None,
    resume: str | None = None,
    **options: Any,
) -> OpenRun:
    """A run for a block of code: ``with crabrt.open_run(workspace=".") as run``.

    Decorated tools and models called inside belong to it, as do `Run.model_call` and
    `Run.tool_call`.

    Args:
        workspace: the directory it works in, protected in place.
        name: what the run is called (default: the directory's name).
        resume: ``RUN`` or ``RUN@TURN`` to take up instead of beginning a new one.
        options: any field of `crabrt.Config`.

    Raises:
        WorkspaceRefused, WorkspaceBusy, RunBusy, NotFound, NotResumable, StoreUnavailable, Damaged.
    """
    return OpenRun(workspace, name, resume, options)
