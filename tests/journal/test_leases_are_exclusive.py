"""One writer at a time: threads, processes, forks, kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from crabrt.errors import RunBusy
from crabrt.journal import Lease, lease_holder

HOLD = """
import sys
from pathlib import Path
from crabrt.journal import Lease
lease = Lease.acquire(Path(sys.argv[1]))
print("held", lease.epoch, flush=True)
sys.stdin.read()
"""

RACE = """
import sys
from pathlib import Path
from crabrt.errors import RunBusy
from crabrt.journal import Lease
sys.stdin.readline()
try:
    lease = Lease.acquire(Path(sys.argv[1]))
    print("won", flush=True)
except RunBusy:
    print("lost", flush=True)
sys.stdin.read()
"""


def _child(code, directory):
    return subprocess.Popen(
        [sys.executable, "-c", code, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _end(child):
    child.stdin.close()
    child.stdout.close()
    child.wait()


def test_a_second_acquire_in_the_same_process_is_refused_and_names_the_pid(tmp_path):
    with Lease.acquire(tmp_path / "r"), pytest.raises(RunBusy, match=str(os.getpid())):
        Lease.acquire(tmp_path / "r")
    with Lease.acquire(tmp_path / "r") as again:
        assert again.epoch == 2


def test_of_many_threads_exactly_one_wins(tmp_path):
    won, lost = [], []
    barrier = threading.Barrier(8)

    def take():
        barrier.wait()
        try:
            won.append(Lease.acquire(tmp_path / "r"))
        except RunBusy:
            lost.append(1)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].release()


def test_asking_who_holds_it_never_drops_it(tmp_path):
    with Lease.acquire(tmp_path / "r") as lease:
        for _ in range(3):
            assert lease_holder(tmp_path / "r") == lease.holder
        child = _child(RACE, tmp_path / "r")
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "lost\n"
        _end(child)


def test_another_process_is_named_while_it_lives_and_a_killed_one_holds_nothing(tmp_path):
    child = _child(HOLD, tmp_path / "r")
    assert child.stdout.readline() == "held 1\n"
    holder = lease_holder(tmp_path / "r")
    assert (holder.pid, holder.epoch) == (child.pid, 1)
    with pytest.raises(RunBusy, match=str(child.pid)):
        Lease.acquire(tmp_path / "r")
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    _end(child)
    assert lease_holder(tmp_path / "r") is None
    with Lease.acquire(tmp_path / "r") as lease:
        assert lease.epoch == 2


def test_of_many_processes_exactly_one_wins(tmp_path):
    children = [_child(RACE, tmp_path / "r") for _ in range(6)]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    said = sorted(child.stdout.readline() for child in children)
    for child in children:
        _end(child)
    assert said == ["lost\n"] * 5 + ["won\n"]


def test_a_forked_child_holds_nothing_and_takes_nothing(run):
    run.open()
    run.note("parent")
    seen, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        outcome = []
        try:
            outcome.append(f"inert={run.journal.inert}{run.lease.inert}")
            try:
                run.note("child")
            except RunBusy:
                outcome.append("append refused")
            run.lease.release()
            run.journal.close()
            try:
                Lease.acquire(run.directory)
            except RunBusy as error:
                outcome.append("busy" if str(os.getppid()) in str(error) else str(error))
        finally:
            os.write(tell, "; ".join(outcome).encode())
            os._exit(0)
    os.close(tell)
    with os.fdopen(seen) as said:
        assert said.read() == "inert=TrueTrue; append refused; busy"
    assert os.waitpid(pid, 0)[1] == 0
    assert lease_holder(run.directory).pid == os.getpid()
    run.note("still the parent's")
    assert run.texts() == ["parent", "still the parent's"]


def test_a_lease_file_of_garbage_costs_nothing_but_its_memory(tmp_path):
    with Lease.acquire(tmp_path / "r"):
        pass
    (tmp_path / "r" / "lease").write_bytes(os.urandom(300))
    assert lease_holder(tmp_path / "r") is None
    with Lease.acquire(tmp_path / "r") as lease:
        assert lease.epoch == 1


def test_the_epoch_grows_past_the_segments_when_the_lease_file_is_gone(run):
    run.open()
    run.note("0")
    run.close()
    (run.directory / "lease").unlink()
    with Lease.acquire(run.directory) as lease:
        assert lease.epoch == 2
