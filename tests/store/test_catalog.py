"""The catalog is a cache: whatever happens to it, the answers stay."""

import sqlite3
import subprocess
import sys

import pytest

from crabrt.core.ids import ObjectId, object_id
from crabrt.store import Store
from crabrt.store.catalog import Catalog
from crabrt.store.index import Index


def fill(store, noise, count=30):
    with store.writer() as writer:
        return [writer.put(noise(i, 300)) for i in range(count)]


def rows(home):
    index = Index(home)
    index.refresh()
    found = {
        (item.id, item.at)
        for name in index.catalog.packs()
        for item in index.catalog.items_of(name)
    }
    index.close()
    return found


def test_a_rebuilt_catalog_says_the_same(home, store, noise):
    fill(store, noise)
    fill(store, noise, 60)
    store.close()
    before = rows(home)
    assert len(before) == 60
    for path in home.glob("chunks.sqlite*"):
        path.unlink()
    assert rows(home) == before


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_garbage_instead_of_a_catalog_is_replaced(home, store, noise, content):
    ids = fill(store, noise)
    store.close()
    (home / "chunks.sqlite").write_bytes(content)
    with Store.open(home) as again, again.writer() as writer:
        assert [again.get(i) for i in ids] == [noise(i, 300) for i in range(30)]
        writer.put(noise(0, 300))
        assert writer.bytes_stored == 0


def test_a_catalog_deleted_while_in_use_is_followed(home, store, noise):
    ids = fill(store, noise)
    with store.writer() as writer:
        more = writer.put(noise(100, 300))
        writer.sync()
        for path in home.glob("chunks.sqlite*"):
            path.unlink()
        with Store.open(home) as other:
            assert other.get(ids[0]) == noise(0, 300)
            assert other.get(more) == noise(100, 300)
        late = writer.put(noise(101, 300))
    assert [store.get(i) for i in (*ids[:3], more, late)] == [
        noise(i, 300) for i in (0, 1, 2, 100, 101)
    ]
    store.close()
    assert len(rows(home)) == 32


def test_an_open_pack_is_read_again_when_the_catalog_that_knew_it_is_lost(home, store, noise):
    with store.writer() as writer, Store.open(home) as other:
        early = [writer.put(noise(i, 50)) for i in range(300)]
        writer.sync()  # enough rows for the catalog
        late = writer.put(noise(1000, 50))
        writer.flush()
        assert other.contains(late)
        assert other.contains(early[0])
        for path in home.glob("chunks.sqlite*"):
            path.unlink()
        assert other.contains(ObjectId(b"\0" * 32)) is False
        assert all(other.contains(i) for i in (*early, late))


def test_a_log_left_by_a_deleted_catalog_is_not_replayed(home, store, noise):
    ids = fill(store, noise)
    wal = (home / "chunks.sqlite-wal").read_bytes()
    store.close()
    (home / "chunks.sqlite").unlink()
    (home / "chunks.sqlite-wal").write_bytes(wal)
    with Store.open(home) as again:
        assert [again.get(i) for i in ids] == [noise(i, 300) for i in range(30)]


def test_a_catalog_that_lies_is_found_out(home, store, noise):
    ids = fill(store, noise)
    store.close()
    with sqlite3.connect(home / "chunks.sqlite") as db:
        db.execute("UPDATE objects SET offset = offset + 7")
        db.execute("DELETE FROM objects WHERE id = ?", (ids[4],))
    db.close()
    with Store.open(home) as again:
        assert [again.get(i) for i in ids] == [noise(i, 300) for i in range(30)]


def test_a_locked_catalog_costs_duplicates_and_no_answer(home, store, noise, monkeypatch):
    monkeypatch.setattr("crabrt.store.catalog._BUSY_MS", 50)
    ids = fill(store, noise)
    script = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, home / "chunks.sqlite"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout.readline() == b"locked\n"
        with Store.open(home) as other, other.writer() as writer:
            put = writer.put(noise(500, 300))
            writer.sync()
            assert other.get(put) == noise(500, 300)
            assert other.get(ids[0]) == noise(0, 300)
        child.stdin.close()
    with Store.open(home) as again:
        assert again.get(object_id(noise(500, 300))) == noise(500, 300)


def test_rows_are_added_without_gaps(home, store):
    catalog = Catalog(home)
    assert not catalog.add("0" * 32, 100, 200, [], sealed=False)
    assert catalog.packs() == {}
    assert catalog.add("0" * 32, 0, 200, [], sealed=False)
    assert catalog.add("0" * 32, 100, 150, [], sealed=False)
    assert catalog.packs()["0" * 32].indexed_to == 200
    catalog.close()
