"""A session: its first process, the shell below it, and this process's hold on both."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from crabrt.core.clock import boot_id
from crabrt.process.shell import channels as channelling
from crabrt.process.shell import launching, members, script
from crabrt.process.shell.channels import Channels
from crabrt.process.shell.errors import ShellUnavailable
from crabrt.process.shell.exchanging import Exchange, OnOutput, Outcome, Wishes
from crabrt.process.shell.keeping import Kept
from crabrt.process.shell.listening import Listener, Sink
from crabrt.process.shell.reports import Ended, Started
from crabrt.process.shell.values import Isolation, ShellOptions, ShellRecord
from crabrt.process.table import Process, children, command, look

_START_LIMIT_S: Final = 20.0
_CLOSE_LIMIT_S: Final = 10.0
_TOLD_LIMIT_S: Final = 2.0
_POLL_S: Final = 0.05
_ARGUMENTS: Final = (b"--norc", b"--noprofile", b"--noediting", b"-i", b"+H", b"+o", b"history")


class Session:
    """What `start` and `attach` give. Used by one thread at a time, but for `wake`.

    Attributes:
        record: what others need to attach.
        shell: bash, as seen from outside; None when it has ended.
        directory: where it was last.
        status: the last ``$?``.
        unclaimed: output of a command of the loop before, for `rejoin`.
    """

    def __init__(
        self,
        channels: Channels,
        record: ShellRecord,
        init: Process,
        child: launching.Child | None,
        unclaimed: Sink | None = None,
    ) -> None:
        self.record = record
        self.shell: Process | None = None
        self.directory = b"/"
        self.status = 0
        self.background = Kept(record.options.output_limit_bytes)
        self._channels = channels
        self._init = init
        self._child = child
        self._sessions = {init.session}
        self._is_closed = False
        self.unclaimed = unclaimed
        self._listener = Listener(channels, self.background, unclaimed)

    @classmethod
    def start(
        cls,
        options: ShellOptions,
        form: Isolation,
        base: bytes,
        env: Mapping[str, str] | None,
        where: bytes,
        *,
        within: tuple[str, ...] = (),
    ) -> Session:
        """Start a session with a shell in the directory `where`.

        Args:
            options: see `ShellOptions`.
            form: its isolation.
            base: where a directory for its channels is made.
            env: variables on top of the loop's environment.
            where: the directory, as it is seen `within`.
            within: a command that runs another one in other namespaces, if it is to be there.

        Raises:
            ShellUnavailable: it cannot be started; nothing is left of the attempt.
        """
        directory = channelling.private_directory(base, options.name)
        mark = os.path.basename(directory).decode("ascii", "replace")
        with contextlib.ExitStack() as undo:
            undo.callback(channelling.remove, directory)
            channelling.make(directory)
            channels = Channels(directory)
            undo.callback(channels.close)
            child = launching.launch(
                form, directory, options.bash, launching.environment(env, mark), within
            )
            undo.callback(_abandon, child)
            init = _find_init(child, form)
            record = ShellRecord(
                directory=directory,
                isolation=form,
                init_pid=init.pid,
                init_started=init.started,
                mark=mark,
                boot=boot_id(),
                options=options,
            )
            session = cls(channels, record, init, child)
            undo.callback(session._listener.close)
            session.begin(where)
            undo.pop_all()
        return session

    @classmethod
    def attach(cls, record: ShellRecord) -> Session:
        """Take up a session that runs and that no process is attached to.

        Raises:
            ShellUnavailable: it does not run any more, or somebody is attached.
        """
        init = look(record.init_pid)
        if (
            init is None
            or init.ended
            or init.started != record.init_started
            or (record.boot != boot_id())
        ):
            raise ShellUnavailable(
                f"this shell ({record.options.name}) does not run any more",
                where=os.fsdecode(record.directory),
                hint="rebuild it from its recorded state",
            )
        channels = Channels(record.directory)
        is_pending = channelling.pending(record.directory) is not None
        unclaimed = Sink.of_size(record.options.output_limit_bytes) if is_pending else None
        session = cls(channels, record, init, None, unclaimed)
        with contextlib.ExitStack() as undo:
            undo.callback(session.leave)
            session.shell = _find_shell(init)
            undo.pop_all()
        if session.shell is not None:
            session._sessions.add(session.shell.pid)
            with contextlib.suppress(OSError):
                session.directory = os.readlink(b"/proc/%d/cwd" % session.shell.pid)
        return session

    @property
    def is_gone(self) -> bool:
        """Whether the first process, and with it the session, has ended, or lost its channels."""
        return (
            self._listener.is_gone
            or not members.is_alive(self._init)
            or not os.path.exists(self._channels.path("status"))
        )

    def shell_lives(self) -> bool:
        """Whether bash is there."""
        return self.shell is not None and members.is_alive(self.shell)

    def begin(self, where: bytes) -> None:
        """Start a shell in the directory `where`, or in ``/`` if that is gone.

        Raises:
            ShellUnavailable: it does not answer.
        """
        self._channels.drain_command()
        self._channels.send(self._channels.control, where + b"\0")
        started = self._await_shell()
        shell = members.inside(self._init, started.pid)
        if shell is None:
            raise ShellUnavailable("the shell ended at once", where=self.record.options.bash)
        self.shell, self.status, self.directory = shell, 0, where
        self._sessions.add(shell.pid)
        outcome = self.exchange([script.SETTINGS], Sink({}), limit_s=_START_LIMIT_S)
        if outcome.report is None:
            members.send(shell, signal.SIGKILL)  # so that the next order is read
            raise ShellUnavailable("the shell does not answer", where=self.record.options.bash)
        self.shell = look(shell.pid) or shell  # in a session of its own by now
        self.directory = outcome.report.directory

    def _await_shell(self) -> Started:
        until = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < until and not self._listener.is_gone:
            record = self._listener.take(
                lambda one: isinstance(one, Started) and one.what == "shell"
            )
            if isinstance(record, Started):
                return record
            if self._child is not None and self._child.is_gone():
                break
            self._listener.wait(_POLL_S)
        raise ShellUnavailable("bash cannot be started", where=self.record.options.bash)

    def run(
        self,
        text: bytes,
        sink: Sink,
        *,
        limit_s: float,
        on_output: OnOutput | None,
        wishes: Wishes,
    ) -> Outcome:
        """Run a command of the user's.

        Raises:
            ShellUnavailable: it cannot be handed over.
        """
        nonce = secrets.token_hex(16)
        name = channelling.command_name(nonce)
        content = script.command_file(text, nonce, self.status, self.record.inside)
        self._channels.put(name, content)
        separate = self.record.options.separate_errors
        line = script.run_line(self.record.inside, name, separate_errors=separate)
        try:
            outcome = self.exchange(
                [line],
                sink,
                limit_s=limit_s,
                on_output=on_output,
                nonce=nonce,
                wishes=wishes,
                is_begun=False,
            )
            self._settle(outcome)
        finally:
            self._forget(nonce)
        return outcome

    def rejoin(
        self, sink: Sink, *, limit_s: float, on_output: OnOutput | None, wishes: Wishes
    ) -> Outcome:
        """Wait for a command that was begun, and whose end no loop has seen, as `run` would have.

        Args:
            sink: `unclaimed`.
            limit_s: as for `run`.
            on_output: as for `run`.
            wishes: as for `run`.
        """
        nonce = channelling.pending(self.record.directory) or ""
        self.unclaimed = None
        if on_output is not None:
            self._listener.enliven(sink)
        try:
            outcome = self.exchange(
                None, sink, limit_s=limit_s, on_output=on_output, nonce=nonce, wishes=wishes
            )
            self._settle(outcome)
        finally:
            self._forget(nonce)
        return outcome

    def ask(self, text: bytes, *lines: bytes, limit_s: float, most_bytes: int) -> Kept | None:
        """Run `text`, which writes to standard output what it has to tell, then `lines`.

        Nothing of it shows: neither in ``$?``, nor in any output.

        Returns:
            What was told; None if the shell ended, or did not answer in time.
        """
        self._channels.put("ask", text)
        kept = Kept(most_bytes, tail=False)
        outcome = self.exchange(
            [script.ask_line(self.record.inside), *lines], Sink({"state": kept}), limit_s=limit_s
        )
        if outcome.report is None:
            self.shell = None
        return kept if outcome.report is not None and not outcome.timed_out else None

    def exchange(
        self,
        lines: list[bytes] | None,
        sink: Sink,
        *,
        limit_s: float,
        on_output: OnOutput | None = None,
        nonce: str | None = None,
        wishes: Wishes | None = None,
        is_begun: bool = True,
    ) -> Outcome:
        """Send `lines` and wait for the report; None: they were sent by a loop that was killed."""
        if self.shell is None:
            return self._ended_before()
        nonce = nonce or secrets.token_hex(16)
        before: frozenset[int] = frozenset()
        self._listener.attend(sink)
        try:
            if lines is not None:
                before = children(self.shell.pid)
                report = script.report_line(self.record.inside, nonce)
                self._channels.send(self._channels.command, b"".join(lines) + report)
            return Exchange(
                self._channels,
                self._listener,
                self.shell,
                nonce=nonce,
                sink=sink,
                on_output=on_output,
                before=before,
                is_begun=is_begun,
            ).finish(limit_s, wishes or Wishes())
        finally:
            self._listener.attend(None)

    def _ended_before(self) -> Outcome:
        """The end of a shell that nobody was there to hear of."""
        found: list[Ended] = []

        def is_told() -> bool:
            record = self._listener.take(lambda one: isinstance(one, Ended))
            found.extend([record] if isinstance(record, Ended) else [])
            return bool(found) or self.is_gone

        members.wait_until(is_told, _TOLD_LIMIT_S)
        return Outcome(ended=found[-1].status if found else None, is_gone=self.is_gone)

    def wake(self) -> None:
        """Have the thread that waits for a command look at its wishes now."""
        with self._listener.changed:
            self._listener.changed.notify_all()

    def _forget(self, nonce: str) -> None:
        """No loop that attaches needs to wait for this command."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._channels.path(channelling.command_name(nonce)))

    def _settle(self, outcome: Outcome) -> None:
        """Note how a command left the shell."""
        if outcome.report is None:
            self.shell = None
        else:
            self.status = outcome.report.status
            self.directory = outcome.report.directory or self.directory

    def take_background(self) -> bytes:
        """What came from the background since it was taken last."""
        with self._listener.changed:
            return self.background.take()

    def members(self) -> list[Process]:
        """Everybody in the session but its first process."""
        if self.record.isolation == "session":
            return members.of_session(self._init, self.record.mark, self._sessions)
        return members.of_namespace(self._init)

    def leave(self) -> None:
        """Let go of the session; it goes on, and somebody else may attach."""
        self._listener.close()
        self._channels.close()

    def close(self, grace_s: float) -> list[Process]:
        """End everybody: SIGTERM, and SIGKILL after `grace_s`. Who is left after all that."""
        if self._is_closed:
            return []
        self._is_closed = True

        def jobs() -> list[Process]:
            shell = self.shell.pid if self.shell else 0
            return [one for one in self.members() if one.pid != shell]

        members.end_all(jobs, grace_s=grace_s, limit_s=0)
        left = members.end_all(self.members, grace_s=0, limit_s=_CLOSE_LIMIT_S)
        members.send(self._init, signal.SIGKILL)
        self.leave()
        members.wait_until(self._is_reaped, _CLOSE_LIMIT_S)
        channelling.remove(self.record.directory)
        return left

    def _is_reaped(self) -> bool:
        if self._child is not None:
            return self._child.is_gone()
        return not members.is_alive(self._init)


