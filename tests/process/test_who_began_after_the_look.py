"""A restore ends whoever a process started since somebody looked, and knows what that one holds."""

import os
from types import SimpleNamespace

import pytest

from crabrt.operations.alive import Company, together
from crabrt.process import table
from crabrt.process.sighting import Sighting, sight
from crabrt.store import Store

PARENT = """
    import signal, sys, time
    ready()
    while not os.path.exists(sys.argv[1] + "/begin"):
        time.sleep(0.005)
    if not os.fork():
        held = open(sys.argv[1] + "/held", "w")
        open(sys.argv[1] + "/began", "w").close()
        signal.pause()
    signal.pause()
"""


class _SeenEnoughError(Exception):
    pass


def test_a_child_that_began_after_the_look_is_no_stranger(trees, tmp_path, until):
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    parent = trees.start(PARENT, workspace)
    alive = sight([table.look(parent.pid)], Sighting())
    (workspace / "begin").touch()
    until((workspace / "began").exists)
    (child,) = table.children(parent.pid)
    assert child not in {one.pid for one in alive.processes}
    given = []

    def files(beside):
        given.append(beside)
        raise _SeenEnoughError

    place = SimpleNamespace(home=tmp_path / "home", path=os.fsencode(workspace))
    with Store.open(place.home, create=True) as store, store.writer() as writer:
        company = Company(writer, place, lambda: alive, lambda: "no images here")
        with pytest.raises(_SeenEnoughError):
            together(company, b"", files)
    assert given[0].ending == {parent.pid, child}
    assert given[0].theirs == {b"held"}
    until(lambda: {table.look(pid).state for pid in (parent.pid, child)} == {"S"})  # they go on
