"""SIGKILL at every durable step of the store; nothing promised is lost, nothing stays stuck."""

import random
from pathlib import Path

import pytest

from crabrt.core.ids import object_id
from crabrt.store import Store
from crabrt.store.check import check
from crabrt.store.repair import repair
from crabrt.testing.crash import count_hits, declared, kill_at

SCENARIO = Path(__file__).with_name("crash_scenario.py")
AREAS = ("format.", "pack.", "writer.", "catalog.", "adopt.", "salvage.", "gc.", "repair.")


def data_of(seed):
    return random.Random(seed).randbytes(random.Random(seed).randrange(100, 3000))


def store_failpoints():
    return sorted(name for name in declared() if name.startswith(AREAS))


def promised(output):
    return [line.split()[1] for line in output.splitlines() if line.startswith("keep ")]


@pytest.fixture(scope="module")
def hits(tmp_path_factory):
    place = tmp_path_factory.mktemp("undisturbed")
    return count_hits(SCENARIO, [place / "store"], into=place / "tally")


def test_the_scenario_reaches_every_failpoint_of_the_store(hits):
    assert [name for name in store_failpoints() if not hits[name]] == []


@pytest.mark.parametrize("name", store_failpoints())
@pytest.mark.parametrize("when", ["first", "last"])
def test_a_kill_there_loses_nothing_promised(tmp_path, hits, name, when):
    total = hits[name]
    hit = 1 if when == "first" else total
    if when == "last" and total == 1:
        return  # the same as the first
    home = tmp_path / "store"
    died = kill_at(name, hit, SCENARIO, [home], mark=tmp_path / "mark")
    if "damaged" in died.stdout.split():
        repair(home)
    with Store.open(home, create=True) as store, store.writer() as writer:
        for seed in promised(died.stdout):
            assert store.get(object_id(data_of(seed))) == data_of(seed), seed
        report = check(store, read_data=True)
        assert report.problems == ()
        assert report.unsealed == 0
        put = writer.put(b"life goes on")
        writer.sync()
        assert store.get(put) == b"life goes on"
    assert not [p for p in (home / "writers").iterdir() if len(p.name) == 29]
