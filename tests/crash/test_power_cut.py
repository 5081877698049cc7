"""The power goes out while a run is checkpointed: what was called durable comes back, all of it.

The disk is drawn from the model of ``crabrt.testing.powercut``: any unsynced end of any file of the
store may be lost, torn or garbled, and names that no directory sync covered may be missing.
"""

from dataclasses import replace

import pytest
from after_death import Diary, assert_turns_come_back
from loop import lead, life_of, prepare

from crabrt.core.entries import Checkpoint
from crabrt.core.ids import RunId
from crabrt.errors import NotFound
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.operations.checking import check_everything
from crabrt.store import Store
from crabrt.testing import crash
from crabrt.testing.oracle import digest
from crabrt.testing.powercut import PowerCut

TURNS = 10
DISKS = 4  # drawn at each moment
MOMENTS = [
    (f"checkpoint.{step}", hit)
    for step in ("captured", "synced", "committed", "durable")
    for hit in (1, 4, 11)
]


def checkpoints(home, run):
    """The ends of turns that the journal says are committed: turn to root."""
    return {
        record.body.turn: record.body.root
        for record in read_journal(run_dir(home, RunId(run)))
        if isinstance(record.body, Checkpoint) and record.body.inner == 0
    }


def only_run(home):
    with RunIndex.open(home) as index:
        index.refresh()
        return index.find("life").run


class Outage:
    """Draws disks when the armed failpoint is hit, while the run waits."""

    def __init__(self, cut, life, into, point):
        self.point = point
        self.cut = cut
        self.life = life
        self.into = into
        self.disks = []
        self.durable = None

    def __call__(self):
        if self.point == "checkpoint.durable":  # all that is committed so far was synced
            self.durable = set(checkpoints(self.life.home, only_run(self.life.home)))
        for seed in range(DISKS):
            disk = self.into / f"disk{seed}"
            self.disks.append((disk, self.cut.draw(seed, str(disk), lose_names=seed % 2 == 1)))


# The workspace is further than the disk of the power cut: to the resume somebody else changed it.
@pytest.mark.filterwarnings("ignore::crabrt.RestoreWarning")
@pytest.mark.parametrize(("point", "hit"), MOMENTS)
def test_what_is_durable_survives_a_power_cut(point, hit, tmp_path, monkeypatch):
    life = life_of(tmp_path, 11, TURNS, rollback=8, label=4)
    prepare(life)
    Store.open(life.home, create=True).close()
    with PowerCut(str(life.home)) as cut:
        outage = Outage(cut, life, tmp_path, point)
        monkeypatch.setattr(crash.declared()[point], "action", None)  # taken back at the end
        crash.arm(point, hit, outage)
        lead(life)
    monkeypatch.setattr(crash.declared()[point], "action", None)
    assert len(outage.disks) == DISKS, "the moment never came"
    twin = Diary(life).digests
    run = only_run(life.home)
    readers = ("runtime.inplace", "journal.writing", "journal.updating", "operations.checking")
    for module in readers:
        monkeypatch.setattr(f"crabrt.{module}.boot_id", lambda: "after the power cut")
    for disk, drawn in outage.disks:
        after = replace(life, home=disk)
        with Store.open(disk) as store:  # what was promised is there; of the rest it is only said
            health = check_everything(store, read_data=True)
        assert (health.troubles, health.affected) == ((), ()), drawn
        try:
            committed = checkpoints(disk, run)
        except NotFound:  # the journal's name was lost, which only its first checkpoint promises
            committed = {}
        if outage.durable is not None:
            assert set(committed) >= outage.durable, drawn
        if committed:
            assert_turns_come_back(after, {turn: twin[turn] for turn in committed}, run)
            lead(after, resume=True)
            assert Diary(after).digests == twin, drawn
            assert digest(life.workspace) == twin[TURNS], drawn
            with Store.open(disk) as store:
                health = check_everything(store, read_data=True)
            assert (health.troubles, health.affected) == ((), ()), drawn
