"""Everything people do, in any order, against a dict: a turn that was recorded comes back right.

The model knows three things: the digest of every turn that must be restorable, what each workspace
holds now, and what its owner last knew. Deaths are real: forked children, killed at failpoints.

Which of several threads meets a failpoint first is not the machine's to say, so no rule has a
precondition: what there is nothing to do for returns.
"""

import contextlib
import os
import random
import shutil
import signal
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import turns as generated
from after_death import Diary, assert_clean, assert_turns_come_back, unprotected
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from loop import Life, agent, digests_of

from crabrt.core.targets import Target, TurnRef
from crabrt.errors import NotFound, NotResumable, WouldLoseChanges
from crabrt.journal import RunIndex
from crabrt.operations import naming
from crabrt.operations.forking import fork_to
from crabrt.operations.repairing import repair_everything
from crabrt.operations.restoring import restore_beside, restore_state, undo_restore
from crabrt.operations.retention import Policy, apply_plan, make_plan
from crabrt.operations.roots import collect_garbage
from crabrt.operations.targets import resolve
from crabrt.store import Store
from crabrt.testing import crash
from crabrt.testing.oracle import describe_difference, digest_of, manifest
from crabrt.workspace import Workspace, recover

POINTS = sorted(crash.declared())
seeds = st.integers(0, 2**32)
some = st.integers(0, 1_000)


@dataclass
class Dir:
    """A workspace as the model sees it.

    Attributes:
        now: what it holds.
        known: what its owner last knew; None where a killed run leaves that open.
        undo: what an undo brings back; None where there is none, or a resume made one of its own.
        undo_known: what is known then: what was before the restore that it takes back.
        left: what that restore left, if no run has gone on since.
    """

    path: Path
    now: dict
    known: dict | None = None
    undo: dict | None = None
    undo_known: dict | None = None
    left: dict | None = None

    def restored(self, before, known):
        """A restore went from `before` to `now`; by that, `known` is what is known."""
        if before != self.now:  # else nothing was done, and nothing is there to be undone
            self.undo, self.undo_known = before, self.known
            self.known, self.left = known, self.now


@dataclass
class Recorded:
    """A run as the model sees it: turn to manifest digest, and the manifests."""

    name: str
    dir: Dir
    states: dict = field(default_factory=dict)
    marked: set = field(default_factory=set)


@dataclass(frozen=True)
class Loop(Life):
    """A life with a diary of its own: several share a workspace."""

    number: int = 0

    @property
    def diary(self):
        return Path(f"{self.workspace}.{self.number}.diary")


