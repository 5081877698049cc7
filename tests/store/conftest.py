"""A store in a fresh directory."""

import os
import random
import subprocess

import pytest

from crabrt.store import Store


@pytest.fixture
def home(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(home):
    with Store.open(home, create=True) as opened:
        yield opened


@pytest.fixture
def writer(store):
    with store.writer() as opened:
        yield opened


@pytest.fixture
def flip():
    """Flip one bit of a file."""

    def flip_bit(path, offset, bit=0):
        with open(path, "r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ (1 << bit)]))

    return flip_bit


@pytest.fixture
def noise():
    """Incompressible bytes that a seed tells apart."""

    def make(seed, length):
        return random.Random(seed).randbytes(length)

    return make


@pytest.fixture
def pack_files(home):
    def find():
        return sorted((home / "packs").glob("*/*.pack"))

    return find


@pytest.fixture
def count_syncs(monkeypatch):
    """Counts of the calls that make data durable."""
    counts = {"fdatasync": 0, "fsync": 0}
    for name in counts:
        real = getattr(os, name)

        def counted(fd, name=name, real=real):
            counts[name] += 1
            return real(fd)

        monkeypatch.setattr(os, name, counted)
    return counts


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def fail(monkeypatch):
    """Make a call of `os` fail, as often as told."""

    def arrange(name, number, times=1):
        real = getattr(os, name)
        left = [times]

        def failing(*args):
            if left[0]:
                left[0] -= 1
                raise OSError(number, os.strerror(number))
            return real(*args)

        monkeypatch.setattr(os, name, failing)
        return left

    return arrange
