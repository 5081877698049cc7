"""A process that holds files: mappings, descriptors and a background writer, obeying over a pipe.

Run as a script it is the child: it reads commands and answers each with a line, so that what it
did is done when the answer arrives, and a turn that awaited it is over for the tree. Imported, it
is the parent's handle (`Holder`). The child imports the standard library only, to start quickly.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import threading
from typing import Any


class Holder:
    """A live child that holds one file. Close it, or it ends with its parent's pipe."""

    def __init__(self, path: bytes, *, mapped: bool) -> None:
        self.mapped = mapped
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid
        self.ask("map" if mapped else "open", path=path.hex())

    def ask(self, command: str, **arguments: Any) -> None:
        """Have the child do something; returns when it is done.

        Raises:
            OSError: the child could not, with its errno.
            EOFError: the child is gone.
        """
        self.begin(command, **arguments)
        self.finish()

    def begin(self, command: str, **arguments: Any) -> None:
        """Have the child start on something, in the background of what the caller does next."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
        self._process.stdin.flush()

    def finish(self) -> None:
        """Wait until what was begun is done. Raises as `ask` does."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"holder {self.pid} is gone")
        number, text = json.loads(line)
        if number:
            raise OSError(number, text)

    def kill(self) -> None:
        """SIGKILL it and wait until it is gone."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """End it by closing its pipe, and wait until it is gone."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


class _Held:
    """The child's side: one open file, perhaps mapped."""

    def __init__(self) -> None:
        self.handle = -1
        self.mapping: mmap.mmap | None = None
        self.shut = False

    def open(self, path: str) -> None:
        self.handle = os.open(bytes.fromhex(path), os.O_RDWR)

    def map(self, path: str) -> None:
        self.open(path)
        self.mapping = mmap.mmap(self.handle, 0)
        os.close(self.handle)  # a mapping needs no descriptor: only maps still show it
        self.handle = -1

    def store(self, offset: int, data: str) -> None:
        assert self.mapping is not None
        if self.shut:
            self._protect(mmap.PROT_READ | mmap.PROT_WRITE)
            self.shut = False
        raw = bytes.fromhex(data)
        self.mapping[offset : offset + len(raw)] = raw

    def store_and_shut(self, offset: int, data: str) -> None:
        self.store(offset, data)
        self._protect(mmap.PROT_READ)
        self.shut = True

    def _protect(self, protection: int) -> None:
        import ctypes  # noqa: PLC0415 - few holders need it, and all should start quickly

        assert self.mapping is not None
        begin = ctypes.c_char.from_buffer(self.mapping)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.byref(begin), len(self.mapping), protection) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")

    def write(self, offset: int, data: str) -> None:
        os.pwrite(self.handle, bytes.fromhex(data), offset)

    def write_often(self, times: int, data: str) -> None:
        raw = bytes.fromhex(data)
        workers = [
            threading.Thread(target=lambda: [os.pwrite(self.handle, raw, 0) for _ in range(times)])
            for _ in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def truncate(self, size: int) -> None:
        os.ftruncate(self.handle, size)


def _serve() -> None:
    held = _Held()
    for line in sys.stdin.buffer:
        command, arguments = json.loads(line)
        answer: tuple[int, str] = (0, "")
        try:
            getattr(held, command)(**arguments)
        except OSError as error:
            answer = (error.errno or -1, error.strerror or "")
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
