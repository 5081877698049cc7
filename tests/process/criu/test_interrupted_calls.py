"""System calls that CRIU interrupts begin anew: in the tree that goes on, and in its image."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from crabrt.process import table
from crabrt.process.criu import Cause, NotImaged, dump
from crabrt.process.criu.holding import Hold

pytestmark = pytest.mark.root

POLL = b"7"

FOLLOWER = """
    import os, sys
    ready()
    os.execvp("tail", ["tail", sys.argv[1], "-n", "+1", sys.argv[2]])
"""

POLLER = """
    import ctypes, os, signal, sys, threading
    libc = ctypes.CDLL(None, use_errno=True)
    reads, writes = os.pipe()
    class Poll(ctypes.Structure):
        _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("found", ctypes.c_short)]
    def poll(limit_ms):
        asked = Poll(reads, 1, 0)
        found = libc.poll(ctypes.byref(asked), 1, limit_ms)
        with open(sys.argv[1], "a") as told:
            told.write(f"{found} {ctypes.get_errno() if found < 0 else asked.found}\\n")
    limit_ms = int(sys.argv[2])
    others = [threading.Thread(target=poll, args=(limit_ms,)) for _ in range(2)]
    [one.start() for one in others]
    ready()
    poll(limit_ms)
    [one.join() for one in others]
    signal.pause()
"""


SHELL = """
set -m
touch $2/log
tail -f $2/log > /dev/null &
while [ ! -e $2/say ]; do read -t 0.05 < <(sleep 1); done
{ jobs; echo told; } > $1 2>&1
wait
"""


def call_of(pid):
    """The number of the system call that a process sleeps in."""
    return Path(f"/proc/{pid}/syscall").read_bytes().split()[0]


def append(path, line):
    with open(path, "a") as file:
        file.write(f"{line}\n")


@pytest.fixture(params=["-f", "-F"])
def following(request, trees, tmp_path, until):
    """tail(1) as people call it, what it reads and what it says."""
    log, said = tmp_path / "log", tmp_path / "said"
    append(log, "first")
    with open(said, "ab") as file:
        tail = trees.start(FOLLOWER, request.param, log, stdout=file)
    until(lambda: said.read_text() == "first\n" and call_of(tail.pid) == POLL)
    watched = [
        os.readlink(f"/proc/{tail.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{tail.pid}/fd")
    ]
    assert "anon_inode:inotify" in watched
    return tail, log, said


def test_tail_goes_on_after_each_of_many_images(criu, following, tmp_path, until):
    tail, log, said = following
    wanted = "first\n"
    for number in range(10):
        append(log, f"before {number}")
        dump(
            criu,
            tail.pid,
            tmp_path / str(number),
            hold=Hold(lambda n=number: append(log, f"in {n}")),
        )
        append(log, f"after {number}")
        wanted += "".join(f"{when} {number}\n" for when in ("before", "in", "after"))
        until(lambda wanted=wanted: said.read_text() == wanted)
        assert tail.poll() is None


def test_tail_comes_back_and_reads_on(criu, trees, following, images, tmp_path, until):
    tail, log, said = following
    dump(criu, tail.pid, images)
    for number in range(5):
        trees.end(tail.pid)
        os.truncate(log, len("first\n"))  # as it was
        kept = said.read_text()
        assert trees.restore(criu, images) == tail.pid
        for line in (f"after {number}", "and more"):
            append(log, line)
            kept += f"{line}\n"
            until(lambda kept=kept: said.read_text() == kept)
        dump(criu, tail.pid, tmp_path / str(number))  # and is imaged again
        append(log, "goes on")
        until(lambda kept=kept: said.read_text() == f"{kept}goes on\n")


def test_a_poll_that_others_do_goes_on_with_its_limit(criu, trees, images, tmp_path, until):
    told = tmp_path / "told"
    poller = trees.start(POLLER, told, 3000)
    until(lambda: all_poll(poller.pid, 3))
    began = time.monotonic()
    dump(criu, poller.pid, images)
    assert not told.exists()  # nobody was told anything
    trees.end(poller.pid)
    trees.restore(criu, images)
    until(lambda: told.exists() and told.read_text() == "0 0\n" * 3)
    assert time.monotonic() - began >= 3


def test_a_poll_that_goes_on_is_not_interrupted_in_any_thread(criu, trees, images, tmp_path, until):
    told = tmp_path / "told"
    poller = trees.start(POLLER, told, 1500)
    until(lambda: all_poll(poller.pid, 3))
    for number in range(3):
        dump(criu, poller.pid, tmp_path / str(number))
    until(lambda: told.exists() and told.read_text() == "0 0\n" * 3)


def test_an_image_that_fails_interrupts_nobody(criu, trees, tmp_path, until):
    ours, theirs = socket.socketpair()
    log, said = tmp_path / "log", tmp_path / "said"
    append(log, "first")
    with ours, theirs, open(said, "ab") as file:
        tail = trees.start(FOLLOWER, "-f", log, stdout=file, pass_fds=[theirs.fileno()])
        for number in range(5):
            until(lambda: call_of(tail.pid) == POLL)
            with pytest.raises(NotImaged) as caught:
                dump(criu, tail.pid, tmp_path / str(number))
            assert caught.value.cause is Cause.UNIX_SOCKET
            append(log, "more")
            wanted = "first\n" + "more\n" * (number + 1)
            until(lambda wanted=wanted: said.read_text() == wanted)


def test_who_was_stopped_for_an_image_is_not_stopped_when_back(
    criu, trees, following, images, until
):
    tail, log, said = following
    os.kill(tail.pid, signal.SIGSTOP)
    until(lambda: table.look(tail.pid).state == "T")
    dump(criu, tail.pid, images)  # it was stopped by somebody else
    until(lambda: table.look(tail.pid).state == "T")
    trees.end(tail.pid)
    trees.restore(criu, images)
    until(lambda: table.look(tail.pid).state == "T")
    os.kill(tail.pid, signal.SIGCONT)
    append(log, "after")
    until(lambda: said.read_text() == "first\nafter\n")


def test_whoever_is_told_of_children_that_stop_is_told_of_none(
    criu, trees, images, tmp_path, until
):
    shell, told = trees.top / "shell", tmp_path / "told"
    shell.write_text(SHELL)
    job = trees.start(
        "import sys; ready(); os.execvp('bash', ['bash', *sys.argv[1:]])", shell, told, tmp_path
    )
    until(lambda: any(call_of(one) == POLL for one in table.children(job.pid)))
    for number in range(5):
        dump(criu, job.pid, tmp_path / str(number))
        append(tmp_path / "log", "more")
    (tmp_path / "say").touch()
    until(lambda: told.exists() and told.read_text().endswith("told\n"))
    assert "Stopped" not in told.read_text()
    assert "Running" in told.read_text()


def all_poll(pid, count):
    calls = [path.read_bytes().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/syscall")]
    return calls == [POLL] * count


DUMPS = """
import os, signal, sys
from pathlib import Path
from crabrt.process.criu import Criu, dump
from crabrt.process.criu.holding import Hold
pid, images, program, leave = int(sys.argv[1]), *sys.argv[2:]
hold = Hold(lambda: os.kill(os.getpid(), signal.SIGKILL))
dump(Criu(Path(program), (0, 0, 0)), pid, Path(images), leave=leave, hold=hold)
"""


def test_a_tree_that_was_stopped_for_its_image_goes_on_when_whoever_took_it_is_killed(
    criu, trees, images, tmp_path, until
):
    poller = trees.start(POLLER, tmp_path / "told", 1000_000)
    until(lambda: all_poll(poller.pid, 3))
    words = [poller.pid, images, criu.program, "running"]
    done = subprocess.run([sys.executable, "-c", DUMPS, *map(str, words)], check=False)
    assert done.returncode == -signal.SIGKILL
    until(lambda: table.look(poller.pid).state == "S")
    assert len(list(images.iterdir())) > 1  # CRIU had come as far as that
    until(lambda: not any(map(goes_on_telling, table.descendants(os.getpid()))))
    dump(criu, poller.pid, tmp_path / "again")


def goes_on_telling(process):
    """Whether it is the shell that tells others to go on: CRIU fails where somebody is told to."""
    return b"kill -CONT" in b" ".join(table.command(process.pid))


WAITER = """
    import ctypes, os, signal, sys
    libc = ctypes.CDLL(None, use_errno=True)
    told, number, limit_ms = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    at = libc.epoll_create1(0)
    events, child = ctypes.create_string_buffer(12), ctypes.c_uint64(1 << signal.SIGUSR1 - 1)
    words = (child, 0, 0, 8) if number == 128 else (at, events, 1, limit_ms, 0, 8)
    if number == 441:
        words = (at, events, 1, 0, 0, 8)
    words = [ctypes.byref(one) if one is child else one for one in words]
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in words]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ready()
    found = libc.syscall(ctypes.c_long(number), *words)
    with open(told, "w") as file:
        file.write(f"{found} {ctypes.get_errno() if found < 0 else 0}\\n")
    signal.pause()
