"""What people do to runs, as children that may be killed: ``deeds.py PLACE SEED TURNS DEED``."""

import os
import random
import signal
import stat
import sys
from pathlib import Path

from loop import fill_packs_soon, lead, life_of

import crabrt
from crabrt.core.ids import RunId
from crabrt.core.targets import Target, TurnRef
from crabrt.journal import RunIndex, run_dir
from crabrt.operations import naming
from crabrt.operations.forking import fork_to
from crabrt.operations.repairing import repair_everything
from crabrt.operations.restoring import restore_state, undo_restore
from crabrt.operations.retention import Policy, apply_plan, make_plan
from crabrt.operations.roots import collect_garbage
from crabrt.operations.targets import resolve
from crabrt.store import Store, packs
from crabrt.store.blobs import LocalBlobStore
from crabrt.workspace import Workspace

RESTORED = (6, 3)  # one after the other
FORKED = 5
LABELLED = 6
KEPT = 2  # turns that pruning leaves at the end of a run
BLOBS = {"runs/one/0": b"a segment", "runs/one/1": b"the next one"}
OTHERS = ("other", "third")  # runs beside the one that is lived


def restore(life):
    for turn in RESTORED:
        restore_to_turn(life, turn)


def restore_to_turn(life, turn):
    with Store.open(life.home) as store, store.writer() as writer, _index(life) as index:
        workspace = Workspace.open(life.workspace, life.home)
        state = resolve(index, f"life@{turn}")
        return restore_state(index, writer, workspace, state, force=True)


def undo(life):
    for _ in range(2):
        undo_once(life)


def undo_once(life):
    with Store.open(life.home) as store, store.writer() as writer, _index(life) as index:
        return undo_restore(index, writer, Workspace.open(life.workspace, life.home), force=True)


def fork(life):
    for number in range(2):
        with Store.open(life.home) as store, _index(life) as index:
            original = next(row for row in index.runs() if row.parent is None)
            state = resolve(index, f"{original.run}@{FORKED}")
            beside = life.home.parent / f"fork-{os.getpid()}-{number}"
            fork_to(store, state, beside, paths="keep")


def label(life):
    with _index(life) as index:
        target = Target("life", TurnRef(turn=LABELLED))
        naming.label(life.home, index, target, "good")
        naming.pin(life.home, index, target, pinned=True)


def prune(life):
    prune_once(life)
    begin_other(life, f"late-{os.getpid()}")
    prune_once(life)


def prune_once(life):
    with Store.open(life.home) as store, _index(life) as index:
        plan = make_plan(index, Policy(keep_per_run=KEPT), store_bytes=0)
        apply_plan(store, plan, reason="to see what a kill leaves of it")
        collect_garbage(store)
        collect_garbage(store)


def repair(life):
    repair_everything(life.home, cut_journals=True)


def rm(life):
    for name in OTHERS:
        with _index(life) as index:
            if any(row.name == name for row in index.runs()):
                naming.remove_run(life.home, index.find(name).run)


def blob(life):
    for name, data in BLOBS.items():
        LocalBlobStore(life.home.parent / "blobs").put(name, data)


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


def begin_others(life):
    for name in OTHERS:
        begin_other(life, name)


def begin_other(life, name):
    """Another run in the same store, on a workspace of its own.

    Where packs are full soon, the last but one is left with one of three states by a pruning.
    """
    beside = life.home.parent / name
    beside.mkdir()
    with crabrt.open_run(workspace=beside, name=name, home=life.home) as run:
        for number in range(10):
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
        journals = [run_dir(life.home, RunId(index.find(n).run)) / "journal" for n in OTHERS]
    for journal in journals:
        segment = max(journal.iterdir(), key=lambda path: path.stat().st_size)
        with open(segment, "r+b") as file:
            file.seek(segment.stat().st_size * 2 // 3)
            file.write(b"\0" * 8)


def die_while_writing(life):
    """Leave packs of two writers that were killed; their ends are torn."""
    child = os.fork()
    if child == 0:
        with Store.open(life.home) as store:
            for writer in (store.writer(), store.writer()):
                writer.put(b"never referred to")
                writer.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    for pack in (life.home / "packs").glob("*/*.pack"):
        if not pack.read_bytes().endswith(packs.SEAL):
            with open(pack, "ab") as file:
                file.write(b"CRo1 and then nothing")


def _index(life):
    index = RunIndex.open(life.home)
    index.refresh()
    return index


DEEDS = {
    deed.__name__: deed for deed in (restore, undo, fork, label, prune, repair, rm, blob, takeover)
}

if __name__ == "__main__":
    fill_packs_soon()
    life = life_of(sys.argv[1], sys.argv[2], sys.argv[3], rollback=8, again=10, label=4)
    DEEDS[sys.argv[4]](life)