def prepare_channels(record: ShellRecord) -> None:
    """Make the channels of a shell whose image is about to be restored, where they are missing.

    What the shell was at when it was killed, it is not at when it comes back. A fork's shell sees
    them in the place of the original's, which may be gone with the original's shell.

    Raises:
        ShellUnavailable: they cannot be made.
    """
    channelling.make(record.directory)
    try:
        channelling.make_place(record.inside)
    except OSError as error:
        raise ShellUnavailable(
            f"there is no place to show a shell its channels: {error.strerror}",
            where=os.fsdecode(record.inside),
        ) from error
    try:
        channelling.forget_pending(record.directory)
    except OSError as error:
        raise ShellUnavailable(
            f"what is left of a command cannot be removed: {error.strerror}",
            where=os.fsdecode(record.directory),
        ) from error


def restored(record: ShellRecord, init_pid: int) -> ShellRecord:
    """`record` of a shell whose first process was restored as `init_pid`.

    Raises:
        ShellUnavailable: there is no such process.
    """
    init = look(init_pid)
    if init is None:
        raise ShellUnavailable(f"there is no process {init_pid}")
    return msgspec.structs.replace(
        record, init_pid=init.pid, init_started=init.started, boot=boot_id()
    )


def _abandon(child: launching.Child) -> None:
    """End what was just started, and whatever it has started."""
    own = look(child.pid)
    if own is not None:
        found = [own, *(one for pid in children(child.pid) if (one := look(pid)))]
        members.end_all(
            lambda: [one for one in found if members.is_alive(one)], grace_s=0, limit_s=5
        )
    members.wait_until(child.is_gone, _CLOSE_LIMIT_S)


def _find_init(child: launching.Child, form: Isolation) -> Process:
    """The first process of the session that `child` is, or waits for."""
    found: list[Process] = []

    def is_there() -> bool:
        if form == "session":
            pids = [child.pid]
        else:  # not what is run on the way there
            pids = sorted(pid for pid in children(child.pid) if members.is_first(pid))
        found[:] = [one for pid in pids if (one := look(pid)) and not one.ended]
        return bool(found) or child.is_gone()

    members.wait_until(is_there, _START_LIMIT_S)
    if not found:
        raise ShellUnavailable(f"a session of form {form!r} cannot be started")
    return found[0]


def _find_shell(init: Process) -> Process | None:
    """The shell of a session whose first process is `init`: its child, by how it was called."""
    for pid in children(init.pid):
        if command(pid)[1:] == _ARGUMENTS:
            return look(pid)
    return None
