"""One workspace, kept at every turn by crabrt and by its peers: what each stores for a turn.

Needed is zstd -3 of each file whose bytes changed (whole, though a part may do), and 4 KiB for each
directory in which an entry changed. Journal bytes stand apart: a run writes them whether files
changed or not.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import zstandard
from blake3 import blake3

from crabrt.bench.peers import PEERS, Git, Peer
from crabrt.bench.report import OURS
from crabrt.bench.subject import Subject

DIRECTORY_BYTES = 4096
"""What a turn may store for each directory in which an entry changed."""

ALLOWED = 1.25
"""How often zstd -3 of the files whose bytes changed it may store for them."""

_LEVEL = 3

Stored = dict[str, dict[str, float]]
"""Bytes, by who and what."""


@dataclass(frozen=True)
class File:
    """A regular file as it is now, by the digest of its bytes."""

    digest: bytes
    size_bytes: int


State = dict[str, File | None]
"""By relative path; None for all but regular files. Directories end in a slash."""


class Keepers:
    """crabrt and peers, each with a store of its own. A context manager.

    Args:
        workspace: what is kept.
        ground: where the stores are, made here.
        peers: names from `peers.PEERS`.
        environ: what their commands see.

    Raises:
        PeerFailed: a peer's command gave an error.
        CrabError, OSError: something else did.
    """

    def __init__(
        self, workspace: Path, ground: Path, peers: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        self._workspace = workspace
        self._subject = Subject(workspace, ground / "store")
        self._peers = [PEERS[name](workspace, ground / name, environ) for name in peers]
        self._subject.checkpoint()
        for peer in self._peers:
            peer.prepare()
            _keep(peer)
        self._before = read_state(workspace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._subject.__exit__(kind, error, trace)

    def turn(self) -> Stored:
        """Keep what is there now; what that took beyond the turn before."""
        before, self._before = self._before, read_state(self._workspace)
        content, directories = needed_bytes(self._workspace, before, self._before)
        made = self._subject.checkpoint()
        files = [file for file in self._before.values() if file is not None]
        stored: Stored = {
            OURS: {"stored": made.stored_bytes, "journal": made.journal_bytes},
            "needed": {"zstd of changed files": content, "changed directories": directories},
            "allowed": {"stored": ALLOWED * content + DIRECTORY_BYTES * directories},
            "full copy": {"stored": sum(file.size_bytes for file in files)},
            "tar.zst": {"stored": _tar_zst_bytes(self._workspace)},
        }
        for peer in self._peers:
            had = peer.stored_bytes()
            _keep(peer)
            stored[peer.name] = {"stored": peer.stored_bytes() - had}
        return stored


def read_state(workspace: Path) -> State:
    """Everything in it. What is gone when it is read is not there."""
    found: State = {}
    for above, directories, names in os.walk(workspace):
        inside = os.path.relpath(above, workspace)
        for name in directories:
            found[os.path.normpath(os.path.join(inside, name)) + "/"] = None
        for name in names:
            full = Path(above, name)
            with contextlib.suppress(FileNotFoundError):
                data = full.read_bytes() if full.is_file() and not full.is_symlink() else None
                file = None if data is None else File(blake3(data).digest(), len(data))
                found[os.path.normpath(os.path.join(inside, name))] = file
    return found


def needed_bytes(workspace: Path, before: State, after: State) -> tuple[int, int]:
    """Of files whose bytes changed: their zstd -3; and in how many directories an entry did."""
    changed = {name for name in after if name not in before or before[name] != after[name]}
    gone = before.keys() - after.keys()
    files = (workspace / name for name in changed if (file := after[name]) and file.size_bytes)
    directories = {os.path.dirname(name.rstrip("/")) for name in changed | gone}
    return _zstd_bytes(files), len(directories)


def _zstd_bytes(files: Iterable[Path]) -> int:
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    total = 0
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            total += len(compressor.compress(path.read_bytes()))
    return total


class _Counter:
    """A file to write to that only counts."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        """Count."""
        self.size_bytes += len(data)
        return len(data)


def _tar_zst_bytes(path: Path) -> int:
    """What a compressed archive of everything takes."""
    counter = _Counter()
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    with (
        compressor.stream_writer(counter, closefd=False) as stream,  # type: ignore[arg-type]
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        for above, directories, names in os.walk(path):
            for name in (*directories, *names):
                full = os.path.join(above, name)
                with contextlib.suppress(FileNotFoundError):
                    archive.add(full, os.path.relpath(full, path), recursive=False)
    return counter.size_bytes


def _keep(peer: Peer) -> None:
    """What would be done at every turn."""
    if isinstance(peer, Git):
        peer.commit()
    else:
        peer.snapshot()
