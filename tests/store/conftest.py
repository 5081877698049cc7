"""A store in a fresh directory."""

import os
import random

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
