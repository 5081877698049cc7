"""Trees and contents as values: what is built is read back, small changes cost little, no trust."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from crabrt.core.content import INLINE_IDS, Content, build, piece_ids
from crabrt.core.ids import ObjectId, ObjectKind, object_id
from crabrt.core.listing import put_directory
from crabrt.core.trees import (
    Entry,
    Kind,
    Node,
    NodeRef,
    Root,
    decode_links,
    decode_node,
    decode_root,
    encode_links,
    encode_root,
    read_directory,
)
from crabrt.errors import Damaged, DamagedObject


class Objects(dict):
    """Objects by id, as the store keeps them."""

    def put(self, data: bytes, kind: ObjectKind = ObjectKind.DATA) -> ObjectId:
        self[object_id(data, kind)] = data
        return object_id(data, kind)

    def read(self, wanted: ObjectId, kind: ObjectKind = ObjectKind.DATA) -> bytes:
        if wanted not in self:
            raise DamagedObject("absent", where=wanted.hex())
        return self[wanted]


def file(name: bytes, content: bytes = b"") -> Entry:
    pieces = (object_id(content),) if content else ()
    return Entry(name, Kind.FILE, 0o644, 0, 0, 1, Content(len(content), 0, pieces))


def ids(count: int) -> list[ObjectId]:
    return [object_id(b"%d" % i) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 64, 65, 256, 257, 5_000, 60_000])
def test_a_content_lists_its_pieces_in_order_however_many(count: int) -> None:
    objects = Objects()
    content = build(7, ids(count), objects.put)
    assert len(content.ids) <= INLINE_IDS
    assert list(piece_ids(content, objects.read)) == ids(count)


def test_a_piece_inserted_into_a_long_list_rewrites_a_node_a_level() -> None:
    objects = Objects()
    pieces = ids(20_000)
    build(0, pieces, objects.put)
    before = set(objects)
    build(0, [*pieces[:9_000], object_id(b"new"), *pieces[9_000:]], objects.put)
    assert sum(len(objects[i]) for i in set(objects) - before) < 3 * 256 * 32


def test_repeated_ids_still_make_a_shallow_list() -> None:
    objects = Objects()
    content = build(0, [object_id(b"zero")] * 1_000_000, objects.put)
    assert len(objects) < 20
    assert sum(1 for _ in piece_ids(content, objects.read)) == 1_000_000


@given(st.binary(max_size=200))
def test_a_malformed_list_node_is_damage(data: bytes) -> None:
    objects = Objects()
    top = objects.put(data, ObjectKind.LIST)
    try:
        found = list(piece_ids(Content(1, 1, (top,)), objects.read))
    except Damaged:
        return
    assert b"".join(found) == data


names = st.binary(min_size=1, max_size=12).filter(
    lambda n: n not in (b".", b"..") and b"/" not in n and b"\0" not in n
)


@given(st.lists(names, unique=True, max_size=400))
def test_a_directory_reads_back_in_order_and_its_id_depends_on_nothing_else(chosen) -> None:
    objects, others = Objects(), Objects()
    entries = [file(name) for name in sorted(chosen)]
    top = put_directory(entries, objects.put)
    assert list(read_directory(top, objects.read)) == entries
    assert put_directory(entries, others.put) == top


@pytest.mark.parametrize("count", [10, 100, 1_000, 10_000, 60_000])
def test_one_changed_file_rewrites_little_of_its_directory(count: int) -> None:
    objects = Objects()
    entries = [file(b"name-%06d.py" % i, b"%d" % i) for i in range(count)]
    put_directory(entries, objects.put)
    before = set(objects)
    entries[count // 2] = file(entries[count // 2].name, b"changed")
    put_directory(entries, objects.put)
    assert sum(len(objects[i]) for i in set(objects) - before) < 4096


def test_names_made_to_be_cut_everywhere_cannot_blow_a_directory_up() -> None:
    """Every level is at most a quarter of the one below, whatever the names hash to."""
    chosen, i = [], 0
    while len(chosen) < 300:
        name = b"n%d" % i
        if xxhash.xxh3_64_intdigest(name, seed=0) & 0x7 == 0:
            chosen.append(name)
        i += 1
    objects = Objects()
    put_directory([file(name) for name in sorted(chosen)], objects.put)
    assert len(objects) <= 300 // 4 + 300 // 16 + 300 // 64 + 2


@pytest.mark.parametrize(
    "name", [b"", b".", b"..", b"a/b", b"/etc", b"a\0b", b"x" * 256], ids=lambda n: repr(n[:6])
)
def test_a_name_that_leads_elsewhere_is_damage(name: bytes) -> None:
    data = msgspec.msgpack.encode(Node(0, entries=(file(name),)))
    with pytest.raises(DamagedObject, match="illegal name"):
        decode_node(data, object_id(data, ObjectKind.TREE))


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"a", 9, 0o644, 0, 0),
        Entry(b"a", Kind.FILE, 0o644, 0, 0),
        Entry(b"a", Kind.DIR, 0o755, 0, 0),
        Entry(b"a", Kind.DIR, 0o755, 0, 0, child=b"short"),
        Entry(b"a", Kind.SYMLINK, 0o777, 0, 0),
        Entry(b"a", Kind.SYMLINK, 0o777, 0, 0, target=b"x\0y"),
        Entry(b"a", Kind.FIFO, 0o7777 + 1, 0, 0),
        Entry(b"a", Kind.FILE, 0o644, 0, 0, content=Content(-1, 0, ())),
        Entry(b"a", Kind.FILE, 0o644, 0, 0, content=Content(1, 0, (ObjectId(b"short"),))),
    ],
    ids=lambda e: str(e.kind),
)
def test_an_entry_that_nobody_would_write_is_damage(entry: Entry) -> None:
    data = msgspec.msgpack.encode(Node(0, entries=(entry,)))
    with pytest.raises(DamagedObject):
        decode_node(data, object_id(data, ObjectKind.TREE))


def test_a_node_that_is_its_own_child_ends() -> None:
    me = ObjectId(b"\1" * 32)
    loop = msgspec.msgpack.encode(Node(1, nodes=(NodeRef(b"a", me),)))
    with pytest.raises(DamagedObject):
        list(read_directory(me, lambda _id, _kind: loop))


@given(st.binary(max_size=300))
def test_malformed_bytes_of_any_kind_are_damage(data: bytes) -> None:
    for decode in (decode_node, decode_root):
        try:
            decode(data, object_id(data))
        except DamagedObject:
            continue
    with contextlib.suppress(DamagedObject):
        decode_links(data, "somewhere")


def test_roots_and_link_tables_read_back() -> None:
    root = Root(Entry(b"", Kind.DIR, 0o755, 0, 0, child=bytes(32)), None, 3, 4)
    data = encode_root(root)
    assert decode_root(data, object_id(data, ObjectKind.ROOT)) == root
    groups = ((b"a", b"b/c"), (b"d", b"e"))
    assert decode_links(encode_links(groups), "x") == groups
    with pytest.raises(DamagedObject, match="illegal path"):
        decode_links(encode_links(((b"../x", b"y"),)), "x")


def test_an_object_of_one_kind_never_passes_for_another() -> None:
    assert len({object_id(b"same", kind) for kind in ObjectKind}) == len(ObjectKind)
