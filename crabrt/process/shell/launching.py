"""Starting the first process of a session, in the strongest form that this machine allows."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import Final

from crabrt.core.config import SHELL_VARIABLE
from crabrt.process import namespaces
from crabrt.process.shell.errors import ShellUnavailable
from crabrt.process.shell.script import START
from crabrt.process.shell.values import Isolation

FORMS: Final[tuple[Isolation, ...]] = ("namespace", "user-namespace", "session")
"""The strongest first."""

CALLED: Final = b"crabrt-shell"
"""A word in the command of a session's first process; the next is the directory of its channels."""

_PROBE_LIMIT_S: Final = 10.0

_DEFAULTED: Final = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGCHLD,
)
"""Signals that this process may ignore (Python does two of them), and commands must not."""

# No --kill-child: a parent-death signal in an image ends the restored tree. In the user namespace
# one is who one was; a root of one's own would own every file that it cannot write. A session
# leader from outside cannot be in an image, so setsid is called inside once more.
_PREFIXES: Final[dict[Isolation, tuple[str, ...]]] = {
    "namespace": ("unshare", *namespaces.OPTIONS, "setsid"),
    "user-namespace": ("unshare", "--user", "--map-current-user", *namespaces.OPTIONS, "setsid"),
    "session": (),
}


@functools.cache
def refusal(form: Isolation) -> str | None:
    """Why `form` is not possible for this process; None if it is. Tried once, for real."""
    if form == "session":
        return None
    if form == "namespace" and os.geteuid() != 0:
        return "it takes root"
    try:
        done = subprocess.run(
            [*_PREFIXES[form], "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_PROBE_LIMIT_S,
            check=False,
            cwd="/",
        )
    except FileNotFoundError:
        return "there is no unshare (util-linux)"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    said = done.stderr.decode("utf-8", "replace").strip()
    return said or f"unshare ended with {done.returncode}"


def choose(wanted: str) -> Isolation:
    """The form to use.

    Args:
        wanted: one of `FORMS`, or ``auto``: the strongest that works.

    Raises:
        ShellUnavailable: what was demanded does not work here, or is no form.
    """
    if wanted == "auto":
        return next(form for form in FORMS if refusal(form) is None)
    for form in FORMS:
        if form == wanted:
            why = refusal(form)
            if why is None:
                return form
            raise ShellUnavailable(
                f"isolation {wanted!r} cannot be had: {why}", hint="isolation='auto'"
            )
    raise ShellUnavailable(f"there is no isolation {wanted!r}", hint=f"auto, {', '.join(FORMS)}")


def environment(given: Mapping[str, str] | None, mark: str) -> dict[str, str]:
    """What the shell's processes get: the loop's environment, and what `given` says instead."""
    passed_on = dict(os.environ)  # passed on, not read: nothing here is a setting
    passed_on.pop("TMOUT", None)  # would end a shell for having nothing to do
    passed_on["TERM"] = "dumb"
    passed_on |= given or {}
    outer = passed_on.get(SHELL_VARIABLE)
    passed_on[SHELL_VARIABLE] = f"{outer}/{mark}" if outer else mark
    return passed_on


class Child:
    """What we started: a session's first process, or who waits for it outside of its namespace.

    Not a ``Popen``: a session may outlive the loop, and then nobody minds.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._owner = os.getpid()

    def is_gone(self) -> bool:
        """Whether it has ended; then it is no zombie any more either."""
        if os.getpid() != self._owner:
            return False
        try:
            pid, _ = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else waited for every child
            return True
        if pid:
            self._owner = -1
        return bool(pid)


def launch(
    form: Isolation,
    directory: bytes,
    bash: str,
    env: Mapping[str, str],
    within: tuple[str, ...] = (),
) -> Child:
    """Start the first process of a session on the channels in `directory`.

    Args:
        form: its isolation.
        directory: of the channels.
        bash: the program.
        env: its whole environment.
        within: a command that runs another one in other namespaces, and ends with it.

    Raises:
        ShellUnavailable: there is no bash, or it cannot be started.
    """
    program = shutil.which(bash)
    if program is None:
        raise ShellUnavailable(f"there is no {bash}", hint="install bash, or name it: bash=PATH")
    command = [*within, *_PREFIXES[form], program, "--norc", "--noprofile", "-c", START]
    try:
        pid = os.posix_spawnp(
            command[0],
            [*command, CALLED.decode(), os.fsdecode(directory), program],
            env,
            file_actions=[
                *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)),
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
            ],
            setsid=True,  # what the loop's terminal sends is not for it
            setsigmask=(),
            setsigdef=_DEFAULTED,
        )
    except OSError as error:
        raise ShellUnavailable(f"{command[0]} cannot be started: {error.strerror}") from error
    return Child(pid)


def _inheritable() -> list[int]:
    """Descriptors of this process, above 2, that a program it starts would have as well."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found
