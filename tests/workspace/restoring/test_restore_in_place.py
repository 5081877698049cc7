"""Every kind of entry, and every way from one to another; undo and redo of each."""

import os
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from crabrt.core.ids import ObjectKind
from crabrt.core.ids import object_id as compute_id
from crabrt.core.trees import decode_root, encode_root
from crabrt.errors import Busy, NotFound, UsageError, WouldLoseChanges
from crabrt.journal.restores import RestoreLog
from crabrt.store.contents import BLOCK_BYTES
from crabrt.workspace.restoring.lock import restore_lock


def _nothing(path):
    pass


def _file(path):
    path.write_bytes(b"bytes of a file")


def _large(path):
    path.write_bytes(os.urandom(700_000))


def _sparse(path):
    with path.open("wb") as file:
        file.seek(5 * BLOCK_BYTES)
        file.write(b"end")
        file.truncate(9 * BLOCK_BYTES)


def _directory(path):
    (path / "below").mkdir(parents=True)
    (path / "below" / "deep").write_bytes(b"deep")
    (path / "empty").mkdir()


def _symlink(path):
    path.symlink_to("nowhere/at all")


def _fifo(path):
    os.mkfifo(path, 0o620)


def _executable(path):
    path.write_bytes(b"bytes of a file")
    path.chmod(0o4751)


KINDS = [_nothing, _file, _large, _sparse, _directory, _symlink, _fifo, _executable]


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_every_kind_comes_back_from_every_other(before, after, tmp_path, place, assert_same):
    place.file("other", b"stays")
    after(place.path / "it")
    target, wanted = place.checkpoint(), place.facts()
    subprocess.run(["rm", "-rf", place.path / "it"], check=True)
    before(place.path / "it")
    was = place.facts()

    report = place.restore(target)

    assert_same(wanted, place.facts())
    assert report.verified
    assert report.complete
    assert not place.temporary_names()
    if was == wanted:
        assert report.before is None
        return
    place.undo()
    assert_same(was, place.facts())
    place.undo()
    assert_same(wanted, place.facts())


def test_a_restore_touches_only_what_differs(place):
    kept, changed = place.file("kept"), place.file("changed")
    target = place.checkpoint()
    changed.write_bytes(b"y")
    inode, ctime = kept.stat().st_ino, kept.stat().st_ctime_ns
    directory = place.path.stat().st_ino

    report = place.restore(target)

    assert (kept.stat().st_ino, kept.stat().st_ctime_ns) == (inode, ctime)
    assert place.path.stat().st_ino == directory
    assert (report.created, report.replaced, report.deleted, report.unchanged) == (0, 1, 0, 1)


def test_metadata_alone_is_set_in_place(place, assert_same):
    file = place.file("f", b"long" * 1000, 0o640)
    os.setxattr(file, "user.one", b"1")
    os.setxattr(file, "user.gone", b"2")
    target, wanted = place.checkpoint(), place.facts()
    inode = file.stat().st_ino
    file.chmod(0o777)
    os.setxattr(file, "user.one", b"other")
    os.removexattr(file, "user.gone")
    os.setxattr(file, "user.new", b"3")
    os.utime(file, ns=(1, 1))

    report = place.restore(target)

    assert_same(wanted, place.facts())
    assert file.stat().st_ino == inode
    assert report.complete


@pytest.mark.root
def test_owners_setuid_acls_and_capabilities_come_back(place, assert_same):
    def acl(user):
        head = struct.pack("<I", 2)
        rows = [(1, 6, -1), (2, 7, user), (4, 4, -1), (16, 7, -1), (32, 4, -1)]
        return head + b"".join(struct.pack("<HHi", *row) for row in rows)

    one, two = place.file("one"), place.file("two")
    os.chown(one, 1234, 4321)
    one.chmod(0o6755)
    os.chown(two, 1234, 4321)
    os.setxattr(
        two, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000")
    )
    sub = place.path / "sub"
    sub.mkdir()
    os.setxattr(sub, "system.posix_acl_default", acl(77))
    os.setxattr(one, "system.posix_acl_access", acl(78))
    place.file("sub/plain")
    os.removexattr(sub / "plain", "system.posix_acl_access")
    target, wanted = place.checkpoint(), place.facts()
    for path in (one, two):
        path.write_bytes(b"changed")
        os.chown(path, 0, 0)
        path.chmod(0o600)
    (sub / "plain").unlink()

    assert place.restore(target).complete
    assert_same(wanted, place.facts())


def test_times_of_files_and_links_come_back_to_the_nanosecond(place, assert_same):
    file = place.file("f")
    os.utime(file, ns=(0, 1_234_567_890_123_456_789))
    (place.path / "l").symlink_to("f")
    os.utime(place.path / "l", ns=(0, 987_654_321_987_654_321), follow_symlinks=False)
    target, wanted = place.checkpoint(), place.facts()
    os.utime(file)
    os.utime(place.path / "l", follow_symlinks=False)
    place.restore(target)
    assert_same(wanted, place.facts())


