"""Diff, lookup and listing of stored states against a naive comparison, and what they cost."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crabrt.core import trees as core_trees
from crabrt.core.content import Content
from crabrt.core.ids import ObjectKind
from crabrt.core.listing import put_directory
from crabrt.core.trees import Entry, Kind, Node, NodeRef, Root, encode_root
from crabrt.errors import DamagedObject, NotFound
from crabrt.testing.memory import MemoryObjects
from crabrt.workspace import diff_roots, find_entry, read_tree
from crabrt.workspace.changes import Change, compare

names = st.integers(0, 400).map(lambda number: b"%03d" % number) | st.binary(
    min_size=1, max_size=3
).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b".."))
leaves = st.integers(0, 3)
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=120),
    lambda below: st.dictionaries(names, leaves | below, max_size=120),
    max_leaves=4,
)


def file(name, number, objects):
    data = b"%d" % number
    return Entry(name, Kind.FILE, 0o644, 0, 0, number, Content(1, 0, (objects.put(data),)))


def store(tree, objects):
    def directory(name, below):
        entries = [
            directory(key, value) if isinstance(value, dict) else file(key, value, objects)
            for key, value in sorted(below.items())
        ]
        return Entry(name, Kind.DIR, 0o755, 0, 0, child=put_directory(entries, objects.put))

    return objects.put(encode_root(Root(directory(b"", tree))), ObjectKind.ROOT)


def naive(objects, before, after, scope=b""):
    old, new = dict(read_tree(objects, before)), dict(read_tree(objects, after))
    changes = [compare(path, old.get(path), new.get(path)) for path in old.keys() | new.keys()]
    inside = [
        c
        for c in changes
        if c is not None and (not scope or c.path == scope or c.path.startswith(scope + b"/"))
    ]
    return sorted(inside, key=lambda change: change.order)


@settings(max_examples=150, deadline=None)
@given(trees, trees, st.data())
def test_it_tells_what_a_naive_comparison_tells(one, two, data):
    objects = MemoryObjects()
    before, after = store(one, objects), store(two, objects)
    assert list(diff_roots(objects, before, after)) == naive(objects, before, after)
    paths = sorted({path for root in (before, after) for path, _ in read_tree(objects, root)})
    scope = data.draw(st.sampled_from(paths))
    found = list(diff_roots(objects, before, after, [scope]))
    assert found == naive(objects, before, after, scope)


@settings(max_examples=60, deadline=None)
@given(trees)
def test_every_path_is_found_and_nothing_else(tree):
    objects = MemoryObjects()
    root = store(tree, objects)
    listed = list(read_tree(objects, root))
    keys = [tuple(path.split(b"/")) if path else () for path, _ in listed]
    assert keys == sorted(keys)
    for path, entry in listed:
        assert find_entry(objects, root, path) == entry
        with pytest.raises(NotFound):
            find_entry(objects, root, path + b"/nowhere" if path else b"nowhere")


def test_one_change_in_twenty_thousand_names_reads_a_few_nodes():
    objects = MemoryObjects()
    tree = {b"%06d" % number: 0 for number in range(20_000)}
    before = store({b"flat": tree, b"other": dict(tree)}, objects)
    after = store({b"flat": tree | {b"010000": 1}, b"other": dict(tree)}, objects)
    objects.reads = 0
    (change,) = diff_roots(objects, before, after)
    assert (change.path, change.how) == (b"flat/010000", ("content", "times"))
    assert objects.reads < 40
    objects.reads = 0
    find_entry(objects, after, b"flat/019999")
    assert objects.reads < 12


def test_equal_states_read_nothing():
    objects = MemoryObjects()
    root = store({b"a": 1}, objects)
    objects.reads = 0
    assert list(diff_roots(objects, root, root)) == []
    assert objects.reads == 0


def test_nodes_of_the_wrong_level_are_damage_and_not_a_loop():
    objects = MemoryObjects()
    leaf = put_directory([file(b"a", 1, objects)], objects.put)
    odd = objects.put(core_trees._encode(Node(5, nodes=(NodeRef(b"a", leaf),))), ObjectKind.TREE)
    top = Entry(b"", Kind.DIR, 0o755, 0, 0, child=odd)
    root = objects.put(encode_root(Root(top)), ObjectKind.ROOT)
    other = store({b"a": 2}, objects)
    with pytest.raises(DamagedObject):
        list(diff_roots(objects, other, root))
    with pytest.raises(DamagedObject):
        find_entry(objects, root, b"a")


edits = st.lists(
    st.tuples(
        st.sampled_from(["write", "mkdir", "remove", "move", "link", "symlink", "chmod", "xattr"]),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    max_size=12,
)


def edit(root, action, one, two):
    """One random edit among 31 nested paths; impossible ones do nothing."""

    def path(number):
        return root / "/".join(f"{(number >> shift) & 1}" for shift in range(number.bit_length()))

    here, there = path(one + 1), path(two + 1)
    try:
        if action == "write":
            here.write_bytes(b"%d" % two)
        elif action == "mkdir":
            here.mkdir()
        elif action == "remove":
            here.rmdir() if here.is_dir() and not here.is_symlink() else here.unlink()
        elif action == "move":
            os.rename(here, there)
        elif action == "link":
            os.link(here, there, follow_symlinks=False)
        elif action == "symlink":
            os.symlink(f"{two}", here)
        elif action == "chmod":
            os.chmod(here, 0o700 | two)
        else:
            os.setxattr(here, "user.x", b"%d" % two)
    except OSError:
        pass


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(edits, min_size=1, max_size=6))
def test_random_edits_are_captured_and_told(tracked, turns):
    roots = [tracked.capture().root]
    for turn in turns:
        for step in turn:
            edit(tracked.root, *step)
        snapshot = tracked.capture()
        tracked.agrees()
        told = list(diff_roots(tracked.objects, roots[0], snapshot.root))
        plain = [
            Change(c.path, tuple(h for h in c.how if h != "links"), c.before, c.after) for c in told
        ]
        assert [c for c in plain if c.how] == naive(tracked.objects, roots[0], snapshot.root)
        roots.append(snapshot.root)
