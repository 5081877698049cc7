"""Replay of the prefix: nothing is kept but the calls, and they are made again.

What it costs is what the tools take: here they write bytes, which no real tool does faster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from crabrt.bench.harness import timed

REPLAY = "replay"


class Log:
    """A file of calls, each durable before the next."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append_ms(self, call: Sequence[object]) -> float:
        """How long it takes to note a call."""
        return timed(lambda: self._append(call))[0]

    def _append(self, call: Sequence[object]) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, json.dumps(list(call)).encode() + b"\n")
            os.fdatasync(fd)
        finally:
            os.close(fd)
