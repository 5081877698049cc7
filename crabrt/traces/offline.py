"""A network of their own for the commands of a replay: one loopback device, no way out.

All commands share it, so that a server which one of them starts is reached by the next. It lives as
long as the process that holds it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Self

from crabrt.errors import UsageError

# Brings the loopback device up (SIOCSIFFLAGS, IFF_UP | IFF_RUNNING), says so, and stays.
_HOLDER = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
print("up", flush=True)
sys.stdin.read()
"""


class OwnNetwork:
    """A network namespace. A context manager: leaving it ends the process that holds it.

    Args:
        environ: for looking up the programs that it needs.

    Attributes:
        prefix: words before a command that is to run in it.

    Raises:
        UsageError: it is not allowed here.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        try:
            self._holder = subprocess.Popen(
                ["unshare", "--net", "--", sys.executable, "-Ic", _HOLDER],
                env=dict(environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise _refused(str(error.strerror)) from error
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"up\n":
            _, said = self._holder.communicate()
            raise _refused(said.decode("utf-8", "replace").strip().rpartition("\n")[2])
        self.prefix = ("nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()  # it ends with its standard input


def _refused(why: str) -> UsageError:
    return UsageError(
        f"a network namespace is not allowed here: {why}",
        hint="it needs root (or CAP_SYS_ADMIN); leave --offline away",
    )
