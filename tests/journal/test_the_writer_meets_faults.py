"""Full disks, failing syncs, dead owners and zombies: the journal stays well-formed."""

from __future__ import annotations

import errno
import threading

import pytest

from crabrt.core.entries import Noted
from crabrt.errors import DamagedJournal, NotFound, RunBusy, StoreUnavailable, UsageError
from crabrt.journal import Journal, Lease, cut_journal, read_journal
from crabrt.journal.framing import encode_frame
from crabrt.journal.layout import Disk


class FaultyDisk(Disk):
    """Fails calls of a kind; of a failing write `tear` bytes are done (ENOSPC in the middle)."""

    def __init__(self):
        self.fail = set()
        self.tear = 0
        self.failed = []

    def _maybe(self, what, code):
        if what in self.fail:
            self.failed.append(what)
            raise OSError(code, "staged")

    def create(self, path):
        self._maybe("create", errno.ENOSPC)
        return super().create(path)

    def write(self, fd, data, offset):
        if "write" in self.fail:
            super().write(fd, data[: self.tear], offset)
        self._maybe("write", errno.ENOSPC)
        super().write(fd, data, offset)

    def truncate(self, fd, length):
        self._maybe("truncate", errno.EIO)
        super().truncate(fd, length)

    def sync(self, fd):
        self._maybe("sync", errno.EIO)
        super().sync(fd)

    def sync_directory(self, path):
        self._maybe("sync_directory", errno.EIO)
        super().sync_directory(path)


@pytest.mark.parametrize("tear", [0, 1, 30, 70])
def test_a_full_disk_in_an_append_leaves_no_half_entry_and_later_appends_succeed(run, tear):
    disk = FaultyDisk()
    run.open(disk=disk)
    run.note("0")
    size = run.segments()[0].stat().st_size
    disk.fail, disk.tear = {"write"}, tear
    with pytest.raises(StoreUnavailable, match="append"):
        run.note("lost")
    assert disk.failed == ["write"]
    assert run.segments()[0].stat().st_size == size
    disk.fail = set()
    assert run.note("1") == 2
    run.close()
    assert run.texts() == ["0", "1"]


def test_a_half_entry_that_cannot_be_cut_stops_appends_until_it_can(run):
    disk = FaultyDisk()
    run.open(disk=disk)
    run.note("0")
    disk.fail, disk.tear = {"write", "truncate"}, 40
    with pytest.raises(StoreUnavailable):
        run.note("lost")
    assert run.texts() == ["0"]
    disk.fail = {"truncate"}
    with pytest.raises(StoreUnavailable, match="half-written"):
        run.note("lost too")
    disk.fail = set()
    run.note("1")
    assert run.texts() == ["0", "1"]


def test_after_a_failed_sync_the_entries_are_written_again_to_a_new_segment(run):
    disk = FaultyDisk()
    run.open(disk=disk)
    run.note("0")
    run.journal.sync()
    run.note("1")
    run.note("2")
    reader = list(read_journal(run.directory))
    disk.fail = {"sync"}
    with pytest.raises(StoreUnavailable, match="sync"):
        run.journal.sync()
    disk.fail = set()
    run.note("3")
    run.journal.sync()
    old, new = run.segments()
    data = old.read_bytes()
    offset = reader[0].offset
    old.write_bytes(data[:offset] + bytes(len(data) - offset))  # the disk never had them
    assert run.texts() == ["0", "1", "2", "3"]
    later = [r.body.text for r in read_journal(run.directory, after=reader[2].position)]
    assert later == ["3"]
    assert new.name == "00000002-00000001.seg"


def test_while_no_new_segment_can_begin_after_a_failed_sync_nothing_is_appended(run):
    disk = FaultyDisk()
    run.open(disk=disk)
    run.note("0")
    disk.fail = {"sync"}
    with pytest.raises(StoreUnavailable):
        run.journal.sync()
    for what in ("create", "write", "sync"):
        disk.fail = {what}
        with pytest.raises(StoreUnavailable):
            run.note("lost")
        assert run.texts() == ["0"]
    disk.fail = set()
    run.note("1")
    run.journal.sync()
    assert run.texts() == ["0", "1"]


def test_a_failed_directory_sync_is_not_forgotten(run):
    disk = FaultyDisk()
    run.open(disk=disk)
    run.note("0")
    disk.fail = {"sync_directory"}
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            run.journal.sync()
    disk.fail = set()
    run.journal.sync()
    assert run.texts() == ["0"]


def test_segments_are_followed_by_others_even_when_nobody_syncs(run):
    run.open(segment_bytes=500)
    for n in range(40):
        run.note(f"{n}")
    assert len(run.segments()) > 3
    assert run.texts() == [str(n) for n in range(40)]


