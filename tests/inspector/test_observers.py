"""Whoever observes: nothing is missed, nothing told is forgotten before it is captured."""

import os
import subprocess
import time

import pytest

from crabrt.inspector import choose
from crabrt.inspector.observers import AutoObserver
from crabrt.inspector.watch import Dirty, Held, Holders, Reason, Unwatchable
from crabrt.inspector.watch_observer import AUDIT_EVERY_S, WatchObserver
from crabrt.testing import oracle
from crabrt.testing.filesystems import file_system
from crabrt.testing.hostile import GROUNDWORK, OPERATIONS, HostileRun, NotApplicable
from crabrt.testing.hostile.hand import Unsupported
from crabrt.testing.memory import MemoryObjects
from crabrt.workspace import Tracker, Workspace, read_tree
from crabrt.workspace.stamps import tick_ns

TURNS = 60


class Told:
    """A watch that says what it is told to."""

    def __init__(self):
        self.next = Dirty()
        self.held = Holders()
        self.open = True

    def drain(self):
        now, self.next = self.next, Dirty()
        return now

    peek = drain

    def holders(self):
        return self.held

    def close(self):
        self.open = False


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Place:
    def __init__(self, base):
        self.root = base / "work"
        self.root.mkdir(parents=True)
        self.home = base / "home"
        self.objects = MemoryObjects()
        self.workspace = Workspace.open(self.root, self.home)
        self.tracker = Tracker(self.workspace, huge_files=10**6, huge_bytes=1 << 40)

    def capture(self, observer):
        look = observer.look(self.tracker)
        if not look.scan.clean or self.tracker.root is None:
            self.tracker.capture(look.scan, self.objects)
        observer.settled()
        return look

    def settle(self):
        """Capture until stamps prove that nothing changed: a coarse one takes two seconds to."""
        scan = self.tracker.scan()
        while not scan.clean or self.tracker.root is None:
            self.tracker.capture(scan, self.objects)
            now = tick_ns()
            while tick_ns() <= now:
                os.sched_yield()
            scan = self.tracker.scan()

    def captured(self):
        return {path for path, _ in read_tree(self.objects, self.tracker.root)}


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    for name in ("a", "b", "c"):
        (place.root / name).write_text(name)
    place.settle()
    return place


@pytest.fixture
def watch():
    return Told()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def observer(watch, clock, place):
    observer = WatchObserver(watch, clock)
    assert place.capture(observer).observer == "scan (the first look)"
    return observer


def names(*found, above=b""):
    return Dirty(places={above: frozenset(map(os.fsencode, found))})


def test_after_the_first_look_only_what_is_told_is_looked_at(place, watch, observer):
    (place.root / "a").write_text("another")
    (place.root / "b").write_text("not told")
    watch.next = names("a")
    look = place.capture(observer)
    assert (look.observer, look.scan.entries, look.scan.candidates) == ("fanotify", 1, 1)
    assert place.capture(observer).scan.clean


def test_what_was_told_is_kept_until_it_is_settled(place, watch, observer):
    (place.root / "new").write_text("new")
    watch.next = names("new")
    assert not observer.look(place.tracker).scan.clean
    (place.root / "newer").write_text("newer")
    watch.next = names("newer")
    place.capture(observer)  # the capture after the first look had failed
    assert place.captured() >= {b"new", b"newer"}
    assert observer.look(place.tracker).scan.entries == 0


def test_a_watch_that_does_not_know_means_a_look_at_everything(place, watch, observer):
    (place.root / "new").write_text("never told")
    watch.next = Dirty(unknown="the queue overflowed")
    first = observer.look(place.tracker)
    second = place.capture(observer)  # not forgotten before it is settled
    assert first.observer == second.observer == "scan (the queue overflowed)"
    assert b"new" in place.captured()
    assert place.capture(observer).observer == "fanotify"


def test_an_index_that_was_read_again_is_not_taken_on_trust(place, observer):
    (place.root / "new").write_text("never told")
    observer.distrust()
    place.capture(observer)
    assert b"new" in place.captured()


def test_what_is_held_is_looked_at_and_what_is_mapped_is_read(place, watch, observer):
    status = os.lstat(place.root / "a")
    here = (status.st_dev, status.st_ino)
    watch.held = Holders((Held(*here, b"a", mapped=False),))
    look = observer.look(place.tracker)
    assert (look.scan.entries, look.scan.candidates) == (1, 0)
    observer.settled()
    watch.held = Holders((Held(*here, b"a", mapped=True),))
    assert observer.look(place.tracker).scan.candidates == 1


