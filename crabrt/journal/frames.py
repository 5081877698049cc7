"""The frames of one open segment: forwards from a place, behind a break, and back from a place.

Nothing here knows of entries or of the hash chain: a frame is whole, or it is not there.
"""

from __future__ import annotations

import os

from crabrt.journal.framing import (
    ENTRY_MARK,
    FRAME_OVERHEAD,
    HEAD_BYTES,
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    SEAL_MARK,
    Frame,
    decode_frame,
    frame_length,
)
from crabrt.journal.segments import Segment

_WINDOW_BYTES = 1 << 20
_FIRST_LOOK_BYTES = 1 << 12  # most frames are shorter


class Frames:
    """The whole entry frames of one open segment, from an offset on, read by windows.

    Attributes:
        offset: behind the last frame returned.
        began: where that frame begins.
        sealed: the writer closed the segment at `offset`.
    """

    def __init__(self, fd: int, segment: Segment, offset: int) -> None:
        self._fd = fd
        self._seed = segment.header.seed
        self._limit = segment.limit
        self._window = b""
        self._base = offset
        self.offset = offset
        self.began = offset
        self.sealed = False

    def next(self) -> Frame | None:
        """The next entry's frame; None at the limit, at a seal, or where no whole frame is."""
        frame = self._frame_at(self.offset)
        if frame is None or (self._limit is not None and frame.end > self._limit):
            return None
        if frame.seal:
            self.sealed = True
            return None
        self.began, self.offset = self.offset, frame.end
        return frame

    def vouched_for(self) -> int | None:
        """Offset of a whole frame behind `offset` whose writer knew more than `offset` as durable.

        The search is over one segment's rest, by windows; a false hit would need its checksum.
        """
        at = self.offset + 1
        while True:
            self._base = at
            self._window = os.pread(self._fd, _WINDOW_BYTES, at)
            window, base = self._window, self._base
            if len(window) < FRAME_OVERHEAD:
                return None
            for mark in (ENTRY_MARK, SEAL_MARK):
                found = window.find(mark)
                while found >= 0:
                    frame = self._frame_at(base + found)
                    if frame is not None and frame.durable > self.offset:
                        return base + found
                    found = window.find(mark, found + 1)
            at = base + len(window) - (len(ENTRY_MARK) - 1)

    def before(self, end: int) -> Frame | None:
        """The whole frame that ends at offset `end`, which proves that the segment reaches there.

        It is searched backwards, in windows that grow: a segment is not read for its last entry.
        """
        lowest = max(HEADER_BYTES, end - MAX_PAYLOAD_BYTES - FRAME_OVERHEAD)
        known = start = end
        while start > lowest:
            start = max(lowest, end - max(_FIRST_LOOK_BYTES, 4 * (end - start)))
            window = os.pread(self._fd, end - start, start)
            if len(window) < end - start:
                return None
            # Marks that the window before this one held have been looked at.
            found = window.rfind(ENTRY_MARK, 0, known - start + len(ENTRY_MARK) - 1)
            while found >= 0:
                if len(window) - found >= FRAME_OVERHEAD:
                    length = frame_length(window, found)
                    if length == len(window) - found:
                        offset = start + found
                        frame = decode_frame(window, found, length, seed=self._seed, offset=offset)
                        if frame is not None:
                            return frame
                found = window.rfind(ENTRY_MARK, 0, found + len(ENTRY_MARK) - 1)
            known = start
        return None

    def _frame_at(self, offset: int) -> Frame | None:
        if not self._have(offset, HEAD_BYTES):
            return None
        length = frame_length(self._window, offset - self._base)
        if length is None or not self._have(offset, length):
            return None
        return decode_frame(
            self._window, offset - self._base, length, seed=self._seed, offset=offset
        )

    def _have(self, offset: int, length: int) -> bool:
        """Make the window hold `length` bytes from `offset`, if the file does."""
        at = offset - self._base
        if at < 0 or at + length > len(self._window):
            self._window = os.pread(self._fd, max(_WINDOW_BYTES, length), offset)
            self._base = offset
            return len(self._window) >= length
        return True
