"""A full disk under the store, a workspace that cannot be written: said, and never a lost loop."""

import re
import subprocess

import pytest

from crabrt.testing.oracle import digest

TURNS = 6
KIB = 1024
FULL = re.compile("No space left|free some space")  # the failed write, or what was lost by it


@pytest.fixture
def small_disk(fresh):
    """The store lies on a file system that is full before the run ends."""
    fresh.home.mkdir(mode=0o700)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k,mode=0700", "none", fresh.home], check=True
    )
    yield fresh
    subprocess.run(["umount", fresh.home], check=True)


@pytest.mark.root
def test_a_loop_goes_on_when_the_disk_is_full_and_says_so(small_disk):
    place = small_disk
    said = place.fix("--bytes", 400 * KIB, turns=TURNS)
    assert (said.exit, said.out) == (0, "done\n"), said.err
    assert said.err.count("UnprotectedWarning") == 1
    assert FULL.search(said.err), said.err
    assert (place.ws / "log").read_text() == "".join(f"{n}\n" for n in range(1, TURNS + 1))
    turns = place.crab_json("log", "last").data["turns"]
    protected = [row["turn"] for row in turns if row["checkpoint"] in ("durable", "captured")]
    lost = [row for row in turns if row["checkpoint"] == "unprotected"]
    assert protected[:2] == [0, 1]
    assert lost
    assert all(FULL.search(str(row["unprotected"])) for row in lost)
    for turn in protected:
        to = place.top / f"copy{turn}"
        said = place.crab_json("restore", f"last@{turn}", "--to", to)
        assert said.exit == 0, said
        lines = "".join(f"{n}\n" for n in range(1, turn + 1))
        assert ((to / "log").read_text() if turn else "") == lines


@pytest.mark.root
def test_a_strict_loop_stops_when_the_disk_is_full(small_disk):
    said = small_disk.fix("--bytes", 400 * KIB, "--strict", turns=TURNS)
    assert said.exit == 1
    assert "Unprotected" in said.err
    assert FULL.search(said.err), said.err
    assert len((small_disk.ws / "log").read_text().split()) < TURNS


@pytest.mark.root
def test_a_disk_that_was_full_is_used_again_when_there_is_room(small_disk):
    place = small_disk
    assert place.fix("--bytes", 400 * KIB, turns=TURNS).exit == 0
    subprocess.run(["mount", "-o", "remount,size=64m", place.home], check=True)
    assert place.crab_json("check", "--read-data").exit == 0
    said = place.fix("--bytes", 10 * KIB, turns=2)
    assert (said.exit, said.out) == (0, "done\n"), said.err
    assert "Unprotected" not in said.err
    assert place.crab_json("check", "--read-data").exit == 0


@pytest.mark.root
def test_a_store_that_is_full_from_the_start_does_not_hold_the_loop(fresh):
    fresh.home.mkdir(mode=0o700)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,mode=0700", "none", fresh.home], check=True
    )
    try:
        said = fresh.fix(turns=2)
        assert (said.exit, said.out) == (0, "done\n"), said.err
        assert "No space left" in said.err
        strict = fresh.fix("--strict", turns=2)
        assert strict.exit == 1
        assert "StoreUnavailable" in strict.err or "Unprotected" in strict.err
    finally:
        subprocess.run(["umount", fresh.home], check=True)


@pytest.fixture
def read_only(fresh):
    """A finished run, whose workspace cannot be written any more."""
    assert fresh.fix(turns=2).exit == 0
    subprocess.run(["mount", "--bind", fresh.ws, fresh.ws], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", fresh.ws], check=True)
    yield fresh
    subprocess.run(["umount", fresh.ws], check=True)


@pytest.mark.root
def test_a_restore_into_a_read_only_workspace_fails_and_changes_nothing(read_only):
    before = digest(read_only.ws)
    said = read_only.crab_json("restore", "last@1")
    assert said.exit == 1, said
    assert said.error["kind"] == "restore-failed"
    assert "Read-only" in said.error["message"]
    assert digest(read_only.ws) == before
    assert read_only.crab_json("restore", "last@1", "--to", read_only.top / "copy").exit == 0
    assert read_only.crab_json("check").exit == 0


@pytest.mark.root
def test_what_a_read_only_workspace_refused_can_be_restored_later(read_only):
    assert read_only.crab_json("restore", "last@1").exit == 1
    subprocess.run(["mount", "-o", "remount,rw,bind", read_only.ws], check=True)
    said = read_only.crab_json("restore", "last@1")
    assert said.exit == 0, said
    assert (read_only.ws / "log").read_text() == "1\n"


@pytest.mark.root
def test_a_store_on_a_read_only_disk_can_still_be_read(fresh):
    assert fresh.fix(turns=2).exit == 0
    subprocess.run(["mount", "--bind", fresh.home, fresh.home], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", fresh.home], check=True)
    try:
        assert fresh.crab_json("runs").exit == 0
        assert fresh.crab_json("log", "last").exit == 0
        said = fresh.crab_json("restore", "last@1", "--to", fresh.top / "copy")
        assert said.exit == 0, said
        assert (fresh.top / "copy/log").read_text() == "1\n"
        assert fresh.crab_json("check").exit == 0
        gc = fresh.crab_json("gc")
        assert (gc.exit, gc.error["kind"]) == (1, "store-unavailable"), gc
        said = fresh.fix(turns=1)
        assert (said.exit, said.out) == (0, "done\n"), said.err
        assert "Read-only" in said.err
    finally:
        subprocess.run(["umount", fresh.home], check=True)
