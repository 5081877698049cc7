"""Early work beside a tool: what the watch tells is read, and still looked at by the capture."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crabrt.inspector import choose, watch_observer
from crabrt.inspector.early import PAUSE_MOST_S, PAUSE_S, EarlyWork, machine_is_busy
from crabrt.inspector.observers import AutoObserver, ScanObserver
from crabrt.inspector.watch import Dirty, Holders
from crabrt.inspector.watch_observer import WatchObserver
from crabrt.store import Store
from crabrt.testing import oracle
from crabrt.testing.filesystems import file_system
from crabrt.testing.hostile import HostileRun, NotApplicable
from crabrt.testing.hostile.hand import OPERATIONS
from crabrt.workspace import Tracker, Workspace, early_reader
from crabrt.workspace.stamps import tick_ns

WATCHING = Path(__file__).with_name("watching.py")


class Told:
    """A watch that says what it is told to."""

    def __init__(self):
        self.next = Dirty()
        self.asked = 0

    def peek(self):
        self.asked += 1
        now, self.next = self.next, Dirty()
        return now

    drain = peek

    def holders(self):
        return Holders()

    def close(self):
        """Nothing to stop."""


def never(seconds):
    return False


def free():
    return False


class Place:
    """A workspace, its tracker and a store."""

    def __init__(self, base):
        self.root = base / "work"
        self.root.mkdir(parents=True)
        self.home = base / "home"
        self.workspace = Workspace.open(self.root, self.home)
        self.tracker = Tracker(self.workspace, huge_files=10**6, huge_bytes=1 << 40)
        self.store = Store.open(self.home, create=True)
        self.writer = self.store.writer()

    def observe(self, observer, busy=free):
        self.observer = observer
        self.early = EarlyWork(observer, self.workspace, self.writer, busy)
        self.capture()
        return self.early

    def capture(self):
        with self.writer.commit():
            look = self.observer.look(self.tracker)
            if not look.scan.clean or self.tracker.root is None:
                self.tracker.capture(look.scan, self.writer, self.early.reads)
        self.observer.settled()
        self.early.settled()
        return look

    def settle(self):
        """Wait until what was written is of the past."""
        now = time.time_ns()
        while tick_ns() <= now:
            os.sched_yield()

    def rounds(self):
        """Rounds until nothing that was told waits."""
        self.settle()
        while self.early.round(never) is not None and self.early._reader.waiting:
            continue
        return len(self.early.reads._readings)

    def close(self):
        self.observer.close()
        self.writer.close()
        self.store.close()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(early_reader, "QUIET_NS", 0)


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.fixture
def watch():
    return Told()


def names(*found):
    return Dirty(places={b"": frozenset(map(os.fsencode, found))})


def test_what_was_peeked_at_is_looked_at_all_the_same(place, watch):
    place.observe(WatchObserver(watch))
    place.capture()
    (place.root / "a").write_text("a")
    watch.next = names("a")
    assert place.rounds() == 1
    (place.root / "b").write_text("b")
    watch.next = names("b")
    assert place.capture().scan.candidates == 2
    assert place.early.reads.used == 1


def test_a_watch_that_knows_nothing_any_more_means_everything_for_the_next_look(place, watch):
    place.observe(WatchObserver(watch))
    place.capture()
    (place.root / "a").write_text("a")
    watch.next = Dirty(unknown="it is lost")
    assert place.early.round(never) is None
    assert place.early.round(never) is None
    assert watch.asked == 3, "it was asked although the next look is at everything"
    assert place.capture().observer == "scan (it is lost)"


def test_nothing_is_peeked_before_the_first_look_or_after_distrust(place, watch):
    observer = WatchObserver(watch)
    assert observer.peek() is None
    place.observe(observer)
    observer.distrust()
    asked = watch.asked
    assert observer.peek() is None
    assert watch.asked == asked


def test_what_is_peeked_at_is_bounded(place, watch, monkeypatch):
    monkeypatch.setattr(watch_observer, "_PEEKED_MOST", 10)
    place.observe(WatchObserver(watch))
    watch.next = names(*map(str, range(11)))
    assert place.early.round(never) is not None
    asked = watch.asked
    assert place.early.round(never) is None
    assert watch.asked == asked


def test_a_scan_has_nothing_to_tell(place):
    early = place.observe(ScanObserver())
    (place.root / "a").write_text("a")
    assert not early.possible
    assert early.round(never) is None
    auto = AutoObserver(lambda: pytest.fail("a small workspace needs no watch"))
    assert not auto.watches
    assert auto.peek() is None


def test_rounds_become_rare_while_nothing_happens_and_frequent_when_something_does(place, watch):
    early = place.observe(WatchObserver(watch))
    pauses = [early.round(never) for _ in range(8)]
    assert pauses[0] > PAUSE_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == PAUSE_MOST_S
    watch.next = names("a")
    assert early.round(never) == PAUSE_S


def test_it_rests_as_long_as_it_works_and_stops_when_somebody_needs_the_thread(place, watch):
    early = place.observe(WatchObserver(watch))
    for number in range(40):
        (place.root / f"{number}").write_bytes(os.urandom(1 << 20))
    place.settle()
    rests = []

    def pause(seconds):
        rests.append(seconds)
        return len([rest for rest in rests if rest]) >= 5

    watch.next = names(*map(str, range(40)))
    early.round(pause)
    assert max(rests) <= PAUSE_S
    assert 0 < len(early.reads._readings) < 40, "it was not broken off"
    assert place.early._reader.waiting


def test_what_the_coming_wait_hides_is_left_to_it(place, watch):
    early = place.observe(WatchObserver(watch))
    early._coming_s = lambda: 0.101  # half of it counts: 50 files, or 3 MiB
    for number in range(90):
        (place.root / f"{number}").write_bytes(b"small")
    place.settle()
    watch.next = names(*map(str, range(40)))
    early.round(never)
    assert not early.reads._readings
    watch.next = names(*map(str, range(90)))
    for _ in range(3):
        early.round(never)
    assert len(early.reads._readings) == 40
    (place.root / "big").write_bytes(os.urandom(8 << 20))
    watch.next = names("big")
    place.settle()
    early.round(never)
    assert len(early.reads._readings) == 91
    early._coming_s = lambda: 0.0
    assert place.capture().scan.candidates == 91
    assert early.reads.used == 91


def test_a_file_that_waits_and_changes_or_goes_is_read_as_it_is_or_not(place, watch):
    early = place.observe(WatchObserver(watch))
    early._coming_s = lambda: 60.0
    for name in "ab":
        (place.root / name).write_text("first")
    watch.next = names("a", "b")
    early.round(never)
    (place.root / "a").write_text("second")
    (place.root / "b").unlink()
    early._coming_s = lambda: 0.0
    watch.next = names("a", "b")
    assert place.rounds() == 1
    assert place.capture().scan.candidates == 1
    assert early.reads.used == 1


def test_a_busy_machine_is_left_alone(place, watch):
    asked = []

    def busy():
        asked.append(len(place.early.reads._readings))
        return len(asked) < 4

    place.observe(WatchObserver(watch), busy)
    (place.root / "a").write_text("a")
    watch.next = names("a")
    place.rounds()
    assert asked[:4] == [0, 0, 0, 0]
    assert len(place.early.reads._readings) == 1


def test_a_machine_is_busy_when_more_wants_to_run_than_can():
    count = os.cpu_count() + 1
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        while not machine_is_busy():
            os.sched_yield()
    finally:
        for one in spinning:
            one.kill()
            one.wait()


def test_what_was_stored_early_is_counted_once(place, watch):
    early = place.observe(WatchObserver(watch))
    (place.root / "a").write_bytes(os.urandom(10_000))
    watch.next = names("a")
    place.rounds()
    assert early.settled() > 10_000
    assert early.settled() == 0


# -- a real watch ---------------------------------------------------------------------------------


def real(place):
    return choose("fanotify", place.workspace.path, place.home / "observers", mark=b"")


WRITE = """
import os, sys
top = sys.argv[1]
os.makedirs(f"{top}/new/below")
for i in range(20):
    for where in ("", "new/", "new/below/"):
        with open(f"{top}/{where}{i}", "wb") as file:
            file.write(os.urandom(5000))
