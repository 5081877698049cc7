"""What was read before the capture is used only if it still is what is there."""

import itertools
import mmap
import os
import subprocess
import sys
import time
from concurrent.futures import Future

import pytest

from crabrt.errors import StoreUnavailable
from crabrt.store import Store
from crabrt.store.gc import collect
from crabrt.testing import oracle
from crabrt.testing.hostile import OPERATIONS, HostileRun, NotApplicable
from crabrt.workspace import Suspects, Workspace, early, early_reader
from crabrt.workspace.early_reader import EarlyReader
from crabrt.workspace.ignore import IGNORE_FILE
from crabrt.workspace.stamps import file_system, tick_ns

TREE = Suspects(subtrees=frozenset({b""}))
LONG = 9 << 20
"""Two spans and a bit."""

GC = """
import sys
from crabrt.errors import StoreUnavailable
from crabrt.store import Store
from crabrt.store.gc import collect
with Store.open(sys.argv[1]) as store:
    print(collect(store, list).packs_removed)
"""


def wait_for_tick():
    """Until what was stamped so far is settled: the coarse clock lags by up to a tick."""
    now = time.time_ns()
    while tick_ns() <= now:
        os.sched_yield()


def yes():
    return True


class Early:
    """A tracked workspace, a store of its own, and a reader."""

    def __init__(self, tracked):
        self.tracked, self.root = tracked, tracked.root
        self.store = Store.open(tracked.base / "store", create=True)
        tracked.objects = self.writer = self.store.writer(pack_bytes=1 << 18)
        self.reader = EarlyReader(tracked.workspace, self.writer)
        with self.writer.commit():  # outside of any, gc would have to wait for this writer
            tracked.capture()

    @property
    def reads(self):
        return self.reader.reads

    def read(self, suspects=TREE):
        """Have everything told read, as soon as it is old enough."""
        wait_for_tick()
        self.reader.tell(suspects)
        self.reader.round(yes)
        while self.reader.waiting:
            self.reader.round(yes)
        return len(self.reads._readings)

    def capture(self):
        """Capture what is there; how many early readings were used."""
        tracked, before = self.tracked, self.reads.used
        with self.writer.commit():
            tracked.tracker.capture(tracked.tracker.scan(), self.writer, self.reads)
        self.reader.settled()
        tracked.agrees()
        return self.reads.used - before

    def close(self):
        self.writer.close()
        self.store.close()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(early_reader, "QUIET_NS", 0)


@pytest.fixture
def place(tracked):
    made = Early(tracked)
    yield made
    made.close()


@pytest.fixture
def on_each(on_volume):
    made = Early(on_volume)
    yield made
    made.close()


def test_what_was_read_early_is_not_read_again(on_each):
    for number in range(5):
        (on_each.root / f"{number}").write_bytes(os.urandom(1000 * (number + 1)))
    (on_each.root / "long").write_bytes(os.urandom(1 << 20))
    if on_each.read() == 0:
        assert nothing_is_early(on_each)
        return
    tracked = on_each.tracked
    scan = tracked.tracker.scan()
    assert len(scan.seen[0].read) == 6
    with on_each.writer.commit():
        snapshot = tracked.tracker.capture(scan, on_each.writer, on_each.reads)
    assert snapshot.bytes_read == 0
    assert on_each.reads.used == 6
    tracked.agrees()


def nothing_is_early(place):
    """Where nobody can tell who writes, or a store leaves no trace, nothing is read early."""
    fd = os.open(place.root, os.O_RDONLY)
    try:
        return file_system(fd) in {"overlay", "tmpfs"}
    finally:
        os.close(fd)


def rewrite_with_times_back(path):
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rewrite_in_place(path):
    with path.open("r+b") as file:
        file.write(b"another")


def replace_by_rename(path):
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(bytes(status.st_size))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def map_and_store(path):
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] ^= 255


