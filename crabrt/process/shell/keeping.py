"""Output of any length in bounded memory: its beginning and its end are kept."""

from __future__ import annotations


class Kept:
    """What has been written, without its middle if there is more than `limit_bytes`.

    Args:
        limit_bytes: at most so much is kept (and up to half as much again while it is written).
        tail: keep the end too; otherwise the beginning alone.
    """

    def __init__(self, limit_bytes: int, *, tail: bool = True) -> None:
        self._tail_bytes = limit_bytes // 2 if tail else 0
        self._head_bytes = limit_bytes - self._tail_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._total_bytes = 0

    def add(self, data: bytes) -> None:
        """Note what was written next."""
        self._total_bytes += len(data)
        room = self._head_bytes - len(self._head)
        self._head += data[:room]
        if room < len(data) and self._tail_bytes:
            self._tail += data[max(room, len(data) - self._tail_bytes) :]
            if len(self._tail) > 2 * self._tail_bytes:
                del self._tail[: -self._tail_bytes]

    @property
    def left_out_bytes(self) -> int:
        """How much of what was written is not kept."""
        return max(0, self._total_bytes - self._head_bytes - self._tail_bytes)

    def content(self) -> bytes:
        """What is kept; a line says where something is missing, and how much."""
        if not self.left_out_bytes:
            return bytes(self._head + self._tail)
        tail = self._tail[-self._tail_bytes :] if self._tail_bytes else b""
        return bytes(self._head + b"\n[... %d bytes left out ...]\n" % self.left_out_bytes + tail)

    def beginning(self) -> bytes:
        """What is kept of the beginning, without the note that something is missing."""
        return bytes(self._head)

    def take(self) -> bytes:
        """What is kept, and forget it."""
        content = self.content()
        self._head.clear()
        self._tail.clear()
        self._total_bytes = 0
        return content
