"""What mechanisms keep: bytes in files, or in the memory of a process that can be asked for them.

Half of it is noise, half compresses; the same seed gives the same. Run by its path, it is a program
that needs nothing but Python's own library:

    python -I mechanisms_content.py files DIRECTORY BYTES SEED
    python -I mechanisms_content.py change DIRECTORY BYTES SEED
    python -I mechanisms_content.py hold ADDRESS BYTES SEED    # writes its port to ADDRESS
"""

from __future__ import annotations

import os
import random
import socket
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

LARGE_BYTES = 1 << 20
"""Of each large file."""
SMALL = 20
"""So many small files, 4 KiB each, all of which change."""
SHARE = 100
"""One in so many of the large files, or of the pages, changes."""
EXTENTS = 20
"""In so many places."""

_PAGE_BYTES = 4 << 10


def write_files(directory: Path, size_bytes: int, seed: int) -> None:
    """The prefix of a run: small files, and large ones of `size_bytes` in all."""
    rng = random.Random(seed)  # noqa: S311 - it has to repeat
    _write_small(directory, rng)
    if size_bytes >= LARGE_BYTES:
        (directory / "large").mkdir()
    for number in range(size_bytes // LARGE_BYTES):
        (directory / "large" / f"{number}.bin").write_bytes(_block(number, rng))


def change_files(directory: Path, size_bytes: int, seed: int) -> None:
    """A turn more: the small files, and one in `SHARE` of the large ones, are written anew."""
    rng = random.Random(seed)  # noqa: S311 - it has to repeat
    _write_small(directory, rng)
    count = size_bytes // LARGE_BYTES
    for number in sorted(rng.sample(range(count), -(-count // SHARE))):
        (directory / "large" / f"{number}.bin").write_bytes(_block(number, rng))


def _write_small(directory: Path, rng: random.Random) -> None:
    (directory / "small").mkdir(exist_ok=True)
    for number in range(SMALL):
        (directory / "small" / f"{number}.txt").write_bytes(rng.randbytes(2_048).hex().encode())


def _block(number: int, rng: random.Random) -> bytes:
    """1 MiB: every other one compresses."""
    if number % 2:
        return rng.randbytes(LARGE_BYTES)
    line = b"%08d %016x what a log says\n" % (number, rng.getrandbits(64))
    return (line * (LARGE_BYTES // len(line) + 1))[:LARGE_BYTES]


def extents(size_bytes: int, rng: random.Random, count: int) -> Iterator[tuple[int, int]]:
    """Where one page in `SHARE` changes, in `count` places: (offset, length), in bytes."""
    pages = size_bytes // _PAGE_BYTES
    length = pages // SHARE // max(1, count)
    for _ in range(count if length else 0):
        yield rng.randrange(pages - length) * _PAGE_BYTES, length * _PAGE_BYTES


class Held:
    """So many bytes of memory."""

    def __init__(self, size_bytes: int, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - it has to repeat
        self._memory = bytearray(size_bytes)
        for number in range(size_bytes // LARGE_BYTES):
            at = number * LARGE_BYTES
            self._memory[at : at + LARGE_BYTES] = _block(number, rng)
        self._changes = 0

    def change(self, seed: int, *, scattered: bool) -> None:
        """One page in `SHARE`: in `EXTENTS` places, or each anywhere."""
        rng = random.Random(seed)  # noqa: S311 - it has to repeat
        size_bytes = len(self._memory)
        count = size_bytes // _PAGE_BYTES // SHARE if scattered else EXTENTS
        for at, length in extents(size_bytes, rng, count):
            self._memory[at : at + length] = rng.randbytes(length)
        self._changes += 1

    def said(self) -> str:
        """What tells this memory from any other."""
        return f"{self._changes} {zlib.crc32(self._memory):08x}"


def hold(address: Path, size_bytes: int, seed: int) -> None:
    """Hold memory, and do as clients say, for ever."""
    held = Held(size_bytes, seed)
    server = socket.create_server(("127.0.0.1", 0))
    new = address.with_suffix(".new")
    new.write_text(f"{os.getpid()} {server.getsockname()[1]}")
    new.rename(address)
    while True:
        client, _ = server.accept()
        with client:
            verb, *words = client.recv(100).decode().split() or [""]
            if verb == "change":
                held.change(int(words[0]), scattered=words[1:] == ["scattered"])
            client.sendall(held.said().encode())


def main() -> None:
    """Do as the arguments say."""
    verb, where, size_bytes, seed = sys.argv[1:]
    act = {"files": write_files, "change": change_files, "hold": hold}[verb]
    act(Path(where), int(size_bytes), int(seed))


if __name__ == "__main__":
    main()
