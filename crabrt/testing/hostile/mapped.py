"""Operations through mappings and kept descriptors, in this process and in others that live on.

Once a page of a shared mapping is dirty, further stores move neither mtime nor ctime: stat proves
nothing about a mapped file. Holders (`holder.Holder`) keep such mappings over several turns.
"""

from __future__ import annotations

import mmap
import os

from crabrt.testing.hostile.hand import Hand, NotApplicable, operation, times_kept
from crabrt.testing.hostile.holder import Holder

_HOLDERS_MOST = 3
_SIZE_LEAST = 64  # holders write into the first bytes of their file only
_WRITES = 50


@operation("store through a mapping")
def store(hand: Hand) -> str:
    """Mapped, changed and unmapped by this process."""
    path = hand.a_file(at_least=_SIZE_LEAST)
    data = hand.rng.randbytes(16)
    with open(hand.at(path), "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[:16] = data
    return repr(path)


@operation("read through a mapping, then store")
def read_and_store(hand: Hand) -> str:
    """A page that was read first: on tmpfs the store moves no time at all."""
    path = hand.a_file(at_least=_SIZE_LEAST)
    with open(hand.at(path), "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[0] = mapping[0] ^ 0xFF
    return repr(path)


@operation("store through a mapping, then set the time back")
def store_and_set_back(hand: Hand) -> str:
    """Only the bytes tell (and a ctime, which is the time's own)."""
    path = hand.a_file(at_least=_SIZE_LEAST)
    data = hand.rng.randbytes(16)
    with (
        times_kept(hand.at(path)),
        open(hand.at(path), "r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapping,
    ):
        mapping[:16] = data
        mapping.flush()
    return repr(path)


@operation("store through a mapping and store it back", undone=True)
def store_undone(hand: Hand) -> str:
    """Dirty pages with the old bytes in them, and the times set back."""
    path = hand.a_file(at_least=_SIZE_LEAST)
    with (
        times_kept(hand.at(path)),
        open(hand.at(path), "r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapping,
    ):
        was = mapping[:16]
        mapping[:16] = bytes(16)
        mapping[:16] = was
        mapping.flush()
    return repr(path)


@operation("write through a private mapping", undone=True)
def store_private(hand: Hand) -> str:
    """Copy on write: the file never sees it."""
    path = hand.a_file(at_least=_SIZE_LEAST)
    with (
        open(hand.at(path), "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapping,
    ):
        mapping[:16] = bytes(16)
    return repr(path)


def _lonely_file(hand: Hand) -> bytes:
    """A file with one name: no other can be picked that would cut it under a mapping."""
    path = hand.a_file(at_least=_SIZE_LEAST)
    if os.stat(hand.at(path)).st_nlink != 1:
        raise NotApplicable("it has other names")
    return path


def _hold(hand: Hand, *, mapped: bool) -> str:
    if len(hand.held) >= _HOLDERS_MOST:
        raise NotApplicable("there are processes enough")
    path = _lonely_file(hand)
    hand.held[path] = Holder(hand.at(path), mapped=mapped)
    return repr(path)


def _held(hand: Hand, *, mapped: bool) -> tuple[bytes, Holder]:
    path = hand.pick(sorted(path for path, its in hand.held.items() if its.mapped == mapped))
    return path, hand.held[path]


@operation("a process starts and maps a file", undone=True, weight=3)
def hold_mapping(hand: Hand) -> str:
    """And keeps the mapping, without a descriptor, over the turns to come."""
    return _hold(hand, mapped=True)


@operation("a process starts and opens a file", undone=True, weight=2)
def hold_open(hand: Hand) -> str:
    """And keeps the descriptor over the turns to come."""
    return _hold(hand, mapped=False)


@operation("a store through a kept mapping", weight=5)
def kept_store(hand: Hand) -> str:
    """Perhaps of an earlier turn; its page may be dirty already, and then no time moves."""
    path, holder = _held(hand, mapped=True)
    holder.ask("store", offset=hand.rng.randrange(32), data=hand.rng.randbytes(8).hex())
    return repr(path)


@operation("a store through a kept mapping that is read-only at once after", weight=2)
def kept_store_shut(hand: Hand) -> str:
    """By ``mprotect``: whoever looks at the mapping then sees one for reading."""
    path, holder = _held(hand, mapped=True)
    offset, data = hand.rng.randrange(32), hand.rng.randbytes(8)
    holder.ask("store_and_shut", offset=offset, data=data.hex())
    return repr(path)


@operation("a store through a kept mapping, and back", undone=True, weight=2)
def kept_store_undone(hand: Hand) -> str:
    """The net change is nothing, if the times are set back too."""
    path, holder = _held(hand, mapped=True)
    with times_kept(hand.at(path)):
        with open(hand.at(path), "rb") as file:
            was = file.read(8)
        holder.ask("store", offset=0, data=bytes(8).hex())
        holder.ask("store", offset=0, data=was.hex())
        # Written back, so that no later writeback moves a time that was set here.
        with open(hand.at(path), "rb") as file:
            os.fsync(file.fileno())
    return repr(path)


@operation("a write through a kept descriptor", weight=3)
def kept_write(hand: Hand) -> str:
    """By the process that holds it."""
    path, holder = _held(hand, mapped=False)
    holder.ask("write", offset=hand.rng.randrange(32), data=hand.rng.randbytes(8).hex())
    return repr(path)


@operation("a background process writes while others do")
def background_writer(hand: Hand) -> str:
    """Its writes race with whatever this process does meanwhile; all are over when the turn is."""
    path, holder = _held(hand, mapped=False)
    holder.begin("write_often", times=_WRITES, data=hand.rng.randbytes(32).hex())
    try:
        for _ in range(3):
            beside = hand.a_file()
            with open(hand.at(beside), "ab") as file:
                file.write(b"beside\n")
    finally:
        holder.finish()
    return repr(path)


@operation("a process that holds a file ends", undone=True)
def holder_ends(hand: Hand) -> str:
    """In good order; what it mapped is written back by the kernel."""
    path = hand.pick(sorted(hand.held))
    hand.held.pop(path).close()
    return repr(path)


@operation("a process that holds a file is killed")
def holder_is_killed(hand: Hand) -> str:
    """SIGKILL, right after a store: the page is the kernel's and stays."""
    path = hand.pick(sorted(hand.held))
    holder = hand.held.pop(path)
    holder.ask("store" if holder.mapped else "write", offset=0, data=hand.rng.randbytes(8).hex())
    holder.kill()
    return repr(path)


@operation("a held file loses its name")
def unlink_held(hand: Hand) -> str:
    """The process goes on with an inode that the tree no longer shows."""
    path = hand.pick(sorted(hand.held))
    os.unlink(hand.at(path))
    hand.held.pop(path).close()
    return repr(path)
