"""The thread that listens to a shell: output to whom it belongs to, reports to who waits.

It never stops while the shell is attached, so that servers in the background can always write.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from crabrt.process.shell.channels import Channels
from crabrt.process.shell.keeping import Kept
from crabrt.process.shell.reports import Ended, Record, Report, Reports

_READ_BYTES: Final = 1 << 16
_QUEUE_BYTES: Final = 1 << 20
_JOIN_LIMIT_S: Final = 5.0
_RECORDS_MOST: Final = 64


class Sink:
    """Where the output of one command goes.

    Args:
        limits: of each channel, how many bytes of it are kept.
        live: also queue everything written to ``output`` and ``errors``, for a callback. Who does
            not fetch it holds up the command, not memory.
    """

    def __init__(self, limits: dict[str, Kept], *, live: bool = False) -> None:
        self.kept = limits
        self.live = live
        self.queue: deque[bytes] = deque()
        self.queued_bytes = 0

    @classmethod
    def of_size(cls, limit_bytes: int, *, live: bool = False) -> Sink:
        """For a command of a user's."""
        return cls({name: Kept(limit_bytes) for name in ("output", "errors")}, live=live)


class Listener:
    """Reads the channels of one attached shell on a thread of its own.

    One lock, `changed`, guards everything here. Reports are kept until somebody takes them; output
    without a sink goes to `background`. A report is told only after all output that was written
    before it.
    """

    def __init__(self, channels: Channels, background: Kept, sink: Sink | None = None) -> None:
        self.changed = threading.Condition()
        self.background = background
        self._channels = channels
        self._sink = sink
        self._records: list[Record] = []
        self._reports = Reports()
        self._is_gone = False
        self._is_closed = False
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._listen, name="crabrt-shell", daemon=True)
        self._thread.start()

    @property
    def is_gone(self) -> bool:
        """Nobody holds the other end of the status channel: the session has ended."""
        return self._is_gone

    def attend(self, sink: Sink | None) -> None:
        """From now on output goes to `sink`; None: to the background's."""
        with self.changed:
            self._sink = sink
            self.changed.notify_all()

    def take(self, wanted: Callable[[Record], bool]) -> Record | None:
        """The first record that is `wanted`; those before it are dropped."""
        with self.changed:
            for at, record in enumerate(self._records):
                if wanted(record):
                    del self._records[: at + 1]
                    return record
            return None

    def wait(self, limit_s: float) -> None:
        """Until something was told or queued, at most so long."""
        with self.changed:
            if not (self._records or self._is_gone or (self._sink and self._sink.queue)):
                self.changed.wait(max(0.0, limit_s))

    def fetch(self, sink: Sink) -> bytes | None:
        """The next piece of live output; None: there is none now."""
        with self.changed:
            if not sink.queue:
                return None
            piece = sink.queue.popleft()
            sink.queued_bytes -= len(piece)
            self.changed.notify_all()
            return piece

    def enliven(self, sink: Sink) -> None:
        """Queue what `sink` holds already, and everything from now on."""
        with self.changed:
            if not sink.live:
                sink.live = True
                sink.queue += [held for kept in sink.kept.values() if (held := kept.content())]
                sink.queued_bytes += sum(map(len, sink.queue))

    def close(self) -> None:
        """Stop listening; what is still in the channels stays there."""
        with self.changed:
            self._is_closed = True
            self.changed.notify_all()
        os.write(self._wake_write, b".")
        self._thread.join(_JOIN_LIMIT_S)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _listen(self) -> None:
        try:
            self._read_all()
        finally:  # a shell that nobody hears is as good as gone
            with self.changed:
                self._is_gone = True
                self.changed.notify_all()

    def _read_all(self) -> None:
        poll = select.poll()
        names = {fd: name for name, fd in self._channels.outputs.items()}
        for fd in (*names, self._channels.status, self._wake_read):
            poll.register(fd, select.POLLIN)
        while not self._is_closed:
            events = dict(poll.poll())
            for fd, name in names.items():
                if events.get(fd, 0) & select.POLLIN:
                    self._read_output(fd, name, _READ_BYTES)
                elif events.get(fd, 0) & select.POLLHUP:
                    poll.unregister(fd)
                    names = {other: names[other] for other in names if other != fd}
            status = events.get(self._channels.status, 0)
            if status & select.POLLIN:
                self._read_status()
            elif status:
                poll.unregister(self._channels.status)
                with self.changed:
                    self._is_gone = True
                    self.changed.notify_all()

    def _read_output(self, fd: int, name: str, most: int) -> int:
        try:
            data = os.read(fd, most)
        except BlockingIOError:
            return 0
        with self.changed:
            sink = self._sink
            if sink is None or name not in sink.kept:
                if name != "state":
                    self.background.add(data)
                return len(data)
            sink.kept[name].add(data)
            if sink.live and name != "state" and data:
                self.changed.wait_for(
                    lambda: (
                        sink.queued_bytes < _QUEUE_BYTES
                        or self._sink is not sink
                        or self._is_closed
                    )
                )
                sink.queue.append(data)
                sink.queued_bytes += len(data)
                self.changed.notify_all()
        return len(data)

    def _read_status(self) -> None:
        with contextlib.suppress(BlockingIOError):
            records = self._reports.feed(os.read(self._channels.status, _READ_BYTES))
            if any(isinstance(record, Report | Ended) for record in records):
                self._catch_up()
            if records:
                with self.changed:
                    self._records = (self._records + records)[-_RECORDS_MOST:]
                    self.changed.notify_all()

    def _catch_up(self) -> None:
        """Read what was written before the report: no more than is there at this moment."""
        for name, fd in self._channels.outputs.items():
            left = self._channels.unread_bytes(fd)
            while left > 0:
                count = self._read_output(fd, name, min(left, _READ_BYTES))
                if not count:
                    break
                left -= count
