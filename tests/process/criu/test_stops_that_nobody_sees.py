"""A tree is stopped for its image; its own job control, and whoever counts children, sees nothing.

With the programs that people run in terminals: tmux, bash, less, vim, Python, script.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from crabrt.process import table, tracing
from crabrt.process.criu import dump
from crabrt.process.criu.proving import same_memory_as_files
from crabrt.process.standstill import Standstill

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not tracing.SUPPORTED, reason="kernel: not of x86-64"),
]

RUNS = """
    import os, sys
    for name, fd in zip(("in", "out"), (0, 1)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), fd)
    os.dup2(1, 2)
    ready()
    os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def scripted(trees, tmp_path, monkeypatch, until):
    """script(1) round a Python that is read from a FIFO, and a function that asks that."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("in")
    child = trees.start(RUNS, "script", "-q", "-c", "python3 -i -q", "typescript")
    until(lambda: ">>> " in Path("out").read_text())

    def answers(number):
        with open("in", "wb", buffering=0) as file:
            file.write(b"print(%d * 1000 + 7)\n" % number)
        until(lambda: f"\n{number}007\n" in Path("out").read_text().replace("\r", ""))

    return child, answers


def test_script_goes_on_after_each_image_and_when_it_is_back(
    criu, trees, scripted, images, tmp_path
):
    child, answers = scripted
    for number in range(1, 5):
        dump(criu, child.pid, tmp_path / str(number))
        answers(number)
    dump(criu, child.pid, images)
    trees.end(child.pid)
    assert trees.restore(criu, images) == child.pid
    answers(5)


@pytest.fixture
def tmux(trees, tmp_path, monkeypatch, until):
    """A tmux server with programs in its windows, and a function that calls tmux."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("LESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    server = trees.start(RUNS, "tmux", "-D", "-S", "socket", "-f", "/dev/null")

    def call(*words):
        command = ["tmux", "-S", "socket", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    until(Path("socket").exists)
    for number, line in enumerate(("seq 1000 | less", "vim -u NONE file", "python3 -q")):
        window = ("-s", "main", "-x", "80", "-y", "24") if not number else ("-t", f"main:{number}")
        call("new-window" if number else "new-session", "-d", *window, "bash --norc")
        call("send-keys", "-t", f"main:{number}", line, "Enter")
    for number, shown in enumerate(("\n23\n:", "[New", "\n>>>")):
        until(lambda n=number, shown=shown: shown in call("capture-pane", "-pt", f"main:{n}"))
    return server, call


def programs(pid):
    return {os.path.basename(table.command(one.pid)[0]): one for one in table.descendants(pid)}


def test_what_runs_in_a_terminal_stays_in_its_foreground(criu, tmux, tmp_path, until):
    server, call = tmux
    groups = {name: one.group for name, one in programs(server.pid).items() if name != b"bash"}
    assert set(groups) == {b"less", b"vim", b"python3"}
    for number in range(8):
        dump(criu, server.pid, tmp_path / str(number))
        shutil.rmtree(tmp_path / str(number))
    assert all(one.state != "T" for one in programs(server.pid).values())
    call("send-keys", "-t", "main:0", "G")
    call("send-keys", "-t", "main:1", "ihere I am", "Escape", ":wq", "Enter")
    call("send-keys", "-t", "main:2", "print(6 * 1000 + 7)", "Enter")
    until(lambda: "\n1000\n" in call("capture-pane", "-pt", "main:0"))
    until(lambda: Path("file").exists() and Path("file").read_text() == "here I am\n")
    until(lambda: "\n6007\n" in call("capture-pane", "-pt", "main:2"))
    for number in range(3):
        assert "Stopped" not in call("capture-pane", "-pt", f"main:{number}")


PARENT = """
    import os, signal, sys
    told, how = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for _ in range(3):
        if not os.fork():
            os.setpgid(0, 0)
            signal.pause()
    ready()
    with open(told, "a", buffering=1) as file:
        while how == "signals":
            found = signal.sigwaitinfo({signal.SIGCHLD})
            print(found.si_code, found.si_status, found.si_pid, file=file)
        while how == "waits":
            pid, status = os.waitpid(-1, os.WUNTRACED | os.WCONTINUED)
            print(status, pid, file=file)
"""
KILLED, STOPPED = 2, 5  # CLD_KILLED and so on


def told_of_end(how, pid):
    code = f"{KILLED} " if how == "signals" else ""
    return f"{code}{signal.SIGKILL:d} {table.inner_number(pid)}\n"


def stopped(still, parent):
    everybody = [*sorted(table.children(parent)), parent]
    assert still.stop(everybody)
    assert all(table.look(pid).state == "T" for pid in everybody)


@pytest.mark.parametrize("where", ["here", "in a namespace"])
@pytest.mark.parametrize("how", ["signals", "waits"])
def test_who_asks_is_told_of_ends_and_of_no_stops(trees, tmp_path, until, how, where):
    """The first one ends behind a stop: a signal waits once, so the kernel drops what tells it."""
    told = tmp_path / "told"
    told.touch()
    is_here = where == "here"
    parent = (trees.start if is_here else trees.inside)(PARENT, told, how)
    parent = parent.pid if is_here else parent
    first, second, *_ = sorted(table.children(parent))
    assert is_here == (table.inner_number(first) == first)
    for _ in range(30):
        with Standstill() as still:
            stopped(still, parent)
    expected = told_of_end(how, first)
    with Standstill() as still:
        stopped(still, parent)
        os.kill(first, signal.SIGKILL)
        until(lambda: table.look(first).state == "Z")
        with tracing.Traced(parent) as process:
            codes = [int.from_bytes(one[8:12], "little") for one in process.waiting()]
        assert codes == [STOPPED]
    until(lambda: told.read_text() == expected)
    expected += told_of_end(how, second)
    os.kill(second, signal.SIGKILL)
    until(lambda: told.read_text() == expected)


def test_a_stop_of_somebody_elses_is_told(trees, tmp_path, until):
    told = tmp_path / "told"
    told.touch()
    parent = trees.start(PARENT, told, "signals")
    stops, *_ = sorted(table.children(parent.pid))
    with Standstill() as still:
        assert still.stop([parent.pid])
        until(lambda: table.look(stops).group == stops)
        os.kill(stops, signal.SIGTSTP)
        until(lambda: table.look(stops).state == "T")
    until(lambda: told.read_text() == f"{STOPPED} {signal.SIGTSTP:d} {stops}\n")


CATCHES = """
    import signal, sys, threading
    def caught(number, frame):
        with open(sys.argv[1], "a") as file:
            print(number, file=file)
    for number in (signal.SIGCONT, signal.SIGUSR1):
        signal.signal(number, caught)
    others = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(3)]
    [one.start() for one in others]
    ready()
    while True:
        signal.pause()
"""


def test_who_catches_that_it_goes_on_is_not_told(trees, tmp_path, until):
    told = tmp_path / "told"
    told.touch()
    child = trees.start(CATCHES, told)
    for _ in range(10):
        with Standstill() as still:
            assert still.stop([child.pid])
        until(lambda: table.look(child.pid).state == "S")
    child.send_signal(signal.SIGUSR1)
    until(lambda: told.read_text() == f"{signal.SIGUSR1:d}\n")
    child.send_signal(signal.SIGCONT)  # somebody else's
    until(lambda: told.read_text() == f"{signal.SIGUSR1:d}\n{signal.SIGCONT:d}\n")


IDLE = {
    "node": ("node", "-e", "require('http').createServer(() => 0).listen(0)"),
    "asyncio": ("python3", "-c", "import asyncio; asyncio.run(asyncio.Event().wait())"),
}
EPOLL = frozenset({b"232", b"281", b"441"})


def is_of_its_image(criu, root, images, until):
    """Whether a tree goes on sleeping after an image as if there had been none."""
    everybody = [root, *(one.pid for one in table.descendants(root))]
    is_at_rest = lambda: all(table.pulse(pid) is not None for pid in everybody)  # noqa: E731
    until(is_at_rest)
    dump(criu, root, images)
    until(is_at_rest)
    is_same = same_memory_as_files(images, {pid: pid for pid in everybody})
    shutil.rmtree(images)
    return is_same


@pytest.mark.parametrize("which", IDLE)
def test_who_waits_in_epoll_is_not_interrupted(criu, trees, images, until, monkeypatch, which):
    monkeypatch.chdir(trees.top)
    child = trees.start(RUNS, *IDLE[which])
    call = Path(f"/proc/{child.pid}/syscall")
    until(lambda: call.read_bytes().split()[0] in EPOLL)
    until(lambda: is_of_its_image(criu, child.pid, images, until))
    for _ in range(3):
        assert is_of_its_image(criu, child.pid, images, until)


def test_a_terminal_and_its_programs_come_to_rest_between_images(criu, tmux, images, until):
    """Some do something after the first one."""
    server, _ = tmux
    until(lambda: is_of_its_image(criu, server.pid, images, until))
