"""The loop dies, by SIGKILL; its shell does not, and another process goes on with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import msgspec
import pytest

from crabrt.errors import UsageError
from crabrt.process.shell import Shell, ShellRecord, ShellUnavailable
from crabrt.process.table import children

LOOP = textwrap.dedent(
    """
    import sys
    import msgspec
    from crabrt.process.shell import Shell

    form, base, cwd, command = sys.argv[1:]
    shell = Shell(isolation=form, directory=base, cwd=cwd)
    shell.run("v='a loop set this'; sleep 2000 & server=$!")
    print(msgspec.json.encode(shell.record).decode(), flush=True)
    shell.run(command, on_output=lambda piece: print("heard", flush=True))
    print("never", flush=True)
    """
)


@pytest.fixture
def killed_loop(tmp_path, eventually):
    """Runs a loop at a command, and kills it as soon as it has heard output; the shell's record."""

    def act(form, command, *, heard=True):
        loop = subprocess.Popen(
            [sys.executable, "-c", LOOP, form, tmp_path / "channels", tmp_path, command],
            stdout=subprocess.PIPE,
        )
        with loop:
            record = msgspec.json.decode(loop.stdout.readline(), type=ShellRecord)
            if heard:
                assert loop.stdout.readline() == b"heard\n"
            else:
                eventually((tmp_path / "begun").exists)
            loop.kill()
            assert loop.wait() == -signal.SIGKILL
            assert b"never" not in loop.stdout.read()
        return record

    return act


def test_the_next_loop_gets_the_rest_and_the_status(killed_loop, form, tmp_path):
    command = "echo first; until [ -e go ]; do sleep 0.01; done; seq 50000; cd /usr; v2=1; (exit 6)"
    record = killed_loop(form, command)
    with Shell.attach(record) as shell:
        assert shell.isolation == form
        (tmp_path / "go").touch()
        result = shell.rejoin(timeout=20)
        assert result.output == "".join(f"{i}\n" for i in range(1, 50001))
        assert result.exit_status == 6
        assert result.cwd == "/usr"
        assert shell.rejoin() is None
        assert shell.run('echo $? "$v" $v2; pwd; kill -0 $server && echo up').output == (
            "6 a loop set this 1\n/usr\nup\n"
        )


def test_what_was_written_while_nobody_listened_is_not_lost(killed_loop, tmp_path, eventually):
    record = killed_loop("session", "touch begun; sleep 0.2; seq 5000; touch done", heard=False)
    eventually((tmp_path / "done").exists)
    with Shell.attach(record) as shell:
        result = shell.rejoin()
        assert result.output.endswith("4999\n5000\n")
        assert result.exit_status == 0


def test_the_command_of_a_killed_loop_can_be_ended(killed_loop):
    record = killed_loop("session", "echo on; sleep 1000; echo no")
    with Shell.attach(record) as shell:
        result = shell.rejoin(timeout=0.1)
        assert result.timed_out
        assert "no" not in result.output
        assert shell.run("echo $v").output == "a loop set this\n"


def test_a_shell_that_ended_without_a_loop_is_told(killed_loop, tmp_path, eventually, runs):
    command = "touch begun; until [ -e go ]; do sleep 0.01; done; exit 3"
    record = killed_loop("session", command, heard=False)
    (tmp_path / "go").touch()
    shells = children(record.init_pid)
    assert len(shells) == 1
    eventually(lambda: not any(map(runs, shells)))
    with Shell.attach(record) as shell:
        result = shell.rejoin()
        assert result.exit_status == 3
        assert "ended" in result.note
        assert shell.run("echo [$v]").output == "[]\n"


def test_a_shell_that_somebody_let_go_of_is_taken_up(shell, tmp_path):
    shell.run("cd /usr; v=1")
    record = shell.detach()
    with pytest.raises(ShellUnavailable, match="closed"):
        shell.run("true")
    with Shell.attach(record) as again:
        assert again.cwd == "/usr"
        assert again.rejoin() is None
        assert again.run("echo $v; pwd").output == "1\n/usr\n"


def test_only_one_process_at_a_time_is_attached(plain):
    plain.run("true")
    program = (
        "import sys, msgspec\n"
        "from crabrt.process.shell import *\n"
        "record = msgspec.json.decode(sys.argv[1], type=ShellRecord)\n"
        "try: Shell.attach(record)\n"
        "except ShellUnavailable as error: print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, msgspec.json.encode(plain.record)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "another process is attached" in told.stdout
    assert plain.run("echo mine").output == "mine\n"


def test_a_shell_that_is_gone_is_not_attached_to(plain, runs):
    plain.run("true")
    record = plain.record
    plain.close()
    assert not runs(record.init_pid)
    with pytest.raises(ShellUnavailable, match="does not run any more"):
        Shell.attach(record)
    other = msgspec.structs.replace(record, init_pid=os.getpid())
    with pytest.raises(ShellUnavailable, match="does not run any more"):
        Shell.attach(other)


def test_a_forked_child_does_not_own_the_shell(plain):
    plain.run("v=1")
    pid = os.fork()
    if pid == 0:
        try:
            refused = 0
            for method in (lambda: plain.run("v=2"), plain.interrupt, plain.background_output):
                try:
                    method()
                except UsageError:
                    refused += 1
            refused += plain.close() == ()
            os._exit(40 + refused)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 44
    assert plain.run("echo $v").output == "1\n"
