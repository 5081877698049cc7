"""What a long benchmark has done so far, in a file: stopped, it goes on where it was.

JSON lines: first the benchmark and its settings, then a line for every unit of work that is done.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from crabrt.errors import UsageError

Unit = dict[str, Any]
"""What one unit of work found: JSON types."""


class Kept:
    """Units that are done, by key. Thread-safe. A context manager.

    Args:
        path: the file, made if it is not there; None: nothing is kept.
        name: the benchmark.
        settings: what was asked of it; a file that was made with others is refused.

    Raises:
        UsageError: the file is something else, or of other settings.
    """

    def __init__(self, path: Path | None, name: str, settings: Mapping[str, Any]) -> None:
        self._units: dict[str, Unit] = {}
        self._lock = threading.Lock()
        self._file = None
        if path is None:
            return
        head = {"bench": name, "settings": json.loads(json.dumps(dict(settings)))}
        size_bytes = self._read(path, head)
        self._file = open(path, "ab")  # noqa: SIM115 - until the benchmark ends
        self._file.truncate(size_bytes)
        if not size_bytes:
            self._write(head)

    def _read(self, path: Path, head: Mapping[str, Any]) -> int:
        """Take up what is there; how many bytes of it are whole lines."""
        if not path.exists():
            return 0
        whole = path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]  # the last line may have been cut off
        lines = whole.splitlines()
        try:
            if lines and json.loads(lines[0]) != head:
                raise UsageError(
                    "that file is of another benchmark, or of other options",
                    where=str(path),
                    hint="name the same options as before, or another file",
                )
            for line in lines[1:]:
                unit = json.loads(line)
                self._units[unit["key"]] = unit["found"]
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                "that file does not say what a benchmark has done", where=str(path)
            ) from error
        return len(whole)

    def once(self, key: str, work: Callable[[], Unit]) -> Unit:
        """What the unit `key` found: `work` is called if it is not done yet.

        What could not be run (it has ``failed``) is tried again next time.
        """
        with self._lock:
            if key in self._units:
                return self._units[key]
        found = work()
        with self._lock:
            self._units[key] = found
            if self._file is not None and "failed" not in found:
                self._write({"key": key, "found": found})
        return found

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
