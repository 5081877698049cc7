"""Every check between the disk and a caller, alone: all others are satisfied by what is forged."""

import os
import sqlite3
import struct

import pytest
import xxhash
import zstandard

from crabrt.core.content import Content
from crabrt.core.ids import ObjectKind, object_id
from crabrt.errors import DamagedObject, FormatTooNew, UsageError
from crabrt.store import Store, condemned, contents, frames, layout, packs, records
from crabrt.store.blobs import LocalBlobStore, MemoryBlobStore
from crabrt.store.check import check
from crabrt.store.compression import OBJECT_MAX, Codec, decompress
from crabrt.store.gc import collect
from crabrt.store.packs import Item, Location, NoFooter
from crabrt.store.repair import repair
from crabrt.store.salvage import adopt_orphans
from crabrt.store.usage import usage

NAME = "ab" * 16
DATA = b"what was put, and is long enough to be worth a frame"
OTHER = b"something else under the id of what was put: one byte"
assert len(OTHER) >= len(DATA)
OTHER = OTHER[: len(DATA)]
ID = object_id(DATA)


def record(payload, *, at=ID, kind=0, codec=0, raw=None, zero=0, magic=frames.MAGIC):
    """A record with a right checksum, whatever it says."""
    length = len(payload) if raw is None else raw
    fields = struct.pack("<4sBBHII32s", magic, kind, codec, zero, length, len(payload), at)
    return fields + struct.pack("<Q", xxhash.xxh3_64_intdigest(fields + payload)) + payload


def entry(offset, payload, *, at=ID, kind=0, raw=None):
    length = len(payload) if raw is None else raw
    return packs.entry_bytes(Item(at, Location(NAME, offset, len(payload), length, kind)))


def write_pack(home, content, name=NAME):
    path = layout.pack_path(home, name)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    path.write_bytes(content)
    return path


def sealed(*payloads, **says):
    """A pack whose header, frames and footer are right, of what the records say they are."""
    body, entries = b"", b""
    for payload in payloads:
        entries += entry(40 + len(body), payload, raw=says.get("raw"), kind=says.get("kind", 0))
        body += record(payload, **says)
    return packs.header_bytes(NAME) + body + packs.footer_bytes(entries)


def is_refused(store):
    with pytest.raises(DamagedObject) as caught:
        store.get(ID)
    return str(caught.value)


# -- a record --------------------------------------------------------------------------------------


def test_an_intact_frame_with_other_bytes_under_the_id_is_refused(home, store):
    write_pack(home, sealed(OTHER))
    assert "not those of its id" in is_refused(store)
    (problem,) = check(store, read_data=True).problems
    assert problem.objects == (ID,)


def test_an_intact_frame_with_other_bytes_in_an_open_pack_is_refused(home, store):
    write_pack(home, packs.header_bytes(NAME) + record(OTHER))
    assert "not those of its id" in is_refused(store)


def test_another_intact_record_where_the_catalog_points_is_not_taken(home, store, writer):
    writer.put(DATA)
    other = writer.put(OTHER)
    writer.close()
    store.close()
    with sqlite3.connect(home / layout.CATALOG) as db:
        (offset,) = db.execute("SELECT offset FROM objects WHERE id = ?", (other,)).fetchone()
        db.execute("UPDATE objects SET offset = ? WHERE id = ?", (offset, ID))
    db.close()
    with Store.open(home) as again:
        assert again.get(ID) == DATA


def test_an_intact_frame_of_another_id_is_refused_though_its_bytes_are_right():
    """A frame says whose it is: trusting the place alone would hide a wrong index."""
    with pytest.raises(DamagedObject, match="not there"):
        records.unpack(record(DATA, at=object_id(OTHER)), "x:0", ID, ObjectKind.DATA)


