"""Closing a shell ends everything in it, leaves nothing, and takes a bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from crabrt.process.shell import Shell
from crabrt.process.shell.launching import refusal
from crabrt.process.table import children

STRAYS = {
    "a job": "sleep 1000 &",
    "a job that ignores what it can": "sh -c \"trap '' INT TERM HUP; while :; do sleep 1; done\" &",
    "a daemon": "setsid sh -c 'sleep 1000 & sleep 1001' >/dev/null 2>&1 & ",
    "an orphan": "(setsid sleep 1000 &) ; (sleep 1002 &)",
    "a stopped job": "sleep 1000 & kill -STOP $!",
    "a job of a shell that ended": "sleep 1000 & exit",
}


@pytest.mark.parametrize("what", STRAYS)
def test_nobody_stays(shell, what, eventually, runs):
    shell.run(STRAYS[what])
    members = eventually(
        lambda: [one.pid for one in shell._holding.session.members() if one.pid != shell.pid]
    )
    pids = [*members, shell.record.init_pid, *([shell.pid] if shell.pid else [])]
    begun = time.monotonic()
    assert shell.close(grace=0.2) == ()
    assert time.monotonic() - begun < 15
    assert [pid for pid in pids if runs(pid)] == []


def test_neither_zombies_nor_files_nor_descriptors_stay(shell, tmp_path):
    before = sorted(os.listdir("/proc/self/fd"))
    children_before = children(os.getpid())
    shell.run("sleep 1000 &")
    shell.close()
    shell.close()
    assert children(os.getpid()) == children_before
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path / "channels") == []


def test_jobs_are_asked_before_they_are_killed(shell, tmp_path, eventually):
    shell.run(
        "sh -c 'trap \"touch polite; exit\" TERM; touch ready; while :; do sleep 0.01; done' &"
    )
    eventually((tmp_path / "ready").exists)
    shell.close(grace=10)
    assert (tmp_path / "polite").exists()


def test_closing_ends_the_command_of_another_thread(plain, tmp_path, eventually):
    results = []
    thread = threading.Thread(
        target=lambda: results.append(plain.run("touch begun; sleep 1000", timeout=60))
    )
    thread.start()
    eventually((tmp_path / "begun").exists)
    plain.close()
    thread.join(20)
    assert results[0].interrupted


def test_a_program_that_ends_without_closing_leaves_nobody(tmp_path, form, eventually, runs):
    program = textwrap.dedent(
        """
        import sys
        from crabrt.process.shell import Shell

        shell = Shell(isolation=sys.argv[1], directory=sys.argv[2])
        shell.run("sleep 1000 &")
        print(shell.record.init_pid, *(one.pid for one in shell._holding.session.members()))
        """
    )
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, form, tmp_path / "channels"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert told.stderr == ""
    pids = [int(word) for word in told.stdout.split()]
    assert len(pids) == 3
    assert [pid for pid in pids if runs(pid)] == []
    assert os.listdir(tmp_path / "channels") == []


UNPRIVILEGED = textwrap.dedent(
    """
    import os, sys, tempfile, asyncio
    import crabrt.process.shell.shell
    from crabrt.process.shell import Shell
    from crabrt.process.shell.launching import refusal

    # Whoever may not read the interpreter's directory needs all modules before.
    first = dict(isolation="session", directory=tempfile.mkdtemp())
    with Shell(**first) as shell:
        Shell.rebuild(shell.record_state(), **first).close()
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    os.environ.pop("XDG_RUNTIME_DIR", None)
    base = tempfile.mkdtemp()
    for form in ("auto", "session", "user-namespace"):
        if form != "auto" and refusal(form) is not None:
            continue
        with Shell(isolation=form, directory=base + "/c", cwd=base) as shell:
            made = shell.run("v=1; id -u; touch made; stat -c %u made").output.split()
            print(form, shell.isolation, made)
            shell.run("sleep 1000 &")
            timed_out = shell.run("sleep 1000", timeout=0.2).timed_out
            print(timed_out, shell.run("echo $v").output.strip())
            state = shell.record_state()
            with Shell.rebuild(state, directory=base + "/c", isolation=form) as other:
                print(other.run("echo $v").output.strip(), other.not_rebuilt)
            print(len(shell._holding.session.members()))
            print(shell.close(), os.listdir(base + "/c"))
    """
)


@pytest.mark.root
def test_users_without_privileges_have_shells_too(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    forms = [line.split()[:2] for line in lines if "session" in line or "namespace" in line]
    best = "session" if refusal("user-namespace") else "user-namespace"
    assert forms[0] == ["auto", best]
    assert ["session", "session"] in forms
    assert lines[0].endswith("['65534', '65534']")
    for at in range(0, len(lines), 5):
        assert lines[at + 1] == "True 1"
        assert lines[at + 2] == "1 ('process in the background: sleep 1000',)"
        assert lines[at + 3] == "2"
        assert lines[at + 4] == "() []"
    assert len(lines) == 5 * len(forms)


def test_a_shell_in_a_shell_ends_alone(plain, tmp_path, open_shell, runs):
    plain.run("sleep 1000 &")
    outer = [one.pid for one in plain._holding.session.members()]
    mark = plain.run("echo $CRAB_SHELL").output.strip()
    inner = open_shell(env={"CRAB_SHELL": mark})
    assert inner.run("sleep 1000 & echo $CRAB_SHELL").output == f"{mark}/{inner.record.mark}\n"
    inner.close()
    assert all(map(runs, outer))


def test_a_shell_without_commands_costs_nothing(tmp_path):
    with Shell(directory=tmp_path / "channels"):
        pass
    assert not (tmp_path / "channels").exists()
