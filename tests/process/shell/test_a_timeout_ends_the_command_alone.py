"""Time limits and interrupts end what is in the foreground, and leave the rest as it was."""

from __future__ import annotations

import threading
import time

import pytest

ENDLESS = {
    "a program": "sleep 1000; echo no",
    "a pipeline": "sleep 1000 | cat | cat; echo no",
    "a loop of programs": "while :; do sleep 0.01; done",
    "a loop of builtins": "while :; do :; done",
    "a builtin that reads": "mkfifo p; read x <>p; echo no",
    "a wait": "sleep 1000 & wait; echo no",
    "a subshell": "(trap 'exit 5' INT; while :; do sleep 0.01; done); echo no",
    "a substitution": "x=$(sleep 1000); echo no",
    "a substitution in a pipe": "cat <(sleep 1000); echo no",
    "a function": "f() { sleep 1000; }; f; echo no",
    "its own stopped shell": "kill -STOP $$; echo no",
    "a job brought back": "sleep 1000 & fg; echo no",
    "a stopped process": "sh -c 'kill -STOP $$'; sleep 1000",
    "a program that ignores SIGINT": "sh -c \"trap '' INT; sleep 1000\"; echo no",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_whatever_it_waits_for(plain, what, tmp_path, outside, runs):
    server = plain.run("v=kept; cd /usr; sleep 2000 & echo $!").output.strip()
    begun = time.monotonic()
    result = plain.run(f"v=new; cd {tmp_path}; {ENDLESS[what]}", timeout=0.3)
    assert time.monotonic() - begun < 15
    assert result.timed_out
    assert not result.interrupted
    assert "no" not in result.output.split()
    assert result.note is None
    after = plain.run("echo $v; pwd")
    assert after.output == f"new\n{tmp_path}\n"
    assert runs(outside(plain, server))


def test_programs_that_refuse_to_go_are_killed(shell, outside, runs):
    server = shell.run("v=kept; sleep 2000 & echo $!").output.strip()
    result = shell.run("trap '' INT TERM; sh -c 'while :; do :; done'; echo after", timeout=0.2)
    assert result.timed_out
    assert result.note is None
    assert shell.run("echo $v").output == "kept\n"
    assert runs(outside(shell, server))


def test_a_shell_that_refuses_to_stop_is_replaced(plain, outside, runs):
    server = plain.run("cd /usr; v=1; sleep 2000 & echo $!").output.strip()
    result = plain.run("trap '' INT TERM; while :; do :; done", timeout=0.2)
    assert result.timed_out
    assert result.exit_status == 137
    assert "a new one in /usr" in result.note
    assert plain.run("echo [$v]; pwd").output == "[]\n/usr\n"
    assert runs(outside(plain, server))


def test_servers_started_by_the_command_itself_survive_its_timeout(shell, outside, runs):
    result = shell.run("sleep 2000 & echo $!; sleep 1000; echo no", timeout=0.5)
    assert result.timed_out
    assert runs(outside(shell, result.output.strip()))


def test_a_job_brought_back_is_ended_and_younger_ones_are_not(plain, outside, runs, eventually):
    old, young = plain.run("sleep 1001 & echo $!; sleep 1002 & echo $!").output.split()
    old, young = outside(plain, old), outside(plain, young)
    result = plain.run("fg %1; echo no", timeout=0.3)
    assert result.timed_out
    assert "no\n" not in result.output
    assert result.note is None
    assert runs(young)
    eventually(lambda: not runs(old))


def test_what_a_command_printed_before_its_time_was_over_is_kept(plain):
    result = plain.run("echo before; sleep 1000", timeout=0.2)
    assert result.output == "before\n"
    assert result.exit_status == 130


def test_a_command_may_take_an_interrupt_as_it_likes(plain):
    result = plain.run(
        "sh -c 'trap \"echo caught; exit 7\" INT; while :; do sleep 0.01; done'", timeout=0.3
    )
    assert result.timed_out
    assert "caught" in result.output


def test_an_interrupt_from_another_thread_ends_the_command(
    shell, tmp_path, eventually, outside, runs
):
    server = shell.run("v=1; sleep 2000 & echo $!").output.strip()

    def interrupt():
        eventually((tmp_path / "begun").exists)
        shell.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = shell.run("touch begun; sleep 1000; echo no", timeout=25)
    thread.join()
    assert result.interrupted
    assert not result.timed_out
    assert result.output == ""
    assert result.exit_status == 130
    assert shell.run("echo $v").output == "1\n"
    assert runs(outside(shell, server))


def test_an_interrupt_while_nothing_runs_is_nothing(plain):
    plain.interrupt()
    plain.run("true")
    plain.interrupt()
    assert plain.run("sleep 0.1; echo ok").output == "ok\n"


def test_a_report_that_an_interrupt_swallowed_is_asked_for_again(plain, eventually, monkeypatch):
    """The line that reports is dropped for real: SIGINT comes while bash is at it."""
    plain.run(":")
    sent = []
    send = plain._holding.session._channels.send

    def without_report(fd, data):
        sent.append(data)
        send(fd, data.splitlines(keepends=True)[0] if len(sent) == 1 else data)

    monkeypatch.setattr(plain._holding.session._channels, "send", without_report)
    result = plain.run("echo done")
    assert len(sent) > 1
    assert result.output == "done\n"
    assert result.exit_status == 0
