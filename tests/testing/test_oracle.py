"""The oracle sees each thing that is state, and nothing that is not."""

import mmap
import os
import socket
import struct
import subprocess
import sys

import pytest

from crabrt.testing import oracle
from crabrt.testing.oracle import describe_difference, digest, manifest


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "tree"
    (top / "sub" / "empty").mkdir(parents=True)
    (top / "a").write_bytes(b"alpha")
    (top / "sub" / "b").write_bytes(b"beta")
    os.setxattr(top / "sub" / "b", "user.kept", b"1")
    os.link(top / "a", top / "sub" / "a-too")
    (top / "link").symlink_to("a")
    os.mkfifo(top / "pipe")
    return top


def _keep_times(path, change, *, follow_symlinks=True):
    info = os.stat(path, follow_symlinks=follow_symlinks)
    change()
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=follow_symlinks)


def _acl(tag_user):
    entries = [(1, 6, 0xFFFFFFFF), (2, tag_user, 12), (4, 4, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF)]
    entries.append((32, 4, 0xFFFFFFFF))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _store_through_mapping(path):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[0] ^= 1


def _replace_link(top):
    (top / "link").unlink()
    (top / "link").symlink_to("b")


def _replace_file_by_directory(top):
    (top / "sub" / "b").unlink()
    (top / "sub" / "b").mkdir()


def _unlink_the_group(top):
    info = (top / "a").stat()
    (top / "sub" / "a-too").unlink()
    (top / "sub" / "a-too").write_bytes(b"alpha")
    os.utime(top / "sub" / "a-too", ns=(info.st_atime_ns, info.st_mtime_ns))


