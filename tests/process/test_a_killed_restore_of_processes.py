"""A restore of processes dies, or fails, at any step: nobody is stopped for ever or lost."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from crabrt.process import table
from crabrt.process.criu import guarding

from .counted_runs import Agent, succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]

STEPS = ("restore.begun", "restore.committed", "restore.ended")


def address(agent) -> str:
    return (agent.ws / "address").read_text()


def pid_of(where: Path) -> int:
    return int((where / "address").read_text().split()[0])


def asked(where: Path, number: int) -> int:
    port = int((where / "address").read_text().split()[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"%d" % number)
        return int(client.recv(100))


def stopped(agent) -> list[int]:
    """Processes of the agent that stand still."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and os.fsencode(agent.ws) in table.command(int(name)):
            one = table.look(int(name))
            if one is not None and one.state in "Tt":
                found.append(one.pid)
    return found


@pytest.mark.parametrize("step", STEPS)
def test_the_next_one_finishes_it_and_undo_leads_back(agent, until, step):
    succeeded(agent.run(4))
    assert agent.add(100) == 104
    agent.crab("restore", "last@2", kill_at=f"{step}:1")
    until(lambda: not stopped(agent))
    assert agent.server_lives == (step == "restore.begun")
    succeeded(agent.crab("restore", "last@2"))
    assert agent.add(0) == 1
    succeeded(agent.crab("undo", str(agent.ws)))  # nothing happened since
    assert agent.add(0) == 1


@pytest.mark.parametrize("step", STEPS)
def test_undo_leads_back_from_one_that_was_killed(agent, until, step):
    succeeded(agent.run(4))
    assert agent.add(100) == 104
    agent.crab("restore", "last@2", kill_at=f"{step}:1")
    until(lambda: not stopped(agent))
    succeeded(agent.crab("undo", str(agent.ws)))
    assert agent.add(0) == 104


@pytest.mark.parametrize("step", STEPS)
def test_who_was_to_end_ends(agent, until, step):
    """The state restored has no processes: the server is in nobody's way any more."""
    succeeded(agent.run(4))
    server = agent.server
    agent.crab("restore", "last@0", kill_at=f"{step}:1")
    until(lambda: not stopped(agent))
    succeeded(agent.crab("restore", "last@0"))
    assert table.look(server) is None or table.look(server).ended
    assert not (agent.ws / "address").exists()


@pytest.mark.parametrize("step", STEPS)
def test_a_resume_goes_on_from_one_that_was_killed(agent, until, step):
    killed = agent.run(6, 4, "loop")
    assert killed.returncode == -signal.SIGKILL
    agent.crab("restore", "last@2", kill_at=f"{step}:1")
    assert succeeded(agent.run(6, resume="last")) == "[1, 4, 9]\n"
    assert agent.add(0) == 9


def test_an_old_one_is_not_finished_when_a_run_went_on_since(agent, until):
    succeeded(agent.run(4))
    agent.crab("restore", "last@2", kill_at="restore.ended:1")
    (agent.ws / "address").unlink()
    assert succeeded(agent.run(6)) == "[1, 4, 9]\n"  # another run, with a server of its own
    succeeded(agent.crab("restore", "last@5"))
    assert agent.add(0) == 4
    succeeded(agent.crab("undo", str(agent.ws)))
    assert agent.add(0) == 9


def test_what_a_killed_one_spooled_is_dropped_by_the_next(agent):
    succeeded(agent.run(4))
    agent.crab("restore", "last@2", kill_at="restore.begun:1")
    assert agent.spools
    succeeded(agent.crab("restore", "last@2"))
    assert not agent.spools


def test_if_the_files_cannot_be_restored_who_ended_comes_back(agent):
    mount = ["mount", "-t", "tmpfs", "tmpfs", agent.ws]
    subprocess.run(mount, check=True)
    try:
        succeeded(agent.run(4))
        assert agent.add(100) == 104
        subprocess.run(["mount", "-o", "remount,ro", agent.ws], check=True)
        done = agent.crab("restore", f"{agent.last}@2", "--force")
        assert "nothing was changed" in done.stderr
        assert done.returncode != 0
        assert agent.add(0) == 104
        subprocess.run(["mount", "-o", "remount,rw", agent.ws], check=True)
        succeeded(agent.crab("restore", f"{agent.last}@2", "--force"))
        assert agent.add(0) == 1
    finally:
        agent.close()
        subprocess.run(["umount", "--lazy", agent.ws], check=True)


