"""A program in a terminal of its own, and when what it prints arrives there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from crabrt.errors import CrabError

_TICKS = os.sysconf("SC_CLK_TCK")
_KEPT = 1 << 16  # bytes of what was printed, to look for words in


class NothingCame(CrabError):
    """The program did not print what was waited for."""

    kind = "nothing-came"


class Terminal:
    """A pseudo-terminal with a program in it. One thread uses it."""

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        rows: int = 40,
        columns: int = 120,
    ) -> None:
        """Start it."""
        self._master, slave = pty.openpty()
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        self.began_s = time.monotonic()
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env={**environ, "TERM": "xterm-256color"},
                start_new_session=True,
            )
        finally:
            os.close(slave)
        self._text = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def until(self, word: str, limit_s: float = 60.0) -> float:
        """Wait until `word` was printed since the last call; the moment (monotonic) it came.

        Raises:
            NothingCame: it did not, within the limit.
        """
        end = time.monotonic() + limit_s
        while word.encode() not in self._text:
            if not self._read(end - time.monotonic()):
                tail = self._text[-200:]
                raise NothingCame(f"{word!r} did not appear in {limit_s:g} s, but: {tail!r}")
        self._text = b""
        return time.monotonic()

    def quiet(self, for_s: float = 0.1, limit_s: float = 30.0) -> None:
        """Wait until nothing has been printed for a while, and forget what was."""
        end = time.monotonic() + limit_s
        while self._read(for_s) and time.monotonic() < end:
            pass
        self._text = b""

    def press(self, key: bytes, limit_s: float = 10.0) -> float:
        """Press a key; milliseconds until the first of what it changes on the screen.

        Raises:
            NothingCame: nothing changed.
        """
        self.quiet()
        began = time.monotonic()
        os.write(self._master, key)
        if not self._read(limit_s):
            raise NothingCame(f"the key {key!r} changed nothing within {limit_s:g} s")
        return 1e3 * (time.monotonic() - began)

    def cpu_s(self) -> float:
        """CPU time the program has taken."""
        with open(f"/proc/{self._process.pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def peak_mib(self) -> float:
        """The most memory it had."""
        with open(f"/proc/{self._process.pid}/status", encoding="ascii", errors="replace") as file:
            peak = next(line for line in file if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024

    def idle(self, for_s: float) -> float:
        """Let it be for a while; CPU time it took, in per cent of a processor."""
        before, began = self.cpu_s(), time.monotonic()
        while (left := began + for_s - time.monotonic()) > 0:
            self._read(left)
        self._text = b""
        return 100 * (self.cpu_s() - before) / (time.monotonic() - began)

    @contextlib.contextmanager
    def drained(self) -> Iterator[None]:
        """Meanwhile a thread takes what is printed, so that the program never has to wait."""
        over = threading.Event()

        def drain() -> None:
            while not over.is_set():
                self._read(0.1)

        thread = threading.Thread(target=drain, name="drains a terminal")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._text = b""

    def _read(self, limit_s: float) -> bool:
        """Take what is printed; False: nothing was, within the limit, or the program has ended."""
        if not select.select([self._master], [], [], max(0.0, limit_s))[0]:
            return False
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            if came := os.read(self._master, _KEPT):
                self._text = (self._text + came)[-_KEPT:]
                return True
        return False