def test_holders_that_cannot_be_seen_are_told(place, watch, observer):
    watch.held = Holders(unseen=2)
    look = observer.look(place.tracker)
    assert look.unobserved == ("files held by 2 processes unchecked",)
    observer.settled()
    watch.held = Holders(unseen=1)
    assert observer.look(place.tracker).unobserved == ("files held by 1 process unchecked",)


def by(pid, *paths):
    return Dirty(foreign={pid: frozenset(map(os.fsencode, paths))})


def test_who_wrote_beside_the_run_is_told_until_it_is_settled(place, watch, observer):
    watch.next = by(71, "a", "b")
    observer.peek()  # whoever reads early does not take it away
    watch.next = by(72, "a")
    both = {b"a": frozenset({71, 72}), b"b": frozenset({71})}
    assert observer.look(place.tracker).foreign == both
    assert place.capture(observer).foreign == both
    assert place.capture(observer).foreign == {}


def test_who_wrote_beside_the_run_is_remembered_of_so_many_paths(place, watch, observer):
    for turn in range(40):
        watch.next = by(turn, *(f"{turn}.{name}" for name in range(16)))
        observer.peek()
    assert len(observer.look(place.tracker).foreign) == 256


def never():
    return False


def test_an_audit_tells_what_was_missed_and_the_next_look_finds_it(place, clock, observer):
    (place.root / "a").write_text("missed")
    (place.root / "b").unlink()
    (place.root / "d").mkdir()
    (place.root / "d" / "e").write_text("missed")
    assert observer.audit(place.tracker, never) == ()  # it is not time yet
    clock.now += AUDIT_EVERY_S + 1
    assert set(observer.audit(place.tracker, never)) >= {b"a", b"b", b"d"}
    look = place.capture(observer)
    assert look.observer == "scan (the watch missed something)"
    assert place.captured() - {b""} == {b"a", b"c", b"d", b"d/e"}


def test_an_audit_does_not_blame_the_watch_for_what_it_would_have_told(
    place, clock, watch, observer
):
    (place.root / "a").write_text("told when asked")
    (place.root / "d" / "e").mkdir(parents=True)
    watch.next = names("a", "d")
    clock.now += AUDIT_EVERY_S + 1
    assert observer.audit(place.tracker, never) == ()
    assert place.capture(observer).observer == "fanotify"
    assert b"d/e" in place.captured()


def test_an_audit_knows_a_file_that_was_named_by_its_inode_alone(place, clock, watch, observer):
    (place.root / "a").write_text("through an alias")
    status = os.lstat(place.root / "a")
    watch.next = Dirty(inodes=frozenset({(status.st_dev, status.st_ino)}))
    clock.now += AUDIT_EVERY_S + 1
    assert observer.audit(place.tracker, never) == ()
    assert place.capture(observer).scan.candidates == 1


@pytest.mark.root
def test_a_mount_that_an_audit_saw_first_is_not_taken_for_known(place, clock, observer):
    (place.root / "d").mkdir()
    (place.root / "d" / "f").write_text("covered")
    observer.distrust()
    place.capture(observer)
    mount = ["mount", "-t", "tmpfs", "tmpfs", place.root / "d"]
    subprocess.run(mount, check=True)
    try:
        clock.now += AUDIT_EVERY_S + 1
        observer.audit(place.tracker, never)
        place.capture(observer)
        assert b"d/f" not in place.captured()
    finally:
        subprocess.run(["umount", place.root / "d"], check=True)
    place.capture(observer)
    assert b"d/f" in place.captured()


def test_an_audit_gives_way_and_tries_again(place, clock, observer):
    (place.root / "a").write_text("missed")
    clock.now += AUDIT_EVERY_S + 1
    assert observer.audit(place.tracker, lambda: True) == ()
    assert observer.audit(place.tracker, never) == (b"a",)


def test_closing_closes_the_watch(watch, observer):
    observer.close()
    assert not watch.open


def test_auto_scans_while_that_is_quick(place):
    def opened():
        pytest.fail("nothing is slow")

    observer = AutoObserver(opened)
    for _ in range(5):
        assert place.capture(observer).observer == "scan"


def test_auto_takes_a_busy_machine_for_no_large_workspace(place, monkeypatch):
    scan = place.tracker.scan

    def in_the_way(*args, **options):
        time.sleep(0.05)
        return scan(*args, **options)

    monkeypatch.setattr(place.tracker, "scan", in_the_way)
    observer = AutoObserver(lambda: pytest.fail("no look took a processor's time"))
    for _ in range(4):
        assert place.capture(observer).observer == "scan"


