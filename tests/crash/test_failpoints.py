"""SIGKILL at every durable step of the whole system: clean, resumable, and every turn comes back.

Each failpoint belongs to at least one scenario, which must hit it: the agent's own run, a run taken
up again, or something that people do to runs. The child dies at the first hit and at a later one;
where a scenario comes there only once, `ONCE` says why.
"""

import fcntl
import json
import re
from pathlib import Path

import deeds
import pytest
from after_death import (
    Diary,
    assert_clean,
    assert_lived,
    assert_turns_come_back,
    go_on,
    undisturbed,
    unprotected,
)
from loop import life_of, prepare

import crabrt
from crabrt.core.targets import TurnRef
from crabrt.journal import RunIndex
from crabrt.journal.restores import RestoreLog
from crabrt.store import Store
from crabrt.testing import crash
from crabrt.testing.oracle import digest
from crabrt.workspace import Workspace, recover

HERE = Path(__file__).parent
SEED, TURNS = 5, 12

SCENARIOS = {
    "run": (
        "checkpoint.", "journal.", "lease.", "index.", "pack.", "writer.", "catalog.", "format.",
        "restore.", "restore_log.",
    ),
    "takeover": ("adopt.", "checkpoint.", "journal.", "lease.", "pack.named", "writer."),
    "restore": ("restore.", "restore_log."),
    "undo": ("restore.begun", "restore.deleted", "restore.renamed", "restore.ended"),
    "fork": ("fork.",),
    "label": ("inbox.",),
    "prune": ("inbox.", "gc."),
    "repair": ("repair.", "salvage.", "journal.cut"),
    "rm": ("rm.",),
    "blob": ("blob.",),
}  # fmt: skip
"""Which failpoints a scenario is asked for, by the beginning of their names."""

ELSEWHERE = {"run": {"journal.cut"}, "takeover": {"journal.cut"}}
"""What a scenario does not come to, though the name begins like that; another one does."""


_ONE_LEASE = "a process takes a run's lease once; the takeover's is the second of that run"
_ONE_JOURNAL = "a process begins one segment of a run's journal; the takeover's is the second"
_ONE_WRITER = "a process has one writer; the takeover's is the second in that store"

ONCE = {
    "run": {
        "format.directories": "a store is created once; after this there is one to be opened",
        "lease.locked": _ONE_LEASE,
        "lease.written": _ONE_LEASE,
        "journal.segment-created": _ONE_JOURNAL,
        "journal.segment-headed": _ONE_JOURNAL,
        "journal.sealed": _ONE_JOURNAL,
        "writer.registered": _ONE_WRITER,
        "writer.sealed": _ONE_WRITER,
        "restore.metadata": "one of the two rollbacks has such a step; the restores by hand do",
    },
    "takeover": {
        "lease.locked": _ONE_LEASE,
        "lease.written": _ONE_LEASE,
        "journal.segment-created": _ONE_JOURNAL,
        "journal.segment-headed": _ONE_JOURNAL,
        "journal.sealed": _ONE_JOURNAL,
        "writer.registered": _ONE_WRITER,
        "writer.sealed": _ONE_WRITER,
    },
}
"""What a scenario comes to only once, and why that cannot be otherwise."""


def points_of(scenario):
    return [
        name
        for name in sorted(crash.declared())
        if name.startswith(SCENARIOS[scenario]) and name not in ELSEWHERE.get(scenario, ())
    ]


def once(scenario, point):
    return point in ONCE.get(scenario, ())


CASES = [
    pytest.param(scenario, point, when, id=f"{scenario}-{point}-{when}")
    for scenario in SCENARIOS
    for point in points_of(scenario)
    for when in (("first",) if once(scenario, point) else ("first", "late"))
]


