"""A store through a mapping whose page was read first moves no time on some file systems."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess

import pytest

from crabrt.testing.filesystems import file_system
from crabrt.workspace.findings import Suspects
from crabrt.workspace.mapped import first_stores_show
from crabrt.workspace.stamps import stamp

from .conftest import Tracked


def store_after_a_read(path):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[0] = mapping[0] ^ 0xFF


def shows(directory):
    fd = os.open(directory, os.O_RDONLY)
    try:
        return first_stores_show(fd)
    finally:
        os.close(fd)


@pytest.fixture
def in_memory():
    with file_system("tmpfs") as base:
        yield Tracked(base)


@pytest.mark.root
def test_it_is_seen_all_the_same(in_memory):
    path = in_memory.root / "file"
    path.write_bytes(bytes(5000))
    in_memory.settle()
    before = stamp(os.stat(path))
    store_after_a_read(path)
    assert stamp(os.stat(path)) == before  # the fault happened: stat proves nothing here
    assert in_memory.how() == {b"file": {"content"}}


@pytest.mark.root
def test_it_is_seen_where_only_its_name_was_told(in_memory):
    path = in_memory.root / "file"
    path.write_bytes(bytes(5000))
    (in_memory.root / "other").write_bytes(bytes(5000))
    in_memory.settle()
    store_after_a_read(path)
    scan = in_memory.tracker.scan(suspects=Suspects({b"": frozenset({b"file"})}))
    assert (scan.watched, scan.candidates) == (True, 1)
    snapshot = in_memory.tracker.capture(scan, in_memory.objects)
    assert [change.path for change in snapshot.changes] == [b"file"]


@pytest.mark.root
@pytest.mark.parametrize("kind", ["tmpfs", "xfs", "btrfs", "ext4", "overlay"])
def test_where_that_is_so_is_known(kind):
    with file_system(kind) as base:
        path = base / "file"
        path.write_bytes(bytes(5000))
        os.utime(path, ns=(0, 0))
        store_after_a_read(path)
        assert shows(base) == (path.stat().st_mtime_ns != 0)


@contextlib.contextmanager
def overlay(base):
    parts = {part: base / part for part in ("lower", "upper", "work", "merged")}
    for part in parts.values():
        part.mkdir(parents=True)
    options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**parts)
    merged = parts["merged"]
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


@pytest.mark.root
def test_overlay_does_as_what_is_below_it():
    """One after another: the kernel gives the number of an unmounted device again."""
    with file_system("ext4") as disk, file_system("tmpfs") as memory:
        for number, below in enumerate([disk, memory, disk]):
            with overlay(below / f"{number}") as merged:
                (merged / "file").write_bytes(bytes(5000))
                os.utime(merged / "file", ns=(0, 0))
                store_after_a_read(merged / "file")
                moved = (merged / "file").stat().st_mtime_ns != 0
                assert moved == (below is disk)
                assert shows(merged) == moved
