"""The files of a workspace that processes write, whatever path they know it by."""

from __future__ import annotations

import pytest

from crabrt.operations.alive import written_by
from crabrt.process import table

WRITER = """
    import signal, sys
    file = open(sys.argv[1], "w")
    reads = open(sys.argv[2])
    ready()
    signal.pause()
"""
SHOWN = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


def test_one_that_knows_it_by_its_path(trees, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "read").touch()
    child = trees.start(WRITER, place / "log", place / "read")
    assert written_by([child.pid], bytes(place)) == {b"log"}
    assert written_by([child.pid], bytes(tmp_path / "elsewhere")) == set()


@pytest.mark.root
def test_one_of_a_fork_that_knows_it_by_the_path_of_the_original(trees, tmp_path):
    fork, original = tmp_path / "fork", tmp_path / "original"
    for directory in (fork, original):
        directory.mkdir()
        (directory / "read").touch()
    show = ("unshare", "--mount", "sh", "-c", SHOWN, "sh", str(fork), str(original))
    child = trees.start(WRITER, original / "log", original / "read", before=show)
    assert (fork / "log").exists()
    assert b"python" in table.command(child.pid)[0]
    assert written_by([child.pid], bytes(fork)) == {b"log"}
