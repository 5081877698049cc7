"""A batch is its writer, later: everything reaches it, in order, and an error is never lost."""

import pytest

from crabrt.core.ids import ObjectKind, object_id
from crabrt.errors import StoreUnavailable
from crabrt.operations.scratch import ScratchWriter
from crabrt.store.batch import BATCH_BYTES, BATCH_OBJECTS, Batch
from crabrt.testing.conformance import ObjectWriterSuite
from crabrt.testing.memory import MemoryObjects


class TestStoreWriter(ObjectWriterSuite):
    """The suite's fixture is the one of this directory."""


class TestMemory(ObjectWriterSuite):
    @pytest.fixture
    def writer(self):
        return MemoryObjects()


class TestScratch(ObjectWriterSuite):
    @pytest.fixture
    def writer(self):
        with ScratchWriter(MemoryObjects()) as scratch:
            yield scratch


class TestBatchOfAStore(ObjectWriterSuite):
    @pytest.fixture
    def writer(self, store):
        with store.writer() as behind:
            yield Batch(behind)


class Full(MemoryObjects):
    """A writer without room."""

    def put_many(self, objects):
        raise StoreUnavailable("full")


def test_a_batch_waits_until_it_is_told():
    behind = MemoryObjects()
    batch = Batch(behind)
    batch.put(b"one")
    batch.put(b"one")
    assert behind.objects == {}
    batch.hand_over()
    assert list(behind.objects.values()) == [b"one"]


@pytest.mark.parametrize(
    ("count", "size"), [(BATCH_OBJECTS, 8), (BATCH_BYTES // (64 << 10) + 1, 64 << 10)]
)
def test_a_batch_is_bounded(count, size, noise):
    behind = MemoryObjects()
    batch = Batch(behind)
    for number in range(count):
        batch.put(noise(number, size))
    assert len(behind.objects) >= BATCH_BYTES // (64 << 10)


def test_a_full_disk_is_told_by_whoever_hands_over():
    batch = Batch(Full())
    batch.put(b"one")
    with pytest.raises(StoreUnavailable):
        batch.flush()


class FullOnce(MemoryObjects):
    """A writer that has no room, then some."""

    full = True

    def put_many(self, objects):
        if self.full:
            self.full = False
            raise StoreUnavailable("full")
        super().put_many(objects)


def test_what_could_not_be_handed_over_is_not_forgotten():
    behind = FullOnce()
    batch = Batch(behind)
    put = [batch.put(b"one"), batch.put(b"two")]
    with pytest.raises(StoreUnavailable):
        batch.get(put[0])  # told to a reader, who may go on
    batch.flush()
    assert [behind.get(found) for found in put] == [b"one", b"two"]


def test_objects_of_a_batch_that_others_stored_meanwhile_are_not_stored_twice(store, noise):
    with store.writer() as writer:
        batch = Batch(writer)
        ids = [batch.put(noise(number, 500)) for number in range(20)]
        with store.writer() as other:
            for number in range(10):
                other.put(noise(number, 500))
        before = writer.bytes_stored
        batch.hand_over()
        assert 10 * 500 < writer.bytes_stored - before < 11 * 600
        assert [writer.get(found) for found in ids] == [noise(n, 500) for n in range(20)]


def test_many_are_located_as_each_alone(store, noise):
    with store.writer() as writer:
        ids = [writer.put(noise(number, 100)) for number in range(1_500)]
    absent = [object_id(b"absent %d" % number) for number in range(700)]
    catalog = store.index.catalog
    for some in (ids[:1], ids[:3], ids, ids[:600] + absent, absent, []):
        found = catalog.locate_all(some)
        assert found == {one: places for one in some if (places := catalog.locate(one))}


def test_rows_of_a_checkpoint_reach_the_catalog_when_nobody_waits(store, noise):
    with store.writer() as writer:
        ids = [writer.put(noise(number, 100), ObjectKind.TREE) for number in range(300)]
        writer.sync()
        assert not store.index.catalog.locate_all(ids)
        writer.catalogue()
        assert len(store.index.catalog.locate_all(ids)) == 300


def test_what_is_not_durable_never_reaches_the_catalog(store, noise):
    with store.writer() as writer:
        ids = [writer.put(noise(number, 100)) for number in range(300)]
        writer.flush()
        writer.catalogue()
        assert not store.index.catalog.locate_all(ids)
