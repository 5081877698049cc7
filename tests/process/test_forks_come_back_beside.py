"""A fork's processes come back beside those of the run that it was forked from, which go on.

With real CRIU, real namespaces, and agents that are programs.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from crabrt.process import table
from crabrt.process.beside import network, whose

from .forked_runs import ended, succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]


def test_a_fork_of_a_live_run_is_resumed_with_server_and_shell_and_both_answer_for_themselves(
    original,
):
    original.begin()
    server, shell_count = original.server, (original.path / "counted").read_text()
    run, fork = original.fork("last@2")
    (fork.path / "name").write_text("fork")  # put back by the resume: it is no work of a run's
    said = succeeded(original.crab("resume", run, "--yes"))
    # The shell had counted to 1 and the server to 0 after turn 2; the fork goes on from there.
    assert said.count("3\\n2 original") == 1
    assert "21\\n20 original" in said
    assert fork.counted == [2, 5, 9, 14, 20]
    assert fork.address == original.address  # number and port, each for itself
    assert original.server == server
    assert original.counted == [2, 5]
    assert (original.path / "counted").read_text() == shell_count
    (fork.path / "name").write_text("fork")
    assert fork.ask(1000) == (1020, "fork")  # the shell is closed with its loop; the server lives
    assert original.ask(100) == (105, "original")
    assert fork.counted[-1] == 1020
    assert original.counted == [2, 5, 105]


def test_each_turn_of_the_fork_has_images_of_what_runs_beside(original):
    original.begin()
    run, _fork = original.fork("last@2")
    succeeded(original.crab("resume", run, "--yes"))
    turns = original.turns(run)
    assert len(turns) == 8
    assert [turn["unprotected"] for turn in turns[3:]] == [[]] * 5
    shown = original.data("show", f"{run}@5")
    assert all(one["imaged"] for one in shown["alive"])
    assert len(shown["alive"]) == 4  # the keeper of its namespaces, server, keeper of the shell, it


def test_a_turn_of_the_fork_is_restored_and_undone_and_the_original_goes_on(original):
    original.begin()
    server = original.server
    run, fork = original.fork("last@2")
    succeeded(original.crab("resume", run, "--yes"))
    first = fork.server
    shown = succeeded(original.crab("restore", f"{run}@4"))
    assert "brought back: " in shown
    assert ended(first)
    assert fork.ask(0) == (5, "original")
    shown = succeeded(original.crab("undo", str(fork.path)))
    assert fork.ask(0) == (20, "original")
    assert original.server == server
    assert original.ask(0) == (5, "original")


def test_restored_to_a_turn_of_the_original_the_processes_come_back_beside(original):
    original.begin()
    run, fork = original.fork("last@4")
    done = original.crab("restore", f"{run}@3")
    shown = succeeded(done)
    assert "the fork's processes are in a network of their own" in shown
    assert "nsenter --target" in shown
    assert fork.ask(1) == (3, "original")
    server = fork.server
    assert whose.other_paths(server, os.fsencode(fork.path)) == (os.fsencode(original.path),)
    gone = succeeded(original.crab("restore", f"{run}@0"))
    assert ended(server)
    assert original.ask(0) == (5, "original")
    would = succeeded(original.crab("undo", str(fork.path), "--dry-run"))
    back = succeeded(original.crab("undo", str(fork.path)))
    assert fork.ask(10) == (13, "original")
    for said, verb in ((gone, "ended"), (would, "would be brought back"), (back, "brought back")):
        assert "crabrt-fork" not in said  # it is crabrt's own
        assert re.search(
            rf"^{verb}: .*tcp 127\.0\.0\.1:{original.address[1]}", said, re.MULTILINE
        ), said
    assert re.search(rf"{original.address[1]} from elsewhere is not .* nsenter --target \d+ ", back)


def test_where_nobody_has_the_ports_they_are_reached_as_ever(original):
    original.begin()
    run, fork = original.fork("last@3")
    address = original.address
    original.kill_loop()
    os.kill(original.server, signal.SIGKILL)
    shown = succeeded(original.crab("restore", f"{run}@-1"))
    assert "network of their own" not in shown
    assert not network.is_apart(fork.server)
    assert fork.address == address
    with socket.create_connection(("127.0.0.1", address[1]), timeout=20) as client:
        client.sendall(b"40")
        assert client.recv(100) == b"42 original"


def test_a_fork_ends_nobody_of_a_dead_run_that_it_was_forked_from_nor_that_run_of_the_fork(
    original,
):
    original.begin()
    run, fork = original.fork("last@2")
    parent = original.data("log", run)["run"]
    assert parent == run
    original.kill_loop()
    server = original.server
    succeeded(original.crab("resume", run, "--yes"))
    assert not ended(server)
    assert original.ask(0) == (5, "original")
    beside = fork.server
    succeeded(original.crab("restore", f"{original.parent_of(run)}@3"))
    assert not ended(beside)
    assert original.ask(0) == (2, "original")
    assert fork.ask(0) == (20, "original")


def test_a_fork_of_a_fork_has_files_and_processes_of_its_own(original):
    original.begin()
    run, fork = original.fork("last@2")
    succeeded(original.crab("resume", run, "--yes"))
    second, place = original.fork(f"{run}@4", "second")
    succeeded(original.crab("restore", f"{second}@-1"))
    (place.path / "name").write_text("second")
    assert place.ask(1) == (6, "second")
    assert fork.ask(1) == (21, "original")
    assert original.ask(1) == (6, "original")


def test_a_shell_that_the_fork_opens_is_where_its_server_is(original):
    original.begin()
    run, fork = original.fork("last@1")  # the shell was not used yet
    said = succeeded(original.crab("resume", run, "--yes"))
    assert "3\\n2 original" in said
    assert fork.counted == [2, 5, 9, 14, 20]
    assert original.counted == [2, 5]


@pytest.mark.parametrize("step", ["restore.begun", "restore.ended"])
def test_a_killed_restore_of_a_fork_is_finished_beside(original, step):
    original.begin()
    server = original.server
    run, fork = original.fork("last@3")
    succeeded(original.crab("restore", f"{run}@-1"))
    assert fork.ask(10) == (12, "original")
    original.killed(f"{step}:1", "restore", f"{run}@-1")
    succeeded(original.crab("restore", f"{run}@-1"))
    assert fork.ask(0) == (2, "original")  # one server: `ask` finds no second
    assert original.server == server
    assert original.ask(0) == (5, "original")


def test_what_would_take_a_socket_from_the_original_is_named_and_stays_away(original, tmp_path):
    name = str(tmp_path / "socket")
    original.begin(SOCKET=name)
    run, fork = original.fork("last@2")
    restored = original.crab("restore", f"{run}@-1")
    assert restored.returncode == 3
    assert f"it would take {name}" in " ".join(restored.stdout.split())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(name)
    assert original.ask(0) == (5, "original")
    with pytest.raises(ValueError, match="not enough values"):
        _ = fork.server


def test_without_images_it_is_told_who_is_not_back(original):
    original.begin()
    run, fork = original.fork("last@2")
    lacks = {"CRAB_CRIU": str(original.top / "nothing")}
    again = original.crab("fork", "last@2", "--to", str(original.top / "again"), **lacks)
    assert again.returncode == 3
    assert "processes that are not back" in again.stdout
    restored = original.crab("restore", f"{run}@-1", **lacks)
    assert restored.returncode == 3
    assert "processes that are not back" in restored.stdout
    with pytest.raises(ValueError, match="not enough values"):
        _ = fork.server
    assert original.ask(0) == (5, "original")


def test_a_fork_whose_loop_was_killed_goes_on_in_place_with_what_lives_beside(original):
    original.begin()
    server = original.server
    run, fork = original.fork("last@2")
    original.begin_fork(run)
    beside, shell = fork.server, working_in(fork.path, b"--noediting")
    original.kill_loop()
    said = succeeded(original.crab("resume", run, "--yes"))
    assert "21\\n20 original" in said
    assert fork.counted == [2, 5, 9, 14, 20]
    assert fork.server == beside  # it was never away
    assert ended(shell)  # it was taken up again, and closed with its loop
    assert original.server == server
    assert original.ask(0) == (5, "original")


def test_without_images_the_shell_is_rebuilt_in_the_fork_and_that_of_the_original_is_left(
    runtime, original
):
    original.begin()
    run, fork = original.fork("last@2")
    original.kill_loop()  # so that nobody is attached to its shell
    shell = working_in(original.path, b"--noediting")
    channels = list(runtime.rglob("*"))
    done = original.crab("resume", run, "--yes", CRAB_CRIU=str(original.top / "nothing"))
    assert done.returncode == 0, done.stderr
    assert "is not back" in done.stderr
    assert (fork.path / "counted").read_text() == "21\n"
    assert (original.path / "counted").read_text() == "6\n"
    assert working_in(original.path, b"--noediting") == shell
    assert list(runtime.rglob("*")) == channels
    succeeded(original.crab("resume", original.parent_of(run), "--yes"))
    assert (original.path / "counted").read_text() == "21\n"
    assert ended(shell)  # the loop took it up, and closed it


def test_gc_leaves_the_channels_of_a_forks_shell(runtime, original):
    original.begin()
    run, fork = original.fork("last@2")
    succeeded(original.crab("restore", f"{run}@-1"))
    made = sorted(runtime.rglob("status"))
    assert len(made) == 2
    assert made[1].parent.name.startswith(made[0].parent.name)
    for path in made:
        os.utime(path.parent, (0, 0))
    succeeded(original.crab("gc"))
    assert sorted(runtime.rglob("status")) == made
    assert working_in(fork.path, b"--noediting")


def test_the_namespaces_of_a_fork_leave_no_zombies_and_end_with_the_fork(original, until):
    original.begin()
    run, fork = original.fork("last@3")
    succeeded(original.crab("restore", f"{run}@-1"))
    keeper = table.look(fork.server).parent
    assert b"crabrt-fork" in table.command(keeper)[0]
    inside = ["nsenter", f"--target={keeper}", "--pid", "--mount", "--"]
    orphan = subprocess.run(
        [*inside, "sh", "-c", "(sleep 0.01 & echo $!)"], capture_output=True, check=True
    )
    number = int(orphan.stdout)
    until(lambda: number not in {table.inner_number(one) for one in table.children(keeper)})
    until(lambda: not [one for one in table.descendants(keeper) if one.ended])
    succeeded(original.crab("restore", f"{run}@0"))
    until(lambda: ended(keeper))


def test_what_a_process_of_the_fork_has_mapped_holds_no_file_of_the_original(original):
    original.begin()
    run, fork = original.fork("last@2")
    parent = original.parent_of(run)
    succeeded(original.crab("restore", f"{run}@-1"))
    original.kill_loop()
    code = (
        "import mmap, sys, time; file = open(sys.argv[1], 'r+b'); "
        "mapped = mmap.mmap(file.fileno(), 0); print(flush=True); time.sleep(1000)"
    )
    name = str(original.path / "address")  # by that path, the fork's
    inside = ["nsenter", f"--target={fork.server}", "--mount", "--", sys.executable, "-c", code]
    with subprocess.Popen([*inside, name], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.read(1) == b"\n"
            assert name in Path(f"/proc/{holder.pid}/maps").read_text()
            done = original.data("restore", f"{parent}@0", "--force")
        finally:
            holder.kill()
    assert done["deleted"] >= 1
    assert done["held_open"] == []


def test_a_run_and_its_fork_in_one_program_have_each_their_own(original):
    """The original is live in another thread, and sees the same paths in its processes."""
    program = Path(__file__).with_name("forked_together.py")
    done = original.called(sys.executable, program, original.top)
    assert succeeded(done) == '{"ws": [["ws", true]], "fork": [["fork", true]]}'


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def redis_says(port: int, pid: int) -> str:
    """What Redis has counted, asked in the network of `pid`."""
    code = f"exec 9<>/dev/tcp/127.0.0.1/{port}; printf 'GET asked\\r\\n' >&9; read -r -u 9; "
    code += "read -r -u 9 said; echo ${said%?}"
    command = [*network.into(pid), "bash", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def page(port: int, pid: int) -> str:
    """What the http.server answers, likewise."""
    code = f"exec 9<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&9; "
    code += "cat <&9 | tail -n 1"
    command = [*network.into(pid), "bash", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def working_in(directory: Path, name: bytes) -> int:
    """The process that works in this very directory, and was called so."""
    here = directory.stat()
    found = [
        int(entry)
        for entry in filter(str.isdecimal, os.listdir("/proc"))
        if name in b" ".join(table.command(int(entry)))
        and os.stat(f"/proc/{entry}/cwd")[1:3] == here[1:3]  # inode and device
    ]
    (pid,) = found
    return pid


def test_redis_and_an_http_server_answer_for_the_fork_what_they_had_counted_by_then(original):
    redis, http = free_port(), free_port()
    program = Path(__file__).with_name("forkservers.py")
    original.begin(redis, http, "wait", program=program, wait_at=3)
    redis_pid = working_in(original.path, b"redis-server")
    run, fork = original.fork("last@2")
    shown = succeeded(original.crab("restore", f"{run}@-1"))
    assert f"tcp 127.0.0.1:{http}" in " ".join(shown.split())
    (fork.path / "name").write_text("fork")
    beside = working_in(fork.path, b"redis-server")
    assert beside != redis_pid
    assert redis_says(redis, beside) == "1"
    assert page(http, beside) == "2 fork"
    assert redis_says(redis, redis_pid) == "2"
    assert page(http, redis_pid) == "3 original"
    assert (fork.path / "redis.sock").is_socket()
    assert (original.path / "redis.sock").is_socket()
