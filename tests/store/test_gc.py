"""gc takes what nothing refers to, and nothing else, whoever writes meanwhile."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from crabrt.core.content import build
from crabrt.core.ids import ObjectId, ObjectKind, object_id
from crabrt.core.listing import put_directory
from crabrt.core.trees import Entry, Kind, Root, encode_root
from crabrt.errors import DamagedObject, StoreBusy
from crabrt.store import ObjectRef, Store, condemned
from crabrt.store.check import check
from crabrt.store.contents import put_bytes
from crabrt.store.gc import collect
from crabrt.store.usage import usage


def refs(*ids):
    return lambda: [ObjectRef(i) for i in ids]


def fill(store, noise, seeds, **settings):
    with store.writer(**settings) as writer:
        return [writer.put(noise(seed, 500)) for seed in seeds]


def test_dead_packs_go_and_living_ones_stay(home, store, noise, pack_files):
    dead = fill(store, noise, range(10))
    live = fill(store, noise, range(100, 110))
    report = collect(store, refs(*live))
    assert (report.packs_removed, report.live_objects, report.waiting_for) == (1, 10, ())
    assert len(pack_files()) == 1
    assert [store.get(i) for i in live] == [noise(i, 500) for i in range(100, 110)]
    assert not any(store.contains(i) for i in dead)
    assert list((home / "gc").iterdir()) == [home / "gc" / "lock"]


def test_nothing_goes_when_everything_is_needed(store, noise, pack_files):
    live = fill(store, noise, range(10))
    before = pack_files()
    report = collect(store, refs(*live))
    assert (report.packs_removed, report.packs_condemned, report.dead_bytes) == (0, 0, 0)
    assert pack_files() == before


def test_sparse_packs_are_rewritten(store, noise, pack_files):
    ids = fill(store, noise, range(20))
    report = collect(store, refs(*ids[:3]))
    assert (report.packs_rewritten, report.packs_removed) == (1, 1)
    (pack,) = pack_files()
    assert pack.stat().st_size < 5 * 600
    assert [store.get(i) for i in ids[:3]] == [noise(i, 500) for i in range(3)]
    assert check(store, read_data=True).problems == ()


def test_a_dry_run_changes_nothing(home, store, noise, pack_files):
    fill(store, noise, range(10))
    before = pack_files()
    report = collect(store, refs(), dry_run=True)
    assert (report.packs_condemned, report.packs_removed) == (1, 0)
    assert report.bytes_condemned == sum(path.stat().st_size for path in before)
    assert pack_files() == before
    assert [path.name for path in (home / "gc").iterdir()] == ["lock"]


def test_everything_that_a_root_reaches_lives(store, noise):
    with store.writer() as writer:
        long = put_bytes(noise(1, 3 << 20), writer)
        ids = [writer.put(noise(i, 50)) for i in range(2, 600)]
        listed = build(0, ids, writer.put)
        entries = [
            Entry(b"long", Kind.FILE, 0o644, 0, 0, content=long),
            Entry(b"many", Kind.FILE, 0o644, 0, 0, content=listed),
        ]
        inner = put_directory(entries, writer.put)
        outer = put_directory([Entry(b"in", Kind.DIR, 0o755, 0, 0, child=inner)], writer.put)
        links = put_bytes(noise("links", 700), writer)
        top = Root(Entry(b"", Kind.DIR, 0o755, 0, 0, child=outer), links=links)
        root = writer.put(encode_root(top), ObjectKind.ROOT)
        dead = put_bytes(noise("dead", 3 << 20), writer)
    collect(store, lambda: [ObjectRef(root, ObjectKind.ROOT)], sparse=0.1)
    everything = [*long.ids, *ids, *listed.ids, inner, outer, *links.ids, root]
    assert all(store.contains(i) for i in everything)
    assert not any(store.contains(i) for i in dead.ids)
    collect(store, lambda: [ObjectRef(i, ObjectKind.LIST) for i in listed.ids])
    assert all(store.contains(i) for i in ids)
    assert not store.contains(root)


def test_gc_refuses_when_it_cannot_tell_what_is_needed(store, noise, pack_files):
    fill(store, noise, range(10))
    before = pack_files()
    with pytest.raises(DamagedObject, match="cannot tell"):
        collect(store, lambda: [ObjectRef(ObjectId(b"\7" * 32), ObjectKind.ROOT)])
    assert pack_files() == before
    report = collect(store, refs(ObjectId(b"\7" * 32)))
    assert report.missing == (ObjectId(b"\7" * 32),)


def test_two_at_once_are_refused(store, noise):
    fill(store, noise, range(3))

    def roots():
        with pytest.raises(StoreBusy):
            collect(store, refs())
        return []

    collect(store, roots)


def test_an_active_writer_is_waited_for_and_an_idle_one_is_not(store, noise, pack_files):
    fill(store, noise, range(10))
    with store.writer() as writer:
        with writer.commit():
            report = collect(store, refs())
            assert (report.packs_removed, report.packs_condemned) == (0, 1)
            assert report.waiting_for == (os.getpid(),)
        assert collect(store, refs()).packs_removed == 1
        assert pack_files() == []
        put = writer.put(noise(3, 500))
        assert writer.bytes_stored > 0
        assert store.get(put) == noise(3, 500)


def test_an_active_writer_answers_with_its_next_sync(store, noise):
    fill(store, noise, range(10))
    with store.writer() as writer:
        writer.put(b"no commit around it")
        assert collect(store, refs()).packs_removed == 0
        writer.sync()
        assert collect(store, refs()).packs_removed == 1


def test_a_put_outside_of_any_commit_is_not_forgotten_with_the_commit_of_another_thread(
    store, noise
):
    fill(store, noise, range(10))
    with store.writer() as writer:
        with writer.commit():
            other = threading.Thread(target=writer.put, args=(noise(3, 500),))
            other.start()
            other.join()
        assert writer.bytes_stored == 0
        assert collect(store, refs()).waiting_for == (os.getpid(),)
        writer.sync()
        assert collect(store, refs()).packs_removed == 1
        assert store.get(object_id(noise(3, 500))) == noise(3, 500)


def test_what_was_found_in_a_condemned_pack_is_stored_again(store, noise):
    fill(store, noise, range(10))
    with store.writer() as writer, writer.commit():
        found = writer.put(noise(3, 500))
        assert writer.bytes_stored == 0
        assert collect(store, refs()).packs_condemned == 1
        writer.sync()
        assert writer.bytes_stored > 0
        assert collect(store, refs()).packs_removed == 1
        assert store.get(found) == noise(3, 500)


@pytest.mark.parametrize("seen_before", [False, True])
def test_a_row_of_a_pack_that_is_gone_is_no_reason_not_to_store(
    store, noise, pack_files, seen_before
):
    fill(store, noise, range(10))
    with store.writer() as writer:
        if seen_before:
            with writer.commit():
                writer.put(noise(3, 500))
        assert writer.bytes_stored == 0
        (pack,) = pack_files()
        pack.unlink()
        with writer.commit():
            put = writer.put(noise(3, 500))
            writer.sync()
        assert store.get(put) == noise(3, 500)


def test_a_pack_sealed_in_a_span_stays_though_nothing_refers_to_it_yet(home, store, noise):
    with store.writer(pack_bytes=1_000) as writer, writer.commit():
        ids = [writer.put(noise(number, 600)) for number in range(2)]
        writer.sync()
        (pack,) = {at.pack for put in ids for at in store.locate(put)}
        assert pack not in writer.open_packs()
        condemned.write_list(home, 1, frozenset([pack]))
        writer.sync()
        assert collect(store, refs()).packs_kept == 1
        assert [store.get(put) for put in ids] == [noise(number, 600) for number in range(2)]


def test_what_is_needed_after_all_keeps_its_pack(store, noise, pack_files):
    """The entry that refers to it is written between the first mark and the second."""
    ids = fill(store, noise, range(10))
    with store.writer() as writer:
        writer.put(b"active")
        assert collect(store, refs()).packs_condemned == 1
        writer.sync()
        report = collect(store, refs(*ids))
        assert (report.packs_removed, report.packs_kept) == (0, 1)
    assert [store.get(i) for i in ids] == [noise(i, 500) for i in range(10)]


def test_an_unreadable_list_condemns_nothing(home, store, noise, pack_files):
    ids = fill(store, noise, range(10))
    (home / "gc" / "5.condemned").write_bytes(b'["\xff')
    collect(store, refs(*ids))
    assert len(pack_files()) == 1
    assert not (home / "gc" / "5.condemned").exists()


def test_what_killed_processes_left_is_swept(home, store, noise):
    (home / "gc" / "5.seen-aa").write_bytes(b"[]")
    old, young = home / "gc" / ".old.tmp", home / "writers" / ".young.tmp"
    for path in (old, young):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    collect(store, refs())
    assert [path.name for path in (home / "gc").iterdir()] == ["lock"]
    assert young.exists()


def test_packs_of_an_active_writer_are_left_alone(store, noise, pack_files):
    with store.writer(pack_bytes=3000) as writer, writer.commit():
        ids = [writer.put(noise(i, 500)) for i in range(30)]
        writer.sync()
        before = pack_files()
        report = collect(store, refs())
        assert (report.packs_condemned, report.packs_removed) == (0, 0)
        assert pack_files() == before
        assert all(store.contains(i) for i in ids)


def test_a_deleted_catalog_does_not_make_gc_remove_anything(home, store, noise):
    ids = fill(store, noise, range(10))

    def roots():
        for path in home.glob("chunks.sqlite*"):
            path.unlink()
        return [ObjectRef(i) for i in ids]

    assert collect(store, roots).packs_removed == 0
    with Store.open(home) as again:
        assert [again.get(i) for i in ids] == [noise(i, 500) for i in range(10)]


def test_usage_adds_up(home, store, noise, pack_files):
    ids = fill(store, noise, range(10))
    with store.writer() as writer:
        writer.put(b"t" * 1000, ObjectKind.TREE)
    said = usage(store, refs(*ids[:4]))
    assert said.packs == 2
    assert said.pack_bytes == sum(path.stat().st_size for path in pack_files())
    assert said.kinds["data"].raw_bytes == 5000
    assert said.kinds["tree"].raw_bytes == 1000 > said.kinds["tree"].stored_bytes
    assert said.live_bytes == 4 * 556
    assert said.dead_bytes > 6 * 556
    assert usage(store).live_bytes is None


def test_gc_beside_writing_processes_loses_nothing_committed(home, store, tmp_path):
    journals = tmp_path / "journals"
    journals.mkdir()

    def journalled():
        for path in sorted(journals.glob("*.ids")):
            for line in path.read_text().split():
                yield ObjectId(bytes.fromhex(line))

    worker = Path(__file__).with_name("gc_worker.py")
    children = [
        subprocess.Popen(
            [sys.executable, worker, home, journals, str(n), "400"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    removed = kept = 0
    while any(child.poll() is None for child in children):
        report = collect(store, lambda: [ObjectRef(i) for i in journalled()], sparse=0.3)
        removed += report.packs_removed
        kept += report.packs_kept
        assert report.missing == ()
    for child in children:
        out, err = child.communicate()
        assert (child.returncode, err) == (0, "")
        assert out.startswith("done")
    assert removed > 20
    report = collect(store, lambda: [ObjectRef(i) for i in journalled()])
    assert report.waiting_for == ()
    with Store.open(home) as again:
        for wanted in journalled():
            assert object_id(again.get(wanted)) == wanted
        assert check(again, read_data=True).problems == ()