CHANGES = {
    "rewritten, times set back": rewrite_with_times_back,
    "rewritten in place": rewrite_in_place,
    "replaced by rename": replace_by_rename,
    "stored into through a mapping": map_and_store,
    "truncated": lambda path: os.truncate(path, 10),
    "deleted": os.unlink,
    "deleted and made again": lambda path: (path.unlink(), path.write_bytes(b"new")),
    "linked": lambda path: os.link(path, path.with_name("another name")),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a link to what it was": lambda path: (
        path.rename(path.with_name("was")),
        path.symlink_to("was"),
    ),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_change_after_the_early_reading_is_captured(place, how):
    file = place.root / "file"
    file.write_bytes(os.urandom(5000))
    assert place.read() == 1
    CHANGES[how](file)
    assert place.capture() == 0


@pytest.mark.parametrize("how", CHANGES)
def test_a_change_in_the_tick_of_the_early_reading_is_captured(place, how):
    file = place.root / "file"
    for _ in range(10):
        file.unlink(missing_ok=True)
        file.write_bytes(os.urandom(5000))
        wait_for_tick()
        place.reader.tell(TREE)
        place.reader.round(yes)
        CHANGES[how](file)  # at once: most of these fall into the tick of the reading
        assert place.capture() == 0
        subprocess.run(["rm", "-rf", *place.root.iterdir()], check=True)


def test_what_changed_in_this_very_tick_is_not_read_early(place):
    for _ in range(30):
        wait_for_tick()
        (place.root / "file").write_bytes(os.urandom(100))
        before = tick_ns()
        place.reader.tell(TREE)
        place.reader.round(yes)
        if tick_ns() == before:
            assert not place.reads._readings
            return
    pytest.fail("no round fits into a tick")


def test_a_name_that_moved_keeps_its_bytes_or_is_read_again(place):
    (place.root / "file").write_bytes(b"1" * 1000)
    (place.root / "twin").write_bytes(b"2" * 1000)
    assert place.read() == 2
    (place.root / "file").rename(place.root / "x")
    (place.root / "twin").rename(place.root / "file")
    place.capture()


def test_a_file_in_a_moved_directory_is_used_where_it_lies_now(place):
    (place.root / "a").mkdir()
    (place.root / "a" / "file").write_bytes(os.urandom(1000))
    assert place.read() == 1
    (place.root / "a").rename(place.root / "b")
    assert place.capture() == 1


def test_the_names_of_one_file_share_one_early_reading(place):
    (place.root / "a").write_bytes(os.urandom(1000))
    os.link(place.root / "a", place.root / "b")
    assert place.read() == 1
    assert place.capture() == 1


def test_names_modes_and_attributes_are_those_of_the_capture(place):
    file = place.root / "file"
    file.write_bytes(os.urandom(1000))
    assert place.read() == 1
    os.setxattr(file, "user.late", b"value")
    file.chmod(0o600)
    assert place.capture() == 0


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR | os.O_APPEND])
def test_a_file_that_somebody_has_open_for_writing_is_left_alone(place, flags):
    file = place.root / "file"
    file.write_bytes(os.urandom(1000))
    fd = os.open(file, flags)
    try:
        assert place.read() == 0
    finally:
        os.close(fd)
    assert place.read() == 1
    assert place.capture() == 1


@pytest.mark.parametrize("size", [1000, 2 << 20])
def test_a_file_that_is_mapped_for_writing_is_left_alone(place, size):
    file = place.root / "file"
    file.write_bytes(os.urandom(size))
    with file.open("r+b") as opened:
        memory = mmap.mmap(opened.fileno(), 0)
    memory[0] ^= 255
    assert place.read() == 0
    memory[1] ^= 255
    assert place.capture() == 0
    memory.close()


@pytest.mark.parametrize("size", [1000, 2 << 20])
def test_a_mapping_made_after_the_early_reading_is_seen(place, size):
    file = place.root / "file"
    file.write_bytes(os.urandom(size))
    assert place.read() == 1
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as memory:
        memory[0] ^= 255
        assert place.capture() == 0
        memory[0] ^= 255
        place.capture()


