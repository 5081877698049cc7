"""Bits flipped in, and tails cut from, every file of a store: typed errors, or the right files."""

import os
import random
import shutil
from pathlib import Path

import pytest

from crabrt.core.targets import TurnRef
from crabrt.errors import CrabError
from crabrt.journal import RunIndex
from crabrt.journal.restores import RestoreLog
from crabrt.operations.checking import check_everything
from crabrt.operations.repairing import repair_everything
from crabrt.operations.restoring import restore_beside
from crabrt.operations.targets import State
from crabrt.store import Store
from crabrt.testing.oracle import digest
from crabrt.workspace import Tracker, Workspace, restore_to

FLIPS_A_FILE = 40
FAST = Path("/dev/shm")  # a copy a flip: nothing here is about durability


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory):
    """The digest of every turn of the run."""
    return finished.digests(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def beside(tmp_path):
    """A directory on a file system in memory, where there is one."""
    if not os.access(FAST, os.W_OK):
        yield tmp_path
        return
    place = FAST / f"crab-flips-{os.getpid()}"
    place.mkdir()
    yield place
    shutil.rmtree(place)


def files_of(home):
    return sorted(
        path.relative_to(home) for path in home.rglob("*") if path.is_file() and path.stat().st_size
    )


def test_there_is_a_file_of_every_kind(finished):
    names = {str(path).split("/")[0] for path in files_of(finished.home)}
    assert {"format.json", "chunks.sqlite", "runs.sqlite", "packs", "runs", "workspaces"} <= names


def ask_everything(home, whole, beside):
    """Ask all there is to ask; how many turns came back right. Errors are typed, answers right."""
    right = 0
    try:
        store = Store.open(home)
    except CrabError:
        return right
    with store:
        with typed():
            check_everything(store, read_data=True)
        with typed(), RunIndex.open(home) as index:
            index.refresh()
            for row in index.runs():
                for turn in index.turns(row.run):
                    assert turn.turn in whole
                for turn in whole:
                    with typed():
                        right += restored(store, index, row, turn, whole, beside)
        for state_dir in (home / "workspaces").iterdir():
            with typed():
                RestoreLog(state_dir).records()
    return right


class typed:  # noqa: N801 - reads as a statement
    """Errors of crabrt may leave this block; nothing else may."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        return isinstance(error, CrabError)


def restored(store, index, row, turn, whole, beside):
    point = index.checkpoint(row.run, TurnRef(turn=turn))
    state = State(row, point.turn, point.inner, point.root, point.position)
    target = beside / "restored"
    try:
        restore_beside(store, index, state, target)
        found = digest(target)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    assert found == whole[turn], f"turn {turn} came back wrong"
    return 1


def harmed_copies(home, beside, path, ways):
    """A fresh copy of the store for each way to harm the file at `path`."""
    for number, harm in enumerate(ways):
        copy = beside / f"home{number}"
        shutil.copytree(home, copy)
        data = bytearray((copy / path).read_bytes())
        harm(data)
        (copy / path).write_bytes(data)
        if path.parts[0] == "runs":  # or what was folded before would still be known
            (copy / "runs.sqlite").unlink()
        yield copy
        shutil.rmtree(copy)


def flips(size, rng):
    """Single bits: the first bytes, the last, and some between."""
    places = {*range(min(12, size)), *range(max(0, size - 12), size)}
    while len(places) < min(FLIPS_A_FILE, size):
        places.add(rng.randrange(size))
    for place in sorted(places):
        bit = 1 << rng.randrange(8)

        def flip(data, place=place, bit=bit):
            data[place] ^= bit

        yield flip


def cuts(size, rng):
    for length in sorted({0, 1, size // 2, size - 1, rng.randrange(size)}):

        def cut(data, length=length):
            del data[length:]

        yield cut


def areas(home):
    return sorted({str(path).split("/")[0] for path in files_of(home)})


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "area",
    ["chunks.sqlite", "format.json", "gc", "packs", "runs", "runs.sqlite", "workspaces", "writers"],
)
def test_a_flipped_bit_is_an_error_or_harmless(area, finished, whole, beside):
    rng = random.Random(area)
    for path in files_of(finished.home):
        if str(path).split("/")[0] != area:
            continue
        size = (finished.home / path).stat().st_size
        ways = [*flips(size, rng), *cuts(size, rng)]
        for copy in harmed_copies(finished.home, beside, path, ways):
            ask_everything(copy, whole, beside)


def test_no_file_of_the_store_is_left_out(finished):
    parametrised = {"chunks.sqlite", "format.json", "gc", "packs", "runs", "runs.sqlite"}
    assert set(areas(finished.home)) <= parametrised | {"workspaces", "writers"}


@pytest.mark.parametrize("name", ["chunks.sqlite", "runs.sqlite"])
def test_a_ruined_projection_loses_nothing(name, place, whole, beside):
    (place.home / name).write_bytes(b"no database at all" * 100)
    assert ask_everything(place.home, whole, beside) == len(whole)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("area", ["packs", "runs"])
def test_repair_after_a_flipped_bit_never_invents_anything(area, finished, whole, beside):
    rng = random.Random(f"repair {area}")
    for path in files_of(finished.home):
        if str(path).split("/")[0] != area:
            continue
        size = (finished.home / path).stat().st_size
        for copy in harmed_copies(finished.home, beside, path, rng.sample([*flips(size, rng)], 8)):
            with typed():
                repair_everything(copy, cut_journals=True)
            ask_everything(copy, whole, beside)


@pytest.mark.timeout(300)
def test_a_workspace_index_with_a_flipped_bit_is_dropped_or_right(finished, beside):
    """What the index says is believed by scans: harmed, it must never hide a change."""

    rng = random.Random("index")
    for path in files_of(finished.home):
        if path.parts[0] != "workspaces":
            continue
        size = (finished.home / path).stat().st_size
        for copy in harmed_copies(finished.home, beside, path, flips(size, rng)):
            with typed(), Store.open(copy) as store, store.writer() as writer:
                tracker = Tracker(
                    Workspace.open(finished.ws, copy), huge_files=10**6, huge_bytes=1 << 40
                )
                tracker.load(store)
                snapshot = tracker.capture(tracker.scan(), writer)
                target = beside / "captured"
                try:
                    restore_to(writer, snapshot.root, target)
                    assert digest(target) == digest(finished.ws)
                finally:
                    shutil.rmtree(target, ignore_errors=True)