def test_repair_does_not_keep_an_intact_frame_with_other_bytes(home, store):
    good = b"a good one beside it"
    body, right = record(OTHER), record(good, at=object_id(good))
    entries = entry(40, OTHER) + entry(40 + len(body), good, at=object_id(good))
    content = packs.header_bytes(NAME) + body + right + packs.footer_bytes(entries)
    write_pack(home, content)
    store.close()
    report = repair(home)
    assert (report.objects_salvaged, report.objects_lost) == (1, 1)
    with Store.open(home) as again:
        assert again.get(object_id(good)) == good
        assert not again.contains(ID)


def test_the_right_bytes_of_the_wrong_kind_are_refused(store):
    forged = record(DATA, kind=ObjectKind.TREE, at=object_id(DATA, ObjectKind.TREE))
    with pytest.raises(DamagedObject, match="is a TREE"):
        records.unpack(forged, "x:0", object_id(DATA, ObjectKind.TREE), ObjectKind.DATA)


def test_a_flipped_checksum_is_refused_though_the_bytes_are_right():
    forged = bytearray(record(DATA))
    forged[50] ^= 1
    with pytest.raises(DamagedObject, match="checksum"):
        records.unpack(forged, "x:0", ID, ObjectKind.DATA)


@pytest.mark.parametrize(
    "says",
    [
        {"magic": b"CRo2"},
        {"zero": 1},
        {"kind": 4},
        {"codec": 2},
        {"raw": OBJECT_MAX + 1},
    ],
)
def test_a_header_that_no_crabrt_writes_is_no_record(says):
    assert frames.parse(record(DATA)) is not None
    assert frames.parse(record(DATA, **says)) is None


def test_a_header_with_too_long_a_payload_is_no_record():
    fields = struct.pack("<4sBBHII32s", frames.MAGIC, 0, 0, 0, 1, OBJECT_MAX + 1, ID)
    assert frames.parse(fields + bytes(8)) is None


@pytest.mark.parametrize("length", [0, 1, 55])
def test_a_piece_of_a_header_is_no_record(length):
    assert frames.parse(record(b"")[:length]) is None


@pytest.mark.parametrize("longer", [-1, 1])
def test_a_payload_of_another_length_is_not_intact(longer):
    """The checksum is right for the payload that is there; the frame says another length."""
    payload = DATA[:longer] if longer < 0 else DATA + b"!"
    fields = struct.pack("<4sBBHII32s", frames.MAGIC, 0, 0, 0, len(payload), len(DATA), ID)
    digest = xxhash.xxh3_64_intdigest(fields + payload)
    frame = frames.parse(fields + struct.pack("<Q", digest))
    assert not frames.intact(frame, payload)


# -- what was compressed ---------------------------------------------------------------------------


def test_a_frame_that_would_unpack_to_more_than_it_says_is_not_unpacked(monkeypatch):
    packed = zstandard.compress(bytes(1 << 20))
    with pytest.raises(ValueError, match="compressed length"):
        decompress(Codec.ZSTD, packed, 10)


@pytest.mark.parametrize("raw", [len(DATA) - 1, len(DATA) + 1])
def test_raw_bytes_of_another_length_are_refused(home, store, raw):
    with pytest.raises(ValueError, match="instead of"):
        decompress(Codec.RAW, DATA, raw)
    write_pack(home, sealed(DATA, raw=raw))
    assert "cannot be unpacked" in is_refused(store)


@pytest.mark.parametrize("payload", [b"", b"no zstd", zstandard.compress(DATA)[:-3]])
def test_what_is_no_whole_zstd_frame_is_refused(home, store, payload):
    write_pack(home, sealed(payload, codec=1, raw=len(DATA)))
    assert "cannot be unpacked" in is_refused(store)


def test_an_unknown_codec_is_refused():
    with pytest.raises(ValueError, match="codec"):
        decompress(7, DATA, len(DATA))


# -- a pack's header -------------------------------------------------------------------------------