def test_an_entry_that_is_too_long_is_refused_and_nothing_is_written(run):
    run.open()
    with pytest.raises(UsageError, match="too long"):
        run.note("x" * (17 << 20))
    run.note("0")
    assert run.texts() == ["0"]


def test_threads_append_in_one_order_while_others_sync(run):
    run.open(segment_bytes=4000)

    def work(name):
        for n in range(200):
            run.note(f"{name}{n}")
            if n % 20 == 0:
                run.journal.sync()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.close()
    records = list(read_journal(run.directory))
    assert [r.entry.seq for r in records] == list(range(1, 801))
    for name in "abcd":
        assert [r.body.text for r in records if r.body.text[0] == name] == [
            f"{name}{n}" for n in range(200)
        ]


def test_after_release_or_close_nothing_is_written(run):
    run.open()
    run.note("0")
    run.lease.release()
    assert run.journal.inert
    with pytest.raises(RunBusy):
        run.note("lost")
    with pytest.raises(RunBusy):
        run.journal.sync()
    run.journal.close()
    run.journal.close()
    assert run.texts() == ["0"]


def test_what_is_not_there_is_not_made_unless_asked(tmp_path):
    with Lease.acquire(tmp_path / "r") as lease, pytest.raises(NotFound):
        Journal.open(tmp_path / "r", lease)


def test_bytes_of_a_zombie_are_void(run, make_run):
    """The old owner lost its lock without noticing; it goes on writing after the takeover."""
    run.open()
    run.note("0")
    zombie, zombie_lease = run.journal, run.lease
    successor = make_run(run.id)
    zombie_lease.inert = True  # what the registry would do
    from crabrt.journal import lease as module  # noqa: PLC0415

    module._REGISTRY.held.clear()
    successor.open()
    zombie_lease.inert = False
    assert successor.lease.epoch == 2
    successor.note("1")
    zombie.append(Noted("t", "void"), turn=0)
    zombie.sync()
    assert zombie.path.stat().st_size > successor.journal._durable.offset
    assert successor.texts() == ["0", "1"]
    zombie._segment_bytes = 1  # it even begins another segment
    zombie.append(Noted("t", "void"), turn=0)
    zombie.sync()
    assert zombie.path.name == "00000002-00000001.seg"
    successor.note("2")
    assert successor.texts() == ["0", "1", "2"]
    successor.close()
    third = make_run(run.id)
    third.open()
    assert third.journal.seq == 3
    third.note("3")
    assert third.texts() == ["0", "1", "2", "3"]
    third.close()
    zombie_lease.inert = True
    run.journal = run.lease = None


def test_another_process_that_took_the_next_segment_stops_us(run):
    run.open(segment_bytes=100)
    (run.directory / "journal" / "00000002-00000001.seg").write_bytes(b"")
    run.note("0")
    with pytest.raises(RunBusy):
        run.journal.sync()
    assert run.texts() == ["0"]
    (run.directory / "journal" / "00000002-00000001.seg").unlink()


@pytest.mark.parametrize("where", ["last segment", "middle segment", "header", "missing"])
def test_a_damaged_journal_is_cut_behind_its_last_whole_entry_and_goes_on(run, where):
    run.open(segment_bytes=300)
    for n in range(8):
        run.note(f"{n}")
        run.journal.sync()
    run.close()
    segments = run.segments()
    victim = {"last segment": segments[-2], "middle segment": segments[1]}.get(where, segments[2])
    data = bytearray(victim.read_bytes())
    if where == "missing":
        victim.unlink()
    else:
        data[100 if where == "header" else 230] ^= 1
        victim.write_bytes(data)
    with pytest.raises(DamagedJournal):
        list(read_journal(run.directory))
    with Lease.acquire(run.directory) as lease:
        cut = cut_journal(run.directory, lease)
        assert cut.after is not None
        assert cut.problem
    kept = run.texts()
    assert kept == [str(n) for n in range(cut.after.seq)]
    run.open()
    run.note("new")
    run.close()
    assert run.texts() == [*kept, "new"]
    with Lease.acquire(run.directory) as lease:
        assert cut_journal(run.directory, lease) is None


def test_a_frame_is_valid_at_its_own_place_only():
    frame = encode_frame(b"x", b"\0" * 32, durable=160, seed=7, offset=200)
    assert frame != encode_frame(b"x", b"\0" * 32, durable=160, seed=7, offset=201)
    assert frame != encode_frame(b"x", b"\0" * 32, durable=160, seed=8, offset=200)