@pytest.mark.parametrize("act", ["truncate", "write", "append", "replace"])
def test_a_file_that_changes_while_it_is_read_early_is_not_kept(place, act):
    file = place.root / "file"
    file.write_bytes(os.urandom(LONG))
    calls = itertools.count()
    while not place.reads._readings and place.reader._times == {}:

        def may_go_on():
            if place.reader._times and next(calls) == 1:  # the first span is read
                if act == "truncate":
                    os.truncate(file, 100)
                elif act == "write":
                    rewrite_in_place(file)
                elif act == "append":
                    with file.open("ab") as opened:
                        opened.write(b"more")
                else:
                    replace_by_rename(file)
            return True

        wait_for_tick()
        place.reader.tell(TREE)
        place.reader.round(may_go_on)
    assert next(calls) >= 2, "it was not changed in the middle"
    assert place.capture() == 0


def test_a_long_file_that_is_broken_off_is_not_kept_and_the_next_one_not_begun(place):
    (place.root / "a").write_bytes(os.urandom(LONG))
    (place.root / "b").write_bytes(os.urandom(LONG + 1))
    wait_for_tick()
    place.reader.tell(TREE)
    place.reader.round(lambda: len(place.reader._times) == 0)
    assert len(place.reader._times) == 1, "none was begun"
    assert not place.reads._readings
    assert place.capture() == 0


def test_small_files_come_first(place):
    for name, size in {"a": 3000, "b": 1000, "c": 2000}.items():
        (place.root / name).write_bytes(os.urandom(size))
    wait_for_tick()
    place.reader.tell(TREE)
    sizes = []

    def may_go_on():
        sizes[:] = [one.content.size for one in place.reads._readings.values()]
        return len(sizes) < 2

    place.reader.round(may_go_on)
    assert sizes == [1000, 2000]


def test_a_file_that_is_written_again_and_again_is_read_a_few_times_at_most(place):
    file = place.root / "file"
    for number in range(20):
        file.write_bytes(os.urandom(1000) + bytes([number]))
        place.read()
    assert list(place.reader._times.values()) == [early_reader.READS_MOST]
    place.capture()


def test_a_young_file_waits(place, monkeypatch):
    monkeypatch.setattr(early_reader, "QUIET_NS", 200_000_000)
    file = place.root / "file"
    file.write_bytes(os.urandom(1000))
    wait_for_tick()
    place.reader.tell(TREE)
    place.reader.round(yes)
    read, age_ns = len(place.reads._readings), time.time_ns() - file.stat().st_ctime_ns
    assert read == 0 or age_ns > 200_000_000
    assert place.read() == 1
    assert time.time_ns() - file.stat().st_ctime_ns >= 200_000_000


def test_reading_in_vain_has_an_end(place, monkeypatch):
    monkeypatch.setattr(early, "VAIN_BYTES", 10_000)
    place.reader = EarlyReader(place.tracked.workspace, place.writer)
    for number in range(20):
        (place.root / f"{number}").write_bytes(os.urandom(1000))
    place.read()
    assert len(place.reads._readings) == 10
    assert place.capture() == 10  # not in vain
    for number in range(20, 40):
        (place.root / f"{number}").write_bytes(os.urandom(1000))
    assert place.read() == 10
    for number in range(40):
        (place.root / f"{number}").unlink()
    assert place.capture() == 0
    (place.root / "more").write_bytes(os.urandom(1000))
    assert place.read() == 0


def test_no_more_is_stored_early_than_the_writer_takes_without_waiting(place, monkeypatch):
    monkeypatch.setattr(early_reader, "UNSYNCED_BYTES", 5 << 20)
    (place.root / "long").write_bytes(os.urandom(3 * LONG))
    assert place.read() == 0
    assert place.reader.tired
    assert place.reader.stored_bytes < 2 * LONG
    assert place.capture() == 0
    assert not place.reader.tired


