"""What is asked of a store whose run was killed: it is clean, goes on, and all turns come back."""

import tempfile
from pathlib import Path

from loop import lead, prepare

from crabrt.core.ids import RunId
from crabrt.core.targets import TurnRef
from crabrt.errors import NotFound, NotResumable
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.operations.checking import check_everything
from crabrt.operations.restoring import restore_beside
from crabrt.operations.targets import State
from crabrt.store import Store
from crabrt.testing.oracle import digest, manifest


class Diary:
    """What a run's tools wrote down: the digest after each turn, and how far its gates let it."""

    def __init__(self, life):
        self.digests = {}
        self.timeless = {}
        self.passed = -1
        self.ended = None
        self.again = []
        """Turns that ran again though a later one had begun: their states were lost."""
        for line in life.diary.read_text().splitlines():
            word, *rest = line.split()
            if word == "passed":
                self.passed = max(self.passed, int(rest[0]))
            elif word == "ran":
                turn = int(rest[0])
                if turn <= self.passed:
                    self.again.append(turn)
                self.digests[turn], self.timeless[turn] = rest[1:]
            elif word == "ended":
                self.ended = rest[0]
                self.passed = max(self.digests)

    @property
    def protected(self):
        """The states that must come back: turn to digest."""
        return {turn: d for turn, d in self.digests.items() if turn <= self.passed}


def assert_clean(life):
    with Store.open(life.home) as store:
        health = check_everything(store, read_data=True)
    assert health.troubles == (), health.troubles
    assert health.affected == ()


def assert_turns_come_back(life, wanted, run="life"):
    """Each turn of `wanted` (turn to digest) restores to its digest."""
    with Store.open(life.home) as store, RunIndex.open(life.home) as index:
        index.refresh()
        row = index.find(run)
        for turn, expected in sorted(wanted.items()):
            point = index.checkpoint(row.run, TurnRef(turn=turn))
            state = State(row, point.turn, point.inner, point.root, point.position)
            with tempfile.TemporaryDirectory(dir=life.home.parent) as beside:
                target = Path(beside) / "tree"
                restored = restore_beside(store, index, state, target)
                assert restored.report.not_restored == (), f"seed {life.seed}, turn {turn}"
                found = digest(target)
                assert found == expected, f"seed {life.seed}, turn {turn}: {manifest(target)}"


def go_on(life):
    """Take the run up, or begin it where it had not begun; it ends."""
    try:
        lead(life, resume=True)
    except (NotFound, NotResumable):
        assert Diary(life).passed == -1, f"seed {life.seed}: a tool had run, so it had begun"
        lead(life)


def assert_lived(life, twin):
    """The run ended, like its undisturbed twin, with every turn the same."""
    diary = Diary(life)
    assert diary.ended == "done"
    assert diary.again == [], f"seed {life.seed}"
    assert diary.digests == twin.digests, f"seed {life.seed}"
    assert digest(life.workspace) == twin.digests[max(twin.digests)]


def unprotected(life, run="life"):
    """Why turns lost protection, as the journal says."""
    with RunIndex.open(life.home) as index:
        index.refresh()
        found = index.find(run).run
    return [
        record.body
        for record in read_journal(run_dir(life.home, RunId(found)))
        if record.entry.kind == "unprotected"
    ]


def undisturbed(life):
    """Lead `life` to its end; its diary."""
    prepare(life)
    lead(life)
    return Diary(life)
