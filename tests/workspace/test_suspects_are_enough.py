"""A scan of suspects sees what a full scan sees, if the suspects are all that happened."""

import os
import stat

import pytest

from crabrt.testing import oracle
from crabrt.testing.hostile import HostileRun
from crabrt.workspace import Suspects
from crabrt.workspace.dirfd import DirStack
from crabrt.workspace.stamps import inode_and_device, stamp

TURNS = 60


def stamps_of(root):
    """The stamp of every name, and of every directory under the empty name, by directory."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    found = {}
    try:
        with DirStack(fd) as stack:
            levels = [_look(b"", stack.fd, found)]
            while levels:
                if levels[-1]:
                    path, name = levels[-1].pop()
                    levels.append(_look(path, stack.push(name), found))
                    continue
                levels.pop()
                if levels:
                    stack.pop()
    finally:
        os.close(fd)
    return found


def _look(path, fd, found):
    found[path] = here = {b"": stamp(os.fstat(fd))}
    below = []
    for name in map(os.fsencode, os.listdir(fd)):
        status = os.lstat(name, dir_fd=fd)
        here[name] = stamp(status)
        if stat.S_ISDIR(status.st_mode):
            below.append((path + b"/" + name if path else name, name))
    return below


def suspects_between(before, after, *, blind):
    """What a watcher that missed nothing would have said; of new directories, that they are new.

    Where stamps do not show every store (`blind`), it would know more than they do: it names all.
    """
    places = {}
    for path in before.keys() | after.keys():
        was, now = before.get(path, {}), after.get(path, {})
        names = {
            name for name in was.keys() | now.keys() if blind or was.get(name) != now.get(name)
        }
        if names:
            places[path] = frozenset(names)
    return Suspects(places)


def test_every_hostile_turn_is_seen_by_its_suspects(on_volume):
    tracked = on_volume
    watched = 0
    with HostileRun(11, tracked.root, outside=tracked.base / "outside") as run:
        tracked.capture()
        before, stamps = oracle.digest(tracked.root), stamps_of(tracked.root)
        for _ in range(TURNS):
            turn = run.turn()
            after, now = oracle.digest(tracked.root), stamps_of(tracked.root)
            told = suspects_between(stamps, now, blind=tracked.blind)
            scan = tracked.tracker.scan(suspects=told)
            watched += scan.watched
            previous = tracked.tracker.root
            if scan.clean:
                assert after == before, f"false clean: {turn}"
            else:
                tracked.tracker.capture(scan, tracked.objects)
            assert (tracked.tracker.root == previous) == (after == before), str(turn)
            tracked.agrees()
            before, stamps = after, now
        # What a watcher told is not taken for more than it is: a full scan finds nothing else.
        root = tracked.tracker.root
        tracked.capture()
        assert tracked.tracker.root == root
        tracked.agrees()
    assert watched > TURNS / 2


@pytest.fixture
def tree(tracked):
    (tracked.root / "a" / "b").mkdir(parents=True)
    for number in range(40):
        (tracked.root / "a" / f"f{number}").write_text(str(number))
    (tracked.root / "a" / "b" / "deep").write_text("deep")
    tracked.settle()
    return tracked


def recheck(tracked, **suspects):
    scan = tracked.tracker.scan(suspects=Suspects(**suspects))
    assert scan.watched
    return scan


def test_without_suspects_nothing_is_looked_at(tree):
    (tree.root / "a" / "f1").write_text("not told")
    scan = recheck(tree)
    assert scan.clean
    assert scan.entries == 0


def test_only_what_is_named_is_looked_at(tree):
    (tree.root / "a" / "f1").write_text("told")
    (tree.root / "a" / "f2").write_text("not told")
    scan = recheck(tree, places={b"a": frozenset({b"f1"})})
    assert (scan.candidates, scan.entries) == (1, 1)
    snapshot = tree.tracker.capture(scan, tree.objects)
    assert [change.path for change in snapshot.changes] == [b"a/f1"]


def test_names_come_and_go_without_a_listing(tree):
    (tree.root / "a" / "f1").unlink()
    (tree.root / "a" / "new").write_text("new")
    (tree.root / "a" / "f3").rename(tree.root / "a" / "g3")
    scan = recheck(tree, places={b"a": frozenset({b"f1", b"new", b"f3", b"g3", b"never"})})
    assert scan.entries == 4
    tree.tracker.capture(scan, tree.objects)
    tree.agrees()


def test_a_directory_that_the_index_lacks_is_looked_at_whole(tree):
    (tree.root / "new" / "below").mkdir(parents=True)
    (tree.root / "new" / "below" / "f").write_text("x")
    scan = recheck(tree, places={b"new/below": frozenset({b"f"})})
    tree.tracker.capture(scan, tree.objects)
    tree.agrees()


def test_a_moved_directory_is_looked_at_whole(tree):
    (tree.root / "a" / "b").rename(tree.root / "c")
    scan = recheck(tree, subtrees=frozenset({b"a/b", b"c"}))
    tree.tracker.capture(scan, tree.objects)
    tree.agrees()


def test_a_directory_replaced_by_another_of_its_name_is_looked_at_whole(tree):
    (tree.root / "a" / "b").rename(tree.root / "old")
    (tree.root / "a" / "b").mkdir()
    (tree.root / "a" / "b" / "other").write_text("other")
    places = {b"": frozenset({b"old"}), b"a": frozenset({b"b"})}
    tree.tracker.capture(recheck(tree, places=places), tree.objects)
    tree.agrees()


def test_a_directory_that_became_a_file_takes_all_below_with_it(tree):
    (tree.root / "a" / "b" / "deep").unlink()
    (tree.root / "a" / "b").rmdir()
    (tree.root / "a" / "b").write_text("a file")
    places = {b"a": frozenset({b"b"}), b"a/b": frozenset({b"deep"})}
    tree.tracker.capture(recheck(tree, places=places), tree.objects)
    tree.agrees()


def test_metadata_of_a_directory_is_read_again(tree):
    (tree.root / "a" / "b").chmod(0o711)
    for places in ({b"a": frozenset({b"b"})}, {b"a/b": frozenset({b""})}):
        scan = recheck(tree, places=places)
        assert not scan.clean
    tree.tracker.capture(scan, tree.objects)
    tree.agrees()


def test_an_inode_is_found_by_all_its_names(tree):
    os.link(tree.root / "a" / "f1", tree.root / "a" / "b" / "alias")
    tree.settle()
    (tree.root / "a" / "f1").write_text("by one of them")
    status = os.lstat(tree.root / "a" / "f1")
    scan = recheck(tree, inodes=frozenset({(status.st_dev, status.st_ino)}))
    assert scan.candidates == 2
    tree.tracker.capture(scan, tree.objects)
    tree.agrees()
    assert recheck(tree, inodes=frozenset({(status.st_dev, 1 << 60)})).entries == 0


def test_an_ignore_file_is_heard_in_a_recheck(tree):
    (tree.root / "a" / ".crabignore").write_text("f1*\n")
    tree.tracker.capture(recheck(tree, places={b"a": frozenset({b".crabignore"})}), tree.objects)
    assert not [path for path in tree.manifest() if path.startswith(b"a/f1")]
    (tree.root / "a" / "f17").write_text("ignored")
    (tree.root / "a" / "f18new").write_text("ignored")
    scan = recheck(tree, places={b"a": frozenset({b"f17", b"f18new"})})
    assert scan.clean
    (tree.root / ".crabignore").write_text("b/\n")
    scan = tree.tracker.scan(suspects=Suspects({b"": frozenset({b".crabignore"})}))
    assert not scan.watched
    tree.tracker.capture(scan, tree.objects)
    assert b"a/b" not in tree.manifest()


def test_a_full_scan_afterwards_lists_what_was_taken_on_trust(tree):
    (tree.root / "a" / "told").write_text("told")
    (tree.root / "a" / "missed").write_text("never told")
    tree.tracker.capture(recheck(tree, places={b"a": frozenset({b"told"})}), tree.objects)
    scan = tree.tracker.scan()
    assert not scan.clean
    tree.tracker.capture(scan, tree.objects)
    tree.agrees()


def test_the_inode_of_a_stamp_is_where_it_is_said_to_be(tree):
    status = os.lstat(tree.root / "a" / "f1")
    assert inode_and_device(stamp(status)) == (status.st_ino, status.st_dev)
