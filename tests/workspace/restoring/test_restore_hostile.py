"""Trees that want out, things swapped in while restoring: nothing is written outside."""

import os

import msgspec
import pytest

from crabrt.core import failpoints
from crabrt.core.ids import ObjectKind
from crabrt.core.listing import put_directory
from crabrt.core.trees import (
    Entry,
    Kind,
    Node,
    Root,
    encode_links,
    encode_root,
)
from crabrt.errors import DamagedObject
from crabrt.store.contents import put_bytes
from crabrt.workspace.diff import read_root


def _hostile_root(place, *entries, links=None):
    """A root with a node that crabrt would never write."""
    node = msgspec.msgpack.encode(Node(0, entries=entries))
    child = place.writer.put(node, ObjectKind.TREE)
    top = Entry(b"", int(Kind.DIR), 0o755, os.getuid(), os.getgid(), child=child)
    return place.writer.put(encode_root(Root(top, links)), ObjectKind.ROOT)


def _entry(place, name, data=b"evil"):
    content = put_bytes(data, place.writer)
    return Entry(name, int(Kind.FILE), 0o644, os.getuid(), os.getgid(), 1, content)


@pytest.mark.parametrize("name", [b"..", b".", b"", b"../evil", b"/etc/evil", b"a/b", b"a\0b"])
def test_a_name_that_leads_elsewhere_is_damage_and_touches_nothing(name, place, assert_same):
    place.file("kept")
    was, around = place.facts(), sorted(os.listdir(place.top))
    root = _hostile_root(place, _entry(place, name))
    with pytest.raises(DamagedObject):
        place.restore(root, force=True)
    with pytest.raises(DamagedObject):
        place.restore_to(root, place.top / "new", force=True)
    assert_same(was, place.facts())
    assert sorted(os.listdir(place.top)) == around


@pytest.mark.parametrize("path", [b"../evil", b"/etc/passwd", b"a/../../evil", b"."])
def test_a_link_table_that_leads_elsewhere_is_damage(path, place):
    links = put_bytes(encode_links(((path, b"f"),)), place.writer)
    root = _hostile_root(place, _entry(place, b"f"), links=links)
    with pytest.raises(DamagedObject):
        place.restore(root)


def test_a_link_table_that_names_what_is_not_alike_joins_nothing(place):
    place.file("secret", b"secret")
    there = next(iter(read_entries(place)))
    links = put_bytes(encode_links(((b"f", b"missing", b"secret"),)), place.writer)
    child = put_directory([_entry(place, b"f"), there], place.writer.put)
    top = Entry(b"", int(Kind.DIR), 0o755, os.getuid(), os.getgid(), child=child)
    root = place.writer.put(encode_root(Root(top, links)), ObjectKind.ROOT)
    place.restore(root)
    assert (place.path / "secret").read_bytes() == b"secret"
    assert (place.path / "f").read_bytes() == b"evil"


def read_entries(place):
    from crabrt.core.trees import read_directory  # noqa: PLC0415 - the only user

    return read_directory(read_root(place.writer, place.checkpoint()).entry.child, place.writer.get)


def test_a_symlink_in_the_way_is_not_followed(place):
    place.file("d/f", b"captured")
    target = place.checkpoint()
    outside = place.top / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"not ours")
    os.rename(place.path / "d", place.path / "moved")
    (place.path / "d").symlink_to(outside)

    report = place.restore(target, paths=[b"d/f"])

    assert (outside / "f").read_bytes() == b"not ours"
    assert dict(report.not_restored).keys() == {b"d/f"}


@pytest.mark.parametrize(
    "moment", ["restore.begun", "restore.temp_made", "restore.all_staged", "restore.renamed"]
)
def test_a_directory_swapped_for_a_symlink_meanwhile_leads_nowhere(moment, place):
    for name in ("a", "d/e", "d/f", "d/sub/g"):
        place.file(name, b"captured")
    target = place.checkpoint()
    for name in ("a", "d/e", "d/f", "d/sub/g"):
        place.file(name, b"changed")
    outside = place.top / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "f").write_bytes(b"not ours")
    (outside / "sub/g").write_bytes(b"not ours")
    swaps = iter([1])

    def swap():
        if next(swaps, None):
            os.rename(place.path / "d", place.path / "moved")
            (place.path / "d").symlink_to(outside)

    failpoints.ALL[moment].action = swap
    try:
        report = place.restore(target)
    finally:
        failpoints.ALL[moment].action = None

    assert next(swaps, None) is None
    assert sorted(os.listdir(outside)) == ["f", "sub"]
    assert os.listdir(outside / "sub") == ["g"]
    assert (outside / "f").read_bytes() == b"not ours"
    assert (outside / "sub/g").read_bytes() == b"not ours"
    assert not report.complete
    assert report.not_restored


def test_a_file_changed_meanwhile_is_left_alone(place):
    place.file("a", b"1")
    place.file("b", b"1")
    target = place.checkpoint()
    place.file("a", b"2")
    place.file("b", b"2")
    failpoints.ALL["restore.all_staged"].action = lambda: place.file("b", b"by somebody else")
    try:
        report = place.restore(target)
    finally:
        failpoints.ALL["restore.all_staged"].action = None
    assert (place.path / "a").read_bytes() == b"1"
    assert (place.path / "b").read_bytes() == b"by somebody else"
    assert dict(report.not_restored).keys() == {b"b"}
    assert report.root == place.checkpoint()
    assert place.temporary_names() == []


def test_a_damaged_object_stops_the_restore_before_it_touches_anything(place, assert_same):
    place.file("a", b"1")
    target = _hostile_root(place, _entry(place, b"a"), _lost(b"b"))
    was = place.facts()
    with pytest.raises(DamagedObject):
        place.restore(target)
    assert_same(was, place.facts())
    assert place.temporary_names() == []
    assert place.recover() is None
    report = place.restore(target, force=True)
    assert dict(report.not_restored) == {b"b": "its stored content is damaged"}
    assert (place.path / "a").read_bytes() == b"evil"


def _lost(name):
    from crabrt.core.content import Content  # noqa: PLC0415 - the only user

    content = Content(3, 0, (b"\1" * 32,))
    return Entry(name, int(Kind.FILE), 0o644, os.getuid(), os.getgid(), 1, content)
