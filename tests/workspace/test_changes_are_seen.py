"""Every kind of change is seen and named; what was undone is none, nor are times of directories."""

import ctypes
import mmap
import os
import shutil
import socket
import stat
import struct

import pytest

from crabrt.core.verdicts import Consistency

FALLOC_PUNCH = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
ACL_USER_1 = struct.pack(
    "<I" + "HHI" * 5,
    *(2,),
    *(0x01, 6, 0xFFFFFFFF),
    *(0x02, 4, 1),
    *(0x04, 4, 0xFFFFFFFF),
    *(0x10, 4, 0xFFFFFFFF),
    *(0x20, 4, 0xFFFFFFFF),
)


@pytest.fixture
def filled(on_volume):
    root = on_volume.root
    (root / "file").write_bytes(b"one two three")
    (root / "other").write_bytes(b"ONE TWO THREE")
    (root / "big").write_bytes(os.urandom(1 << 16) * 48)
    (root / "dir").mkdir()
    (root / "dir" / "inner").write_bytes(b"inner")
    os.symlink("file", root / "link")
    os.mkfifo(root / "pipe")
    on_volume.settle()
    return on_volume


def test_a_write_of_the_same_size_with_the_times_put_back(filled):
    path = filled.root / "file"
    times = os.stat(path)
    path.write_bytes(b"two three one")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert filled.how() == {b"file": {"content"}}


def test_append_and_truncate(filled):
    with (filled.root / "file").open("ab") as file:
        file.write(b"!")
    os.truncate(filled.root / "other", 3)
    assert filled.how() == {b"file": {"content", "times"}, b"other": {"content", "times"}}


def test_a_rename_over(filled):
    os.rename(filled.root / "other", filled.root / "file")
    assert filled.how() == {b"file": {"content", "times"}, b"other": {"removed"}}


def test_two_files_exchanged_with_equal_sizes(filled):
    root = filled.root
    os.rename(root / "file", root / "x")
    os.rename(root / "other", root / "file")
    os.rename(root / "x", root / "other")
    how = filled.how()
    assert how.keys() == {b"file", b"other"}
    assert all("content" in ways for ways in how.values())


def test_mode_owner_and_times(filled):
    os.chmod(filled.root / "file", 0o640)
    os.utime(filled.root / "other", ns=(0, 5))
    os.utime(filled.root / "link", ns=(0, 7), follow_symlinks=False)
    os.chmod(filled.root / "dir", 0o711)
    assert filled.how() == {
        b"file": {"mode"},
        b"other": {"times"},
        b"link": {"times"},
        b"dir": {"mode"},
    }


@pytest.mark.root
def test_another_owner(filled):
    os.chown(filled.root / "file", 7, 8)
    os.chown(filled.root / "link", 7, 8, follow_symlinks=False)
    assert filled.how() == {b"file": {"owner"}, b"link": {"owner"}}


@pytest.mark.root
def test_attributes_and_acls(filled):
    os.setxattr(filled.root / "file", "user.colour", b"red")
    os.setxattr(filled.root / "dir", "user.colour", b"blue")
    os.setxattr(filled.root / "other", "system.posix_acl_access", ACL_USER_1)
    os.setxattr(filled.root, "user.top", b"1")
    how = filled.how()
    assert how[b"file"] == how[b"dir"] == how[b""] == {"xattrs"}
    assert "xattrs" in how[b"other"]
    filled.agrees()


@pytest.mark.root
def test_attributes_of_a_symlink(filled):
    os.setxattr(filled.root / "link", "trusted.colour", b"red", follow_symlinks=False)
    assert filled.how() == {b"link": {"xattrs"}}


def test_a_symlink_that_points_elsewhere(filled):
    os.unlink(filled.root / "link")
    os.symlink("elsewhere", filled.root / "link")
    assert "target" in filled.how()[b"link"]


def test_a_directory_becomes_a_file_and_a_file_a_directory(filled):
    shutil.rmtree(filled.root / "dir")
    (filled.root / "dir").write_bytes(b"now a file")
    os.unlink(filled.root / "file")
    (filled.root / "file").mkdir()
    (filled.root / "file" / "below").write_bytes(b"")
    assert filled.how() == {
        b"dir": {"kind"},
        b"dir/inner": {"removed"},
        b"file": {"kind"},
        b"file/below": {"added"},
    }
    filled.agrees()


def test_hard_links_made_broken_and_written_through(filled):
    root = filled.root
    os.link(root / "file", root / "dir" / "alias")
    assert filled.how() == {b"file": {"links"}, b"dir/alias": {"added"}}
    (root / "dir" / "alias").write_bytes(b"through the alias")
    assert filled.how() == {
        b"file": {"content", "times"},
        b"dir/alias": {"content", "times"},
    }
    filled.agrees()
    data = (root / "file").read_bytes()
    times = os.stat(root / "file")
    os.unlink(root / "file")
    (root / "file").write_bytes(data)
    os.utime(root / "file", ns=(0, times.st_mtime_ns))
    assert filled.how() == {b"file": {"links"}, b"dir/alias": {"links"}}