def test_what_is_excluded_is_not_stored(place):
    (place.root / "sub").mkdir()
    (place.root / IGNORE_FILE.decode()).write_text("*.secret\nprivate/\n")
    (place.root / "sub" / IGNORE_FILE.decode()).write_text("here\n")
    place.capture()
    (place.root / "a.secret").write_bytes(os.urandom(999))
    (place.root / "private").mkdir()
    (place.root / "private" / "b").write_bytes(os.urandom(998))
    (place.root / "sub" / "here").write_bytes(os.urandom(997))
    (place.root / "sub" / "c").write_bytes(b"c")
    names = {b"": {b"a.secret"}, b"private": {b"b"}, b"sub": {b"here", b"c"}}
    told = Suspects(places={path: frozenset(known) for path, known in names.items()})
    assert place.read(told) == 1
    place.reader.settled()
    told = Suspects(subtrees=frozenset({b"private", b"sub"}))
    place.read(told)
    sizes = {one.content.size for one in place.reads._readings.values()}
    assert not sizes & {999, 998, 997}


def test_nothing_is_read_early_when_the_excludes_are_about_to_change(place):
    (place.root / IGNORE_FILE.decode()).write_text("x\n")
    (place.root / "file").write_bytes(b"bytes")
    place.reader.tell(Suspects(places={b"": frozenset({IGNORE_FILE, b"file"})}))
    assert place.reader.tired


def test_links_in_the_way_are_not_followed(place):
    outside = place.tracked.base / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"not ours")
    (place.root / "dir").symlink_to(outside)
    (place.root / "link").symlink_to(outside / "file")
    told = Suspects(
        places={b"dir": frozenset({b"file"}), b"": frozenset({b"link", b"dir"})},
        subtrees=frozenset({b"dir"}),
    )
    assert place.read(told) == 0


def test_a_clock_that_is_set_back_makes_readings_void(place, monkeypatch):
    (place.root / "file").write_bytes(b"bytes")
    assert place.read() == 1
    offset = early.clock_offset_ns()
    monkeypatch.setattr(early, "clock_offset_ns", lambda: offset - 10_000_000)
    assert place.capture() == 0


# -- gc: what was put early is garbage until an entry names it ------------------------------------


def gc(home):
    done = subprocess.run([sys.executable, "-c", GC, home], check=True, capture_output=True)
    return int(done.stdout)


def fill(place, count=20):
    for number in range(count):
        (place.root / f"{number}").write_bytes(os.urandom(50_000))
    assert place.read() == count
    place.writer.sync()  # the full packs are sealed: gc may look at them


def test_a_gc_in_between_takes_early_objects_and_the_capture_stores_them_again(place):
    fill(place)
    home = place.tracked.base / "store"
    assert gc(home) > 0
    assert place.capture() < 20
    place.writer.sync()
    with Store.open(home) as fresh:
        assert set(place.tracked.manifest()) == {b"%d" % number for number in range(20)} | {b""}
        assert all(fresh.contains(one) for one in ids(place))


def ids(place):
    from crabrt.workspace import read_tree  # noqa: PLC0415 - only here

    entries = [entry for _, entry in read_tree(place.store, place.tracked.tracker.root)]
    return [one for entry in entries if entry.content is not None for one in entry.content.ids]


def test_a_gc_between_the_capture_and_its_entry_leaves_what_the_capture_relied_on(place):
    fill(place)
    home = place.tracked.base / "store"
    tracked = place.tracked
    with place.writer.commit():
        scan = tracked.tracker.scan()
        tracked.tracker.capture(scan, place.writer, place.reads)
        assert place.reads.used == 20
        gc(home)
        place.writer.sync()
        gc(home)
        with Store.open(home) as fresh:
            assert all(fresh.contains(one) for one in ids(place))
        tracked.agrees()


