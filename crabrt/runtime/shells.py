"""`crabrt.Shell`: in a run, the shell belongs to it, is imaged with it, and comes back with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from crabrt.process import shells
from crabrt.process.shell import Shell as PlainShell
from crabrt.process.shell.session import Session
from crabrt.process.shell.shell import GRACE_S, on_thread
from crabrt.runtime import registry, unclosed
from crabrt.runtime.waits import drive


class Shell(PlainShell):
    """A bash session that lasts: directory, variables, functions and background jobs stay.

    ::

        sh = crabrt.Shell(cwd="project")

        @crabrt.tool
        def bash(command: str) -> str:
            return sh.run(command, timeout=300).output

    In a run, its processes are the run's: a turn is restored or resumed with the shell, and what it
    had started, as they were; without images, with a shell that has the state of that one. Which
    shell of a resumed loop is which is told by `name`, and by the order in which they are made.

    Arguments and methods are those of ``crabrt.process.shell.Shell``; docs/shell.md tells more.
    """

    def __init__(
        self,
        name: str = "main",
        cwd: str | bytes | os.PathLike[str] = ".",
        env: Mapping[str, str] | None = None,
        isolation: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(name, cwd, env, isolation, **options)
        self._who = name, shells.next_ordinal(name)
        self._holding.opening = self._opened

    def close(self, *, grace: float = GRACE_S) -> tuple[int, ...]:
        """As of ``crabrt.process.shell.Shell``; also of one that came back and was not used yet."""
        left = super().close(grace=grace)
        frame = unclosed.current_frame()
        if frame is not None:
            frame.session.engine.custody.shells.end_recorded(self._who, grace)
        return left

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif not unclosed.keep(self._who, self):
            super().close()  # what came back and was not used yet is left to the next resume

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.aclose()
        elif isinstance(error, GeneratorExit):  # nothing can be awaited any more
            self.__exit__(kind, error, trace)
        else:  # a command may have to be ended first
            leaving = on_thread(lambda: self.__exit__(kind, error, trace))
            await asyncio.shield(asyncio.wrap_future(leaving))

    def _opened(self, begin: Callable[[], Session]) -> Session:
        frame = registry.current_frame()
        if frame is None:
            return begin()
        drive(unclosed.goes_on(frame.session, frame.scope))
        return frame.session.engine.custody.shells.open(self._who, self, begin)