def test_a_hole_punched_over_data(filled):
    fd = os.open(filled.root / "big", os.O_RDWR)
    times = os.fstat(fd)
    libc = ctypes.CDLL(None, use_errno=True)
    answer = libc.fallocate(fd, FALLOC_PUNCH, ctypes.c_long(1 << 20), ctypes.c_long(1 << 20))
    os.close(fd)
    assert answer == 0
    os.utime(filled.root / "big", ns=(0, times.st_mtime_ns))
    assert filled.how() == {b"big": {"content"}}
    filled.agrees()


def test_zeros_written_into_a_hole_are_no_change_of_content(filled):
    path = filled.root / "sparse"
    with path.open("wb") as file:
        file.truncate(5 << 20)
        file.seek(3 << 20)
        file.write(b"data")
    filled.settle()
    times = os.stat(path)
    with path.open("r+b") as file:
        file.seek(1 << 20)
        file.write(bytes(1 << 20))
    os.utime(path, ns=(0, times.st_mtime_ns))
    assert filled.how() == {}
    filled.agrees()


def test_copy_file_range(filled):
    with (filled.root / "other").open("rb") as source, (filled.root / "file").open("r+b") as sink:
        assert os.copy_file_range(source.fileno(), sink.fileno(), 7) == 7
    assert "content" in filled.how()[b"file"]


def test_a_store_through_a_mapping(filled):
    with (
        (filled.root / "file").open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as memory,
    ):
        memory[0:3] = b"1st"
        assert "content" in filled.how()[b"file"]
        for number in range(200):
            filled.settle_except_mapped()
            before = os.stat(filled.root / "file").st_ctime_ns
            memory[0:3] = b"%03d" % number
            if os.stat(filled.root / "file").st_ctime_ns == before:
                break  # else the page was just written back, and the store moved the times
        else:
            pytest.fail("every store moved the times, so this proves nothing")
        assert filled.how() == {b"file": {"content"}}
    memory_gone = filled.settle()
    assert memory_gone.changes == ()


def test_what_is_undone_is_no_change(filled):
    root = filled.root
    before = filled.tracker.root
    times = os.stat(root / "file")
    data = (root / "file").read_bytes()
    (root / "file").write_bytes(b"something else")
    (root / "file").write_bytes(data)
    os.utime(root / "file", ns=(0, times.st_mtime_ns))
    (root / "dir" / "made").mkdir()
    os.rmdir(root / "dir" / "made")
    os.chmod(root / "other", 0)
    os.chmod(root / "other", stat.S_IMODE(os.stat(root / "other").st_mode) | 0o644)
    os.utime(root / "dir", ns=(1, 1))
    snapshot = filled.capture()
    assert snapshot.root == before
    assert snapshot.changes == ()
    assert snapshot.consistency is Consistency.PER_FILE


def test_names_that_hurt(filled):
    root = os.fsencode(filled.root)
    for name in (b"\xff\xfe\x80", b"new\nline", b"x" * 255, b" lead", b"\\", b"*", b"\x01"):
        with open(root + b"/" + name, "wb") as file:
            file.write(name)
    how = filled.how()
    assert len(how) == 7
    assert all(ways == {"added"} for ways in how.values())
    filled.agrees()


def test_sockets_and_devices_are_listed_as_not_captured(filled):
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(filled.root, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/sock")
        os.close(here)
        snapshot = filled.capture()
        assert snapshot.not_captured == ((b"sock", "socket"),)
        assert snapshot.changes == ()
        assert filled.tracker.scan().not_captured == snapshot.not_captured


def test_what_takes_the_place_of_a_file_and_is_not_captured_removes_it(filled):
    os.unlink(filled.root / "file")
    shutil.rmtree(filled.root / "dir")
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        here = os.open(filled.root, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{here}/file")
        two.bind(f"/proc/self/fd/{here}/dir")
        os.close(here)
        assert filled.how() == {
            b"file": {"removed"},
            b"dir": {"removed"},
            b"dir/inner": {"removed"},
        }
        filled.agrees()
        assert filled.how() == {}


def test_a_fifo_is_never_opened(filled):
    os.mkfifo(filled.root / "another")
    assert filled.how() == {b"another": {"added"}}
    with pytest.raises(OSError, match="No such device"):  # nobody reads: nobody had it open
        os.open(filled.root / "another", os.O_WRONLY | os.O_NONBLOCK)
