"""Which directories are refused, what is excluded, and what cannot be read."""

import mmap
import os
import traceback

import pytest

from crabrt.errors import NotFound, Unprotected, WorkspaceRefused
from crabrt.testing.filesystems import file_system
from crabrt.workspace import Cancelled, Workspace

NOBODY = 65534


def paths(tracked):
    return set(tracked.manifest())


def test_directories_that_are_not_there_or_not_directories(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotFound) as caught:
        Workspace.open(tmp_path / "absent", tmp_path / "home")
    assert caught.value.exit_code == 4
    with pytest.raises(WorkspaceRefused, match="not a directory"):
        Workspace.open(tmp_path / "file", tmp_path / "home")


def test_the_root_and_the_home_directory_are_refused_unless_forced(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "me").mkdir()
    for path in ("/", tmp_path / "me", tmp_path / "me" / ".." / "me"):
        with pytest.raises(WorkspaceRefused) as caught:
            Workspace.open(path, tmp_path / "home")
        assert caught.value.exit_code == 2
    assert Workspace.open(tmp_path / "me", tmp_path / "home", force=True).path


@pytest.mark.parametrize(("path", "kind"), [("/proc/self", "proc"), ("/sys/kernel", "sysfs")])
@pytest.mark.parametrize("force", [False, True])
def test_what_is_the_kernel_itself_is_refused_always(tmp_path, path, kind, force):
    with pytest.raises(WorkspaceRefused, match=f"{kind} is the kernel's own") as caught:
        Workspace.open(path, tmp_path / "home", force=force)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "home").exists()