def test_a_sparse_file_stays_sparse(place, assert_same):
    _sparse(place.path / "s")
    target, wanted = place.checkpoint(), place.facts()
    (place.path / "s").unlink()
    place.restore(target)
    assert_same(wanted, place.facts())
    assert (place.path / "s").stat().st_blocks * 512 < 2 * BLOCK_BYTES


def test_names_that_are_not_text_and_paths_beyond_path_max(place, assert_same):
    place.file(b"\xff\xfe\n", b"1")
    handle = os.open(place.path, os.O_RDONLY)
    for _ in range(40):  # 40 levels of 200 bytes: twice PATH_MAX
        os.mkdir(b"d" * 200, dir_fd=handle)
        below = os.open(b"d" * 200, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(os.open(b"leaf", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=handle))
    os.close(handle)
    target, wanted = place.checkpoint(), place.facts()
    subprocess.run(["rm", "-rf", place.path / ("d" * 200)], check=True)
    empty = place.facts()
    place.restore(target)
    assert_same(wanted, place.facts())
    place.undo()
    assert_same(empty, place.facts())


def test_hard_links_are_rebuilt(place, assert_same):
    one = place.file("one", b"shared")
    os.link(one, place.path / "two")
    os.link(one, place.path / "three")
    target, wanted = place.checkpoint(), place.facts()
    (place.path / "two").unlink()
    place.file("two", b"own now")
    (place.path / "three").unlink()
    was = place.facts()
    inode = one.stat().st_ino

    report = place.restore(target)

    assert_same(wanted, place.facts())
    assert one.stat().st_ino == inode
    assert not report.links_broken
    place.undo()
    assert_same(was, place.facts())


def test_a_link_group_that_was_split_and_joined_otherwise(place, assert_same):
    for group in (("a", "b", "c"), ("d", "e")):
        first = place.file(group[0], b"same")
        for name in group[1:]:
            os.link(first, place.path / name)
    os.utime(place.path / "a", ns=(5, 5))
    os.utime(place.path / "d", ns=(5, 5))
    target, wanted = place.checkpoint(), place.facts()
    for name in ("c", "e"):
        (place.path / name).unlink()
    os.link(place.path / "a", place.path / "e")
    os.link(place.path / "d", place.path / "c")
    place.restore(target)
    assert_same(wanted, place.facts())


def test_a_name_that_became_a_directory_leaves_its_group(place, assert_same):
    one = place.file("one", b"shared")
    os.link(one, place.path / "two")
    os.link(one, place.path / "three")
    tracker = place.tracker()
    target = tracker.capture(tracker.scan(), place.writer).root
    wanted = place.facts()
    (place.path / "two").unlink()
    (place.path / "two").mkdir()
    assert tracker.capture(tracker.scan(), place.writer).root == place.checkpoint()
    assert place.restore(target, tracker=tracker).complete
    assert_same(wanted, place.facts())


def test_a_file_linked_outside_is_never_altered(place, assert_same):
    inside = place.file("f", b"old", 0o644)
    target, wanted = place.checkpoint(), place.facts()
    inside.chmod(0o600)
    os.link(inside, place.top / "outside")
    outside = os.stat(place.top / "outside")

    report = place.restore(target)

    assert_same(wanted, place.facts())
    now = os.stat(place.top / "outside")
    assert (now.st_mode, now.st_mtime_ns, now.st_ino) == (
        outside.st_mode,
        outside.st_mtime_ns,
        outside.st_ino,
    )
    assert report.links_broken == (b"f",)


def test_a_partial_restore_leaves_the_other_names_of_a_file_alone(place, assert_same):
    one = place.file("in/one", b"shared")
    (place.path / "out").mkdir()
    os.link(one, place.path / "out" / "two")
    target = place.checkpoint()
    one.chmod(0o600)
    one.write_bytes(b"changed through one")
    before = place.facts()

    report = place.restore(target, paths=[b"in"])

    after = place.facts()
    assert (place.path / "in/one").read_bytes() == b"shared"
    assert (place.path / "out/two").read_bytes() == b"changed through one"
    assert after[b"out/two"].mode == before[b"out/two"].mode
    assert report.links_broken == (b"in/one",)
    place.undo()
    assert (place.path / "in/one").read_bytes() == b"changed through one"


def test_a_path_scope_limits_what_is_touched(place):
    place.file("a/x", b"1")
    place.file("a/y", b"1")
    place.file("b", b"1")
    target = place.checkpoint()
    for name in ("a/x", "a/y", "b"):
        place.file(name, b"2")
    place.file("a/new", b"2")
    report = place.restore(target, paths=[b"a/"])
    assert (place.path / "a/x").read_bytes() == b"1"
    assert (place.path / "a/y").read_bytes() == b"1"
    assert not (place.path / "a/new").exists()
    assert (place.path / "b").read_bytes() == b"2"
    assert (report.replaced, report.deleted, report.unchanged) == (2, 1, 0)
    assert report.complete


def test_a_restored_path_brings_back_the_directories_above_it(place, assert_same):
    place.file("a/b/c", b"1")
    (place.path / "a").chmod(0o750)
    place.file("a/other", b"1")
    target, wanted = place.checkpoint(), place.facts()
    subprocess.run(["rm", "-rf", place.path / "a"], check=True)
    place.restore(target, paths=[b"a/b/c"])
    now = place.facts()
    assert now == {path: wanted[path] for path in now}
    assert set(now) == {b"", b"a", b"a/b", b"a/b/c"}


@pytest.mark.parametrize("path", [b"../x", b"/etc", b"a/../b", b"a//b", b"a\0b"])
def test_a_path_that_leads_outside_is_refused(path, place):
    place.file("a/b")
    with pytest.raises(UsageError):
        place.restore(place.checkpoint(), paths=[path])


def test_a_path_in_neither_state_is_not_found(place):
    place.file("a")
    with pytest.raises(NotFound):
        place.restore(place.checkpoint(), paths=[b"never"])


def test_an_unknown_target_is_not_found(place):
    with pytest.raises(NotFound):
        place.restore(bytes(32))


def test_what_somebody_else_changed_is_refused_and_listed(place, assert_same):
    place.file("theirs", b"1")
    place.file("ours", b"1")
    target = place.checkpoint()
    place.file("ours", b"2")
    base = place.checkpoint()
    place.file("theirs", b"edited by a person")
    place.file("new", b"made by a person")
    was = place.facts()

    with pytest.raises(WouldLoseChanges) as refused:
        place.restore(target, base=base)

    assert refused.value.paths == [b"new", b"theirs"]
    assert_same(was, place.facts())
    assert RestoreLog(place.workspace.state_dir).records() == []
    report = place.restore(target, base=base, force=True)
    assert report.conflicts == (b"new", b"theirs")
    assert (place.path / "theirs").read_bytes() == b"1"
    place.undo()
    assert_same(was, place.facts())


def test_what_others_changed_and_the_restore_leaves_alone_is_no_conflict(place):
    place.file("theirs", b"1")
    place.file("ours", b"1")
    target = place.checkpoint()
    place.file("ours", b"2")
    base = place.checkpoint()
    place.file("theirs", b"edited")
    report = place.restore(target, base=base, paths=[b"ours"])
    assert report.conflicts == ()
    assert (place.path / "theirs").read_bytes() == b"edited"


def test_a_dry_run_changes_nothing_and_says_what_would(place, assert_same):
    place.file("f", b"1")
    target = place.checkpoint()
    base = target
    place.file("f", b"2")
    place.file("new", b"2")
    was = place.facts()
    report = place.restore(target, base=base, dry_run=True)
    assert_same(was, place.facts())
    assert [change.path for change in report.changes] == [b"f", b"new"]
    assert (report.replaced, report.deleted) == (1, 1)
    assert report.conflicts == (b"f", b"new")
    assert RestoreLog(place.workspace.state_dir).records() == []


def test_nothing_to_do_leaves_no_undo_point(place):
    place.file("f")
    report = place.restore(place.checkpoint())
    assert report.before is None
    assert report.complete
    with pytest.raises(NotFound):
        place.undo()


def test_undo_refuses_what_changed_since(place):
    place.file("f", b"1")
    target = place.checkpoint()
    place.file("f", b"2")
    place.restore(target)
    place.file("f", b"3")
    with pytest.raises(WouldLoseChanges) as refused:
        place.undo()
    assert refused.value.paths == [b"f"]
    place.undo(force=True)
    assert (place.path / "f").read_bytes() == b"2"


def test_undo_of_a_partial_restore_stays_in_its_paths(place):
    place.file("a", b"1")
    place.file("b", b"1")
    target = place.checkpoint()
    place.file("a", b"2")
    place.restore(target, paths=[b"a"])
    place.file("b", b"later")
    place.undo()
    assert (place.path / "a").read_bytes() == b"2"
    assert (place.path / "b").read_bytes() == b"later"


def test_an_old_undo_point_is_gone(place):
    place.file("f", b"1")
    target = place.checkpoint()
    place.file("f", b"2")
    place.restore(target)
    with pytest.raises(NotFound):
        place.undo(max_age_days=0)
    assert RestoreLog(place.workspace.state_dir).roots(max_age_days=0) == (target,)


def test_what_was_not_captured_is_not_deleted(place, monkeypatch):
    target = place.checkpoint()
    place.file("d/captured")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(place.path)  # a socket's path may not be long
        listener.bind("d/socket")
        report = place.restore(target)
    assert not (place.path / "d/captured").exists()
    assert stat.S_ISSOCK((place.path / "d/socket").lstat().st_mode)
    assert dict(report.not_restored).keys() == {b"d"}
    assert not report.complete
    assert report.root == place.checkpoint()


def test_an_excluded_file_in_the_way_is_left_alone(place):
    place.file("build", b"captured")
    target = place.checkpoint()
    (place.path / "build").unlink()
    place.file(".crabignore", b"build\n")
    place.file("build", b"excluded now")
    report = place.restore(target, paths=[b"build"])
    assert (place.path / "build").read_bytes() == b"excluded now"
    assert dict(report.not_restored).keys() == {b"build"}


def test_files_that_others_hold_open_are_listed(place):
    held = place.file("held", b"1")
    place.file("dir/f", b"1")
    target = place.checkpoint()
    held.write_bytes(b"2")
    (place.path / "cwd").mkdir()
    code = (
        "import sys, os; os.chdir('cwd'); held = open('../held'); print(1, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=place.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout.readline() == b"1\n"
        report = place.restore(target)
        holder.stdin.close()
    assert report.held_open == (b"cwd", b"held")
    assert report.verified
    assert not report.complete


def test_what_is_held_open_in_memory_below_dev_is_listed(place_at):
    if not os.path.isdir("/dev/shm"):
        pytest.skip("file system: there is no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as top:
        place = place_at(Path(top))
        held = place.file("held", b"1")
        target = place.checkpoint()
        held.write_bytes(b"2")
        with held.open("rb") as file, subprocess.Popen(["sleep", "60"], stdin=file) as holder:
            report = place.restore(target)
            holder.kill()
        place.close()
    assert report.held_open == (b"held",)


def test_the_programs_own_code_is_listed(place, monkeypatch):
    place.file("agent.py", b"1")
    target = place.checkpoint()
    place.file("agent.py", b"2")
    place.file("venv/lib/module.py", b"2")
    monkeypatch.setattr(sys, "argv", [str(place.path / "agent.py")])
    monkeypatch.setattr(sys, "prefix", str(place.path / "venv"))
    report = place.restore(target)
    assert set(report.own_code) == {b"agent.py", b"venv", b"venv/lib", b"venv/lib/module.py"}


def test_two_restores_at_once_are_refused(place):
    root = place.checkpoint()
    with restore_lock(place.workspace.state_dir), pytest.raises(Busy, match=str(os.getpid())):
        place.restore(root)


def test_a_restore_in_another_process_is_named(place):
    code = (
        "import sys; from pathlib import Path; from crabrt.workspace.restoring.lock import *\n"
        "with restore_lock(Path(sys.argv[1])): print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, place.workspace.state_dir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout.readline() == b"1\n"
        with pytest.raises(Busy, match=str(holder.pid)):
            place.restore(place.checkpoint())
        holder.stdin.close()


def test_progress_reaches_its_total(place):
    place.file("a")
    place.file("d/b")
    target = place.checkpoint()
    subprocess.run(["rm", "-rf", place.path / "d"], check=True)
    place.file("more")
    seen = []
    place.restore(target, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)


def test_a_directory_that_became_a_file_breaks_no_link(place, assert_same):
    place.file("d/below/f")
    root, facts = place.checkpoint(), place.facts()
    (place.path / "d/below/f").unlink()
    (place.path / "d/below").rmdir()
    (place.path / "d").rmdir()
    place.file("d", b"now a file")
    after = place.checkpoint()
    report = place.restore(root)
    assert_same(place.facts(), facts)
    assert report.links_broken == ()
    report = place.restore(after)
    assert report.links_broken == ()


@pytest.mark.parametrize("lost", ["the root", "a node below it"])
def test_a_base_that_lost_a_part_to_a_power_cut_is_unknown(place, lost):
    """Captured and never durable: what is left of it tells nothing of who changed what."""
    place.file("a", b"one")
    target = place.checkpoint()
    place.file("a", b"two")
    base = compute_id(b"nothing", ObjectKind.ROOT)
    if lost != "the root":
        whole = decode_root(place.store.get(target, ObjectKind.ROOT), target)
        entry = msgspec.structs.replace(whole.entry, child=base)
        torn = encode_root(msgspec.structs.replace(whole, entry=entry))
        base = place.writer.put(torn, ObjectKind.ROOT)
    with pytest.raises(NotFound, match="not whole in the store") as caught:
        place.restore(target, base=base)
    assert "--force" in caught.value.hint
    assert (place.path / "a").read_bytes() == b"two"
    place.restore(target, base=base, force=True)
    assert (place.path / "a").read_bytes() == b"one"