def killed_at(point, hit, body):
    """Run `body` in a child that dies at the `hit`-th hit of `point`; whether it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no thread of ours is alive
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            crash.arm(point, hit, lambda: os.kill(os.getpid(), signal.SIGKILL))
            body()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    return False


class Machine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self):
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="crab-machine-"))
        self.home = self.top / "home"
        self.loops = 0
        self.dirs = []
        self.runs = {}
        self.crashed = []
        self.looks = 0

    # -- helpers -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def index(self):
        with RunIndex.open(self.home) as index:
            index.refresh()
            yield index

    def run_names(self):
        if not self.home.is_dir():
            return set()
        with self.index() as index:
            return {row.run for row in index.runs()}

    def pick_dir(self, number):
        return self.dirs[number % len(self.dirs)]

    def pick_state(self, number):
        """A run and a turn that must be restorable."""
        states = [(run, turn) for run in self.runs for turn in sorted(self.runs[run].states)]
        run, turn = states[number % len(states)]
        return self.runs[run], turn

    def look(self, place):
        place.now = manifest(place.path)
        return place.now

    def a_loop(self, place, seed, turns, rollback=0):
        self.loops += 1
        return Loop(
            place.path, self.home, seed, turns, wait_s=0.0, rollback=rollback, number=self.loops
        )

    def learn(self, run, loop, place):
        """Take over what the diary of a run that ended says."""
        diary = Diary(loop)
        assert diary.ended == "done"
        assert diary.again == []
        assert unprotected(loop, run) == []
        known = self.runs.setdefault(run, Recorded(run, place))
        known.states = dict(diary.digests)
        self.look(place)
        assert digest_of(place.now) == diary.digests[max(diary.digests)]
        place.known, place.undo, place.left = place.now, None, None

    # -- runs ----------------------------------------------------------------------------------

    @initialize(seed=seeds)
    def begin(self, seed):
        path = self.top / "ws"
        path.mkdir()
        generated.act(path, seed, 0, 0)
        self.dirs.append(Dir(path, manifest(path)))
        self.run_turns(0, seed, 2, back=False)

    @rule(at=some, seed=seeds, turns=st.integers(1, 3), back=st.booleans())
    def run_turns(self, at, seed, turns, back):
        place = self.pick_dir(at)
        loop = self.a_loop(place, seed, turns + 5 * back, 5 * back)
        loop.note("ran", 0, *digests_of(place.now))
        before = self.run_names()
        agent(loop)(loop.turns)
        loop.note("ended", "done")
        (run,) = self.run_names() - before
        undo = None if back else place.undo  # a rollback is a restore, with an undo point
        self.learn(run, loop, place)
        place.undo = undo

    @rule(at=some, seed=seeds, point=st.sampled_from(POINTS), hit=st.integers(1, 40))
    def a_run_is_killed(self, at, seed, point, hit):
        place = self.pick_dir(at)
        loop = self.a_loop(place, seed, 4)
        loop.note("ran", 0, *digests_of(place.now))
        before = self.run_names()

        def body():
            agent(loop)(loop.turns)
            loop.note("ended", "done")

        died = killed_at(point, hit, body)
        new = self.run_names() - before
        assert len(new) == 1 or (died and not new)
        if not died:
            self.learn(*new, loop, place)
            return
        self.look(place)
        place.known = place.undo = place.left = None
        for run in new:
            self.crashed.append((run, loop, place))
            self.runs[run] = Recorded(run, place, dict(Diary(loop).protected))

    @rule(number=some)
    def resume(self, number):
        if not self.crashed:
            return
        run, loop, place = self.crashed.pop(number % len(self.crashed))
        loop = replace(loop)
        try:
            agent(loop).resume(run)
        except NotResumable:
            assert Diary(loop).passed == -1
            self.runs.pop(run)
            self.look(place)
            place.undo = None
            return
        loop.note("ended", "done")
        self.learn(run, loop, place)

    # -- people --------------------------------------------------------------------------------

    @rule(at=some, seed=seeds)
    def edit_by_hand(self, at, seed):
        place = self.pick_dir(at)
        generated.act(place.path, seed, 1, 0)
        self.look(place)

    @rule(number=some, force=st.booleans())
    def restore(self, number, force):
        run, turn = self.pick_state(number)
        place = run.dir
        wanted = self.manifest_of(run, turn)
        before = place.now
        force = force or place.known is None
        lost = [] if force else self.would_lose(place, wanted)
        refused = []
        try:
            self.do_restore(run, turn, force=force)
        except WouldLoseChanges as error:
            refused = error.paths
        if refused:
            assert lost, f"refused for {refused}"
            assert manifest(place.path) == before
            return
        assert not lost, f"overwrote {lost}"
        assert describe_difference(wanted, self.look(place)) == ""
        place.restored(before, place.now)

    @rule(number=some, point=st.sampled_from(POINTS), hit=st.integers(1, 6))
    def a_restore_is_killed(self, number, point, hit):
        run, turn = self.pick_state(number)
        place = run.dir
        wanted = self.manifest_of(run, turn)
        before = place.now
        killed_at(point, hit, lambda: self.do_restore(run, turn, force=True))
        with Store.open(self.home) as store, store.writer() as writer:
            recover(Workspace.open(place.path, self.home), writer)
        if self.look(place) == wanted:
            place.restored(before, place.now)
            return
        assert describe_difference(before, place.now) == ""

    @rule(number=some, force=st.booleans())
    def undo(self, number, force):
        able = [place for place in self.dirs if place.undo is not None]
        if not able:
            return
        place = able[number % len(able)]
        wanted, before = place.undo, place.now
        force = force or place.known is None
        lost = [] if force else self.would_lose(place, wanted)
        if place.left is not None:  # what the restore left is nobody's work
            lost = [path for path in lost if place.left.get(path) != before.get(path)]
        refused = []
        try:
            with Store.open(self.home) as store, store.writer() as writer, self.index() as index:
                workspace = Workspace.open(place.path, self.home)
                undo_restore(index, writer, workspace, force=force)
        except WouldLoseChanges as error:
            refused = error.paths
        if refused:
            assert lost, f"refused for {refused}"
            assert manifest(place.path) == before
            return
        assert not lost, f"overwrote {lost}"
        assert describe_difference(wanted, self.look(place)) == ""
        place.restored(before, place.undo_known)
        place.undo = before if before != wanted else None

    @rule(number=some, seed=seeds)
    def work_by_hand_outlives_a_collection(self, number, seed):
        """What only an undo point refers to is kept."""
        place = self.pick_state(number)[0].dir
        generated.act(place.path, seed, 1, 0)
        self.look(place)
        self.restore(number, force=True)
        self.run_turns(self.dirs.index(place), seed, 1, back=False)  # the index moves on
        self.gc(None, 0)
        self.undo_all_of(place)

    @rule(number=some, seed=seeds)
    def work_by_hand_is_not_overwritten_unasked(self, number, seed):
        place = self.pick_state(number)[0].dir
        generated.act(place.path, seed, 1, 0)
        self.look(place)
        self.restore(number, force=False)

    def undo_all_of(self, place):
        if place.undo is not None:
            number = [one for one in self.dirs if one.undo is not None].index(place)
            self.undo(number, force=True)

    @rule(number=some)
    def fork(self, number):
        if len(self.dirs) == 3:
            return
        run, turn = self.pick_state(number)
        path = self.top / f"fork{len(self.dirs)}"
        with Store.open(self.home) as store, self.index() as index:
            fork = fork_to(store, resolve(index, f"{run.name}@{turn}"), path, paths="keep")
        place = Dir(path, manifest(path))
        assert digest_of(place.now) == run.states[turn]
        place.known = place.now
        self.dirs.append(place)
        states = {t: d for t, d in run.states.items() if t <= turn}
        self.runs[fork.run] = Recorded(fork.run, place, states)

    @rule(number=some, pin=st.booleans())
    def mark(self, number, pin):
        run, turn = self.pick_state(number)
        target = Target(run.name, TurnRef(turn=turn))
        with self.index() as index:
            if pin:
                naming.pin(self.home, index, target, pinned=True)
            else:
                naming.label(self.home, index, target, f"label-{turn}")
        run.marked.add(turn)

    # -- keeping house -------------------------------------------------------------------------

    @rule(keep=st.integers(0, 3), point=st.none() | st.sampled_from(POINTS), hit=some)
    def prune(self, keep, point, hit):
        def body():
            with Store.open(self.home) as store, self.index() as index:
                plan = make_plan(index, Policy(keep_per_run=keep), store_bytes=0)
                apply_plan(store, plan, reason="the machine's")

        if point is None:
            body()
        else:
            killed_at(point, hit % 5 + 1, body)
        self.forget_the_thinned(keep)

    def forget_the_thinned(self, keep):
        with self.index() as index:
            for run in self.runs.values():
                rows = {row.turn: row for row in index.turns(run.name)}
                for turn in [t for t in run.states if t in rows and rows[t].thinned_ns]:
                    assert turn != 0
                    assert turn not in run.marked
                    assert turn <= max(rows) - keep
                    del run.states[turn]

    @rule(point=st.none() | st.sampled_from(POINTS), hit=some)
    def gc(self, point, hit):
        def body():
            with Store.open(self.home) as store:
                collect_garbage(store)
                collect_garbage(store)

        if point is None:
            body()
        else:
            killed_at(point, hit % 5 + 1, body)

    @rule(catalog=st.booleans(), point=st.none() | st.sampled_from(POINTS))
    def repair(self, catalog, point):
        (self.home / "runs.sqlite").unlink(missing_ok=True)
        if catalog:
            for name in ("chunks.sqlite", "chunks.sqlite-wal", "chunks.sqlite-shm"):
                (self.home / name).unlink(missing_ok=True)
        if point is not None:
            killed_at(point, 1, lambda: repair_everything(self.home))
        assert repair_everything(self.home).left == ()

    @rule(number=some)
    def remove(self, number):
        if len(self.runs) < 3:
            return
        run = list(self.runs)[number % len(self.runs)]
        naming.remove_run(self.home, run)
        place = self.runs.pop(run).dir
        self.crashed = [one for one in self.crashed if one[0] != run]
        place.known = None  # who knew last is told by the runs that are left
        with self.index() as index, contextlib.suppress(NotFound):
            index.find(run)
            raise AssertionError("a removed run is found")

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def workspaces_hold_what_the_model_says(self):
        for place in self.dirs:
            assert describe_difference(place.now, manifest(place.path)) == ""

    @invariant()
    def some_turn_comes_back(self):
        if self.runs:
            self.looks += 1
            run, turn = self.pick_state(random.Random(self.looks).randrange(1_000))
            assert_turns_come_back(self.asked(run), {turn: run.states[turn]}, run.name)

    def teardown(self):
        try:
            if self.runs:
                for run in self.runs.values():
                    assert_turns_come_back(self.asked(run), run.states, run.name)
                assert_clean(self.asked(run))
        finally:
            shutil.rmtree(self.top)

    # -- doing ---------------------------------------------------------------------------------

    def asked(self, run):
        return Loop(run.dir.path, self.home, 0, 0)

    def do_restore(self, run, turn, *, force):
        with Store.open(self.home) as store, store.writer() as writer, self.index() as index:
            workspace = Workspace.open(run.dir.path, self.home)
            state = resolve(index, f"{run.name}@{turn}")
            restore_state(index, writer, workspace, state, force=force)

    def manifest_of(self, run, turn):
        """The manifest of a state, from a copy of it (whose digest the oracle vouches for)."""
        target = self.top / "beside" / "tree"
        with Store.open(self.home) as store, self.index() as index:
            restore_beside(store, index, resolve(index, f"{run.name}@{turn}"), target)
        found = manifest(target)
        shutil.rmtree(target.parent)
        assert digest_of(found) == run.states[turn]
        return found

    def would_lose(self, place, wanted):
        """The paths that somebody changed since they were last known, and that would be changed."""
        known, now = place.known, place.now
        mine = {p for p in known.keys() | now.keys() if known.get(p) != now.get(p)}
        return sorted(p for p in mine if now.get(p) != wanted.get(p))


Machine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=18,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a death does not shrink in minutes
)
TestStatesFollowAModel = pytest.mark.slow(pytest.mark.timeout(600)(Machine.TestCase))
