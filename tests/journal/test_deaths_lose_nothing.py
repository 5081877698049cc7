"""SIGKILL at every failpoint and at any moment, and power cuts: what was promised is there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crabrt.core import failpoints
from crabrt.core.entries import Forked, Lineage, Noted
from crabrt.errors import StoreUnavailable
from crabrt.journal import Journal, Lease, RunIndex, fork_journal, read_journal, read_marks
from crabrt.journal.layout import Disk
from crabrt.testing.crash import Child, count_hits, kill_at
from crabrt.testing.powercut import PowerCut

SCRIPT = """
import sys
from pathlib import Path
from crabrt.core.entries import Forked, Lineage, Noted
from crabrt.journal import *

home = Path(sys.argv[1])
count = int(sys.argv[2])
directory = run_dir(home, "fixer-1")
for owner in range(2):
    with Lease.acquire(directory) as lease:
        with Journal.open(directory, lease, create=True, segment_bytes=500) as journal:
            for _ in range(count):
                n = journal.append(Noted("t", str(journal.seq + 1)), turn=0)
                print(f"appended {n}", flush=True)
                if n % 3 == 0:
                    journal.sync()
                    print(f"synced {n}", flush=True)
    with RunIndex.open(home) as index:
        index.refresh()
label_turn(directory, "good", 0)
print("labelled", flush=True)
fork_journal(
    directory, run_dir(home, "fork-1"), upto=5,
    forked=Forked("fork-1", "fork", b"/f", "w2", Lineage("fixer-1", "fixer-1", 5), 0),
)
print("forked", flush=True)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "append.py"
    path.write_text(SCRIPT)
    return path


def _texts(directory):
    return [r.body.text for r in read_journal(directory) if isinstance(r.body, Noted)]


def _check_after_death(home: Path, said: str):
    """All that was appended is there; the journal goes on; fork and label are whole, or absent."""
    appended = [int(line.split()[1]) for line in said.splitlines() if line.startswith("appended")]
    directory = home / "runs" / "fixer-1"
    with Lease.acquire(directory) as lease, Journal.open(directory, lease, create=True) as journal:
        assert journal.seq >= max(appended, default=0)
        journal.append(Noted("t", str(journal.seq + 1)), turn=0)
        journal.sync()
        last = journal.seq
    assert _texts(directory) == [str(n) for n in range(1, last + 1)]
    with RunIndex.open(home) as index:
        index.refresh()
        assert index.find("fixer-1").problem is None
        assert index.find("fixer-1").view.updated_ns > 0
    if "labelled" in said:
        assert "good" in read_marks(directory).labels
    fork = home / "runs" / "fork-1"
    if "forked" in said or (fork / "journal").exists():
        assert _texts(fork) == [str(n) for n in range(1, 6)]


_NAMES = [
    "lease.locked", "lease.written",
    "journal.segment-created", "journal.segment-headed", "journal.appended",
    "journal.synced", "journal.sealed",
    "fork.linked", "fork.named", "inbox.written", "inbox.named", "index.applied",
]  # fmt: skip


def test_the_list_of_failpoints_is_complete():
    areas = ("lease.", "journal.", "fork.", "inbox.", "index.")
    declared = {name for name in failpoints.ALL if name.startswith(areas)}
    declared = {
        name for name in declared if not name.startswith(("index.",)) or name == "index.applied"
    }
    assert declared - {"journal.cut"} == set(_NAMES)


def test_killed_at_every_failpoint_nothing_that_was_appended_is_lost(script, tmp_path):
    home = tmp_path / "counted"
    home.mkdir()
    hits = count_hits(script, [str(home), "8"], into=tmp_path / "tally")
    for name in _NAMES:
        assert hits[name] > 0, name
        for hit in sorted({1, hits[name]}):
            home = tmp_path / f"{name}-{hit}"
            home.mkdir()
            died = kill_at(
                name, hit, script, [str(home), "8"], mark=tmp_path / f"mark-{name}-{hit}"
            )
            assert died.hit == f"{name}:{hit}"
            _check_after_death(home, died.stdout)


def test_killed_at_random_moments_nothing_that_was_appended_is_lost(script, tmp_path):
    rng = random.Random(7)
    deaths = 0
    for attempt in range(30):
        home = tmp_path / f"home-{attempt}"
        home.mkdir()
        with Child(script, [str(home), "4000"]) as child:
            child.wait_for("appended 1")
            died = child.kill_within(0.15, rng)
        if died is None:
            continue
        deaths += 1
        _check_after_death(home, died.stdout)
        if deaths == 12:
            break
    assert deaths >= 10