def test_a_pack_under_another_name_is_not_read(home, store):
    moved = "cd" * 16
    write_pack(home, sealed(DATA), name=moved)
    assert "does not have" in is_refused(store)
    assert not store.contains(ID)
    (problem,) = check(store, read_data=False).problems
    assert "another pack" in problem.text
    store.close()
    repair(home)
    with Store.open(home) as again:
        assert again.get(ID) == DATA


def test_an_unsealed_pack_under_another_name_keeps_its_records_when_it_is_adopted(home, store):
    content = packs.header_bytes(NAME) + record(DATA)
    write_pack(home, content, name="cd" * 16)
    assert adopt_orphans(store.index) == ["cd" * 16]
    assert store.get(ID) == DATA
    assert check(store, read_data=True).problems == ()


def test_packs_of_a_newer_version_are_left_alone_without_a_format_file(home, store):
    start = struct.pack("<8sH6x16s", packs.MAGIC, packs.VERSION + 1, bytes.fromhex(NAME))
    content = start + struct.pack("<Q", xxhash.xxh3_64_intdigest(start))
    path = write_pack(home, content)
    store.close()
    (home / layout.FORMAT).unlink()
    with pytest.raises(FormatTooNew, match="version 2"):
        repair(home)
    assert path.read_bytes() == content


@pytest.mark.parametrize("where", [0, 33])
def test_a_version_is_believed_only_in_a_right_header(home, store, where):
    start = struct.pack("<8sH6x16s", packs.MAGIC, packs.VERSION + 1, bytes.fromhex(NAME))
    content = bytearray(start + struct.pack("<Q", xxhash.xxh3_64_intdigest(start)))
    if where == 0:  # another magic, and a checksum that is right for it
        content[0] ^= 1
        content[32:] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(content[:32])))
    else:
        content[where] ^= 1
    assert packs.header_version(write_pack(home, content)) is None
    assert packs.header_version(write_pack(home, content[:39])) is None


def test_a_version_is_not_believed_in_a_shorter_header_with_a_right_checksum(home, store):
    start = struct.pack("<8sH6x", packs.MAGIC, packs.VERSION + 1)
    content = start + struct.pack("<Q", xxhash.xxh3_64_intdigest(start))
    assert packs.header_version(write_pack(home, content)) is None


@pytest.mark.parametrize("length", [0, 20, 39])
def test_a_header_that_is_cut_off_is_called_incomplete(home, store, length):
    path = write_pack(home, packs.header_bytes(NAME)[:length])
    with open(path, "rb") as file:
        assert packs.header_problem(file.fileno(), NAME) == "its header is incomplete"


def test_the_footer_of_a_pack_under_another_name_is_not_believed(home, store):
    write_pack(home, sealed(DATA), name="cd" * 16)
    assert store.index.footer_of("cd" * 16) is None
    write_pack(home, sealed(DATA))
    assert store.index.footer_of(NAME) is not None


# -- a pack's footer -------------------------------------------------------------------------------