def test_links_to_a_directory_are_that_directory(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to("work")
    one = Workspace.open(tmp_path / "work", tmp_path / "home")
    two = Workspace.open(tmp_path / "link", tmp_path / "home")
    assert one.id == two.id
    assert oct(one.state_dir.stat().st_mode)[-3:] == "700"


def test_the_store_inside_the_workspace_is_left_alone(tracked):
    tracked.home = tracked.root / "odd [name]*!"
    tracked.workspace = Workspace.open(tracked.root, tracked.home)
    tracked.tracker = tracked.new_tracker()
    (tracked.root / "odd name").mkdir()
    tracked.settle()
    assert paths(tracked) == {b"", b"odd name"}
    tracked.tracker.save()
    assert tracked.tracker.scan().clean


def test_the_store_itself_is_refused(tmp_path):
    (tmp_path / "home" / "packs").mkdir(parents=True)
    for path in (tmp_path / "home", tmp_path / "home" / "packs"):
        with pytest.raises(WorkspaceRefused, match="own store"):
            Workspace.open(path, tmp_path / "home")


def test_a_workspace_that_is_huge_is_refused_while_it_is_counted(tracked):
    for number in range(30):
        (tracked.root / f"{number}").write_bytes(bytes(1000))
    few = tracked.new_tracker(huge_files=20)
    with pytest.raises(WorkspaceRefused, match="more than 20 files"):
        few.scan()
    small = tracked.new_tracker(huge_bytes=20_000)
    with pytest.raises(WorkspaceRefused, match="GiB"):
        small.scan()
    assert few.root is None
    forced = tracked.new_tracker(huge_files=20, huge_bytes=1, force=True)
    forced.capture(forced.scan(), tracked.objects)
    near = tracked.new_tracker(huge_files=31)
    near.capture(near.scan(), tracked.objects)
    (tracked.root / "new").mkdir()
    near.capture(near.scan(), tracked.objects)
    (tracked.root / "new" / "one too many").touch()
    with pytest.raises(WorkspaceRefused):
        near.scan()


def test_ignore_files_at_every_level(tracked):
    root = tracked.root
    for name in ("keep.o", "a.o", "build/x", "src/build/y", "src/a.o", "src/keep/z"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / ".crabignore").write_text("# objects\n*.o\n!keep.o\n/build/\n")
    (root / "src" / ".crabignore").write_text("!a.o\nkeep\n")
    tracked.settle()
    expected = {
        *(b"", b".crabignore", b"keep.o", b"src", b"src/.crabignore", b"src/a.o"),
        *(b"src/build", b"src/build/y"),
    }
    assert paths(tracked) == expected
    (root / "a.o").write_bytes(b"changed")
    (root / "build" / "x").write_bytes(b"changed")
    assert tracked.how() == {}
    (root / "src" / ".crabignore").write_text("")
    assert tracked.how() == {
        b"src/.crabignore": {"content", "times"},
        b"src/a.o": {"removed"},
        b"src/keep": {"added"},
        b"src/keep/z": {"added"},
    }
    os.unlink(root / ".crabignore")
    assert tracked.how().keys() == {b".crabignore", b"a.o", b"build", b"build/x", b"src/a.o"}
    tracked.agrees()


def test_names_that_are_not_text_can_be_ignored(tracked):
    root = os.fsencode(tracked.root)
    for name in (b"\xff.tmp", b"\xfe.tmp", "ü.tmp".encode(), b"kept"):
        open(root + b"/" + name, "wb").close()
    with open(root + b"/.crabignore", "wb") as file:
        file.write(b"\xff*\n" + "ü.tmp\n".encode())
    tracked.settle()
    assert paths(tracked) == {b"", b".crabignore", b"\xfe.tmp", b"kept"}


def test_a_workspace_that_is_gone_or_replaced(tracked):
    tracked.settle()
    scan = tracked.tracker.scan()
    os.rename(tracked.root, tracked.base / "aside")
    with pytest.raises(NotFound, match="gone"):
        tracked.tracker.capture(scan, tracked.objects)
    tracked.root.mkdir()
    with pytest.raises(WorkspaceRefused, match="replaced"):
        tracked.tracker.scan()


def test_a_scan_is_captured_once_and_can_be_cancelled(tracked):
    scan = tracked.tracker.scan()
    tracked.tracker.capture(scan, tracked.objects)
    with pytest.raises(Unprotected, match="older than the index"):
        tracked.tracker.capture(scan, tracked.objects)
    with pytest.raises(Cancelled):
        tracked.tracker.scan(lambda: True)


def as_nobody(act):
    """Run `act` in a child without privileges; the traceback of what went wrong there."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act()
            os._exit(0)
        except BaseException:
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "r") as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said


@pytest.fixture
def nobodys():
    with file_system("here") as base:
        os.chown(base, NOBODY, NOBODY)
        yield base


@pytest.mark.root
def test_what_cannot_be_read_is_listed_and_is_not_changed_for_ever(nobodys, tracked):
    as_nobody(lambda: locked_out(type(tracked)(nobodys)))


def locked_out(tracked):
    root, tracker = tracked.root, tracked.tracker
    for name in ("file", "never", "dir/inner"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(name.encode())
    os.chmod(root / "never", 0)
    first = tracked.settle()
    assert dict(first.not_captured) == {b"never": "permission denied"}
    assert tracker.scan().clean

    os.chmod(root / "file", 0)
    os.chmod(root / "dir", 0)
    snapshot = tracked.capture()
    assert {change.path: change.how for change in snapshot.changes} == {
        b"dir": ("removed",),
        b"dir/inner": ("removed",),
        b"file": ("mode",),
    }
    assert dict(snapshot.not_captured) == {
        b"dir": "permission denied",
        b"file": "permission denied: the content last read is kept",
        b"never": "permission denied",
    }
    tracked.settle()
    scan = tracker.scan()
    assert scan.clean
    assert scan.not_captured == snapshot.not_captured

    for name, mode in (("dir", 0o700), ("file", 0o644), ("never", 0o644)):
        os.chmod(root / name, mode)
    assert tracked.settle().not_captured == ()
    tracked.agrees()

    os.chmod(root / "dir", 0o600)  # may be listed, but nothing in it may be looked at
    assert tracked.capture().not_captured == ((b"dir/inner", "permission denied"),)
    os.chmod(root / "dir", 0o700)
    tracked.settle()
    tracked.agrees()


@pytest.mark.root
def test_a_mapping_in_a_process_that_may_not_be_looked_at(nobodys, tracked):
    """A lease says that somebody writes; who, root does not tell: the file is never trusted."""
    file = nobodys / "work" / "file"
    file.parent.mkdir()
    os.chown(file.parent, NOBODY, NOBODY)
    file.write_bytes(b"0" * (2 << 20))
    os.chown(file, NOBODY, NOBODY)
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as memory:
        memory[0] = 49

        def look():
            mine = type(tracked)(nobodys)
            snapshot = mine.capture()
            assert mine.tracker._top.doubts == {b"file": "volatile"}
            (unobserved,) = snapshot.unobserved
            assert "unchecked" in unobserved

        as_nobody(look)