class Scene:
    """A life, brought to where the scenario begins."""

    def __init__(self, place, scenario):
        self.scenario = scenario
        self.place = place
        self.life = life_of(place, SEED, TURNS, rollback=8, again=10, label=4)

    @property
    def program(self):
        plain = [self.place, str(SEED), str(TURNS)]
        if self.scenario == "run":
            return HERE / "loop.py", plain
        return HERE / "deeds.py", [*plain, self.scenario]

    def set(self):
        if self.scenario == "run":
            prepare(self.life)
        elif self.scenario == "takeover":
            prepare(self.life)
            program = (HERE / "loop.py", [self.place, str(SEED), str(TURNS)])
            crash.kill_at("checkpoint.captured", 9, *program, mark=self.place / "first-mark")
            deeds.die_while_writing(self.life)
        elif self.scenario != "blob":
            undisturbed(self.life)
        if self.scenario in ("restore", "undo"):
            deeds.edit_by_hand(self.life)
            self.edited = digest(self.life.workspace)
        if self.scenario == "undo":
            deeds.restore_to_turn(self.life, deeds.RESTORED[-1])
        if self.scenario in ("prune", "repair", "rm"):
            deeds.begin_others(self.life)
        if self.scenario == "repair":
            deeds.damage(self.life)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """A directory that all test processes of this session see."""
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "crash-suite"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="session")
def tally(shared):
    """How often an undisturbed scenario hits each failpoint; each scenario is led once."""

    def count(scenario):
        result, place = shared / f"{scenario}.json", shared / scenario
        with open(shared / f"{scenario}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not result.exists():
                scene = Scene(place, scenario)
                place.mkdir()
                scene.set()
                script, arguments = scene.program
                hits = crash.count_hits(script, arguments, into=shared / f"{scenario}.tally")
                result.write_text(json.dumps(hits))
            return json.loads(result.read_text())

    return count


@pytest.fixture(scope="session")
def twin(shared, tally):
    """The diary of the undisturbed run."""
    tally("run")
    return Diary(life_of(shared / "run", SEED, TURNS))


def test_every_failpoint_of_the_sources_is_known_to_this_suite():
    """Whichever package declares one, under whichever name the function is imported."""
    written = re.compile(r"""\bdeclare\(\s*["']([^"']+)["']""")
    root = Path(crabrt.__file__).parent
    found = {
        name
        for path in (*root.rglob("*.py"), *root.parent.glob("adapters/**/*.py"))
        for name in written.findall(path.read_text())
    }
    assert len(found) > 50
    assert found == crash.declared().keys()


def test_every_failpoint_belongs_to_a_scenario():
    asked = {point for scenario in SCENARIOS for point in points_of(scenario)}
    assert crash.declared().keys() - asked == set()


def test_every_failpoint_is_in_a_table_of_what_a_crash_leaves():
    pages = Path(__file__).parents[2].glob("docs/internals/*.md")
    rows = [line for page in pages for line in page.read_text().splitlines() if line[:1] == "|"]
    told = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert crash.declared().keys() - told == set()


def test_no_exception_is_of_a_failpoint_that_is_no_more():
    for table in (ELSEWHERE, ONCE):
        for scenario, names in table.items():
            assert set(names) <= crash.declared().keys(), scenario


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_hits_what_it_is_asked_for(scenario, tally):
    hits = tally(scenario)
    assert [point for point in points_of(scenario) if not hits[point]] == []
    assert [point for point in ELSEWHERE.get(scenario, ()) if hits[point]] == []


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_comes_again_to_all_but_what_it_says(scenario, tally):
    hits = tally(scenario)
    seldom = {point for point in points_of(scenario) if hits[point] == 1}
    assert seldom == ONCE.get(scenario, {}).keys()


@pytest.mark.parametrize(("scenario", "point", "when"), CASES)
def test_a_kill_there_loses_nothing(scenario, point, when, tmp_path, tally, twin):
    total = tally(scenario)[point]
    hit = 1 if when == "first" else max(2, total * 3 // 4)
    assert hit <= total
    scene = Scene(tmp_path, scenario)
    scene.set()
    script, arguments = scene.program
    died = crash.kill_at(point, hit, script, arguments, mark=tmp_path / "mark")
    assert died.killed
    assert died.hit == f"{point}:{hit}"
    AFTERWARDS[scenario](scene, twin)


def after_a_run(scene, twin):
    life = scene.life
    before = Diary(life)
    if (life.home / "format.json").exists():
        assert_clean(life)
    if before.passed >= 0:
        assert_turns_come_back(life, dict([max(before.protected.items())]))
    go_on(life)
    assert_lived(life, twin)
    assert unprotected(life) == []
    assert_turns_come_back(life, Diary(life).protected)
    assert_clean(life)


def after_a_restore(scene, twin):
    life = scene.life
    workspace = Workspace.open(life.workspace, life.home)
    log = RestoreLog(workspace.state_dir)
    begun = bool(log.records())
    interrupted = log.interrupted() is not None
    assert_clean(life)
    with Store.open(life.home) as store, store.writer() as writer:
        finished = recover(workspace, writer)
    assert (finished is not None) == interrupted
    between, wanted = (twin.digests[turn] for turn in deeds.RESTORED)
    if begun:
        assert digest(life.workspace) in (between, wanted, scene.edited)
    deeds.restore(life)
    assert digest(life.workspace) == wanted
    assert_turns_come_back(life, twin.protected)
    assert_clean(life)


def after_an_undo(scene, twin):
    life = scene.life
    workspace = Workspace.open(life.workspace, life.home)
    with Store.open(life.home) as store, store.writer() as writer:
        recover(workspace, writer)
    now, both = digest(life.workspace), {scene.edited, twin.digests[deeds.RESTORED[-1]]}
    assert now in both
    deeds.undo_once(life)
    assert {digest(life.workspace)} == both - {now}
    assert_turns_come_back(life, twin.protected)
    assert_clean(life)


def after_a_fork(scene, twin):
    life = scene.life
    assert_clean(life)
    wanted = {turn: d for turn, d in twin.protected.items() if turn <= deeds.FORKED}
    deeds.fork(life)
    with RunIndex.open(life.home) as index:
        index.refresh()
        forks = [row.run for row in index.runs() if row.parent is not None]
    assert len(forks) in (2, 3, 4)
    for run in forks:
        assert_turns_come_back(life, wanted, run)
    assert_turns_come_back(life, twin.protected, _original(life))
    assert_clean(life)


def after_a_label(scene, twin):
    life = scene.life
    assert_clean(life)
    deeds.label(life)
    with RunIndex.open(life.home) as index:
        index.refresh()
        row = index.find("life")
        assert row.labels["good"] == (deeds.LABELLED, 0)
        assert index.turn(row.run, TurnRef(turn=deeds.LABELLED)).pinned
    assert_turns_come_back(life, twin.protected)


def after_a_prune(scene, twin):
    life = scene.life
    assert_clean(life)
    last = TURNS + 1  # the model's last reply has a turn of its own, with no tools
    kept = {t: d for t, d in twin.protected.items() if t == 0 or t > last - deeds.KEPT}
    assert_turns_come_back(life, kept)
    deeds.prune(life)
    assert_turns_come_back(life, kept)
    assert_clean(life)
    with RunIndex.open(life.home) as index:
        index.refresh()
        assert any(turn.thinned_ns for turn in index.turns(index.find("life").run))


def after_a_repair(scene, twin):
    life = scene.life
    deeds.repair(life)
    assert_clean(life)
    assert_turns_come_back(life, twin.protected, _original(life))
    with RunIndex.open(life.home) as index:
        index.refresh()
        assert [index.find(name).problem for name in deeds.OTHERS] == [None, None]


def after_an_rm(scene, twin):
    life = scene.life
    assert_clean(life)
    with RunIndex.open(life.home) as index:
        index.refresh()
        left = {row.name for row in index.runs()}
    assert left in ({"life"}, {"life", deeds.OTHERS[-1]})
    deeds.rm(life)
    deeds.repair(life)
    with RunIndex.open(life.home) as index:
        index.refresh()
        assert [row.name for row in index.runs()] == ["life"]
    assert not any((life.home / "trash").glob("*"))
    assert_turns_come_back(life, twin.protected)


def after_a_blob(scene, twin):
    blobs = deeds.LocalBlobStore(scene.life.home.parent / "blobs")
    there = blobs.list()
    assert there in ([*deeds.BLOBS][:1], [*deeds.BLOBS])
    assert [blobs.get(name) for name in there] == [deeds.BLOBS[name] for name in there]
    assert [blobs.put(name, b"another writer's") for name in there] == [False] * len(there)


def _original(life):
    with RunIndex.open(life.home) as index:
        index.refresh()
        return next(row.run for row in index.runs() if row.parent is None and row.name == "life")


AFTERWARDS = {
    "run": after_a_run,
    "takeover": after_a_run,
    "restore": after_a_restore,
    "undo": after_an_undo,
    "fork": after_a_fork,
    "label": after_a_label,
    "prune": after_a_prune,
    "repair": after_a_repair,
    "rm": after_an_rm,
    "blob": after_a_blob,
}