def test_auto_has_a_watch_opened_when_scans_are_slow(place, watch, monkeypatch):
    monkeypatch.setattr("crabrt.inspector.observers.WATCH_FROM_S", 0.0)
    opened = []

    def open_late():
        opened.append(True)
        (place.root / "while it opened").write_text("not told")
        return watch

    observer = AutoObserver(open_late)
    said = [place.capture(observer).observer for _ in range(4)]
    assert said == ["scan", "scan", "scan (the first look)", "fanotify"]
    assert b"while it opened" in place.captured()
    assert observer.name == "fanotify"
    observer.close()
    assert (opened, watch.open) == ([True], False)


def test_auto_goes_on_scanning_where_nothing_can_be_watched(place, monkeypatch):
    monkeypatch.setattr("crabrt.inspector.observers.WATCH_FROM_S", 0.0)
    asked = []

    def refused():
        asked.append(True)
        raise Unwatchable("not here", Reason.PRIVILEGE)

    observer = AutoObserver(refused)
    said = [place.capture(observer).observer for _ in range(4)]
    assert said == ["scan", "scan", "scan (not here)", "scan (not here)"]
    assert asked == [True]


@pytest.mark.root
def test_a_watch_that_is_asked_for_and_cannot_be_had_is_refused():
    with file_system("overlay") as base:
        place = Place(base / "case")
        with pytest.raises(Unwatchable, match="overlay"):
            choose("fanotify", place.workspace.path, place.home / "observers", mark=b"")
        choose("auto", place.workspace.path, place.home / "observers", mark=b"").close()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["here", "tmpfs", "xfs", "btrfs"])
@pytest.mark.parametrize("wanted", ["scan", "fanotify"])
def test_every_hostile_turn_is_seen(kind, wanted):
    with file_system(kind) as base:
        place = Place(base / f"observed-{wanted}")
        observer = choose(wanted, place.workspace.path, place.home / "observers", mark=b"")
        watched = 0
        try:
            with HostileRun(5, place.root, outside=base / f"outside-{wanted}") as run:
                place.capture(observer)
                before = oracle.digest(place.root)
                for _ in range(TURNS):
                    turn = run.turn()
                    after = oracle.digest(place.root)
                    previous = place.tracker.root
                    watched += place.capture(observer).scan.watched
                    assert (place.tracker.root == previous) == (after == before), str(turn)
                    before = after
        finally:
            observer.close()
        assert (watched > TURNS / 2) == (wanted == "fanotify")


TRIES = 300


class Stage:
    """A tree that is captured after each operation on it.

    Attributes:
        watched: how many looks took the word of a watch.
    """

    def __init__(self, base, wanted):
        self._base, self._wanted, self._made = base, wanted, 0
        self._run = self._observer = None
        self.watched = 0
        self._renew(but="")

    def _renew(self, *, but):
        """Another tree, with all that operations need, except what one of them makes itself."""
        self.close()
        self._made += 1
        self._place = Place(self._base / f"{self._wanted}-{self._made}")
        where = (self._place.workspace.path, self._place.home / "observers")
        self._observer = choose(self._wanted, *where, mark=b"")
        outside = self._place.root.parent / "outside"
        self._run = HostileRun(self._made, self._place.root, outside=outside)
        for name in GROUNDWORK:
            assert name == but or self._do(name), name
        self._place.capture(self._observer)

    def step(self, name):
        """Do it; whether the tree is another one by the oracle, and by the capture."""
        before, root = oracle.digest(self._place.root), self._place.tracker.root
        if not self._do(name):
            self._renew(but=name)
            before, root = oracle.digest(self._place.root), self._place.tracker.root
            assert self._do(name), f"{name}: there is nothing to do it to"
        after = oracle.digest(self._place.root)
        self.watched += self._place.capture(self._observer).scan.watched
        return after != before, self._place.tracker.root != root

    def _do(self, name):
        """Its choices are random, so an unlucky one is drawn again."""
        for _ in range(TRIES):
            try:
                self._run.do(name)
            except Unsupported:
                raise
            except NotApplicable:
                continue
            return True
        return False

    def close(self):
        if self._run is not None:
            self._run.close()
            self._observer.close()


@pytest.mark.root
@pytest.mark.parametrize("wanted", ["scan", "fanotify"])
def test_every_operation_is_captured_as_the_oracle_sees_it(wanted):
    done, unsupported = set(), {}
    with file_system("here") as base:
        stage = Stage(base, wanted)
        try:
            for name in sorted(OPERATIONS):
                try:
                    by_oracle, by_capture = stage.step(name)
                except Unsupported as error:
                    unsupported[name] = str(error)
                else:
                    assert by_capture == by_oracle, name
                    done.add(name)
        finally:
            stage.close()
    assert done == set(OPERATIONS) - set(unsupported)
    assert len(done) > len(OPERATIONS) * 0.8, unsupported
    assert (stage.watched > len(done) / 2) == (wanted == "fanotify")
