"""POSIX locks come back whole, with whoever had them, or the tree does not."""

import fcntl
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from crabrt.operations import facts
from crabrt.operations.fact import Standing
from crabrt.operations.facts import criu_fact
from crabrt.process import table, tracing
from crabrt.process.criu import Cause, NotImaged, NotRevived, dump, restore

pytestmark = pytest.mark.root

BASE = """
    import sqlite3, sys, time
    base = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
    base.execute("pragma journal_mode=wal")
    base.execute("pragma wal_autocheckpoint=0")
    base.execute("create table notes (text)")
    base.execute("insert into notes values ('settled')")
    base.execute("begin immediate")
    base.execute("insert into notes values ('open')")
    ready()
    while True:
        for verb in ("commit", "begin immediate", "insert into notes values ('more')"):
            while not os.path.exists("/".join((sys.argv[2], verb.split()[0]))):
                time.sleep(0.01)
            os.unlink("/".join((sys.argv[2], verb.split()[0])))
            base.execute(verb)
            open("/".join((sys.argv[2], "done")), "w").close()
"""

OTHER = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0) as base:
    print(base.execute("select count(*) from notes").fetchone()[0])
    if len(sys.argv) > 2:
        try:
            base.execute("insert into notes values (?)", (sys.argv[2],))
            print("written")
        except sqlite3.OperationalError as error:
            print(error)
base.close()
"""

LOCKER = """
    import fcntl, mmap, signal, struct, sys, time
    path = sys.argv[1]
    fd = os.open(path, os.O_RDWR)
    reads = os.open(path, os.O_RDONLY)
    mapped = mmap.mmap(fd, 4096)
    def lock(kind, start, length):
        fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))
    lock(fcntl.F_WRLCK, 0, 10)
    lock(fcntl.F_RDLCK, 20, 1)
    lock(fcntl.F_WRLCK, 1 << 40, 0)
    signal.signal(signal.SIGUSR1, lambda *_: open(path + ".told", "a").write("usr1\\n"))
    signal.signal(signal.SIGTERM, lambda *_: open(path + ".told", "a").write("term\\n"))
    ready()
    while True: time.sleep(0.005)
"""

FAMILY = """
    import fcntl, signal, struct, sys, mmap
    fd = os.open(sys.argv[1], os.O_RDWR)
    mapped = mmap.mmap(fd, 4096)
    def lock(start):
        fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, start, 1, 0))
    lock(1)
    reads, writes = os.pipe()
    if not os.fork():
        lock(2)
        os.write(writes, b".")
        signal.pause()
    if not os.fork():
        os.read(reads, 1)
        ready()
        signal.pause()
    signal.pause()
