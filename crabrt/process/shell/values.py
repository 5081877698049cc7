"""What a shell tells: how a command went, and what somebody must know to attach to it again."""

from __future__ import annotations

import os
from typing import Final, Literal

import msgspec

Isolation = Literal["namespace", "user-namespace", "session"]
"""What a shell's processes are kept together by: PID and mount namespaces made by root, the same
in a user namespace of their own, or no more than a session."""

UNKNOWN_STATUS: Final = -1
"""The exit status of a command whose end nobody saw."""


class ShellResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a command went.

    Attributes:
        output_bytes: what it wrote to standard output and, unless they are kept apart, standard
            error, in that order in which it wrote; its middle is left out if it is too long.
        error_bytes: what it wrote to standard error, if that is kept apart.
        exit_status: 0 to 255 as in ``$?``, 128 + n after signal n; `UNKNOWN_STATUS` if the session
            ended under it.
        timed_out: it was ended because its time was over.
        interrupted: it was ended because somebody asked for that.
        left_out_bytes: how much of the output is left out.
        duration_ms: from the request to the report.
        cwd_bytes: the shell's directory afterwards.
        note: what happened to the shell itself, a sentence to show the model; None: nothing did.
    """

    output_bytes: bytes
    error_bytes: bytes = b""
    exit_status: int
    timed_out: bool = False
    interrupted: bool = False
    left_out_bytes: int = 0
    duration_ms: float = 0.0
    cwd_bytes: bytes = b""
    note: str | None = None

    @property
    def output(self) -> str:
        """`output_bytes` as text; what is no UTF-8 is replaced."""
        return self.output_bytes.decode("utf-8", "replace")

    @property
    def error(self) -> str:
        """`error_bytes` as text; what is no UTF-8 is replaced."""
        return self.error_bytes.decode("utf-8", "replace")

    @property
    def cwd(self) -> str:
        """`cwd_bytes` as the functions of ``os`` take it."""
        return os.fsdecode(self.cwd_bytes)

    @property
    def truncated(self) -> bool:
        """Whether output is left out."""
        return self.left_out_bytes > 0

    @property
    def ok(self) -> bool:
        """Whether it succeeded: status 0, in time, and in a shell that nothing happened to."""
        return self.exit_status == 0 and not self.timed_out and self.note is None


class ShellOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a shell is opened with, as it matters to who attaches.

    Attributes:
        name: for people.
        bash: the program.
        separate_errors: standard error has a channel of its own.
        output_limit_bytes: how much of one command's output is kept.
        timeout_s: of a command that has none of its own.
    """

    name: str = "main"
    bash: str = "bash"
    separate_errors: bool = False
    output_limit_bytes: int = 1 << 20
    timeout_s: float = 600.0


class ShellRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A shell that runs, as told to somebody who may attach to it.

    Attributes:
        directory: that of its channels.
        isolation: see `Isolation`.
        init_pid, init_started: the process that all others descend from, as seen from outside of
            its namespace, and when it began, in clock ticks since boot.
        mark: what its processes carry as ``CRAB_SHELL`` in their environment.
        boot: the kernel's id of the boot in which the numbers are valid.
        options: see `ShellOptions`.
        seen_as: the directory as the shell itself sees it; empty: by the same path.
    """

    directory: bytes
    isolation: Isolation
    init_pid: int
    init_started: int
    mark: str
    boot: str
    options: ShellOptions
    seen_as: bytes = b""

    @property
    def inside(self) -> bytes:
        """The directory of the channels by the path that the shell knows."""
        return self.seen_as or self.directory
