"""The shell that an agent loop uses as a tool."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Final, Self, TypeVar

from crabrt.core.ids import valid_name
from crabrt.errors import UsageError
from crabrt.process.shell import launching
from crabrt.process.shell.exchanging import OnOutput, Outcome, Wishes
from crabrt.process.shell.holding import Call, Holding, Wanted
from crabrt.process.shell.listening import Sink
from crabrt.process.shell.rebuilding import rebuild
from crabrt.process.shell.recording import record_state
from crabrt.process.shell.session import Session, restored
from crabrt.process.shell.state import ShellState
from crabrt.process.shell.values import (
    Isolation,
    ShellOptions,
    ShellRecord,
    ShellResult,
)

GRACE_S: Final = 1.0
"""How long processes in the background may take to end by themselves when their shell is closed."""

_T = TypeVar("_T")


class Shell:
    """A bash session that lasts: directory, variables, functions and background jobs stay.

    ::

        with crabrt.Shell(cwd="project") as sh:
            sh.run("source venv/bin/activate")
            print(sh.run("pytest -q", timeout=300).output)

    Nothing is started before the first command. Commands of several threads run one after the
    other. A child that the loop forks does not own the shell: there, every method refuses.

    Args:
        name: for people; letters, digits, ``.``, ``_`` and ``-``.
        cwd: where the shell starts; must be there then.
        env: variables on top of the loop's environment.
        isolation: ``auto``, or one of `Isolation`, which then must work.
        bash: the program, bash 5 or later.
        separate_errors: keep standard error apart, at the price of the order of the two.
        output_limit_bytes: of each command's output so much is kept, beginning and end.
        timeout: seconds for commands that have no other.
        directory: where channels are made; must be private. None: the user's runtime directory.
    """

    def __init__(
        self,
        name: str = "main",
        cwd: str | bytes | os.PathLike[str] = ".",
        env: Mapping[str, str] | None = None,
        isolation: str = "auto",
        *,
        bash: str = "bash",
        separate_errors: bool = False,
        output_limit_bytes: int = 1 << 20,
        timeout: float = 600.0,
        directory: str | bytes | os.PathLike[str] | None = None,
    ) -> None:
        if not valid_name(name):
            raise UsageError(f"{name!r} is no name for a shell", hint="letters, digits, . _ -")
        if output_limit_bytes < 2 or timeout <= 0:
            raise UsageError("a shell needs room for output, and time")
        wanted = Wanted(
            options=ShellOptions(
                name=name,
                bash=bash,
                separate_errors=separate_errors,
                output_limit_bytes=output_limit_bytes,
                timeout_s=timeout,
            ),
            env=env,
            isolation=isolation,
            base=None if directory is None else os.path.abspath(os.fsencode(directory)),
        )
        self._wanted = wanted
        self._holding = Holding(wanted, os.path.abspath(os.fsencode(cwd)))
        self.not_rebuilt: tuple[str, ...] = ()
        """What of a recorded state could not be brought back, a line each."""

    @classmethod
    def attach(cls, record: ShellRecord, *, init_pid: int | None = None) -> Shell:
        """Take up a shell whose loop was killed, or let go of it by `detach`.

        `rejoin` waits for the command that it was at. What the shell wrote and the other loop had
        read is not written again.

        Args:
            record: of the shell.
            init_pid: its first process, if an image of it was restored as another one.

        Raises:
            ShellUnavailable: it does not run any more, or another process is attached.
        """
        if init_pid is not None:
            record = restored(record, init_pid)
        options = record.options
        shell = cls(
            options.name,
            isolation=record.isolation,
            bash=options.bash,
            separate_errors=options.separate_errors,
            output_limit_bytes=options.output_limit_bytes,
            timeout=options.timeout_s,
            directory=os.path.dirname(record.directory),
        )
        shell._holding.hold(Session.attach(record))
        return shell

    @classmethod
    def rebuild(
        cls, state: ShellState, *, env: Mapping[str, str] | None = None, **options: object
    ) -> Shell:
        """Start a new shell and give it the state that another one had.

        `not_rebuilt` of the new shell lists what could not be brought back.

        Args:
            state: what `record_state` gave.
            env: variables on top of the loop's environment; the state's own win.
            options: the other arguments of `Shell`, but for ``cwd``.

        Raises:
            ShellUnavailable: there can be no shell.
        """
        shell = cls(cwd=state.directory, env=env, **options)  # type: ignore[arg-type]
        holding = shell._holding
        holding.may_move = True
        with holding.turn:
            session = holding.ready()
            shell.not_rebuilt = rebuild(session, state)
            holding.where = session.directory
        return shell

    @property
    def isolation(self) -> Isolation:
        """What keeps the shell's processes together. Found out if that was not done yet.

        Raises:
            ShellUnavailable: what was demanded does not work here.
        """
        session = self._holding.session
        if session is not None:
            return session.record.isolation
        return launching.choose(self._wanted.isolation)

    @property
    def record(self) -> ShellRecord | None:
        """What `attach` needs; None while nothing is started."""
        session = self._holding.session
        return None if session is None else session.record

    @property
    def cwd(self) -> str:
        """Where the shell was after its last command."""
        return os.fsdecode(self._holding.where)

    @property
    def pid(self) -> int | None:
        """Of bash, as seen from outside of its namespace; None if there is none now."""
        session = self._holding.session
        return session.shell.pid if session is not None and session.shell is not None else None

    def run(
        self,
        command: str | bytes,
        *,
        timeout: float | None = None,
        on_output: OnOutput | None = None,
    ) -> ShellResult:
        """Run `command` in the shell, as if typed, and wait for it.

        Its standard input is ``/dev/null``. What it redirects by ``exec`` for descriptors 0, 1 and
        2 holds until it ends. When its time is over, its job gets SIGINT, then SIGTERM, then
        SIGKILL; jobs in the background and the shell's own state stay. If the shell itself ends
        (``exit``, ``set -e``, a kill), the result's `note` says so, and the next command starts a
        new one in the last directory.

        Args:
            command: one line or many.
            timeout: in seconds; None: the shell's own.
            on_output: called, on this thread, with each piece of output as it comes. If it raises,
                the command is ended, and that exception goes on.

        Raises:
            UsageError: NUL in the command, or this is a forked child.
            ShellUnavailable: there can be no shell, or this one is closed.
        """
        return self._run(command, timeout, on_output, Wishes())

    def _run(
        self,
        command: str | bytes,
        timeout: float | None,
        on_output: OnOutput | None,
        wishes: Wishes,
    ) -> ShellResult:
        text = command.encode("utf-8", "surrogateescape") if isinstance(command, str) else command
        if b"\0" in text:
            raise UsageError("a command cannot contain NUL")

        def act(session: Session, sink: Sink, limit_s: float) -> Outcome:
            return session.run(text, sink, limit_s=limit_s, on_output=on_output, wishes=wishes)

        with self._holding.turn:
            session = self._holding.ready()
            return self._holding.result(session, act, Call(timeout, on_output, wishes))

    def rejoin(
        self, *, timeout: float | None = None, on_output: OnOutput | None = None
    ) -> ShellResult | None:
        """After `attach`: wait for the command that the shell was at when its loop was killed.

        Its output begins where that loop stopped to read, the duration when this is called.

        Returns:
            As `run`; None if the shell was at none.

        Raises:
            ShellUnavailable: this shell is closed.
        """
        with self._holding.turn:
            session = self._holding.owned()
            sink = session.unclaimed if session is not None else None
            if session is None or sink is None:
                return None
            wishes = Wishes()

            def act(session: Session, sink: Sink, limit_s: float) -> Outcome:
                return session.rejoin(sink, limit_s=limit_s, on_output=on_output, wishes=wishes)

            return self._holding.result(session, act, Call(timeout, on_output, wishes), sink)

    async def arun(
        self,
        command: str | bytes,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it ends the command, not the waiting
        on_output: OnOutput | None = None,
    ) -> ShellResult:
        """`run` for event loops. `on_output` is called on the loop's thread.

        Cancelled, it ends the command as if its time were over, and then is cancelled.
        """
        loop = asyncio.get_running_loop()
        heard = on_output

        def pass_on(piece: bytes) -> None:
            if heard is not None:
                loop.call_soon_threadsafe(heard, piece)

        listener = None if heard is None else pass_on
        wishes = Wishes()
        future = on_thread(lambda: self._run(command, timeout, listener, wishes))
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self._holding.say(wishes.end)
            with contextlib.suppress(Exception):  # the cancellation is what is told
                await asyncio.shield(waiting)
            raise

    def interrupt(self) -> None:
        """From another thread: Ctrl-C for the command that runs, if one does.

        It gets SIGINT and may take its time; the rest of a list of commands is dropped.
        """
        self._holding.owned()
        self._holding.interrupt()

    def background_output(self) -> bytes:
        """What jobs in the background wrote since this was called last, while no command ran.

        Its middle is left out if it is too long. While a command runs, what they write is in its
        result.
        """
        session = self._holding.owned()
        return b"" if session is None else session.take_background()

    def record_state(self) -> ShellState:
        """What of the shell could be rebuilt without an image of its processes.

        Nothing of the recording shows in the shell. Takes its turn among the commands.

        Raises:
            ShellUnavailable: there can be no shell, or it does not answer.
        """
        with self._holding.turn:
            return record_state(self._holding.ready())

    def detach(self) -> ShellRecord | None:
        """Let go of the shell, which goes on; what `attach` needs, None if nothing was started.

        Until somebody attaches, a job that writes more than a pipe holds has to wait.
        """
        self._holding.owned()
        session = self._holding.let_go()
        if session is None:
            return None
        session.leave()
        return session.record

    def close(self, *, grace: float = GRACE_S) -> tuple[int, ...]:
        """End the whole session: the shell and all that it has in the background. Twice is fine.

        A command that runs is ended first. In a forked child this does nothing.

        Args:
            grace: seconds between SIGTERM and SIGKILL for jobs in the background.

        Returns:
            Processes that could not be ended, as they became another user's.
        """
        return self._holding.end(grace)

    async def aclose(self, *, grace: float = GRACE_S) -> None:
        """`close` for event loops."""
        await asyncio.shield(asyncio.wrap_future(on_thread(lambda: self.close(grace=grace))))

    def bequeath(self) -> Shell:
        """Close this one, and leave the session to the shell that this gives; `close` that.

        A command that runs is ended first.
        """
        heir = Shell()
        heir._wanted, heir._holding = self._wanted, self._holding.bequeath()
        return heir

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def on_thread(work: Callable[[], _T]) -> Future[_T]:
    """Run `work`, in this context, on a thread that does not keep the program from ending."""
    future: Future[_T] = Future()
    context = contextvars.copy_context()

    def act() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            future.set_exception(error)

    run = functools.partial(context.run, act)
    threading.Thread(target=run, name="crabrt-shell-run", daemon=True).start()
    return future
