"""Where the kernel does not stamp files itself (a network, FUSE) only what was read is believed."""

from __future__ import annotations

import os

import pytest

from crabrt.core.config import Config
from crabrt.inspector.watch import Unwatchable, open_watch, probe
from crabrt.operations.facts import Standing, examine
from crabrt.process.criu import Lack, NoCriu
from crabrt.testing.filesystems import file_system
from crabrt.testing.hostile import OPERATIONS, HostileRun, NotApplicable

from .conftest import Tracked

pytestmark = pytest.mark.root


def _with_old_times(path):
    status = path.stat()
    path.write_bytes(b"BEFORE")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _exchange(top):
    (top / "b").rename(top / "c")
    (top / "d/file").rename(top / "b")
    (top / "c").rename(top / "d/file")


def _lead_elsewhere(path):
    path.unlink()
    path.symlink_to("elsewhere")


EDITS = {
    "the same size in the same moment": lambda top: (top / "d/file").write_bytes(b"BEFORE"),
    "mtime put back": lambda top: _with_old_times(top / "d/file"),
    "mode": lambda top: (top / "d/file").chmod(0o600),
    "another name": lambda top: (top / "d/file").rename(top / "d/other"),
    "exchanged by way of a third": _exchange,
    "a new name": lambda top: (top / "new").write_bytes(b""),
    "a name less": lambda top: (top / "b").unlink(),
    "a directory": lambda top: (top / "d/e").mkdir(),
    "where a symlink leads": lambda top: _lead_elsewhere(top / "link"),
}


@pytest.fixture(scope="module")
def volume():
    with file_system("fuse") as path:
        yield path


@pytest.fixture
def there(volume):
    base = volume / os.urandom(6).hex()
    base.mkdir()
    return Tracked(base)


@pytest.mark.parametrize("edit", EDITS)
def test_every_change_is_seen_at_once(there, edit):
    (there.root / "d").mkdir()
    (there.root / "d/file").write_bytes(b"before")
    (there.root / "b").write_bytes(b"b")
    (there.root / "link").symlink_to("b")
    first = there.capture()
    EDITS[edit](there.root)
    assert not there.tracker.scan().clean
    assert there.capture().root != first.root
    there.agrees()


def test_what_is_young_is_read_again_and_found_equal(there):
    """Only after the margin does a stamp prove anything; until then reading does."""
    (there.root / "file").write_bytes(b"before")
    first = there.capture()
    assert not there.tracker.scan().clean
    assert there.capture().root == first.root


def test_hostile_turns_are_captured_exactly(there):
    """But for stores through mappings, which the file system hears of when the kernel pleases."""
    names = [name for name in OPERATIONS if "process" not in name and "map" not in name]
    done = 0
    with HostileRun(5, there.root, outside=there.base / "outside") as run:
        for number in range(300):
            try:
                run.do(names[(7 * number) % len(names)])
            except NotApplicable:
                continue
            done += 1
            there.capture()
            there.agrees()
    assert done > 100


def test_nobody_watches_there_and_the_reason_is_said(volume, tmp_path):
    assert not probe(volume).usable
    with pytest.raises(Unwatchable, match="not all reported"):
        open_watch(volume, tmp_path)


def test_doctor_tells_what_it_is(volume, tmp_path):
    config = Config(home=tmp_path)
    machine = examine(config, volume, store_bytes=0, criu=NoCriu(Lack.MISSING, "none", None))
    (fact,) = (fact for fact in machine.facts if fact.name == "workspace")
    assert fact.seen.startswith("fuse at")
    assert fact.standing is Standing.LIMITED
    assert "show late" in fact.meaning