"""
WAITS = {"epoll_wait": 232, "epoll_pwait": 281, "epoll_pwait2": 441, "rt_sigtimedwait": 128}


@pytest.mark.parametrize("call", WAITS)
def test_what_any_stop_interrupts_goes_on_here_and_when_back(
    criu, trees, images, tmp_path, until, call
):
    told, number = tmp_path / "told", WAITS[call]
    waiter = trees.start(WAITER, told, number, -1)
    until(lambda: call_of(waiter.pid) == b"%d" % number)
    for again in range(3):
        dump(criu, waiter.pid, tmp_path / str(again))
        until(lambda: call_of(waiter.pid) == b"%d" % number)
    dump(criu, waiter.pid, images)
    trees.end(waiter.pid)
    assert trees.restore(criu, images) == waiter.pid
    until(lambda: call_of(waiter.pid) == b"%d" % number)
    assert not told.exists()


@pytest.mark.parametrize("call", ["epoll_wait", "epoll_pwait"])
def test_a_limit_is_over_however_fast_images_follow(criu, trees, tmp_path, until, call):
    """Each image takes less than the limit, so it would begin anew for ever."""
    told, number = tmp_path / "told", WAITS[call]
    waiter = trees.start(WAITER, told, number, 5000)
    until(lambda: call_of(waiter.pid) == b"%d" % number)

    def is_over():
        for again in tmp_path.glob("image"):
            shutil.rmtree(again)
        dump(criu, waiter.pid, tmp_path / "image")
        return told.exists()

    until(is_over)


def test_a_signal_that_is_caught_ends_what_would_begin_anew(criu, trees, tmp_path, until):
    told = tmp_path / "told"
    catches = """
        import signal
        signal.signal(signal.SIGUSR2, lambda number, frame: None)
    """
    waiter = trees.start(textwrap.dedent(catches) + textwrap.dedent(WAITER), told, 232, -1)
    until(lambda: call_of(waiter.pid) == b"232")
    work = Hold(lambda: waiter.send_signal(signal.SIGUSR2))
    dump(criu, waiter.pid, tmp_path / "image", hold=work)
    until(lambda: told.exists() and told.read_text() == f"-1 {errno.EINTR}\n")