"""


def posix_locks(path):
    """What the kernel says of a file: (owner, kind, start, end)."""
    inode = os.stat(path).st_ino
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "POSIX" and int(words[5].rpartition(":")[2]) == inode:
            found.add((int(words[4]), words[3], words[6], words[7]))
    return found


def other(path, *words):
    asked = subprocess.run(
        [sys.executable, "-c", OTHER, path, *words], capture_output=True, text=True, check=True
    )
    return asked.stdout.split("\n")[:-1]


@pytest.fixture
def database(trees, tmp_path):
    path = tmp_path / "notes.db"
    holder = trees.start(BASE, path, tmp_path)
    return holder.pid, path


def test_a_database_in_wal_mode_is_as_locked_as_it_was(
    criu, trees, images, database, tmp_path, until
):
    pid, path = database
    shared = f"{path}-shm"
    before = posix_locks(path), posix_locks(shared)
    assert len(before[1]) == 3
    dump(criu, pid, images)
    for number in range(10):
        trees.end(pid)
        assert not posix_locks(shared)
        kept = [Path(f"{path}{end}").read_bytes() for end in ("", "-wal", "-shm")]
        assert trees.restore(criu, images) == pid
        assert (posix_locks(path), posix_locks(shared)) == before
        # A reader sees what is settled, a writer is kept out, and neither begins the log anew.
        assert other(path) == ["1"]
        assert other(path, "another") == ["1", "database is locked"]
        assert Path(f"{path}-wal").read_bytes() == kept[1]
        if number < 9:
            continue
        (tmp_path / "commit").touch()
        until((tmp_path / "done").exists)
        assert other(path, "another") == ["2", "written"]
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("pragma integrity_check").fetchone() == ("ok",)
        found = [text for (text,) in reader.execute("select text from notes order by rowid")]
        assert found == ["settled", "open", "another"]


@pytest.fixture
def locker(trees, tmp_path):
    path = tmp_path / "locked"
    path.write_bytes(bytes(4096))
    return trees.start(LOCKER, path).pid, path


def test_each_range_comes_back_though_the_file_is_open_for_reading_as_well(
    criu, trees, images, locker
):
    pid, path = locker
    before = posix_locks(path)
    assert before == {
        (pid, "WRITE", "0", "9"),
        (pid, "READ", "20", "20"),
        (pid, "WRITE", str(1 << 40), "EOF"),
    }
    dump(criu, pid, images)
    assert posix_locks(path) == before
    trees.end(pid)
    trees.restore(criu, images)
    assert posix_locks(path) == before


def test_a_signal_that_waits_is_caught_once_and_not_before(criu, trees, images, locker, until):
    """Locks are put back by the process itself: its handlers do not run meanwhile."""
    pid, path = locker
    os.kill(pid, signal.SIGSTOP)
    until(lambda: table.look(pid).state == "T")
    os.kill(pid, signal.SIGUSR1)
    dump(criu, pid, images)
    trees.end(pid)
    trees.restore(criu, images)
    until(lambda: table.look(pid).state == "T")  # as it was
    assert len(posix_locks(path)) == 3
    told = Path(f"{path}.told")
    assert not told.exists()
    os.kill(pid, signal.SIGCONT)
    until(lambda: told.exists() and told.read_text() == "usr1\n")
    os.kill(pid, signal.SIGTERM)
    until(lambda: told.read_text() == "usr1\nterm\n")


def test_a_lock_is_its_owners_though_others_have_the_descriptor(criu, trees, images, tmp_path):
    path = tmp_path / "locked"
    path.write_bytes(bytes(4096))
    top = trees.start(FAMILY, path).pid
    before = posix_locks(path)
    owners = {owner for owner, *_ in before}
    assert len(before) == 2
    assert len(owners) == 2
    assert len(table.descendants(top)) == 2
    dump(criu, top, images)
    trees.end(top)
    trees.restore(criu, images)
    assert posix_locks(path) == before


def test_locks_come_back_in_a_namespace_of_its_own(criu, trees, images, tmp_path, until):
    path = tmp_path / "locked"
    path.write_bytes(bytes(4096))
    root = trees.inside(FAMILY, path)
    before = {lock[1:] for lock in posix_locks(path)}
    assert len(before) == 2
    dump(criu, root, images, own_namespace=True)
    trees.end(root)
    back = trees.restore(criu, images, own_namespace=True)
    inside = {back, *(one.pid for one in table.descendants(back))}
    assert {lock[1:] for lock in posix_locks(path)} == before
    assert {lock[0] for lock in posix_locks(path)} < inside


def test_a_lock_that_somebody_else_has_is_named_and_nothing_is_left(
    criu, trees, images, locker, tmp_path
):
    pid, path = locker
    dump(criu, pid, images)
    trees.end(pid)
    with open(path, "rb+") as file:
        wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 5, 1, 0)
        fcntl.fcntl(file, fcntl.F_SETLK, wanted)
        with pytest.raises(NotRevived) as caught:
            restore(criu, images)
    assert caught.value.cause is Cause.FILE_LOCK
    assert str(path) in caught.value.message
    assert "is another program's now" in caught.value.message
    assert table.look(pid) is None
    trees.restore(criu, images)  # it is free now
    assert len(posix_locks(path)) == 3


@pytest.mark.parametrize("is_mapped", [True, False])
def test_on_another_kind_of_machine_what_would_be_lost_has_no_image(
    criu, trees, images, tmp_path, monkeypatch, is_mapped
):
    monkeypatch.setattr(tracing, "SUPPORTED", False)
    file = tmp_path / "file"
    file.write_bytes(bytes(4096))
    code = LOCKER if is_mapped else LOCKER.replace("mmap.mmap(fd, 4096)", "None")
    child = trees.start(code, file)
    if is_mapped:
        with pytest.raises(NotImaged) as caught:
            dump(criu, child.pid, images)
        assert caught.value.cause is Cause.MACHINE
        assert f"lock of process {child.pid} on {file}, which it has mapped" in str(caught.value)
        assert f"this is {os.uname().machine}" in str(caught.value)
        assert table.look(child.pid).state in {"S", "R"}
        assert len(posix_locks(file)) == 3
    else:
        dump(criu, child.pid, images)
        trees.end(child.pid)
        assert trees.restore(criu, images) == child.pid
        assert len(posix_locks(file)) == 3


def test_on_another_kind_of_machine_it_is_told_what_cannot_be_imaged(criu, monkeypatch):
    monkeypatch.setattr(facts, "is_ours_outside", lambda: False)  # that would be told instead
    assert "locks" not in criu_fact(criu).meaning
    monkeypatch.setattr(tracing, "SUPPORTED", False)
    told = criu_fact(criu)
    assert told.standing is Standing.LIMITED
    assert "locks on files that they have mapped" in told.meaning
    assert "interrupted" in told.meaning
