"""What a long benchmark has done so far, in a file: stopped, it goes on where it was.

JSON lines: first the benchmark and its settings, then a line for every unit of work that is done.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

import crabrt
from crabrt.errors import UsageError

Unit = dict[str, Any]
"""What one unit of work found: JSON types."""


def _code() -> str:
    """A digest of the package's programs as they are now."""
    package = Path(crabrt.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class _Head(msgspec.Struct, frozen=True):
    """Which benchmark a file is of, with which options, by which code."""

    bench: str
    settings: dict[str, Any]
    code: str = ""

    def expect(self, begun: _Head, path: Path) -> None:
        if (begun.bench, begun.settings) != (self.bench, self.settings):
            raise UsageError(
                "that file is of another benchmark, or of other options",
                where=str(path),
                hint="name the same options as before, or another file",
            )
        if begun.code != self.code:
            raise UsageError(
                "other code than this has begun that file",
                where=str(path),
                hint="name another file: figures of before and after a change are not one",
            )


class Kept:
    """Units that are done, by key. Thread-safe. A context manager.

    Args:
        path: the file, made if it is not there; None: nothing is kept.
        name: the benchmark.
        settings: what was asked of it; a file that was made with others is refused, and one that
            other code has begun: figures of before and after a change are not one result.

    Raises:
        UsageError: the file is something else, of other settings, or of other code.
    """

    def __init__(self, path: Path | None, name: str, settings: Mapping[str, Any]) -> None:
        self._units: dict[str, Unit] = {}
        self._lock = threading.Lock()
        self._file = None
        if path is None:
            return
        head = _Head(name, json.loads(json.dumps(dict(settings))), _code())
        size_bytes = self._read(path, head)
        self._file = open(path, "ab")  # noqa: SIM115 - until the benchmark ends
        self._file.truncate(size_bytes)
        if not size_bytes:
            self._write(msgspec.to_builtins(head))

    def _read(self, path: Path, head: _Head) -> int:
        """Take up what is there; how many bytes of it are whole lines."""
        if not path.exists():
            return 0
        whole = path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]  # the last line may have been cut off
        lines = whole.splitlines()
        try:
            if lines:
                head.expect(msgspec.json.decode(lines[0], type=_Head), path)
            for line in lines[1:]:
                unit = json.loads(line)
                self._units[unit["key"]] = unit["found"]
        except (ValueError, TypeError, KeyError, msgspec.DecodeError) as error:
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
