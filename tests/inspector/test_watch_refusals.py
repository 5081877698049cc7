"""Where nothing can be watched, and what is said then."""

import os
import subprocess
import sys

import pytest

from crabrt.inspector.watch import Reason, Unwatchable, open_watch, probe, sharing
from crabrt.testing.filesystems import file_system

PROGRAM = """
import os, sys
from pathlib import Path
from crabrt.inspector.watch import Unwatchable, open_watch, probe
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
print(probe(sys.argv[1]).reason)
try:
    open_watch(sys.argv[1], Path(sys.argv[2]))
except Unwatchable as error:
    print(error.reason, error)
"""


@pytest.mark.root
def test_without_root_it_is_refused(watched):
    for path in (watched.base, watched.root, watched.home):
        os.chown(path, 65534, 65534)
    for above in watched.base.parents[:-2]:
        above.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, watched.root, watched.home / "observers"],
        capture_output=True,
        text=True,
        check=True,
    )
    facts, error = done.stdout.splitlines()
    assert facts == "privilege"
    assert error.startswith("privilege")
    assert "root" in error


@pytest.mark.root
def test_overlay_is_refused():
    with file_system("overlay") as volume:
        (volume / "ws").mkdir()
        facts = probe(volume)
        assert (facts.usable, facts.reason) == (False, Reason.FILE_SYSTEM)
        with pytest.raises(Unwatchable, match="overlay") as refused:
            open_watch(volume / "ws", volume)
        assert refused.value.reason is Reason.FILE_SYSTEM


@pytest.mark.root
def test_file_systems_that_are_not_known_are_refused(tmp_path):
    assert probe("/proc").reason is Reason.FILE_SYSTEM
    with pytest.raises(Unwatchable):
        open_watch("/sys", tmp_path)


@pytest.mark.root
def test_a_btrfs_subvolume_is_refused(tmp_path):
    with file_system("btrfs") as volume:
        subprocess.run(["btrfs", "-q", "subvolume", "create", volume / "sub"], check=True)
        assert probe(volume).usable
        facts = probe(volume / "sub")
        assert (facts.reason, facts.file_system) == (Reason.FILE_SYSTEM, "btrfs")
        assert "subvolume" in facts.why
        with pytest.raises(Unwatchable, match="subvolume"):
            open_watch(volume / "sub", tmp_path)


@pytest.mark.root
def test_a_probe_leaves_nothing_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    facts = probe(tmp_path)
    assert facts.usable
    assert facts.why == ""
    assert facts.groups_most > 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    assert probe(tmp_path / "nowhere").reason is Reason.WORKSPACE
    with pytest.raises(Unwatchable, match="cannot be opened"):
        open_watch(tmp_path / "nowhere", tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unwatchable):
        open_watch(tmp_path / "file", tmp_path)


@pytest.mark.root
def test_a_meeting_place_that_others_may_enter_is_refused(watched):
    observers = watched.home / "observers"
    observers.mkdir()
    observers.chmod(0o755)
    with pytest.raises(Unwatchable, match="others may enter"):
        watched.open()


@pytest.mark.root
def test_where_there_is_no_place_to_meet_the_watch_is_its_own(watched):
    (watched.home / "file").write_bytes(b"")
    before = len(os.listdir("/proc/self/fd"))
    watch = open_watch(watched.root, watched.home / "file" / "observers")
    (watched.root / "a").write_bytes(b"a")
    assert watch.drain().places == {b"": frozenset({b"a"})}
    watch.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_a_refused_watch_leaves_nothing_open(watched, monkeypatch):
    def refuse(**_):
        raise OSError(24, "too many")

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(sharing.kernel, "new_group", refuse)
        with pytest.raises(Unwatchable) as refused:
            watched.open()
    assert refused.value.reason is Reason.LIMIT
    assert len(os.listdir("/proc/self/fd")) == before
    watch = watched.open()
    assert watch.drain().unknown is None


@pytest.mark.root
def test_a_closed_watch_leaves_nothing_open(watched):
    before = len(os.listdir("/proc/self/fd"))
    watch = watched.open()
    watch.drain()
    watch.holders()
    watch.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert watch.holders().unseen == 1


@pytest.mark.root
def test_a_long_store_path_has_room_for_the_socket(watched):
    home = watched.base / ("h" * 200)
    home.mkdir()
    watch = open_watch(watched.root, home / "observers")
    assert watch.drain().unknown is None
    watch.close()
