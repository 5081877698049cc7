"""A child forked while threads of ours work: it finds no lock taken, ours or SQLite's."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from crabrt.core import forks
from crabrt.core.databases import connect
from crabrt.core.forks import Unforked, fork_safe
from crabrt.core.ids import ObjectId
from crabrt.store import frames, packs
from crabrt.store.catalog import Catalog

HUNG_S = 20


def in_child(body: Callable[[], bool]) -> bool:
    """What `body` says in a forked child; a child that hangs is ended, and counts as False."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(HUNG_S)
            os._exit(0 if body() else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(pid, 0)
    return status == 0


@contextmanager
def threads(body: Callable[[], object], number: int) -> Iterator[None]:
    """`body` again and again in some threads."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            body()

    running = [threading.Thread(target=work) for _ in range(number)]
    for one in running:
        one.start()
    try:
        yield
    finally:
        stop.set()
        for one in running:
            one.join()


@contextmanager
def held(hold: Callable[[Callable[[], object]], object]) -> Iterator[threading.Event]:
    """`hold` runs in a thread, and calls what it gets in the middle; the event lets it go on."""
    entered, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold, args=(lambda: entered.set() or leave.wait(),))
    thread.start()
    entered.wait()
    try:
        yield leave
    finally:
        leave.set()
        thread.join()


def call(function: Callable[[], object]) -> object:
    return function()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
class TestForks:
    def test_a_fork_waits_until_nobody_is_inside_and_keeps_others_out(self):
        gate, inside = Unforked(), []

        enter = gate.gated(call)

        def enter_twice() -> None:
            inside.append(1)
            time.sleep(0.0005)
            enter(inside.pop)

        enter(list)  # the hook is there from here on
        with threads(lambda: enter(enter_twice), 4):
            assert all(in_child(lambda: not inside) for _ in range(100))

    def test_a_child_may_enter(self):
        enter = Unforked().gated(call)
        with held(enter) as leave:
            threading.Timer(0.1, leave.set).start()
            assert in_child(lambda: enter(lambda: in_child(lambda: enter(lambda: True))))

    def test_who_stays_inside_holds_no_fork_for_ever(self, monkeypatch):
        monkeypatch.setattr(forks, "PATIENCE_S", 0.05)
        gate = Unforked()
        enter = gate.gated(call)
        with held(enter) as leave:
            assert in_child(lambda: not leave.is_set() and not gate._inside and enter(lambda: True))

    def test_who_forks_inside_does_not_wait_for_itself(self):
        gate = Unforked()
        enter = gate.gated(call)
        began = time.monotonic()
        assert enter(lambda: in_child(lambda: enter(lambda: len(gate._inside) == 1)))
        assert time.monotonic() - began < forks.PATIENCE_S
        assert not gate._inside

    def test_a_child_can_use_sqlite_while_its_parent_does(self):
        """Without the gate some of these children hang: SQLite's allocator has one lock."""

        def use() -> None:
            db = connect(":memory:")
            db.execute("CREATE TABLE t (a, b)")
            db.executemany("INSERT INTO t VALUES (?, ?)", [(i, "x" * i) for i in range(200)])
            assert len(list(db.execute("SELECT * FROM t ORDER BY b DESC"))) == 200
            assert db.execute("SELECT sum(a) FROM t").fetchone() == (19900,)
            db.close()

        def use_plainly() -> bool:
            db = sqlite3.connect(":memory:")
            db.execute("CREATE TABLE t (a)")
            return db.execute("SELECT count(*) FROM t").fetchone() == (0,)

        with threads(use, 3):
            assert all(in_child(use_plainly) for _ in range(400))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_who_is_interrupted_inside_has_left(error):
    gate = Unforked()

    @gate.gated
    def interrupted() -> None:
        raise error

    for outer in (interrupted, gate.gated(interrupted)):
        with pytest.raises(error):
            outer()
    assert not gate._inside


ANOTHER_HOOK = """
import os, sys, threading, time
from crabrt.core.forks import unforked

lock, held = threading.Lock(), threading.Event()
os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
enter = unforked.gated(lambda: True)
enter()

def hold():
    with lock:
        held.set()
        time.sleep(0.2)
        enter()  # the fork has come as far as the other hook, which waits for this thread

thread = threading.Thread(target=hold)
thread.start()
held.wait()
pid = os.fork()
if pid == 0:
    with lock:
        os._exit(0 if enter() else 1)
thread.join()
sys.exit(os.waitpid(pid, 0)[1])
"""


def test_the_hook_of_somebody_else_is_no_deadlock():
    subprocess.run([sys.executable, "-c", ANOTHER_HOOK], check=True, timeout=60)


def test_a_lock_that_a_thread_held_is_free_in_the_child():
    lock = fork_safe(threading.Lock())

    def hold(middle: Callable[[], object]) -> None:
        with lock:
            middle()

    with held(hold):
        assert in_child(lambda: lock.acquire(timeout=1))
        assert lock.locked()


def test_a_child_writes_to_a_database_in_whose_transaction_its_parent_was(tmp_path):
    """SQLite keeps who has locked a file in the process, and a child would inherit that."""
    catalog = Catalog(tmp_path)
    at = packs.Location("0" * 32, packs.HEADER_BYTES, 1, 1, frames.Codec.RAW)
    started = threading.Event()

    def items() -> Iterator[packs.Item]:
        started.set()
        time.sleep(0.2)
        yield packs.Item(ObjectId(bytes(32)), at)

    thread = threading.Thread(target=lambda: catalog.add(at.pack, 0, 99, items(), sealed=False))
    thread.start()
    started.wait()

    def write() -> bool:
        db = connect(catalog.path, timeout_s=0)
        db.execute("CREATE TABLE t (a)")
        return True

    assert in_child(write)
    thread.join()
    catalog.close()


def test_rows_read_ahead_are_all_there():
    db = connect(":memory:")
    db.execute("CREATE TABLE t (a)")
    db.executemany("INSERT INTO t VALUES (?)", [(i,) for i in range(100)])
    rows = iter(db.execute("SELECT a FROM t ORDER BY a"))
    assert next(rows) == (0,)
    assert [a for (a,) in rows] == list(range(1, 100))
    db.close()
