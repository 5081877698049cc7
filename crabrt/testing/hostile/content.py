"""Operations on the bytes of files, each by another way into the kernel."""

from __future__ import annotations

import mmap
import os

from crabrt.testing.hostile import syscalls, uring
from crabrt.testing.hostile.hand import Hand, NotApplicable, operation, times_kept, where_supported

_PAGE = mmap.PAGESIZE


@operation("make a file")
def make_file(hand: Hand) -> str:
    """A new file with text or noise in it."""
    path = hand.new_path()
    data = hand.some_bytes(hand.sizes())
    with open(hand.at(path), "xb") as file:
        file.write(data)
    return f"{path!r} ({len(data)} bytes)"


@operation("make an empty file")
def make_empty_file(hand: Hand) -> str:
    """A new file with nothing in it."""
    path = hand.new_path()
    os.close(os.open(hand.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return repr(path)


@operation("write into a file")
def write_into(hand: Hand) -> str:
    """Some bytes in the middle, the size as before."""
    path = hand.a_file(at_least=1)
    with open(hand.at(path), "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        offset = hand.rng.randrange(size)
        os.pwrite(file.fileno(), hand.rng.randbytes(min(64, size - offset)), offset)
    return f"{path!r} at {offset}"


@operation("write a file anew")
def write_anew(hand: Hand) -> str:
    """Truncated and filled, as editors without care do."""
    path = hand.a_file()
    data = hand.some_bytes()
    with open(hand.at(path), "wb") as file:
        file.write(data)
    return f"{path!r} ({len(data)} bytes)"


@operation("append to a file")
def append(hand: Hand) -> str:
    """A few bytes at the end."""
    path = hand.a_file()
    data = hand.some_bytes(300)
    with open(hand.at(path), "ab") as file:
        file.write(data)
    return f"{path!r} by {len(data)}"


@operation("cut a file short")
def cut_short(hand: Hand) -> str:
    """Truncated to less."""
    path = hand.a_file(at_least=1)
    size = hand.rng.randrange(os.stat(hand.at(path)).st_size)
    os.truncate(hand.at(path), size)
    return f"{path!r} to {size}"


@operation("lengthen a file by a hole")
def lengthen(hand: Hand) -> str:
    """Truncated to more; what is new is a hole."""
    path = hand.a_file()
    size = os.stat(hand.at(path)).st_size + hand.rng.randint(1, min(300_000, max(1, hand.room())))
    if hand.room() < 300_000:
        raise NotApplicable("the tree is full")
    os.truncate(hand.at(path), size)
    return f"{path!r} to {size}"


@operation("make a sparse file")
def make_sparse(hand: Hand) -> str:
    """A megabyte and more of hole with a little in it."""
    path = hand.new_path()
    if hand.room() < 2 << 20:
        raise NotApplicable("the tree is full")
    with open(hand.at(path), "xb") as file:
        os.pwrite(file.fileno(), hand.rng.randbytes(10), hand.rng.randrange(1 << 20))
        os.ftruncate(file.fileno(), (1 << 20) + hand.rng.randrange(_PAGE))
    return repr(path)


@operation("same size and same time")
def same_size_same_time(hand: Hand) -> str:
    """Other bytes, then the times set back: only ctime, and the bytes, tell."""
    path = hand.a_file(at_least=1)
    with times_kept(hand.at(path)) as info, open(hand.at(path), "r+b") as file:
        offset = hand.rng.randrange(info.st_size)
        was = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([was[0] ^ 0x5A]), offset)
    return f"{path!r} at {offset}"


@operation("write the same bytes")
def write_same(hand: Hand) -> str:
    """A rewrite that changes the time only."""
    path = hand.a_file(at_least=1)
    with open(hand.at(path), "r+b") as file:
        data = file.read()
        file.seek(0)
        file.write(data)
    return repr(path)


@operation("replace a file by renaming over it")
def replace_by_rename(hand: Hand) -> str:
    """As careful editors do."""
    path = hand.a_file()
    data = hand.some_bytes()
    new = os.path.join(os.path.dirname(hand.at(path)), b".tmp-%d" % hand.turn)
    with open(new, "xb") as file:
        file.write(data)
    os.replace(new, hand.at(path))
    return f"{path!r} ({len(data)} bytes)"


@operation("replace a file by one of the same size and time")
def replace_by_twin(hand: Hand) -> str:
    """Another inode with another content under the same name, size, mode and mtime."""
    path = hand.a_file(at_least=1)
    info = os.stat(hand.at(path))
    new = os.path.join(os.path.dirname(hand.at(path)), b".tmp-%d" % hand.turn)
    with open(new, "xb") as file:
        file.write(hand.rng.randbytes(info.st_size))
        os.fchmod(file.fileno(), info.st_mode & 0o7777)
    os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
    os.replace(new, hand.at(path))
    return repr(path)


def _two_files(hand: Hand) -> tuple[bytes, bytes, int]:
    source, target = hand.a_file(at_least=1), hand.a_file()
    size = os.stat(hand.at(source)).st_size
    if source == target or size > hand.room():
        raise NotApplicable("it takes two files, and room")
    return source, target, size


@operation("copy_file_range")
def copy_range(hand: Hand) -> str:
    """Copied inside the kernel; some file systems share the blocks."""
    source, target, size = _two_files(hand)
    with open(hand.at(source), "rb") as reading, open(hand.at(target), "r+b") as writing:
        if os.path.sameopenfile(reading.fileno(), writing.fileno()):
            raise NotApplicable("one inode under two names")
        with where_supported():
            copied = os.copy_file_range(reading.fileno(), writing.fileno(), size, 0, 0)
    return f"{copied} bytes of {source!r} into {target!r}"


@operation("sendfile")
def send_file(hand: Hand) -> str:
    """From file to file through the page cache."""
    source, target, size = _two_files(hand)
    with open(hand.at(source), "rb") as reading, open(hand.at(target), "r+b") as writing:
        if os.path.sameopenfile(reading.fileno(), writing.fileno()):
            raise NotApplicable("one inode under two names")
        with where_supported():
            sent = os.sendfile(writing.fileno(), reading.fileno(), 0, size)
    return f"{sent} bytes of {source!r} into {target!r}"


@operation("splice")
def splice(hand: Hand) -> str:
    """From a pipe into a file."""
    path = hand.a_file()
    data = hand.some_bytes(_PAGE)
    near, far = os.pipe()
    try:
        os.write(far, data)
        with open(hand.at(path), "r+b") as file, where_supported():
            moved = os.splice(near, file.fileno(), len(data), offset_dst=0)
    finally:
        os.close(near)
        os.close(far)
    return f"{moved} bytes into {path!r}"


@operation("io_uring write")
def uring_write(hand: Hand) -> str:
    """No write call happens at all."""
    path = hand.a_file()
    data = hand.some_bytes(2_000)
    with open(hand.at(path), "r+b") as file, where_supported():
        done = uring.write(file.fileno(), data, 0)
    return f"{done} bytes into {path!r}"


@operation("direct write")
def direct_write(hand: Hand) -> str:
    """Past the page cache."""
    path = hand.a_file()
    if hand.room() < _PAGE:
        raise NotApplicable("the tree is full")
    with mmap.mmap(-1, _PAGE) as page, where_supported():
        page[:] = hand.rng.randbytes(_PAGE)
        handle = os.open(hand.at(path), os.O_WRONLY | os.O_DIRECT)
        try:
            os.pwrite(handle, page, 0)
        finally:
            os.close(handle)
    return repr(path)


def _fallocate(hand: Hand, mode: int, blocks: int) -> str:
    path = hand.a_file(at_least=(blocks + 1) * _PAGE)
    if hand.room() < blocks * _PAGE:
        raise NotApplicable("the tree is full")
    with open(hand.at(path), "r+b") as file, where_supported():
        syscalls.fallocate(file.fileno(), mode, _PAGE * (blocks > 0), blocks * _PAGE)
    return repr(path)


@operation("fallocate: grow")
def fallocate_grow(hand: Hand) -> str:
    """Space that reads as zeros."""
    path = hand.a_file()
    size = os.stat(hand.at(path)).st_size
    if hand.room() < _PAGE:
        raise NotApplicable("the tree is full")
    with open(hand.at(path), "r+b") as file, where_supported():
        syscalls.fallocate(file.fileno(), 0, size, _PAGE)
    return repr(path)


@operation("fallocate: reserve beyond the end", undone=True)
def fallocate_reserve(hand: Hand) -> str:
    """Blocks, but no bytes: only ctime moves."""
    path = hand.a_plain_file()
    size = os.stat(hand.at(path)).st_size
    with (
        times_kept(hand.at(path)),
        open(hand.at(path), "r+b") as file,
        where_supported(),
    ):
        syscalls.fallocate(file.fileno(), syscalls.FALLOC_KEEP_SIZE, size, 4 * _PAGE)
    return repr(path)


@operation("fallocate: punch a hole")
def fallocate_punch(hand: Hand) -> str:
    """A page of a file becomes zeros."""
    return _fallocate(hand, syscalls.FALLOC_PUNCH_HOLE | syscalls.FALLOC_KEEP_SIZE, 1)


@operation("fallocate: zero a range")
def fallocate_zero(hand: Hand) -> str:
    """The same by another name."""
    return _fallocate(hand, syscalls.FALLOC_ZERO_RANGE, 2)


@operation("fallocate: collapse a range")
def fallocate_collapse(hand: Hand) -> str:
    """A page is taken out; what follows moves up."""
    return _fallocate(hand, syscalls.FALLOC_COLLAPSE_RANGE, 1)


@operation("fallocate: insert a range")
def fallocate_insert(hand: Hand) -> str:
    """A page of zeros is put in; what follows moves down."""
    return _fallocate(hand, syscalls.FALLOC_INSERT_RANGE, 1)


@operation("reflink a file over another")
def reflink(hand: Hand) -> str:
    """All blocks shared, where the file system can."""
    source, target, _ = _two_files(hand)
    with open(hand.at(source), "rb") as reading, open(hand.at(target), "r+b") as writing:
        if os.path.sameopenfile(reading.fileno(), writing.fileno()):
            raise NotApplicable("one inode under two names")
        with where_supported():
            syscalls.reflink(writing.fileno(), reading.fileno())
    return f"{source!r} over {target!r}"


@operation("write through a descriptor of a removed name")
def write_after_unlink(hand: Hand) -> str:
    """The name goes; what is then written nobody can see."""
    path = hand.a_file()
    with open(hand.at(path), "r+b") as file:
        os.unlink(hand.at(path))
        file.write(b"written after the name was gone")
    return repr(path)


@operation("write through a descriptor of a renamed file")
def write_after_rename(hand: Hand) -> str:
    """The bytes land under the new name."""
    path = hand.a_file()
    new = hand.new_path()
    with open(hand.at(path), "r+b") as file:
        os.rename(hand.at(path), hand.at(new))
        file.write(b"%d" % hand.rng.randrange(10**9))
    return f"{path!r} as {new!r}"


@operation("an unnamed file given a name")
def name_the_unnamed(hand: Hand) -> str:
    """O_TMPFILE, filled, then linked: it was never created under its name."""
    path = hand.new_path()
    data = hand.some_bytes()
    with where_supported():
        handle = os.open(os.path.dirname(hand.at(path)), os.O_TMPFILE | os.O_RDWR, 0o644)
    try:
        os.write(handle, data)
        # With a descriptor given (an absolute path ignores it), Python calls linkat, which follows.
        os.link(f"/proc/self/fd/{handle}", hand.at(path), src_dir_fd=handle, follow_symlinks=True)
    finally:
        os.close(handle)
    return repr(path)