@pytest.mark.parametrize("lose_names", [False, True])
def test_after_a_power_cut_everything_synced_is_there_and_the_rest_is_a_prefix(
    make_run, tmp_path, lose_names
):
    run = make_run("fixer-1")
    with PowerCut(str(tmp_path / "home")) as cut:
        synced = 0
        for _ in range(2):
            run.open(segment_bytes=400)
            for _ in range(9):
                n = run.note(str(run.journal.seq + 1))
                if n % 4 == 0:
                    run.journal.sync()
                    synced = n
            run.journal._fd, fd = -1, run.journal._fd  # dies: no sync, no seal
            run.journal = None
            run.lease.release()
            del fd
        assert cut.syncs > 4
        lost_something = 0
        for drawn in cut.each(150, str(tmp_path / "after"), lose_names=lose_names):
            directory = tmp_path / "after" / "runs" / "fixer-1"
            texts = _texts(directory)
            assert texts == [str(n) for n in range(1, len(texts) + 1)], drawn
            assert len(texts) >= synced, drawn
            lost_something += bool(drawn.lost)
            with Lease.acquire(directory) as lease, Journal.open(directory, lease) as journal:
                assert journal.append(Noted("t", "new"), turn=0) == len(texts) + 1
            assert _texts(directory) == [*texts, "new"]
        assert lost_something > 50


class SyncFails(Disk):
    """Fails when told to."""

    failing = False

    def sync(self, fd):
        if self.failing:
            raise OSError(5, "staged")
        super().sync(fd)


class AgainstAList(RuleBasedStateMachine):
    """Append, sync, fail to sync, lose power, reopen, fork: the journal is a list of texts."""

    def __init__(self):
        super().__init__()
        import tempfile  # noqa: PLC0415

        self.root = tempfile.TemporaryDirectory()
        self.home = Path(self.root.name) / "home"
        self.home.mkdir()
        self.directory = self.home / "runs" / "fixer-1"
        self.disk = SyncFails()
        self.texts = []
        self.synced = 0
        self.durable = []
        self.forks = 0
        self._open()

    def _open(self):
        self.lease = Lease.acquire(self.directory)
        self.journal = Journal.open(
            self.directory, self.lease, create=True, disk=self.disk, segment_bytes=600
        )

    def teardown(self):
        self.disk.failing = False
        self.journal.close()
        self.lease.release()
        self.root.cleanup()

    @rule(text=st.text(max_size=80))
    def append(self, text):
        assert self.journal.append(Noted("t", text), turn=0) == len(self.texts) + 1
        self.texts.append(text)

    @rule()
    def sync(self):
        self.journal.sync()
        self.synced = len(self.texts)

    @rule()
    def fail_to_sync(self):
        if self.synced < len(self.texts):
            self.disk.failing = True
            try:
                self.journal.sync()
                raise AssertionError("it was to fail")
            except StoreUnavailable:
                pass
            finally:
                self.disk.failing = False

    @rule(clean=st.booleans())
    def reopen(self, clean):
        if clean:
            self.journal.close()
            self.synced = len(self.texts)
        else:
            self.journal._close_file()
        self.lease.release()
        self._open()
        self.synced = len(self.texts)  # what is there at a takeover is made durable

    @precondition(lambda self: self.synced < len(self.texts))
    @rule(data=st.data())
    def lose_power(self, data):
        path = self.journal.path
        durable = self.journal._durable
        here = durable.offset
        content = path.read_bytes()
        end = data.draw(st.integers(here, len(content)))
        rest = data.draw(st.sampled_from([b"", bytes(len(content) - end)]))
        self.journal._close_file()
        self.lease.release()
        path.write_bytes(content[:end] + rest)
        self._open()
        assert self.synced <= self.journal.seq <= len(self.texts)
        del self.texts[self.journal.seq :]
        self.synced = len(self.texts)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def fork(self, data):
        upto = data.draw(st.integers(1, len(self.texts)))
        self.forks += 1
        child = self.home / "runs" / f"fork-{self.forks}"
        fork_journal(
            self.directory,
            child,
            upto=upto,
            forked=Forked(child.name, "f", b"", "w", Lineage("fixer-1", "fixer-1", upto), 0),
        )
        assert _texts(child) == self.texts[:upto]

    @invariant()
    def reads_as_the_list(self):
        if self.texts:
            assert _texts(self.directory) == self.texts


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
