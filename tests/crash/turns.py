"""Generated turns that do the same whenever they are done again: the tree decides, and the seed.

Every file and link that a turn touches gets its times from the seed, so that a turn which is done a
second time on the same state ends in the same state, to the nanosecond. (The hostile generator of
``crabrt.testing`` uses the machine's clock and live processes; it is for judging states, not for
comparing two runs.)
"""

import os
import random
import shutil
import stat
import zlib

EPOCH_NS = 1_600_000_000_000_000_000
NAMES = [b"a", b"b.py", b"c.txt", b"d", b"e.bin", b"f\xff\xfe", "g ü".encode(), b"h" * 200]
DIRS = [b"", b"src", b"src/deep", b"lib"]


def act(top, seed, turn, part):
    """Do one part of a turn in the directory `top`; a text that says what was done."""
    hand = Hand(os.fsencode(top), random.Random(f"{seed}/{turn}/{part}"))
    if hand.rng.random() < 0.15:
        return "looked"
    return ", ".join(hand.step() for _ in range(hand.rng.randint(1, 4)))


class Hand:
    """One part of a turn: the tree, and the randomness that decides."""

    def __init__(self, top, rng):
        self.top = top
        self.rng = rng

    def step(self):
        steps = sorted(name for name in dir(self) if name.startswith("do_"))
        name = self.rng.choice(steps)
        return f"{name[3:]} {getattr(self, name)()}"

    def at(self, path):
        return os.path.join(self.top, path)

    def listing(self, kind):
        found = []
        for folder, dirs, files in os.walk(self.top):
            for name in dirs + files:
                path = os.path.relpath(os.path.join(folder, name), self.top)
                if stat.S_IFMT(os.lstat(self.at(path)).st_mode) == kind:
                    found.append(path)
        return sorted(found)

    def some(self, kind):
        found = self.listing(kind)
        return self.rng.choice(found) if found else None

    def new(self):
        folder = self.rng.choice(DIRS)
        if os.path.lexists(self.at(folder)) and not os.path.isdir(self.at(folder)):
            folder = b""
        os.makedirs(self.at(folder), exist_ok=True)
        return os.path.join(folder, self.rng.choice(NAMES))

    def stamp(self, path):
        when = EPOCH_NS + self.rng.randrange(10**17)
        os.utime(self.at(path), ns=(when, when), follow_symlinks=False)
        return path.hex()[:24]

    def clear(self, path):
        whole = self.at(path)
        if os.path.isdir(whole) and not os.path.islink(whole):
            shutil.rmtree(whole)
        elif os.path.lexists(whole):
            os.unlink(whole)

    def write(self, path, data, mode="wb"):
        if os.path.lexists(self.at(path)) and not os.path.isfile(self.at(path)):
            self.clear(path)
        if os.path.islink(self.at(path)):
            self.clear(path)
        with open(self.at(path), mode) as file:
            file.write(data)
        return self.stamp(path)

    def do_write(self):
        return self.write(self.new(), self.rng.randbytes(self.rng.choice((0, 10, 3_000, 9_000))))

    def do_write_text(self):
        return self.write(
            self.new(), b"line %d\n" % self.rng.randrange(9) * self.rng.randrange(999)
        )

    def do_write_large(self):
        return self.write(self.new(), self.rng.randbytes(self.rng.choice((300_000, 500_000))))

    def do_write_sparse(self):
        path = self.new()
        self.write(path, b"head")
        os.truncate(self.at(path), 2 << 20)
        return self.stamp(path)

    def do_append(self):
        path = self.some(stat.S_IFREG)
        return path and self.write(path, self.rng.randbytes(200), "ab")

    def do_overwrite_same_size(self):
        path = self.some(stat.S_IFREG)
        if path is None:
            return None
        info = os.stat(self.at(path))
        with open(self.at(path), "r+b") as file:
            file.write(self.rng.randbytes(min(100, info.st_size)))
        os.utime(self.at(path), ns=(info.st_atime_ns, info.st_mtime_ns))  # the racy-clean trap
        return path.hex()[:24]

    def do_truncate(self):
        path = self.some(stat.S_IFREG)
        if path is None:
            return None
        os.truncate(self.at(path), self.rng.randrange(1_000))
        return self.stamp(path)

    def do_delete(self):
        path = self.some(stat.S_IFREG)
        if path is not None:
            self.clear(path)
        return path and path.hex()[:24]

    def do_rename(self):
        path, other = self.some(stat.S_IFREG), self.new()
        if path is None or path == other:
            return None
        if os.path.isdir(self.at(other)):
            return None
        os.rename(self.at(path), self.at(other))
        return f"{path.hex()[:24]} to {other.hex()[:24]}"

    def do_rename_directory(self):
        path = self.some(stat.S_IFDIR)
        if path is None or os.path.lexists(self.at(b"moved")):
            self.clear(b"moved")
            return None
        os.rename(self.at(path), self.at(b"moved"))
        return path.hex()[:24]

    def do_make_directory(self):
        path = self.new() + b".d"
        os.makedirs(self.at(path), exist_ok=True)
        os.chmod(self.at(path), self.rng.choice((0o755, 0o700, 0o2775)))
        return path.hex()[:24]

    def do_symlink(self):
        path = self.new()
        self.clear(path)
        os.symlink(self.rng.choice((b"nowhere", b"../a", b"src")), self.at(path))
        return self.stamp(path)

    def do_hard_link(self):
        path, other = self.some(stat.S_IFREG), self.new()
        if path is None or path == other:
            return None
        if os.path.isdir(self.at(other)):
            return None
        self.clear(other)
        os.link(self.at(path), self.at(other))
        return f"{path.hex()[:24]} as {other.hex()[:24]}"

    def do_chmod(self):
        path = self.some(stat.S_IFREG)
        if path is not None:
            os.chmod(self.at(path), self.rng.choice((0o644, 0o600, 0o755, 0o444)))
        return path and path.hex()[:24]

    def do_xattr(self):
        path = self.some(stat.S_IFREG)
        if path is None:
            return None
        try:
            os.setxattr(self.at(path), b"user.mark", b"%d" % self.rng.randrange(10**6))
        except OSError:
            return "unsupported"
        return path.hex()[:24]

    def do_fifo(self):
        path = self.new() + b".fifo"
        self.clear(path)
        os.mkfifo(self.at(path), 0o600)
        return path.hex()[:24]

    def do_swap_file_and_directory(self):
        path = b"shape"
        was_dir = os.path.isdir(self.at(path))
        self.clear(path)
        if was_dir:
            return self.write(path, b"a file now")
        os.mkdir(self.at(path))
        return self.write(path + b"/below", b"a directory now")

    def do_nothing_in_the_end(self):
        path = b"temporary-%d" % zlib.crc32(self.rng.randbytes(4))
        self.write(path, b"gone in a moment")
        self.clear(path)
        return "nothing"

    def do_touch(self):
        path = self.some(stat.S_IFREG)
        return path and self.stamp(path)