def test_objects_on_a_list_of_gc_do_not_count_as_there(place):
    fill(place)
    condemning = collect(place.store, list)  # in this process: nobody to wait for
    assert condemning.packs_removed or condemning.packs_condemned
    assert place.capture() < 20


# -- every hostile operation ----------------------------------------------------------------------


def test_hostile_operations_between_early_readings_are_captured_exactly(on_each):
    tracked, done = on_each.tracked, set()
    names = sorted(OPERATIONS)
    with HostileRun(5, tracked.root, outside=tracked.base / "outside") as run:
        on_each.capture()
        for begin in range(len(names)):
            on_each.reader.tell(TREE)
            for name in (names * 2)[begin * 3 : begin * 3 + 3]:
                try:
                    run.do(name)
                except NotApplicable:
                    continue
                done.add(name)
                on_each.read()
            before, root = oracle.manifest(tracked.root), tracked.tracker.root
            on_each.capture()
            assert oracle.manifest(tracked.root) == before
            assert root is not None
    assert len(done) > len(names) / 2
    assert (on_each.reads.used > 100) != nothing_is_early(on_each)


def test_a_store_that_cannot_be_written_ends_early_work_until_the_next_capture(place):
    (place.root / "file").write_bytes(os.urandom(1 << 20))
    own = place.tracked.base / "store" / "packs"
    own.rename(own.with_name("away"))
    own.write_text("in the way")
    assert place.read() == 0
    assert place.reader.tired
    own.unlink()
    own.with_name("away").rename(own)
    with pytest.raises(StoreUnavailable, match="lost by a failed write"):
        place.writer.flush()  # a store that fails is told of, whoever found it failing
    assert place.capture() == 0
    (place.root / "another").write_bytes(os.urandom(1000))
    assert place.read(TREE) == 2
    assert place.capture() == 1


def test_the_readers_workspace_is_the_one_it_was_given(place, tmp_path):
    (place.root / "file").write_bytes(b"bytes")
    place.root.rename(tmp_path / "elsewhere")
    place.root.mkdir()
    (place.root / "file").write_bytes(b"others")
    assert isinstance(place.tracked.workspace, Workspace)
    assert place.read() == 0
    (tmp_path / "elsewhere" / "file").unlink()


# -- more than the writer takes without waiting for the disk --------------------------------------


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(early_reader, "SYNC_BYTES", 2 << 20)
    monkeypatch.setattr(early_reader, "UNSYNCED_BYTES", 5 << 20)


@pytest.mark.usefixtures("small")
def test_with_the_disk_behind_it_more_is_read(place):
    synced = []

    def sync():
        place.writer.sync()
        synced.append(place.writer.bytes_stored)
        return done(result=True)

    place.reader = EarlyReader(place.tracked.workspace, place.writer, sync)
    for name in "abc":
        (place.root / name).write_bytes(os.urandom(LONG))
    assert place.read() == 3
    assert len(synced) > 3
    assert place.capture() == 3


@pytest.mark.usefixtures("small")
def test_a_disk_that_fails_ends_early_work(place):
    place.reader = EarlyReader(place.tracked.workspace, place.writer, lambda: done(result=False))
    (place.root / "a").write_bytes(os.urandom(LONG))
    assert place.read() == 0
    assert place.reader.tired
    assert place.capture() == 0


@pytest.mark.usefixtures("small")
def test_a_slow_disk_is_waited_for_until_somebody_needs_the_thread(place):
    pending = Future()
    place.reader = EarlyReader(place.tracked.workspace, place.writer, lambda: pending)
    (place.root / "a").write_bytes(os.urandom(2 * LONG))
    wait_for_tick()
    place.reader.tell(TREE)
    asked = itertools.count()
    place.reader.round(lambda: next(asked) < 50)
    assert next(asked) == 51, "it was not waited for"
    assert not place.reads._readings
    assert (5 << 20) < place.reader.stored_bytes < LONG + (5 << 20)


def done(*, result):
    future = Future()
    future.set_result(result)
    return future