def footer(entries, *, count=None, zero=0, seal=packs.SEAL):
    """A footer with a right checksum, whatever it says."""
    counts = struct.pack("<II", len(entries) // 48 if count is None else count, zero)
    digest = xxhash.xxh3_64_intdigest(entries + counts)
    return entries + counts + struct.pack("<Q", digest) + seal


RIGHT = entry(40, DATA)
FORGED = {
    "no seal": (footer(RIGHT, seal=b"CRABSEA!"), "not sealed"),
    "a word that is zero": (footer(RIGHT, zero=1), "trailer"),
    "more entries than fit": (footer(RIGHT, count=1_000), "trailer"),
    "a gap": (footer(entry(41, DATA)), "gaps"),
    "an overlap": (footer(entry(39, DATA)), "gaps"),
    "a record that is left out": (footer(b""), "last record"),
    "a record too many": (footer(RIGHT + entry(148, DATA)), "last record"),
    "a kind": (footer(entry(40, DATA, kind=4)), "no record"),
    "a length": (footer(entry(40, DATA, raw=OBJECT_MAX + 1)), "no record"),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_footer_that_is_not_right_in_all_it_says_is_not_believed(home, store, forged):
    tail, reason = FORGED[forged]
    path = write_pack(home, packs.header_bytes(NAME) + record(DATA) + tail)
    with open(path, "rb") as file, pytest.raises(NoFooter, match=reason):
        packs.read_footer(file.fileno())
    assert store.get(ID) == DATA  # its records are read without
    usage(store)
    store.close()
    repair(home)
    with Store.open(home) as again:
        assert again.get(ID) == DATA
        assert check(again, read_data=True).problems == ()


def test_a_footer_with_a_wrong_checksum_is_not_believed(home, store):
    tail = bytearray(footer(RIGHT))
    tail[5] ^= 1  # of the id: offsets and lengths still add up
    path = write_pack(home, packs.header_bytes(NAME) + record(DATA) + tail)
    with open(path, "rb") as file, pytest.raises(NoFooter, match="damaged"):
        packs.read_footer(file.fileno())
    assert store.get(ID) == DATA


@pytest.mark.parametrize("size", [0, 39, 63])
def test_a_file_too_short_for_a_footer_has_none(home, store, size):
    path = write_pack(home, sealed()[:size])
    with open(path, "rb") as file, pytest.raises(NoFooter, match="short"):
        packs.read_footer(file.fileno())


# -- the catalog -----------------------------------------------------------------------------------

LIES = {
    "offset": (-1, 0, 1 << 40, 1 << 62, "text", 4.5, None),
    "stored": (-1, 1 << 40, 1 << 62, b"bytes", "text"),
    "raw": (-1, 1 << 40, "text"),
    "kind": (-1, 4, 99, "text"),
}


@pytest.mark.parametrize(("column", "value"), [(c, v) for c, vs in LIES.items() for v in vs])
def test_a_row_that_no_crabrt_writes_is_not_used(home, store, writer, column, value):
    tree = writer.put(DATA, ObjectKind.TREE)
    writer.close()
    store.close()
    with sqlite3.connect(home / layout.CATALOG) as db:
        db.execute("CREATE TABLE new AS SELECT * FROM objects")
        db.execute(f"UPDATE new SET {column} = ?", (value,))
        db.execute("DROP TABLE objects")
        db.execute("ALTER TABLE new RENAME TO objects")
    db.close()
    with Store.open(home) as again:
        assert again.index.catalog.locate(tree) == []
        assert again.index.catalog.locate_all([tree]) == {}
        assert again.index.catalog.items_of(next(iter(again.index.catalog.packs()))) == []
        assert again.get(tree, ObjectKind.TREE) == DATA


@pytest.mark.parametrize("name", ["../../../etc/passwd", "", "AB" * 16, b"bytes", 7])
def test_a_pack_name_that_no_crabrt_gives_is_not_opened(home, store, writer, name, monkeypatch):
    writer.put(DATA)
    writer.close()
    store.close()
    with sqlite3.connect(home / layout.CATALOG) as db:
        db.execute("UPDATE packs SET name = ?", (name,))
    db.close()
    with Store.open(home) as again:
        assert again.index.catalog.locate(ID) == []
        assert again.get(ID) == DATA
        assert check(again, read_data=True).problems == ()


@pytest.mark.parametrize("indexed_to", ["text", None, -5, 1 << 62])
def test_an_offset_that_no_pack_has_costs_a_look_into_the_packs(home, store, writer, indexed_to):
    writer.put(DATA)
    writer.close()
    store.close()
    with sqlite3.connect(home / layout.CATALOG) as db:
        db.execute("CREATE TABLE new AS SELECT * FROM packs")
        db.execute("UPDATE new SET indexed_to = ?, sealed = 0", (indexed_to,))
        db.execute("DROP TABLE packs")
        db.execute("ALTER TABLE new RENAME TO packs")
        db.execute("DELETE FROM objects")
    db.close()
    with Store.open(home) as again:
        assert again.get(ID) == DATA
        with again.writer() as writing:
            writing.put(OTHER)
    with Store.open(home) as again:
        assert again.get(object_id(OTHER)) == OTHER


def test_a_catalog_that_knows_more_of_a_pack_than_there_is_is_reported(home, store, writer):
    writer.put(DATA)
    writer.close()
    with sqlite3.connect(home / layout.CATALOG) as db:
        db.execute("UPDATE packs SET indexed_to = indexed_to + 1")
    db.close()
    (problem,) = check(store, read_data=False).problems
    assert problem.area == "catalog"


def test_a_catalog_of_another_version_is_replaced(home, store, writer):
    writer.put(DATA)
    writer.close()
    store.close()
    with sqlite3.connect(home / layout.CATALOG) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with Store.open(home) as again:
        assert again.get(ID) == DATA
    with sqlite3.connect(home / layout.CATALOG) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    db.close()


def test_a_catalog_that_is_broken_while_in_use_is_replaced(home, store, writer):
    writer.put(DATA)
    writer.close()
    with sqlite3.connect(home / layout.CATALOG) as db:
        db.execute("DROP TABLE objects")
    db.close()
    assert store.get(ID) == DATA
    assert store.index.catalog.locate(ID) != []


def test_a_catalog_that_is_deleted_while_in_use_is_there_again_for_others(home, store, writer):
    writer.put(DATA)
    writer.close()
    (home / layout.CATALOG).unlink()
    store.index.refresh()
    with sqlite3.connect(home / layout.CATALOG) as db:
        assert db.execute("SELECT count(*) FROM objects").fetchone() == (1,)
    db.close()


def test_a_torn_page_of_the_catalog_is_reported(home, store, writer, noise):
    for number in range(2_000):
        writer.put(noise(number, 20))
    writer.close()
    store.close()
    with sqlite3.connect(home / layout.CATALOG) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with open(home / layout.CATALOG, "r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))
    with Store.open(home) as again:
        (problem,) = check(again, read_data=False).problems
        assert (problem.area, problem.where) == ("catalog", layout.CATALOG)


# -- several places --------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("which", [0, 1])
def test_any_good_copy_will_do(home, store, which, gone):
    with store.writer() as one, store.writer() as two:
        one.put(DATA)
        two.put(DATA)
    store.index.distrust()  # nothing is found by starting anew
    pack = layout.pack_path(home, store.locate(ID)[which].pack)
    if gone:
        pack.unlink()
    else:
        content = bytearray(pack.read_bytes())
        content[100] ^= 1
        pack.write_bytes(content)
    assert store.get(ID) == DATA


def test_an_object_whose_pack_is_gone_is_not_there(home, store):
    with store.writer() as writer:
        writer.put(DATA)
    (at,) = store.locate(ID)
    layout.pack_path(home, at.pack).unlink()
    with pytest.raises(DamagedObject, match="the pack is gone"):
        store.read_at(ID, ObjectKind.DATA, at)
    assert not store.contains(ID)
    is_refused(store)


# -- contents --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [len(DATA) * 2 - 1, len(DATA) * 2 + 1, 0, len(DATA)])
def test_pieces_that_do_not_add_up_are_refused(writer, size):
    piece = writer.put(DATA)
    with pytest.raises(DamagedObject, match="add up"):
        contents.read_bytes(Content(size, 0, (piece, piece)), writer)


def test_no_more_bytes_come_than_there_should_be(writer):
    piece, read = writer.put(DATA), []
    with pytest.raises(DamagedObject, match="add up"):
        read.extend(contents.read_blocks(Content(len(DATA) + 1, 0, (piece, piece)), writer))
    assert read in ([], [DATA])


# -- check, repair ---------------------------------------------------------------------------------


def closed_pack(home, store):
    """A sealed pack that the catalog knows."""
    with store.writer() as writer:
        writer.put(DATA)
    (at,) = store.locate(ID)
    return layout.pack_path(home, at.pack)


@pytest.mark.parametrize("broken", [[20], [-20], [20, -20], [-70]])
def test_a_finished_pack_that_lost_its_header_or_its_footer_is_reported(home, store, broken):
    pack = closed_pack(home, store)
    content = bytearray(pack.read_bytes())
    for offset in broken:
        content[offset] ^= 1
    pack.write_bytes(content)
    store.index.drop_file(pack.stem)
    (problem,) = check(store, read_data=False).problems
    assert (problem.area, problem.where) == ("pack", str(pack))


def test_a_footer_that_a_power_cut_tore_is_no_damage(home, store):
    write_pack(home, packs.header_bytes(NAME) + record(DATA) + footer(RIGHT, zero=1))
    report = check(store, read_data=True)
    assert (report.problems, report.unsealed, report.objects) == ((), 1, 1)


def test_a_format_that_broke_since_the_store_was_opened_is_reported(home, store):
    (home / layout.FORMAT).write_text("{")
    (problem,) = check(store, read_data=False).problems
    assert problem.area == "format"


def test_gc_keeps_a_condemned_pack_that_does_not_say_what_it_holds(home, store):
    pack = closed_pack(home, store)
    content = bytearray(pack.read_bytes())
    content[-20] ^= 1
    pack.write_bytes(content)
    store.index.drop_file(pack.stem)
    condemned.write_list(home, 1, frozenset([pack.stem]))
    assert collect(store, list).packs_kept == 1
    assert pack.exists()


def test_repair_keeps_one_of_two_copies_in_a_pack(home, store):
    one = packs.header_bytes(NAME) + record(DATA)
    write_pack(home, one + b"torn" + record(DATA))
    store.close()
    repair(home)
    (pack,) = (home / "packs").glob("*/*.pack")
    with Store.open(home) as again:
        assert again.get(ID) == DATA
        assert check(again, read_data=True).problems == ()
    assert pack.stat().st_size == len(one) + 48 + 24


def test_repair_leaves_the_packs_of_a_live_writer_alone(home, writer, noise):
    kept = [writer.put(noise(number, 50)) for number in range(5)]
    writer.flush()
    (pack,) = writer.open_packs()
    assert repair(home).packs_set_aside == ()
    assert layout.pack_path(home, pack).exists()
    kept += [writer.put(noise(number, 50)) for number in range(5, 9)]
    writer.sync()
    assert len({writer.get(found) for found in kept}) == 9


def test_repair_does_not_even_take_a_lock_in_a_newer_store(tmp_path):
    (tmp_path / layout.FORMAT).write_text('{"version": 2}')
    with pytest.raises(FormatTooNew):
        repair(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [layout.FORMAT]


@pytest.mark.parametrize("blobs", [LocalBlobStore, MemoryBlobStore])
@pytest.mark.parametrize(("offset", "length"), [(-1, None), (-1, 1), (0, -1)])
def test_a_range_of_a_blob_is_not_negative(tmp_path, blobs, offset, length):
    store = blobs(tmp_path) if blobs is LocalBlobStore else blobs()
    store.put("a", b"bytes")
    with pytest.raises(UsageError, match="range"):
        store.get("a", offset, length)


def test_what_an_open_pack_holds_is_known_after_the_catalog_was_lost(home, writer, noise):
    early = [writer.put(noise(number, 50)) for number in range(300)]
    writer.sync()
    writer.catalogue()
    with Store.open(home) as other:
        late = writer.put(DATA)
        writer.flush()
        other.index.refresh()
        assert other.index.find(late) != []
        other.index.catalog.reset()
        other.index.refresh()
        assert [found for found in (*early, late) if not other.index.find(found)] == []


# -- private ---------------------------------------------------------------------------------------


def test_a_directory_that_others_may_read_is_reported(home, store):
    os.chmod(home / "packs", 0o750)
    (problem,) = check(store, read_data=False).problems
    assert (problem.area, problem.where) == ("mode", str(home / "packs"))
