"""What was alive after a turn is told of each process: who it is, and all that it holds."""

from __future__ import annotations

from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.timeline.alive import LISTENS, MEMBERS_MOST, alive_trees


def process(pid, parent, *, listens=(), files=(), connections=(), unlisted=0):
    command = (b"/usr/bin/python3", b"-m", b"part%d" % pid)
    return LastingProcess(pid, parent, 1, command, b"/ws", listens, files, connections, unlisted)


def alone(**held):
    (tree,) = alive_trees(ProcessState("boot", (ProcessTree((process(7, 1, **held),)),)))
    return tree.top


def test_each_process_of_a_tree_has_its_own_holdings():
    below = process(8, 7, files=(b"log",), connections=("tcp 192.0.2.1:443",), unlisted=3)
    top, below_that = process(7, 1, listens=("tcp 127.0.0.1:80",)), process(9, 8)
    (tree,) = alive_trees(ProcessState("boot", (ProcessTree((top, below, below_that)),)))
    assert [member.depth for member in tree.members] == [0, 1, 2]
    assert [[held.verb for held in member.holdings] for member in tree.members] == [
        ["listens at"],
        ["holds", "talks to"],
        [],
    ]
    assert [member.unlisted for member in tree.members] == [0, 3, 0]
    assert tree.below == 2
    assert tree.image.word == "no image"


def test_where_it_listens_is_told_once():
    few, many = (f"tcp :{port}" for port in (1, 2)), tuple(f"tcp :{port}" for port in range(5))
    assert not alone(listens=tuple(few)).beside_title
    assert [held.verb for held in alone(listens=many).beside_title] == [LISTENS]


def test_many_files_are_counted_and_hostile_names_are_shown_not_obeyed():
    (holds,) = alone(files=(b"\x1b[2J", b"a b", b"\xff", b"x")).holdings
    items = holds.items(2)
    assert len(items) == 3
    assert "\x1b" not in "".join(items)
    assert items[-1] == "2 more"
    assert len(holds.items(4)) == 4


def test_a_large_tree_is_cut_and_counted():
    every = [process(7, 1), *(process(100 + at, 7) for at in range(MEMBERS_MOST + 4))]
    (tree,) = alive_trees(ProcessState("boot", (ProcessTree(tuple(every), imaged=True),)))
    assert len(tree.members) == MEMBERS_MOST
    assert tree.more == 5
    assert tree.below == MEMBERS_MOST + 4
    assert tree.image.text == "● imaged"


def test_why_it_does_not_come_back_is_told_in_full():
    tree = ProcessTree((process(7, 1),), why_not="it is traced", lost=("its output",))
    (told,) = alive_trees(ProcessState("boot", (tree,)))
    assert told.reasons == ("it is traced", "its output")
