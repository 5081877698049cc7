"""A workspace, a store, and the oracle between them."""

import os
from pathlib import Path

import pytest

from crabrt.store import Store
from crabrt.testing import oracle
from crabrt.workspace import Tracker, Workspace, recover, restore, restore_to, undo


class Place:
    """One workspace and its store, with the shortest way to say what a test does."""

    def __init__(self, top: Path, ws: Path | None = None) -> None:
        self.top = top
        self.path = ws or top / "ws"
        self.path.mkdir(parents=True, exist_ok=True)
        self.home = top / "home"
        self.store = Store.open(self.home, create=True)
        self.writer = self.store.writer()
        self.workspace = Workspace.open(self.path, self.home)

    def close(self) -> None:
        self.writer.close()
        self.store.close()

    def file(self, name: str | bytes, data: bytes = b"x", mode: int = 0o644) -> Path:
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.path), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def tracker(self):
        return Tracker(self.workspace, huge_files=10**9, huge_bytes=10**15)

    def checkpoint(self):
        tracker = self.tracker()
        root = tracker.capture(tracker.scan(), self.writer).root
        self.writer.sync()
        return root

    def facts(self, path: Path | None = None):
        return oracle.manifest(path or self.path)

    def restore(self, root, **given):
        return restore(self.workspace, self.writer, root, **({"base": None} | given))

    def restore_to(self, root, directory, **given):
        return restore_to(self.writer, root, directory, **given)

    def undo(self, **given):
        return undo(self.workspace, self.writer, **given)

    def recover(self):
        return recover(self.workspace, self.writer)

    def temporary_names(self) -> list[bytes]:
        return [
            name
            for _, dirs, files in os.walk(os.fsencode(self.path))
            for name in dirs + files
            if name.startswith(b".crab-")
        ]


def same(one, two) -> None:
    """Assert that two manifests are equal, and say how they are not."""
    assert not oracle.describe_difference(one, two)


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def place_type():
    return Place


@pytest.fixture
def place_at():
    """Makes places in other directories; they are closed at the end."""
    made = []

    def make(top: Path, ws: Path | None = None) -> Place:
        made.append(Place(top, ws))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def assert_same():
    return same