CHANGES = {
    "a byte, with its times set back": lambda t: _keep_times(
        t / "sub/b", lambda: (t / "sub/b").write_bytes(b"bet4")
    ),
    "a store through a mapping, with its times set back": lambda t: _keep_times(
        t / "sub/b", lambda: _store_through_mapping(t / "sub/b")
    ),
    "a longer file": lambda t: (t / "sub/b").write_bytes(b"beta2"),
    "a mode of a file": lambda t: (t / "sub/b").chmod(0o600),
    "a setuid bit": lambda t: (t / "sub/b").chmod(0o4644),
    "a mode of a directory": lambda t: (t / "sub").chmod(0o700),
    "the mode of the directory itself": lambda t: t.chmod(0o700),
    "a mode of a fifo": lambda t: (t / "pipe").chmod(0o600),
    "a time of a file, by a nanosecond": lambda t: os.utime(
        t / "a", ns=(0, (t / "a").stat().st_mtime_ns + 1)
    ),
    "a time of a symlink": lambda t: os.utime(t / "link", ns=(0, 1), follow_symlinks=False),
    "a link's target": lambda t: _keep_times(
        t / "link", lambda: _replace_link(t), follow_symlinks=False
    ),
    "a user xattr": lambda t: os.setxattr(t / "a", "user.x", b"1"),
    "another value of an xattr": lambda t: os.setxattr(t / "sub/b", "user.kept", b"2"),
    "an xattr of a directory": lambda t: os.setxattr(t / "sub", "user.x", b"1"),
    "an ACL": lambda t: os.setxattr(t / "a", "system.posix_acl_access", _acl(4)),
    "a default ACL": lambda t: os.setxattr(t / "sub", "system.posix_acl_default", _acl(4)),
    "a new empty file": lambda t: (t / "new").touch(),
    "a new empty directory": lambda t: (t / "new").mkdir(),
    "a removed empty directory": lambda t: (t / "sub/empty").rmdir(),
    "a removed file": lambda t: (t / "sub/b").unlink(),
    "another name": lambda t: (t / "sub/b").rename(t / "sub/c"),
    "a file that becomes a directory": _replace_file_by_directory,
    "a hard link that becomes a copy": _unlink_the_group,
    "one more name of an inode": lambda t: os.link(t / "a", t / "z"),
    "a name that is not text": lambda t: open(os.fsencode(t) + b"/\xff\xfe", "wb").close(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_it_sees(name, tree):
    before = manifest(tree)
    first = digest(tree)
    assert describe_difference(before, manifest(tree)) == ""
    CHANGES[name](tree)
    assert digest(tree) != first
    assert describe_difference(before, manifest(tree)) != ""


@pytest.mark.root
@pytest.mark.parametrize("name", ["a", "link", "pipe", "sub", "."])
def test_it_sees_an_owner(name, tree):
    first = digest(tree)
    os.chown(tree / name, 12, -1, follow_symlinks=False)
    second = digest(tree)
    os.chown(tree / name, -1, 13, follow_symlinks=False)
    assert len({first, second, digest(tree)}) == 3


def _same_bytes_at_another_inode(top):
    info = (top / "sub/b").stat()
    (top / "sub/new").write_bytes(b"beta")
    os.setxattr(top / "sub/new", "user.kept", b"1")
    (top / "sub/new").replace(top / "sub/b")
    os.utime(top / "sub/b", ns=(1, info.st_mtime_ns))
    assert (top / "sub/b").stat().st_ino != info.st_ino


def _bound_socket(top):
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(str(top / "socket"))


NO_CHANGES = {
    "a directory's time": lambda t: os.utime(t / "sub", ns=(1, 1)),
    "an access time": lambda t: os.utime(t / "a", ns=(1, (t / "a").stat().st_mtime_ns)),
    "a change time": lambda t: (t / "a").chmod((t / "a").stat().st_mode),
    "an inode number": _same_bytes_at_another_inode,
    "a fifo's time": lambda t: os.utime(t / "pipe", ns=(1, 1)),
    "a file that came and went": lambda t: ((t / "x").touch(), (t / "x").unlink()),
    "a socket": _bound_socket,
}


@pytest.mark.parametrize("name", NO_CHANGES)
def test_it_does_not_see(name, tree):
    first = digest(tree)
    NO_CHANGES[name](tree)
    assert digest(tree) == first


def test_it_does_not_see_where_the_holes_are(tmp_path):
    for name in "xy":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(1 << 20))
        os.utime(tmp_path / name / "file", ns=(1, 1))
    with open(tmp_path / "y/file", "r+b") as file:
        file.truncate(0)
        file.truncate(1 << 20)
    os.utime(tmp_path / "y/file", ns=(1, 1))
    assert (tmp_path / "x/file").stat().st_blocks != (tmp_path / "y/file").stat().st_blocks
    assert digest(tmp_path / "x") == digest(tmp_path / "y")


@pytest.mark.root
def test_devices_are_left_out(tree):
    first = digest(tree)
    os.mknod(tree / "null", 0o20644, os.makedev(1, 3))
    assert digest(tree) == first


def test_excluded_paths_are_left_out_with_all_below(tree):
    first = digest(tree, exclude=["sub"])
    (tree / "sub/b").write_bytes(b"other")
    (tree / "sub/more").mkdir()
    assert digest(tree, exclude=[b"sub"]) == first
    assert digest(tree) != first


def test_times_can_be_left_out_and_nothing_else(tree):
    first = manifest(tree, times=False)
    os.utime(tree / "a", ns=(1, 1))
    assert manifest(tree, times=False) == first
    (tree / "a").write_bytes(b"ALPHA")
    assert manifest(tree, times=False) != first


def test_trees_deeper_than_path_max_are_read_to_the_ground(tmp_path):
    # In a child: its descriptor limit is lowered, so that a walk holding one a level would fail.
    script = """if True:
        import os, resource, sys
        from crabrt.testing import oracle
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        top = sys.argv[1].encode()
        handle = os.open(top, os.O_DIRECTORY)
        for _ in range(300):
            os.mkdir(b"d" * 50, dir_fd=handle)
            below = os.open(b"d" * 50, os.O_DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = below
        os.close(os.open(b"leaf", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=handle))
        first = oracle.manifest(top)
        assert max(map(len, first)) > 4096 * 3
        os.chmod(b"leaf", 0o640, dir_fd=handle)
        second = oracle.manifest(top)
        assert oracle.digest_of(first) != oracle.digest_of(second)
        print(oracle.describe_difference(first, second))
    """
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mode 0o644 -> 0o640" in done.stdout
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def test_a_directory_that_changes_under_the_walk_is_no_answer(tree, monkeypatch):
    read = os.read

    appended = []

    def read_and_append(handle, length):
        block = read(handle, length)
        if not appended:
            appended.append(handle)
            with open(f"/proc/self/fd/{handle}", "ab") as file:
                file.write(b"more")
        return block

    monkeypatch.setattr(os, "read", read_and_append)
    with pytest.raises(oracle.Unsteady):
        digest(tree)
    assert appended


def test_the_description_names_paths_and_fields(tree):
    before = manifest(tree)
    (tree / "a").chmod(0o600)
    (tree / "sub/b").unlink()
    (tree / "new").write_bytes(b"12345")
    text = describe_difference(before, manifest(tree))
    assert "~ 'a': mode 0o644 -> 0o600" in text
    assert "- 'sub/b'" in text
    assert "+ 'new' (file, 5 bytes)" in text
    assert len(describe_difference(before, {}, limit=2).splitlines()) == 3