def test_who_stood_still_before_a_restore_that_fails_stands_still_after_it(agent, until):
    succeeded(agent.run(4))
    (agent.ws / "log").write_text("somebody else's\n")
    os.kill(agent.server, signal.SIGSTOP)
    until(lambda: stopped(agent) == [agent.server])
    assert agent.crab("restore", "last@2").returncode == 5  # it would overwrite that
    assert stopped(agent) == [agent.server]
    os.kill(agent.server, signal.SIGCONT)
    until(lambda: not stopped(agent))
    assert agent.crab("restore", "last@2").returncode == 5
    until(lambda: not stopped(agent))
    assert agent.add(0) == 4


def test_undo_force_leads_back_from_one_that_cannot_be_finished(agent):
    """As the message of the restore promises."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", agent.ws], check=True)
    try:
        (agent.ws / ".crabignore").write_text("ballast\n")
        for name in "abc":
            (agent.ws / name).write_bytes(os.urandom(500_000))
        succeeded(agent.run(4))
        assert agent.add(100) == 104
        for name in "abc":
            (agent.ws / name).unlink()
        (agent.ws / "since").write_bytes(os.urandom(700_000))
        free = os.statvfs(agent.ws)
        (agent.ws / "ballast").write_bytes(bytes(free.f_bfree * free.f_bsize))
        done = agent.crab("restore", f"{agent.last}@2", "--force")
        assert "half done" in done.stderr
        assert "crab undo --force" in " ".join(done.stderr.split())  # however it is wrapped
        assert not agent.server_lives
        assert "half done" in agent.crab("undo", str(agent.ws)).stderr
        succeeded(agent.crab("undo", str(agent.ws), "--force"))
        assert agent.add(0) == 104
        assert (agent.ws / "since").stat().st_size == 700_000
        assert not {"a", "b", "c"} & set(os.listdir(agent.ws))
    finally:
        agent.close()
        subprocess.run(["umount", "--lazy", agent.ws], check=True)


def killed_when_back(agent, criu, top, *, of=None, first=True, changed=False) -> None:
    """Restore turn 2, and kill that at the moment when CRIU has restored the server.

    With `of` it is that process's restore, and `first` says whether CRIU is called before. With
    `changed` CRIU sees other images than those that were taken.
    """
    killer = top / "killer"
    # It is stopped meanwhile: it may know that CRIU is done before this script does.
    restored = f'kill -STOP $PPID; {criu.program} "$@"; status=$?' if first else "status=1"
    killer.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *{"*/view" if changed else f"after-{of or agent.server}"}*)\n'
        f"{restored}; touch {top}/killed; kill -9 $PPID; exit $status;; esac\n"
        f'exec {criu.program} "$@"\n'
    )
    killer.chmod(0o700)
    was, agent._env["CRAB_CRIU"] = agent._env["CRAB_CRIU"], str(killer)
    assert agent.crab("restore", "last@2").returncode == -signal.SIGKILL
    assert (top / "killed").exists()
    agent._env["CRAB_CRIU"] = was


def killed_inside(agent, criu, top, stage, *, guard=True) -> None:
    """Restore turn 2, and kill that and CRIU at a stage of CRIU's, when the server is half there.

    Without `guard` its guard is killed as well, and before.
    """
    script, killer = top / "stage", top / "killer"
    script.write_text(
        f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" = {stage} ] || exit 0\n'
        f"kill -0 {agent.server} && touch {top}/there\n"
        f"crab=$(cat {top}/crab) guard={'' if guard else 'crab-restore-guard'}\n"
        "for one in ${guard:+$(cat /proc/$crab/task/*/children)}; do\n"
        "    grep -q $guard /proc/$one/cmdline && kill -9 $one\ndone\n"
        "kill -9 $crab $PPID\n"
    )
    killer.write_text(
        f'#!/bin/sh\ncase "$*" in *after-{agent.server}*)\n'
        f'echo $PPID > {top}/crab; set -- "$@" --action-script {script};; esac\n'
        f'exec {criu.program} "$@"\n'
    )
    script.chmod(0o700)
    killer.chmod(0o700)
    was, agent._env["CRAB_CRIU"] = agent._env["CRAB_CRIU"], str(killer)
    assert agent.crab("restore", "last@2").returncode == -signal.SIGKILL
    assert (top / "there").exists()
    agent._env["CRAB_CRIU"] = was


def is_gone(pid) -> bool:
    found = table.look(pid)
    return found is None or found.ended


@pytest.mark.parametrize("then", ["path", "restore", "undo", "resume"])
def test_who_is_half_back_ends_and_comes_back_whole(agent, criu, until, tmp_path, then):
    """CRIU is killed as well: what it had made waits for it, and looks as it did before."""
    if then == "resume":
        agent.run(6, 4, "loop")
    else:
        succeeded(agent.run(4))
    before, scratch = agent.add(100), tmp_path / "scratch"
    scratch.mkdir()
    agent._env["TMPDIR"] = str(scratch)
    killed_inside(agent, criu, tmp_path, "post-restore")
    until(lambda: is_gone(agent.server))
    until(lambda: not list(scratch.iterdir()))  # CRIU's log and what lay beside it
    if then == "undo":
        succeeded(agent.crab("undo", str(agent.ws)))
        assert agent.add(0) == before
    elif then == "resume":
        assert succeeded(agent.run(6, resume="last")) == "[1, 4, 9]\n"
        assert agent.add(0) == 9
    else:
        words = ("address",) if then == "path" else ()
        assert "finished first" in succeeded(agent.crab("restore", "last@2", *words))
        assert agent.add(0) == 1


def test_who_is_half_back_is_known_where_nobody_was_left_to_end_it(agent, criu, tmp_path):
    succeeded(agent.run(4))
    killed_inside(agent, criu, tmp_path, "post-restore", guard=False)
    assert guarding.is_half(agent.server)
    assert not is_gone(agent.server)
    assert "finished first" in succeeded(agent.crab("restore", "last@2", "address"))
    assert agent.add(0) == 1
    assert not guarding.is_half(agent.server)


def test_who_stands_still_for_its_locks_ends_when_it_is_killed(agent, criu, until, tmp_path):
    """CRIU is done, and left the server stopped: nobody puts its locks back any more."""
    locked = agent.ws / "locked"
    locked.write_bytes(bytes(4096))
    agent._env["LOCKED"] = str(locked)
    succeeded(agent.run(4))
    killed_when_back(agent, criu, tmp_path, changed=True)
    until(lambda: is_gone(agent.server))
    assert "finished first" in succeeded(agent.crab("restore", "last@2", "address"))
    assert agent.add(0) == 1
    with open(locked, "r+b") as file, pytest.raises(BlockingIOError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_criu_is_still_at_is_waited_for(agent, criu, until, tmp_path):
    """The restore is killed as soon as CRIU begins: that does its work, and it counts."""
    succeeded(agent.run(4))
    slow = tmp_path / "slow"
    slow.write_text(
        f'#!/bin/sh\ncase "$*" in *after-{agent.server}*) kill -9 $PPID; sleep 4;\n'
        f'{criu.program} "$@"; echo $? > {tmp_path}/status; exit;; esac\n'
        f'exec {criu.program} "$@"\n'
    )
    slow.chmod(0o700)
    was, agent._env["CRAB_CRIU"] = agent._env["CRAB_CRIU"], str(slow)
    assert agent.crab("restore", "last@2").returncode == -signal.SIGKILL
    agent._env["CRAB_CRIU"] = was
    assert not (tmp_path / "status").exists()
    assert "finished first" in succeeded(agent.crab("restore", "last@2", "address"))
    assert (tmp_path / "status").read_text() == "0\n"
    assert agent.add(0) == 1


def test_what_they_did_since_they_were_back_is_not_lost(agent, criu, until, tmp_path):
    """The server is used after the restore was killed: undo puts it aside as it is, and redo."""
    succeeded(agent.run(4))
    killed_when_back(agent, criu, tmp_path)
    until(lambda: agent.server_lives)
    server = table.look(agent.server).identity
    assert agent.add(100) == 101
    succeeded(agent.crab("restore", "last@2", "address"))  # of a path: processes are left alone
    assert table.look(agent.server).identity == server
    assert agent.add(0) == 101
    succeeded(agent.crab("restore", "last@4"))
    assert agent.add(0) == 4
    succeeded(agent.crab("undo", str(agent.ws)))
    assert agent.add(0) == 101


def test_who_is_back_goes_on_and_only_the_others_come_back(tmp_path, criu, until):
    agent = Agent(tmp_path, criu.program, Path(__file__).with_name("twins.py"))
    try:
        succeeded(agent.run())
        one, other = sorted([agent.ws / "a", agent.ws / "b"], key=pid_of)
        assert (asked(one, 0), asked(other, 0)) == (1, 1)
        killed_when_back(agent, criu, tmp_path, of=pid_of(other), first=False)
        until(lambda: table.look(pid_of(one)) is not None)
        assert table.look(pid_of(other)) is None
        assert asked(one, 100) == 100
        began = table.look(pid_of(one)).identity
        done = agent.crab("restore", "last@2", "a/address")
        assert "finished first" in succeeded(done)
        assert table.look(pid_of(one)).identity == began
        assert (asked(one, 0), asked(other, 0)) == (100, 0)
    finally:
        agent.end_server("a")
        agent.end_server("b")


@pytest.mark.parametrize("words", [("address",), ("--files-only",)], ids=["path", "files-only"])
def test_who_does_not_come_back_when_it_is_finished_is_told(agent, until, words):
    succeeded(agent.run(4))
    port = int((agent.ws / "address").read_text().split()[1])
    agent.crab("restore", "last@2", kill_at="restore.ended:1")
    assert not agent.server_lives
    with socket.create_server(("127.0.0.1", port)):
        done = agent.crab("restore", "last@2", *words)
        assert done.returncode == 3
        assert "has been finished first" in done.stdout
        assert "is taken, by " in done.stdout.partition("not back")[2]
    succeeded(agent.crab("restore", "last@2"))
    assert agent.add(0) == 1


def test_files_alone_finish_what_was_killed(agent):
    succeeded(agent.run(4))
    agent.crab("restore", "last@2", kill_at="restore.ended:1")
    told = json.loads(succeeded(agent.crab("restore", "last@2", "--files-only", "--json")))["data"]
    assert told["finished_killed_restore"]
    assert told["finished_processes_not_restored"] == []
    assert agent.add(0) == 1


def test_where_processes_are_left_alone_it_is_told_who_is_not_back(agent):
    succeeded(agent.run(4))
    agent.crab("restore", "last@2", kill_at="restore.ended:1")
    agent._env["CRAB_PROCESSES"] = "off"
    done = agent.crab("restore", "last@2", "address")
    assert done.returncode == 3
    assert 'processes="off"' in done.stdout.partition("not back")[2]


@pytest.mark.parametrize("then", ["restore", "undo", "resume"])
def test_who_is_back_unsaid_is_known_though_it_names_no_run(agent, criu, until, tmp_path, then):
    """The restore is killed when CRIU is done: the log does not say who is back."""
    agent._env["EMPTIED"] = "1"
    if then == "resume":
        agent.run(6, 4, "loop")
    else:
        succeeded(agent.run(4))
    server, before = agent.server, agent.add(0)
    killed_when_back(agent, criu, tmp_path)
    until(lambda: agent.server_lives)
    assert b"CRAB_RUN" not in Path(f"/proc/{server}/environ").read_bytes()
    assert agent.add(100) == 101
    if then == "restore":
        succeeded(agent.crab("restore", "last@2"))
        assert agent.add(0) == 1
    elif then == "undo":
        succeeded(agent.crab("undo", str(agent.ws)))
        assert agent.add(0) == before
    else:
        assert succeeded(agent.run(6, resume="last")) == "[1, 4, 9]\n"
        assert agent.add(0) == 9
