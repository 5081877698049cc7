"""What a failed write takes with it is told to whoever relied on it, and never found again."""

import errno
import os
import random
import sys
import threading

import pytest

from crabrt.core.ids import ObjectKind, object_id
from crabrt.errors import StoreUnavailable
from crabrt.store import Store, compression, condemned, openpack
from crabrt.store.check import check


def flush_that_fails(writer):
    with pytest.raises(StoreUnavailable):
        writer.flush()


def in_a_thread(action):
    """Run `action` in a thread of its own, to its end; what it raised."""
    raised = []

    def run():
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


def test_a_thread_is_told_of_what_was_lost_between_its_look_and_its_first_append(
    store, noise, fail, monkeypatch
):
    """Two threads put X. One loses it while the other is on its way to append Y."""
    known, new = noise("X", 1000), noise("Y", 1000)
    real = compression.compress

    def lose_first(data, kind=ObjectKind.DATA, **given):
        if bytes(data) == new:
            fail("pwrite", errno.ENOSPC)
            assert in_a_thread(lambda: flush_that_fails(writer)) == []
        return real(data, kind, **given)

    with store.writer() as writer, writer.commit():
        assert in_a_thread(lambda: writer.put(known)) == []
        monkeypatch.setattr(compression, "compress", lose_first)
        writer.put_many({object_id(data): (data, ObjectKind.DATA) for data in (known, new)})
        with pytest.raises(StoreUnavailable, match="were lost"):
            writer.flush()
        writer.put(known)
        writer.flush()
        assert store.get(object_id(known)) == known


def test_an_object_whose_put_fails_in_one_thread_is_stored_by_the_other_that_puts_it(
    store, noise, monkeypatch
):
    data = noise("X", 2 << 20)
    within, writing, looked = (threading.Event() for _ in range(3))
    catalog, raised = store.index.catalog, []
    real_pwrite, real_locate = os.pwrite, catalog.locate_all

    def other():
        with writer.commit():
            within.set()
            writing.wait()
            writer.put(data)
            writer.flush()

    def locate(object_ids):
        found = real_locate(object_ids)
        if writing.is_set():
            looked.set()
        return found

    def full_disk(fd, view, offset):
        if len(view) > 1 << 20 and not writing.is_set():
            writing.set()
            looked.wait()  # the other one has seen that X is there
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_pwrite(fd, view, offset)

    with store.writer() as writer:
        monkeypatch.setattr(catalog, "locate_all", locate)
        monkeypatch.setattr(os, "pwrite", full_disk)
        thread = threading.Thread(target=lambda: raised.extend(in_a_thread(other)))
        thread.start()
        within.wait()
        with writer.commit(), pytest.raises(StoreUnavailable, match="No space"):
            writer.put(data)
        thread.join()
        assert raised == []
        assert store.get(object_id(data)) == data


def test_a_pack_given_up_in_a_span_is_named_to_gc_as_needed(home, store, noise, fail):
    with store.writer() as writer, writer.commit():
        writer.put(noise("kept", 1000))
        writer.flush()
        (pack,) = writer.open_packs()
        fail("pwrite", errno.ENOSPC)
        with pytest.raises(StoreUnavailable):
            writer.put(noise("too much", 2 << 20))
        writer.sync()
        assert pack not in writer.open_packs()
        condemned.write_list(home, 1, frozenset([pack, "0" * 32]))
        writer.sync()
        assert condemned.read_answer(home, 1, writer.id) == {pack}


def test_a_catalog_that_cannot_be_filled_again_is_no_reason_to_fail(store, noise, fail):
    with store.writer() as writer:
        ids = [writer.put(noise(i, 100)) for i in range(300)]
        writer.sync()
        writer.catalogue()
        store.index.catalog.reset()
        ids += [writer.put(noise(1000 + i, 100)) for i in range(300)]
        writer.sync()
        left = fail("pread", errno.EIO)
        writer.catalogue()
        assert left == [0]
        assert len({store.get(found) for found in ids}) == 600


@pytest.mark.parametrize("made_by", ["a failed pack", "another writer"])
def test_the_directory_of_a_pack_is_durable_whoever_made_it(
    home, store, noise, monkeypatch, made_by
):
    synced = []
    real_open, real_fsync = os.open, os.fsync
    full = [made_by == "a failed pack"]

    def few_files(path, flags, *mode):
        if full[0] and str(path).endswith(".pack"):
            full[0] = False
            raise OSError(errno.EMFILE, "Too many open files")
        return real_open(path, flags, *mode)

    def noted(fd):
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real_fsync(fd)

    numbers = iter(range(1, 1000))
    monkeypatch.setattr(os, "urandom", lambda size: next(numbers).to_bytes(size, "big"))
    monkeypatch.setattr(os, "open", few_files)
    monkeypatch.setattr(os, "fsync", noted)
    with store.writer() as first, store.writer() as second:
        first.put(noise(1, 100))
        if made_by == "a failed pack":
            flush_that_fails(first)
        else:
            first.flush()
        synced.clear()
        second.put(noise(2, 100))
        second.sync()
        (pack,) = second.open_packs()
        assert {str(home / "packs"), str(home / "packs" / pack[:2])} <= set(synced)


