"""Disks that are full, read-only, or fail: said plainly, and survived."""

import errno
import subprocess

import pytest

from crabrt.core.ids import ObjectKind, object_id
from crabrt.errors import StoreUnavailable
from crabrt.store import Store
from crabrt.store.check import check


def put_and_sync(writer, data):
    writer.put(data)
    writer.sync()


def create_and_fill(home, data):
    with Store.open(home, create=True) as store, store.writer() as writer:
        put_and_sync(writer, data)


@pytest.mark.root
def test_a_full_disk_is_said_and_survived(small_disk, noise):
    with Store.open(small_disk / "store", create=True) as store, store.writer() as writer:
        first = writer.put(noise("first", 1000))
        writer.sync()
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(bytes(4 << 20))
        lost = writer.put(noise("lost", 1000))
        with pytest.raises(StoreUnavailable, match="No space") as caught:
            put_and_sync(writer, noise("big", 2 << 20))
        assert "prune" in caught.value.hint
        assert store.get(first) == noise("first", 1000)
        ballast.unlink()
        writer.put(noise("lost", 1000))
        writer.sync()
        assert store.get(lost) == noise("lost", 1000)
        assert check(store, read_data=True).problems == ()
    with Store.open(small_disk / "store") as store, store.writer():
        assert store.get(lost) == noise("lost", 1000)
        assert check(store, read_data=True).problems == ()


@pytest.mark.root
def test_a_batch_of_which_half_fits_is_put_again_without_a_loss(small_disk, noise):
    objects = {
        object_id(data): (data, ObjectKind.DATA) for data in (noise(i, 9_000) for i in range(300))
    }
    kept = noise("kept", 1000)
    with Store.open(small_disk / "store", create=True) as store, store.writer() as writer:
        writer.put(kept)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(512 << 10))
        with pytest.raises(StoreUnavailable, match="No space"):
            writer.put_many(objects)
        half = [found for found in objects if store.contains(found)]
        assert 0 < len(half) < len(objects)
        assert all(store.get(found) == objects[found][0] for found in half)
        subprocess.run(["mount", "-o", "remount,size=9m", small_disk], check=True)
        writer.put_many(objects)
        writer.put(kept)
        writer.sync()
        assert writer.bytes_stored < 3 * 300 * 9_100
    with Store.open(small_disk / "store") as store:
        assert [store.get(found) for found in objects] == [data for data, _ in objects.values()]
        assert store.get(object_id(kept)) == kept
        assert check(store, read_data=True).problems == ()


@pytest.mark.root
def test_a_disk_too_full_for_a_store_says_so(small_disk, noise):
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(bytes(4 << 20))
    with pytest.raises(StoreUnavailable, match="No space"):
        create_and_fill(small_disk / "store", noise(1, 2 << 20))


@pytest.mark.root
def test_a_read_only_store_is_read_and_refuses_to_be_written(small_disk, noise):
    home = small_disk / "store"
    with Store.open(home, create=True) as store, store.writer() as writer:
        put = writer.put(noise(1, 1000))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        with Store.open(home) as store:
            assert store.get(put) == noise(1, 1000)
            assert check(store, read_data=True).problems == ()
            with pytest.raises(StoreUnavailable, match="Read-only"):
                store.writer()
        (home / "nothing").exists()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


def test_after_a_failed_fsync_nothing_undurable_is_relied_on(home, store, noise, fail, pack_files):
    with store.writer() as writer:
        durable = writer.put(noise("durable", 1000))
        writer.sync()
        writer.put(noise("doubtful", 1000))
        left = fail("fdatasync", errno.EIO)
        with pytest.raises(StoreUnavailable, match="Input/output"):
            writer.sync()
        assert left == [0]
        before = writer.bytes_stored
        again = writer.put(noise("doubtful", 1000))
        assert writer.bytes_stored > before
        writer.sync()
        assert store.get(again) == noise("doubtful", 1000)
        assert store.get(durable) == noise("durable", 1000)
        assert len(pack_files()) == 2
    with Store.open(home) as other, other.writer():
        assert check(other, read_data=True).problems == ()
        assert other.get(again) == noise("doubtful", 1000)


def test_a_put_that_was_lost_by_another_one_is_announced_by_the_next_sync(store, noise, fail):
    with store.writer() as writer:
        writer.put(noise("quiet", 1000))
        fail("pwrite", errno.ENOSPC)
        with pytest.raises(StoreUnavailable):
            writer.put(noise("loud", 2 << 20))
        with pytest.raises(StoreUnavailable, match="were lost"):
            writer.sync()
        writer.sync()


def test_a_put_that_was_lost_and_put_again_is_not_announced(store, noise, fail):
    with store.writer() as writer:
        writer.put(noise("quiet", 1000))
        fail("pwrite", errno.ENOSPC)
        with pytest.raises(StoreUnavailable):
            writer.put(noise("loud", 2 << 20))
        put = writer.put(noise("quiet", 1000))
        writer.sync()
        assert store.get(put) == noise("quiet", 1000)


def test_a_store_that_is_gone_says_so(home, store, noise):
    writer = store.writer()
    for path in sorted(home.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    home.rmdir()
    writer.put(noise(1, 100))
    with pytest.raises(StoreUnavailable, match="No such file"):
        writer.sync()
    writer.put(object_id(b"more"))
    with pytest.raises(StoreUnavailable):
        writer.close()
