"""The walk: deeper than PATH_MAX, few descriptors, no links followed, moves noticed."""

import os
import shutil
import subprocess

import pytest

from crabrt.workspace.dirfd import OPEN_LEVELS, DirectoryMoved, DirStack, mount_points, walk_to

DEPTH = 1_200
NAME = b"n" * 100


@pytest.fixture
def root_fd(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def descend(fd, names):
    fd = os.dup(fd)
    for name in names:
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def remove(root_fd, name):
    """rmtree gives up at the recursion limit."""
    with DirStack(root_fd) as stack:
        stack.push(name)
        depth = 1
        while depth:
            below = [e.name for e in os.scandir(stack.fd) if e.is_dir(follow_symlinks=False)]
            if below:
                stack.push(os.fsencode(below[0]))
                depth += 1
                continue
            for other in os.listdir(stack.fd):
                os.unlink(other, dir_fd=stack.fd)
            path = stack.path.rpartition(b"/")[2]
            stack.pop()
            depth -= 1
            os.rmdir(path, dir_fd=stack.fd)


def test_thousands_of_levels_are_captured(tracked):
    root = os.open(tracked.root, os.O_RDONLY)
    bottom = descend(root, [NAME] * DEPTH)
    try:
        os.mkfifo(b"pipe", dir_fd=bottom)
        tracked.settle()
        os.symlink(b"x", b"link", dir_fd=bottom)
        (change,) = [c for c in tracked.capture().changes if c.how == ("added",)]
        assert change.path == b"/".join([NAME] * DEPTH + [b"link"])
        tracked.settle()
        assert tracked.tracker.scan().clean
        before = len(os.listdir("/proc/self/fd"))
        tracked.tracker.scan()
        assert len(os.listdir("/proc/self/fd")) == before
        tracked.tracker.save()
        again = tracked.new_tracker()
        again.load(tracked.objects)
        assert again.root == tracked.tracker.root
    finally:
        os.close(bottom)
        remove(root, NAME)
        os.close(root)


def test_few_descriptors_are_held_and_all_given_back(root_fd):
    os.close(descend(root_fd, [b"d"] * 200))
    before = len(os.listdir("/proc/self/fd"))
    with DirStack(root_fd) as stack:
        for _ in range(200):
            stack.push(b"d")
        assert len(os.listdir("/proc/self/fd")) - before <= OPEN_LEVELS + 2
        assert (stack.depth, stack.path) == (200, b"/".join([b"d"] * 200))
        for _ in range(200):
            os.mkdir(b"mark", dir_fd=stack.fd)
            stack.pop()
        assert os.fstat(stack.fd).st_ino == os.fstat(root_fd).st_ino
    assert len(os.listdir("/proc/self/fd")) == before
    names = [b"d"] * 199 + [b"mark"]
    os.close(walk_to(root_fd, names))


def test_a_directory_moved_while_it_is_walked_is_noticed(root_fd, tmp_path):
    os.close(descend(root_fd, [b"d"] * 100))
    os.mkdir(tmp_path / "aside")
    with DirStack(root_fd) as stack:
        for _ in range(100):
            stack.push(b"d")
        deep = os.path.join(tmp_path, *["d"] * 50)
        os.rename(deep, tmp_path / "aside" / "d")
        with pytest.raises(DirectoryMoved):
            stack.up_to(0)
        assert stack.depth == 0
        stack.push(b"aside")


def test_links_are_not_followed(root_fd, tmp_path):
    os.symlink("/etc", tmp_path / "link")
    with DirStack(root_fd) as stack:
        with pytest.raises(OSError):
            stack.push(b"link")
        assert stack.depth == 0
    with pytest.raises(OSError):
        walk_to(root_fd, [b"link", b"ssh"])


@pytest.mark.root
def test_mounts_are_reported_and_not_entered(tracked):
    inside, bound = tracked.root / "a b\tc", tracked.root / "bound"
    inside.mkdir()
    bound.mkdir()
    (tracked.root / "source").mkdir()
    (tracked.root / "source" / "file").write_bytes(b"1")
    (bound / "hidden").write_bytes(b"2")
    (tracked.root / "covered").write_bytes(b"4")
    tracked.settle()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", inside], check=True)
    subprocess.run(["mount", "--bind", tracked.root / "source", bound], check=True)
    cover = tracked.root / "covered"
    subprocess.run(["mount", "--bind", tracked.root / "source" / "file", cover], check=True)
    try:
        (inside / "secret").write_bytes(b"3")
        path = os.fsencode(tracked.root)
        assert mount_points(path) == {b"a b\tc", b"bound", b"covered"}
        snapshot = tracked.capture()
        assert dict(snapshot.not_captured) == dict.fromkeys(mount_points(path), "mount point")
        assert {c.path for c in snapshot.changes if c.how == ("removed",)} == {
            *(b"a b\tc", b"bound", b"bound/hidden", b"covered")
        }
        assert tracked.settle().not_captured == snapshot.not_captured
    finally:
        subprocess.run(["umount", inside, bound, cover], check=True)
    tracked.settle()
    tracked.agrees()
    shutil.rmtree(tracked.root)


@pytest.mark.root
@pytest.mark.parametrize("name", ["plain", "a b\tc", "back\\slash", "line\nend", "cr\rx", "h#sh"])
def test_mounts_are_found_below_a_path_that_proc_escapes(tmp_path, name):
    above, point = os.fsencode(tmp_path / name), tmp_path / name / "on"
    point.mkdir(parents=True)
    assert mount_points(above) == frozenset()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    try:
        assert mount_points(above) == {b"on"}
        assert mount_points(os.fsencode(point)) == frozenset(), "it is not below itself"
    finally:
        subprocess.run(["umount", point], check=True)
