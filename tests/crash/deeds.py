"""What people do to runs, as children that may be killed: ``deeds.py PLACE SEED TURNS DEED``."""

import os
import random
import stat
import sys
from pathlib import Path

from loop import lead, life_of

import crabrt
from crabrt.core.ids import RunId
from crabrt.core.targets import Target, TurnRef
from crabrt.journal import RunIndex, run_dir
from crabrt.operations import naming
from crabrt.operations.forking import fork_to
from crabrt.operations.health import repair_everything
from crabrt.operations.restoring import restore_state, undo_restore
from crabrt.operations.retention import Policy, apply_plan, make_plan
from crabrt.operations.roots import collect_garbage
from crabrt.operations.targets import resolve
from crabrt.store import Store
from crabrt.store.blobs import LocalBlobStore
from crabrt.workspace import Workspace

RESTORED = 3
FORKED = 5
LABELLED = 6
KEPT = 2  # turns that pruning leaves at the end of a run


def restore(life):
    with Store.open(life.home) as store, store.writer() as writer, _index(life) as index:
        workspace = Workspace.open(life.workspace, life.home)
        state = resolve(index, f"life@{RESTORED}")
        return restore_state(index, writer, workspace, state, force=True)


def undo(life):
    with Store.open(life.home) as store, store.writer() as writer, _index(life) as index:
        return undo_restore(index, writer, Workspace.open(life.workspace, life.home), force=True)


def fork(life):
    with Store.open(life.home) as store, _index(life) as index:
        state = resolve(index, f"last@{FORKED}")
        return fork_to(store, state, life.home.parent / f"fork-{os.getpid()}", paths="keep")


def label(life):
    with _index(life) as index:
        target = Target("life", TurnRef(turn=LABELLED))
        naming.label(life.home, index, target, "good")
        naming.pin(life.home, index, target, pinned=True)


def prune(life):
    with Store.open(life.home) as store, _index(life) as index:
        plan = make_plan(index, Policy(keep_per_run=KEPT), store_bytes=0)
        apply_plan(store, plan, reason="to see what a kill leaves of it")
        collect_garbage(store)
        collect_garbage(store)


def repair(life):
    repair_everything(life.home, cut_journals=True)


def rm(life):
    with _index(life) as index:
        naming.remove_run(life.home, index.find("other").run)


def blob(life):
    LocalBlobStore(life.home.parent / "blobs").put("runs/one/0", b"a segment")


def takeover(life):
    lead(life, resume=True)


def edit_by_hand(life):
    """Leave a workspace from which a restore takes every kind of step."""
    top = life.workspace
    Path(top, "by-hand").mkdir()
    Path(top, "by-hand/new").write_text("mine")
    for path in sorted(p for p in top.rglob("*") if stat.S_ISREG(p.lstat().st_mode)):
        if path.stat().st_nlink > 1:
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)
        else:
            path.chmod(0o611)


def begin_other(life):
    """A second run in the same store, on a workspace of its own."""
    beside = life.home.parent / "other"
    beside.mkdir()
    with crabrt.open_run(workspace=beside, name="other", home=life.home) as run:
        for number in range(8):
            noise = random.Random(number).randbytes(20_000)
            run.model_call([{"role": "user", "content": f"{number}"}], lambda: "do it")
            run.tool_call("write", {}, lambda data=noise: (beside / "f").write_bytes(data))


def damage(life):
    """Break what a repair can mend without a loss: pack headers, a catalog, a journal's middle."""
    for pack in sorted((life.home / "packs").glob("*/*.pack")):
        with open(pack, "r+b") as file:
            file.seek(20)
            file.write(b"\xff\xff")
    (life.home / "chunks.sqlite").write_bytes(b"no database")
    with _index(life) as index:
        directory = run_dir(life.home, RunId(index.find("other").run)) / "journal"
    segment = max(directory.iterdir(), key=lambda path: path.stat().st_size)
    with open(segment, "r+b") as file:
        file.seek(segment.stat().st_size * 2 // 3)
        file.write(b"\0" * 8)


def _index(life):
    index = RunIndex.open(life.home)
    index.refresh()
    return index


DEEDS = {
    deed.__name__: deed for deed in (restore, undo, fork, label, prune, repair, rm, blob, takeover)
}

if __name__ == "__main__":
    DEEDS[sys.argv[4]](life_of(sys.argv[1], sys.argv[2], sys.argv[3], rollback=8, label=4))
