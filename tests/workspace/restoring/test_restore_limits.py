"""What stands in the way: full disks, read-only trees, mounts, missing privilege."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from crabrt.errors import RestoreFailed
from crabrt.journal.restores import RestoreLog

AS_USER = Path(__file__).with_name("restoring_as_user.py")


@pytest.fixture
def mounted(tmp_path):
    """Mounts things for the test, and takes them down again."""
    done = []

    def mount(target, *options):
        target.mkdir(exist_ok=True)
        subprocess.run(["mount", *options, target], check=True)
        done.append(target)
        return target

    yield mount
    for target in reversed(done):
        subprocess.run(["umount", target], check=True)


def _fill(path):
    handle = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)

    def write_without_end():
        while True:
            os.write(handle, bytes(4096))

    with pytest.raises(OSError, match="No space left"):
        write_without_end()
    os.close(handle)


@pytest.mark.root
def test_a_full_disk_is_found_before_anything_is_touched(tmp_path, mounted, place_at, assert_same):
    small = mounted(tmp_path / "ws", "-t", "tmpfs", "-o", "size=4m", "tmpfs")
    place = place_at(tmp_path, small)
    for name in ("a", "b", "new/c"):
        place.file(name, os.urandom(600_000))
    target = place.checkpoint()
    shutil.rmtree(place.path / "new")
    for name in ("a", "b"):
        (place.path / name).unlink()
    place.file("filler", os.urandom(100_000))
    base = place.checkpoint()
    _fill(place.path / "ballast")
    was = place.facts()
    with pytest.raises(RestoreFailed, match="nothing was changed"):
        place.restore(target, base=base, paths=[b"a", b"b", b"new"])
    assert_same(was, place.facts())
    assert place.temporary_names() == []
    assert RestoreLog(place.workspace.state_dir).interrupted() is None


@pytest.mark.root
def test_a_disk_full_of_what_the_restore_removes_is_no_obstacle(
    tmp_path, mounted, place_at, assert_same
):
    small = mounted(tmp_path / "ws", "-t", "tmpfs", "-o", "size=4m", "tmpfs")
    place = place_at(tmp_path, small)
    place.file("big", os.urandom(3_000_000))
    target, wanted = place.checkpoint(), place.facts()
    (place.path / "big").unlink()
    _fill(place.path / "junk")
    report = place.restore(target)
    assert report.complete
    assert_same(wanted, place.facts())


@pytest.mark.root
def test_a_disk_that_stays_full_leaves_a_restore_to_be_finished(
    tmp_path, mounted, place_at, assert_same
):
    small = mounted(tmp_path / "ws", "-t", "tmpfs", "-o", "size=4m", "tmpfs")
    ballast = place_at(tmp_path, small)
    place = ballast
    place.file(".crabignore", b"ballast\n")
    for i in range(3):
        place.file(f"{i}", os.urandom(500_000))
    target, wanted = place.checkpoint(), place.facts()
    for i in range(3):
        (place.path / f"{i}").unlink()
    place.file("small", os.urandom(700_000))
    was = place.checkpoint()
    _fill(place.path / "ballast")
    with pytest.raises(RestoreFailed, match="half done") as caught:
        place.restore(target)
    assert f"`crab undo --force {place.path}` goes back" in caught.value.hint
    with pytest.raises(RestoreFailed, match="half done"):
        place.recover()
    assert place.temporary_names() == []
    (place.path / "ballast").unlink()
    assert place.recover().verified
    assert_same(wanted, place.facts())
    place.undo()
    assert place.checkpoint() == was


@pytest.mark.root
def test_a_read_only_workspace_is_said_to_be_one(tmp_path, mounted, place_at):
    ws = mounted(tmp_path / "ws", "-t", "tmpfs", "tmpfs")
    place = place_at(tmp_path, ws)
    place.file("a", b"1")
    target = place.checkpoint()
    place.file("a", b"2")
    place.file("gone", b"2")
    subprocess.run(["mount", "-o", "remount,ro", ws], check=True)
    with pytest.raises(RestoreFailed, match=r"[Rr]ead-only.*nothing was changed"):
        place.restore(target)
    with pytest.raises(RestoreFailed, match=r"[Rr]ead-only.*nothing was changed"):
        place.restore(target, paths=[b"gone"])
    assert place.recover() is None


@pytest.mark.root
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_mount_points_are_neither_crossed_nor_deleted(kind, place, mounted, tmp_path):
    target_without = place.checkpoint()
    place.file("m/file", b"1")
    place.file("m/sub/file", b"1")
    target_with = place.checkpoint()
    other = tmp_path / "other"
    other.mkdir()
    options = ["-t", "tmpfs", "tmpfs"] if kind == "tmpfs" else ["--bind", other]
    mounted(place.path / "m", *options)
    (place.path / "m/file").write_bytes(b"not ours")

    place.restore(target_with)
    assert (place.path / "m/file").read_bytes() == b"not ours"
    assert os.listdir(place.path / "m") == ["file"]
    place.restore(target_without)
    assert (place.path / "m/file").read_bytes() == b"not ours"


@pytest.fixture
def as_nobody():
    """Runs a case of `restoring_as_user.py`; pytest's own directories are closed to other users."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        top = Path(name)
        top.chmod(0o755)
        for made in (top / "ws", top / "home"):
            made.mkdir()

        def run(case):
            for made in (top / "ws", top / "home"):
                subprocess.run(
                    ["chown", "-R", f"{nobody.pw_uid}:{nobody.pw_gid}", made], check=True
                )
            done = subprocess.run(
                [sys.executable, AS_USER, case, top], capture_output=True, check=False, text=True
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        run.top = top
        yield run


@pytest.mark.root
def test_an_ordinary_users_closed_directories_are_opened_and_closed_again(as_nobody):
    said = as_nobody("closed")
    assert said == {"complete": True, "not_restored": [], "difference": "", "undone": ""}


@pytest.mark.root
def test_what_could_not_be_read_is_not_replaced(as_nobody):
    said = as_nobody("unreadable")
    assert said["difference"] == ""


@pytest.mark.root
def test_owners_that_may_not_be_given_are_listed_and_lend_no_rights(as_nobody, place_at):
    place = place_at(as_nobody.top / "by-root")
    place.file("tool", b"rights of root", 0o4755)
    root = place.checkpoint()
    place.close()
    as_nobody.top.joinpath("home").rmdir()
    place.home.rename(as_nobody.top / "home")
    (as_nobody.top / "root").write_text(root.hex())
    said = as_nobody("owner")
    assert said["verified"]
    assert "owner 0:0" in said["why"]
    assert said["mode"] == 0o755


@pytest.mark.root
def test_an_immutable_file_is_listed_and_the_rest_restored(place):
    stubborn = place.file("stubborn", b"1")
    place.file("other", b"1")
    target = place.checkpoint()
    stubborn.write_bytes(b"2")
    place.file("other", b"2")
    if subprocess.run(["chattr", "+i", stubborn], check=False).returncode != 0:
        pytest.skip("this file system has no immutable files")
    try:
        report = place.restore(target)
    finally:
        subprocess.run(["chattr", "-i", stubborn], check=True)
    assert dict(report.not_restored).keys() == {b"stubborn"}
    assert (place.path / "other").read_bytes() == b"1"
    assert place.temporary_names() == []