"""


@pytest.mark.root
@pytest.mark.parametrize("far", [False, True])
def test_what_another_process_writes_is_read_while_it_lives(place, far):
    owner = None
    if far:
        command = [sys.executable, WATCHING, place.root, place.home / "observers", "30"]
        owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert b"pid" in owner.stdout.readline()
    try:
        place.observe(real(place))
        subprocess.run([sys.executable, "-c", WRITE, place.root], check=True)
        assert place.rounds() == 60
        for name in ("0", "new/1", "new/below/2"):
            (place.root / name).write_bytes(b"later")
        assert place.capture().scan.watched
        assert place.early.reads.used == 57
        assert fresh_root(place) == place.tracker.root
    finally:
        if owner is not None:
            owner.kill()
            owner.communicate()


def fresh_root(place):
    """What somebody finds who knows nothing."""
    tracker = Tracker(place.workspace, huge_files=10**6, huge_bytes=1 << 40)
    with place.writer.commit():
        return tracker.capture(tracker.scan(), place.writer).root


@pytest.mark.root
def test_a_removed_tree_in_the_middle_is_no_reason_to_scan(place):
    place.observe(real(place))
    for _ in range(20):
        subprocess.run([sys.executable, "-c", WRITE, place.root], check=True)
        place.early.round(never)
        subprocess.run(["rm", "-r", place.root / "new"], check=True)
        place.early.round(never)
    assert place.capture().scan.watched


@pytest.mark.root
@pytest.mark.parametrize("kind", ["here", "tmpfs", "xfs", "btrfs"])
def test_hostile_turns_beside_early_work_are_captured_exactly(kind):
    with file_system(kind) as base:
        place = Place(base / "early")
        place.observe(real(place))
        watched, names = 0, sorted(OPERATIONS)
        try:
            with HostileRun(8, place.root, outside=base / "outside-early") as run:
                place.capture()
                before = oracle.digest(place.root)
                for turn in range(40):
                    for name in (names * 2)[turn * 3 : turn * 3 + 3]:
                        try:
                            run.do(name)
                        except NotApplicable:
                            continue
                        place.rounds()
                    turn_did = run.turn()
                    after = oracle.digest(place.root)
                    previous = place.tracker.root
                    watched += place.capture().scan.watched
                    same = place.tracker.root == previous
                    assert same == (after == before), str(turn_did)
                    assert fresh_root(place) == place.tracker.root, str(turn_did)
                    before = after
            # On tmpfs a file that was read may change without a trace: nothing is read early.
            assert (place.early.reads.used > 20) == (kind != "tmpfs")
            assert watched > 20
        finally:
            place.close()
