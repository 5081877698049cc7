"""Objects go in and come out, once each, and for everybody."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import crabrt
from crabrt.core.ids import ObjectId, ObjectKind, object_id
from crabrt.errors import DamagedObject, NotFound, UsageError
from crabrt.store import Store
from crabrt.store.compression import FEW_BYTES, Codec, compress


@pytest.mark.parametrize("length", [0, 1, 63, 64, 4096, 100_000, 3_000_000])
@pytest.mark.parametrize("compressible", [True, False])
def test_what_was_put_comes_back(writer, store, noise, length, compressible):
    data = b"abc" * (length // 3) + b"z" * (length % 3) if compressible else noise(length, length)
    put = writer.put(data)
    assert put == object_id(data)
    assert writer.get(put) == data
    writer.flush()
    assert store.get(put) == data
    writer.sync()
    assert store.get(put) == data


@pytest.mark.parametrize("length", [1_000, 100_000])
def test_only_what_shrinks_is_compressed(noise, length):
    text = b"def function(argument):\n    return argument\n" * (length // 40)
    codec, packed = compress(text)
    assert codec is Codec.ZSTD
    assert len(packed) < len(text) // 10
    dense = noise(1, length)
    assert compress(dense) == (Codec.RAW, dense)


def test_few_objects_put_together_take_less_than_each_as_one_of_many(home):
    sources = [path.read_bytes() for path in sorted(Path(crabrt.__file__).parent.glob("cli/*.py"))]
    few = [data for data in sources if len(data) > 4_000][:5]
    assert sum(map(len, few)) <= FEW_BYTES
    stored = []
    with Store.open(home, create=True) as store, store.writer() as writer:
        for more in (b"", b"#" * FEW_BYTES):
            batch = [more + b"#", *(data + more[:1] for data in few)]
            writer.put_many({object_id(data): (data, ObjectKind.DATA) for data in batch})
            stored.append(writer.bytes_stored - sum(stored))
            assert all(writer.get(object_id(data)) == data for data in batch)
    together, among_many = stored
    assert together < 0.97 * among_many


@pytest.mark.parametrize("kind", list(ObjectKind))
def test_a_kind_is_part_of_the_name(writer, kind):
    put = writer.put(b"same bytes", kind)
    assert writer.get(put, kind) == b"same bytes"
    other = ObjectKind.TREE if kind is not ObjectKind.TREE else ObjectKind.ROOT
    with pytest.raises(DamagedObject, match="is a"):
        writer.get(put, other)


def test_putting_twice_stores_once(writer):
    writer.put(b"x" * 1000)
    before = writer.bytes_stored
    for _ in range(10):
        writer.put(b"x" * 1000)
    assert writer.bytes_stored == before


def test_what_is_durable_is_not_stored_again_by_another_writer(home, noise):
    data = [noise(i, 500) for i in range(50)]
    with Store.open(home, create=True) as store, store.writer() as writer:
        for item in data:
            writer.put(item)
    with Store.open(home) as store, store.writer() as writer:
        for item in data:
            writer.put(item)
        assert writer.bytes_stored == 0


def test_an_absent_object_is_a_typed_error(store, writer):
    writer.put(b"something")
    with pytest.raises(DamagedObject, match="does not have"):
        store.get(ObjectId(b"\1" * 32))
    assert not store.contains(ObjectId(b"\1" * 32))


def test_a_small_commit_is_one_fdatasync(writer, noise, count_syncs):
    writer.put(noise(0, 100))
    writer.sync()
    count_syncs.update(fdatasync=0, fsync=0)
    for i in range(20):
        writer.put(noise(i + 1, 3000))
    writer.sync()
    assert count_syncs == {"fdatasync": 1, "fsync": 0}
    writer.sync()
    assert count_syncs == {"fdatasync": 1, "fsync": 0}


def test_everything_is_private(home, noise):
    old = os.umask(0)
    try:
        with Store.open(home, create=True) as store, store.writer() as writer:
            writer.put(noise(1, 100))
            writer.sync()
            for path in (home, *home.rglob("*")):
                mode = stat.S_IMODE(path.lstat().st_mode)
                assert mode == (0o700 if path.is_dir() else 0o600), path
    finally:
        os.umask(old)


def test_an_absent_store_is_not_made_by_reading(home):
    with pytest.raises(NotFound):
        Store.open(home)
    assert not home.exists()


def test_flushed_objects_are_read_by_another_process_while_the_writer_lives(home, writer, noise):
    put = [writer.put(noise(i, 200)) for i in range(10)]
    writer.flush()
    script = (
        "import sys; from pathlib import Path; from crabrt.store import Store\n"
        "with Store.open(Path(sys.argv[1])) as s:\n"
        "    print(sum(len(s.get(bytes.fromhex(i))) for i in sys.argv[2:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, home, *(i.hex() for i in put)],
        capture_output=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (b"2000", b"")


def test_flushed_objects_of_another_live_writer_do_not_count_as_stored(home, store, noise):
    data = noise(1, 5000)
    with store.writer() as first, store.writer() as second:
        first.put(data)
        first.flush()
        second.put(data)
        assert second.bytes_stored > 5000


def test_many_threads_put_and_read(store, noise):
    with store.writer(pack_bytes=200_000) as writer:
        errors = []

        def work(number):
            try:
                for i in range(150):
                    data = noise(i % 100 + number // 2 * 1000, 2000)
                    assert writer.get(writer.put(data)) == data
                    if i % 40 == 0:
                        writer.sync()
            except BaseException as error:
                errors.append(error)
                raise

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


def test_packs_are_rolled_over_and_all_of_them_are_read(home, noise, pack_files):
    data = [noise(i, 10_000) for i in range(100)]
    with Store.open(home, create=True) as store, store.writer(pack_bytes=50_000) as writer:
        put = [writer.put(item) for item in data]
        assert [writer.get(i) for i in put] == data
    assert len(pack_files()) > 15
    with Store.open(home) as store:
        assert [store.get(i) for i in put] == data


def test_an_object_has_a_longest_length(writer):
    with pytest.raises(UsageError, match="too long"):
        writer.put(bytes((64 << 20) + 1))


def test_a_closed_writer_and_a_closed_store_say_so(store):
    writer = store.writer()
    writer.close()
    writer.close()
    with pytest.raises(UsageError, match="closed"):
        writer.put(b"x")
    store.close()
    store.close()
    with pytest.raises(UsageError, match="closed"):
        store.get(object_id(b"x"))


def test_a_forked_child_is_refused_and_harms_nothing(store, writer, noise):
    put = writer.put(noise(1, 1000))
    writer.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            writer.put(b"from the child")
        except UsageError:
            status = 0
        writer.close()
        store.close()
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    writer.put(noise(2, 1000))
    writer.sync()
    assert store.get(put) == noise(1, 1000)