def interrupted_at(step, action):
    """Run `action`, interrupted at its `step`-th line of `openpack`; whether it came so far."""
    left = [step]

    def trace(frame, event, _):
        if frame.f_code.co_filename != openpack.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_put_that_is_interrupted_anywhere_leaves_a_sound_pack(tmp_path, noise):
    """Ctrl-C, or a handler of SIGALRM that raises: the loop goes on, or ends in order."""
    step, interrupted = 1, True
    while interrupted:
        home = tmp_path / str(step)
        with Store.open(home, create=True) as store:
            with store.writer() as writer:
                first = [writer.put(noise(f"before {i}", 100)) for i in range(3)]

                def put_more(writer=writer):
                    data = [noise(f"during {i}", 100) for i in range(3)]
                    writer.put_many({object_id(d): (d, ObjectKind.DATA) for d in data})
                    writer.flush()

                interrupted = interrupted_at(step, put_more)
                first += [writer.put(noise(f"during {i}", 100)) for i in range(3)]
                first += [writer.put(noise(f"after {i}", 100)) for i in range(3)]
                writer.sync()
                assert len({store.get(found) for found in first}) == 9
            report = check(store, read_data=True)
            assert (report.problems, report.unsealed) == ((), 0), f"line {step}"
        with Store.open(home) as store:
            assert len({store.get(found) for found in first}) == 9
        step += 1
    assert step > 40


class Faults:
    """Makes one in `every` writes or syncs of packs fail, some after half of it."""

    def __init__(self, monkeypatch, seed, every):
        self.rng = random.Random(seed)
        self.every = every
        self.happened = 0
        self.lock = threading.Lock()
        real_pwrite, real_sync = os.pwrite, os.fdatasync

        def pwrite(fd, view, offset):
            if len(view) > 100 and self.strikes():
                if self.rng.random() < 0.5:
                    real_pwrite(fd, view[: len(view) // 2], offset)
                raise OSError(errno.ENOSPC, "No space left on device")
            return real_pwrite(fd, view, offset)

        def fdatasync(fd):
            if self.strikes():
                raise OSError(errno.EIO, "Input/output error")
            real_sync(fd)

        monkeypatch.setattr(os, "pwrite", pwrite)
        monkeypatch.setattr(os, "fdatasync", fdatasync)

    def strikes(self):
        with self.lock:
            struck = self.every and self.rng.randrange(self.every) == 0
            self.happened += bool(struck)
            return struck


class Committer:
    """A thread that commits random objects, and notes what a `sync` confirmed."""

    def __init__(self, writer, everything, seed):
        self.writer = writer
        self.everything = everything
        self.rng = random.Random(seed)
        self.confirmed = set()
        self.wrong = []
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            for _ in range(40):
                self.commit(self.rng.sample(self.everything, self.rng.randint(1, 30)))
        except BaseException as error:
            self.wrong.append(error)

    def commit(self, some):
        try:
            with self.writer.commit():
                self.writer.put_many({object_id(data): (data, ObjectKind.DATA) for data in some})
                if self.rng.random() < 0.5:
                    self.writer.flush()
                self.writer.sync()
        except StoreUnavailable:
            return
        self.confirmed.update(some)
        if self.rng.random() < 0.2:
            self.writer.catalogue()


@pytest.mark.parametrize("seed", range(6))
def test_what_a_sync_confirmed_is_there_whatever_failed_in_other_threads(
    home, store, noise, monkeypatch, seed
):
    everything = [noise(f"{seed} {i}", 700 + i * 13) for i in range(120)]
    with store.writer(pack_bytes=30_000) as writer:
        faults = Faults(monkeypatch, seed, every=3)
        committers = [Committer(writer, everything, seed * 100 + n) for n in range(4)]
        for committer in committers:
            committer.thread.start()
        for committer in committers:
            committer.thread.join()
        faults.every = 0
        assert [committer.wrong for committer in committers] == [[]] * 4
        assert faults.happened
        confirmed = set().union(*(committer.confirmed for committer in committers))
        assert confirmed
        with Store.open(home) as other:
            assert {other.get(object_id(data)) for data in confirmed} == confirmed
    with Store.open(home) as after, after.writer():
        assert check(after, read_data=True).problems == ()
        assert {after.get(object_id(data)) for data in confirmed} == confirmed
