"""A command is run as typed in a terminal would be, and nothing that it does breaks the next."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from crabrt.errors import UsageError
from crabrt.process.shell import Shell, ShellUnavailable
from crabrt.process.shell.reports import Ended


def test_directory_variables_functions_and_status_stay(shell):
    shell.run("cd /usr; v='a  b'; export e=1; declare -A m=([k]=x); f() { echo f-$1; }")
    result = shell.run('echo "$v" $e ${m[k]} $(f 2); pwd; sh -c "echo \\$e"')
    assert result.output == "a  b 1 x f-2\n/usr\n1\n"
    assert result.cwd == shell.cwd == "/usr"
    assert shell.run("(exit 7)").exit_status == 7
    assert shell.run("echo $?").output == "7\n"
    assert result.ok


def test_a_shell_is_in_the_form_that_it_says(shell, form):
    own = os.stat("/proc/self/ns/pid").st_ino
    assert shell.isolation == form
    assert shell.pid is None, "nothing is started before it is needed"
    shell.run(":")
    assert (os.stat(f"/proc/{shell.pid}/ns/pid").st_ino != own) == (form != "session")
    assert (os.stat(f"/proc/{shell.pid}/ns/mnt").st_ino != os.stat("/proc/self/ns/mnt").st_ino) == (
        form != "session"
    )
    with open(f"/proc/{shell.pid}/stat") as file:
        session = int(file.read().rpartition(")")[2].split()[3])
    assert session == shell.pid
    if form != "session":
        assert shell.run("ls -d /proc/[0-9]* | wc -l").output == "4\n"  # with a subshell and ls
    assert shell.run("id -u").output == f"{os.geteuid()}\n"


IMITATIONS = [
    "printf 'report\\0x\\0000\\0himBs\\0/\\0'",
    "printf '\\0report\\0%032d\\0000\\0h\\0/\\0' 0",
    "head -c 300000 /dev/urandom",
    "printf 'no newline'",
    "yes | head -c 3000000",
]


@pytest.mark.parametrize("command", IMITATIONS)
def test_output_is_whatever_bytes_a_command_writes(plain, command):
    result = plain.run(f"{command} | tee copy; cp copy /dev/null")
    with open(os.path.join(plain.cwd, "copy"), "rb") as file:
        written = file.read()
    if result.truncated:
        marker = b"\n[... %d bytes left out ...]\n" % result.left_out_bytes
        before, _, after = result.output_bytes.partition(marker)
        assert written.startswith(before)
        assert written.endswith(after)
        assert len(written) == len(before) + len(after) + result.left_out_bytes
    else:
        assert result.output_bytes == written
    assert plain.run("echo next").output == "next\n"


def test_a_forged_report_on_the_status_channel_is_not_believed(plain):
    plain.run(":")
    status = os.path.join(os.fsdecode(plain.record.directory), "status")
    forged = f"printf '\\0report\\0%032d\\0000\\0h\\0/etc\\0junk' 0 >{status}"
    result = plain.run(f"{forged}; printf '\\0ended\\0009\\0shell\\0001\\0' >{status}; false")
    assert result.exit_status == 1
    assert result.cwd != "/etc"
    assert result.note is None
    assert plain.run("echo next").output == "next\n"


HOSTILE = {
    "reads its input": ("cat; read x; echo $?", "1\n", 0),
    "redirects output for good": ("exec >/dev/null 2>&1; echo lost", "", 0),
    "closes its descriptors": ("exec 0<&- 1>&- 2>&-; true", "", 0),
    "uses an unset variable": (
        "set -u; echo $nope; echo more",
        "bash: nope: unbound variable\n",
        1,
    ),
    "fails to exec": ("exec /nonexistent/x 2>&- || true", "", 0),
    "leaves a quote open": (
        "echo 'open",
        "bash: eval: line 1: unexpected EOF while looking for matching `''\n",
        2,
    ),
    "leaves a here-document open": (
        "cat <<X\nbody",
        "bash: warning: here-document at line 1 delimited by end-of-file (wanted `X')\nbody\n",
        0,
    ),
    "leaves an if open": (
        "if true; then",
        "bash: eval: line 2: syntax error: unexpected end of file\n",
        2,
    ),
    "ends too much": ("echo a\nfi", None, 2),
    "changes IFS": ("IFS=0123456789abcdef/ ", "", 0),
    "shadows builtins": (
        'for n in printf eval pwd . unset set trap; do builtin eval "$n() { echo fake; }"; done',
        "",
        0,
    ),
    "shadows even builtin": ("builtin() { :; }; echo done", "done\n", 0),
    "has aliases of builtins": ("alias builtin=false printf=false pwd=false eval=false", "", 0),
    "traps everything": ("trap 'echo trapped' DEBUG RETURN; trap 'echo err' ERR", None, 0),
    "has a trap that fails": ("trap 'false' ERR; false", "", 1),
    "has a prompt command": (
        "PROMPT_COMMAND='false; x=prompted'; PS1='$(exit 3) >'; PS0=zero",
        "",
        0,
    ),
    "turns off job control": ("set +m", "", 0),
    "turns off execution": ("set -n", "", 0),
    "turns off comments": ("shopt -u interactive_comments expand_aliases", "", 0),
    "is posix": ("set -o posix", "", 0),
    "forbids overwriting": ("set -C", "", 0),
    "traces": ("set -x", "", 0),
    "asks for a terminal": ("stty 2>&-; tty", "not a tty\n", 1),
    "kills its shell softly": ("kill $$; kill -INT $$; echo alive", None, None),
    "returns": ("return 9; echo no", "", 9),
    "defines a function called like a file": ("/bin/echo() { :; }; true", "", 0),
    "has no path": ("PATH=; unset PATH", "", 0),
    "unsets what it can": ("unset PWD OLDPWD HOME DIRSTACK _ IFS", "", 0),
    "fills the stack": ("set -- $(seq 2000)", "", 0),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_the_next_command_is_run_whatever_one(plain, case):
    command, output, status = HOSTILE[case]
    before = plain.run("kept=value; cd /usr && echo ready")
    assert before.output == "ready\n"
    result = plain.run(command)
    if output is not None:
        assert result.output == output
    if status is not None:
        assert result.exit_status == status
    assert result.note is None
    after = plain.run("\\builtin echo next 2>&1; \\builtin pwd")
    lines = [line for line in after.output.splitlines() if line not in {"trapped", "err", "zero"}]
    assert [line for line in lines if not line.startswith("+")] == ["next", "/usr"]
    if case != "fails to exec":
        assert plain.run('\\builtin echo "$kept"').output.splitlines()[-1:] in (
            ["value"],
            ["trapped"],
        )


ENDS = {
    "exit 3": 3,
    "set -e; false; echo no": 1,
    "kill -9 $$": 137,
    "exec sh -c 'echo replaced; exit 4'": 4,
    "trap 'echo bye' EXIT; exit 5": 5,
    "set -e; f() { false; }; f": 1,
}


@pytest.mark.parametrize("command", ENDS)
def test_a_shell_that_ends_is_followed_by_a_new_one_where_it_was(shell, command, runs):
    shell.run("cd /usr; v=1; sleep 1000 & echo $! ")
    (job,) = [one.pid for one in shell._holding.session.members() if one.pid != shell.pid]
    result = shell.run(command)
    assert result.exit_status == ENDS[command]
    assert "a new one in /usr" in result.note
    assert not result.ok
    after = shell.run("pwd; echo [$v]; echo $?")
    assert after.output == "/usr\n[]\n0\n"
    assert after.note is None
    assert runs(job), "a job in the background outlives the shell that started it"
    assert "bye" not in command or "bye" in result.output


def test_a_shell_that_was_killed_meanwhile_is_told(shell, eventually, is_there):
    shell.run("cd /usr")
    os.kill(shell.pid, 9)
    pid = shell.pid
    eventually(lambda: not is_there(pid))
    result = shell.run("pwd")
    assert result.output == "/usr\n"
    assert "had ended" in result.note
    assert shell.run("true").note is None


def test_a_session_that_was_killed_whole_is_told(shell, eventually):
    shell.run("cd /usr; sleep 1000 &")
    os.kill(shell.record.init_pid, 9)
    eventually(lambda: shell._holding.session.is_gone)
    result = shell.run("pwd")
    assert result.output == "/usr\n"
    assert "whole session" in result.note


def test_a_session_that_dies_under_a_command_is_told(shell):
    shell.run("cd /usr")
    killer = threading.Timer(0.2, os.kill, (shell.record.init_pid, 9))
    killer.start()
    result = shell.run("sleep 1000; echo no", timeout=20)
    killer.join()
    assert result.exit_status == -1
    assert "whole session" in result.note
    assert shell.run("pwd").output == "/usr\n"


def test_a_shell_whose_prompt_swallows_commands_never_pretends(plain):
    plain.run("PROMPT_COMMAND='read x'")
    for _ in range(3):
        result = plain.run("touch made; echo yes")
        made = os.path.exists(os.path.join(plain.cwd, "made"))
        assert (result.output == "yes\n") == made
        assert made or "was not run" in result.note
        if made:
            break
    assert made


def test_errors_are_in_their_place_or_apart_on_request(open_shell):
    command = "for i in 1 2 3; do echo o$i; echo e$i >&2; done"
    assert open_shell().run(command).output == "o1\ne1\no2\ne2\no3\ne3\n"
    apart = open_shell(separate_errors=True).run(command)
    assert (apart.output, apart.error) == ("o1\no2\no3\n", "e1\ne2\ne3\n")


def test_megabytes_of_command_are_run(plain):
    text = (
        "x='" + "ab\\'\n" * 0 + "a\tb\xff\u20ac\n" * 300_000 + "'; echo ${#x}; LC_ALL=C; echo ${#x}"
    )
    value = "a\tb\xff\u20ac\n" * 300_000
    _, length = plain.run(text).output.split()
    assert int(length) == len(value.encode())


def test_many_lines_are_one_command(plain):
    command = (
        "for i in 1 2; do\n  cat <<X\nline $i\nX\ndone\nif false; then :; else\necho 'a\nb'; fi"
    )
    assert plain.run(command).output == "line 1\nline 2\na\nb\n"
    assert plain.run("\n\n# only a comment").exit_status == 0
    assert plain.run("").output == ""
    assert plain.run("echo \\").output == "\\\n"
    assert plain.run("echo after").output == "after\n"


def test_commands_cannot_hold_nul(plain):
    with pytest.raises(UsageError, match="NUL"):
        plain.run(b"echo \0")


def test_bytes_that_are_no_text_reach_the_command(plain):
    assert plain.run(b"printf %s '\xff\xfe\x01\x7f'").output_bytes == b"\xff\xfe\x01\x7f"


def test_descriptors_of_the_protocol_are_not_inherited(plain):
    listed = plain.run("ls -l /proc/self/fd").output
    assert "status" not in listed
    assert "/command" not in listed
    assert "control" not in listed


def test_output_comes_while_the_command_runs(plain, tmp_path):
    pieces = []

    def heard(piece):
        pieces.append(piece)
        (tmp_path / "go").touch()

    result = plain.run("echo first; until [ -e go ]; do :; done; echo last", on_output=heard)
    assert result.output == "first\nlast\n"
    assert pieces[0] == b"first\n"
    assert b"".join(pieces) == b"first\nlast\n"


def test_a_callback_gets_all_of_what_the_result_cuts(open_shell):
    shell = open_shell(output_limit_bytes=1000)
    heard = []
    result = shell.run("seq 200000", on_output=heard.append)
    whole = b"".join(heard)
    assert whole == b"".join(b"%d\n" % i for i in range(1, 200001))
    assert result.truncated
    assert len(result.output_bytes) < 1100
    assert result.output_bytes.startswith(whole[:500])
    assert result.output_bytes.endswith(whole[-500:])


def test_a_callback_that_raises_ends_the_command_and_no_more(plain):
    def heard(piece):
        raise LookupError(piece)

    with pytest.raises(LookupError, match="go"):
        plain.run("v=1; echo go; sleep 1000", on_output=heard)
    assert plain.run("echo $v; jobs").output == "1\n"


def test_jobs_in_the_background_work_as_usual(shell, runs, outside):
    pid = shell.run("sleep 1000 & echo $!").output.strip()
    assert runs(outside(shell, pid))
    assert shell.run("jobs -p").output.strip() == pid
    assert shell.run("kill %1; wait $!; echo $?").output.splitlines()[-1] == "143"
    assert shell.run("(sleep 0.05; exit 3) & wait $!").exit_status == 3
    assert shell.run("nohup sleep 1000 >/dev/null 2>&1 & disown; jobs").output == ""
    assert shell.run("sleep 0.05 & fg").exit_status == 0


def test_output_from_the_background_is_kept_for_who_asks(plain, tmp_path, eventually):
    plain.run("(until [ -e go ]; do :; done; echo late; touch said) &")
    assert plain.background_output() == b""
    (tmp_path / "go").touch()
    eventually((tmp_path / "said").exists)
    assert eventually(plain.background_output) == b"late\n"
    assert plain.run("echo now").output == "now\n"
    assert plain.background_output() == b""


def test_a_job_that_prints_without_end_neither_stops_nor_grows_anything(open_shell, eventually):
    shell = open_shell(output_limit_bytes=10_000)
    shell.run("yes & echo $!")
    job = next(one.pid for one in shell._holding.session.members() if one.pid != shell.pid)

    def written():
        with open(f"/proc/{job}/io") as file:
            return int(dict(line.split(": ") for line in file.read().splitlines())["wchar"])

    eventually(lambda: written() > 30_000_000)
    assert len(shell.background_output()) < 11_000
    assert shell.run("true").exit_status == 0


def test_thousands_of_commands_leave_nothing_behind(plain):
    plain.run(":")

    def held():
        with open(f"/proc/{plain.pid}/statm") as file:
            pages = int(file.read().split()[5])
        ours, its = (len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), plain.pid))
        return ours, its, len(os.listdir(plain.record.directory)), pages

    for _ in range(500):
        plain.run("x=1")
    *before, pages = held()
    for i in range(3_000):
        plain.run(f"x={i}")
    *after, pages_after = held()
    assert after == before
    assert pages_after - pages < 500
    assert plain.run("echo $x").output == "2999\n"


def test_threads_take_turns(plain):
    results = []

    def act(i):
        results.append(plain.run(f"x={i}; sleep 0.02; echo $x").output == f"{i}\n")

    threads = [threading.Thread(target=act, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


async def test_event_loops_run_commands_too(open_shell):
    heard = []
    async with open_shell() as shell:
        ticks = asyncio.create_task(asyncio.sleep(0.01, "the loop runs"))
        result = await shell.arun("echo a; sleep 0.1; echo b", on_output=heard.append)
        assert ticks.done()
        assert result.output == "a\nb\n"
        assert b"".join(heard) == b"a\nb\n"
    with pytest.raises(ShellUnavailable, match="closed"):
        await shell.arun("true")


async def test_a_cancelled_command_is_ended_and_its_shell_is_not(plain, tmp_path, eventually):
    task = asyncio.create_task(plain.arun("v=1; touch begun; sleep 1000"))
    await asyncio.to_thread(eventually, (tmp_path / "begun").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert plain.run("echo $v; jobs").output == "1\n"


@pytest.mark.parametrize("command", ["ulimit -n 4", "enable -n builtin", "enable -n printf"])
def test_a_shell_that_can_report_no_more_is_replaced(plain, command):
    plain.run("cd /usr; v=1")
    result = plain.run(f"{command}; echo done", timeout=25)
    assert result.output == "done\n"
    assert "what it needs to report" in result.note
    assert not result.timed_out
    assert plain.run("echo [$v]; pwd").output == "[]\n/usr\n"


def test_nothing_that_the_loop_has_open_is_held_by_a_shell(shell):
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    shell.run("true")
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_an_end_that_nobody_told_is_noticed(plain, monkeypatch):
    plain.run("cd /usr")
    listener = plain._holding.session._listener
    take, dropped = listener.take, []

    def without_ends(wanted):
        record = take(wanted)
        if isinstance(record, Ended):
            dropped.append(record)
            return None
        return record

    monkeypatch.setattr(listener, "take", without_ends)
    result = plain.run("kill -9 $$", timeout=25)
    assert dropped[0].status == 137
    assert not result.timed_out
    assert result.exit_status == -1
    assert "ended" in result.note
    assert plain.run("pwd").output == "/usr\n"


def test_the_end_is_told_whatever_others_write_on_the_status_channel(plain):
    plain.run("true")
    status = os.path.join(os.fsdecode(plain.record.directory), "status")
    for junk in ("'' report a", "'' report a 0 h", "'' begun", "junk", "'' ended"):
        result = plain.run(f"printf '%s\\0' {junk} >{status}; printf junk >{status}; kill -9 $$")
        assert result.exit_status == 137


def test_a_callback_cannot_use_its_own_shell(plain):
    told = []

    def heard(piece):
        for use in (lambda: plain.run("true"), plain.close, plain.detach, plain.record_state):
            with pytest.raises(UsageError, match="callback"):
                use()
            told.append(use)

    assert plain.run("echo once; v=1", on_output=heard).output == "once\n"
    assert len(told) == 4
    assert plain.run("echo $v").output == "1\n"


def test_a_shell_whose_channels_were_removed_is_replaced(plain):
    plain.run("cd /usr")
    result = plain.run(f"rm -rf {os.fsdecode(plain.record.directory)}; echo removed", timeout=25)
    assert result.output == "removed\n"
    assert "ended" in result.note
    after = plain.run("pwd")
    assert after.output == "/usr\n"
    assert "whole session" in after.note


def test_a_directory_that_goes_away_costs_the_directory_alone(plain, tmp_path):
    (tmp_path / "gone").mkdir()
    plain.run(f"v=1; cd {tmp_path}/gone; rmdir {tmp_path}/gone")
    assert plain.run("echo $v").output == "1\n"
    assert plain.run("exit").note is not None
    result = plain.run("pwd")
    assert (result.output, result.cwd) == ("/\n", "/")


def test_the_environment_is_the_loops_with_changes(open_shell, monkeypatch):
    monkeypatch.setenv("FROM_LOOP", "1")
    monkeypatch.setenv("TMOUT", "1")
    shell = open_shell(env={"GIVEN": "a b"})
    out = shell.run('echo $FROM_LOOP "$GIVEN" $TERM [$TMOUT] [$PS1] [$OLDPWD]; set -o | grep hist')
    assert out.output.splitlines()[0] == "1 a b dumb [] [] []"
    assert out.output.splitlines()[1:] == ["histexpand     \toff", "history        \toff"]


def test_bad_wishes_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(UsageError, match="no name"):
        Shell("a/b")
    with pytest.raises(UsageError, match="room"):
        Shell(timeout=0)
    with pytest.raises(ShellUnavailable, match="no isolation 'vm'"):
        Shell(isolation="vm").run("true")
    with pytest.raises(ShellUnavailable, match="no directory"):
        Shell(cwd=tmp_path / "nowhere", isolation="session", directory=tmp_path / "c").run("true")
    with pytest.raises(ShellUnavailable, match="there is no /nonexistent/bash"):
        Shell(bash="/nonexistent/bash", isolation="session", directory=tmp_path / "c").run("true")
    assert os.listdir(tmp_path / "c") == []
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ShellUnavailable, match="others may look"):
        Shell(directory=tmp_path / "open", isolation="session").run("true")
