"""A process that has no image is recorded, ends, and is started again as it was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from crabrt.core.processes import ProcessState, ProcessTree
from crabrt.process import claims, sockets, subreaper, table
from crabrt.process.respawning import launching
from crabrt.process.respawning.launching import NotStarted
from crabrt.process.respawning.recording import with_services
from crabrt.process.respawning.returning import respawn
from crabrt.process.respawning.starting import start
from crabrt.process.revivals import Missing, Revival
from crabrt.process.shell import Shell
from crabrt.process.sighting import Sighting, sight

TELLS = """
import json, os, resource, socket, sys
def told():
    told = {"argv": sys.argv[1:], "directory": os.getcwd(), "environment": dict(os.environ)}
    told["umask"] = os.umask(0)
    os.umask(told["umask"])
    told["nice"] = os.getpriority(os.PRIO_PROCESS, 0)
    told["limit"] = resource.getrlimit(resource.RLIMIT_NOFILE)
    told["ids"] = [os.getuid(), os.getgid(), sorted(os.getgroups())]
    told["leads"] = [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()]
    told["streams"] = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)]
    return json.dumps(told).encode()
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    client, _ = server.accept()
    with client:
        client.sendall(told())
        print("asked", flush=True)
"""


@pytest.fixture
def port():
    """One that nobody is given by chance."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for number in random.sample(range(1024, low), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", number)):
            return number
    raise AssertionError("every port is taken")


@pytest.fixture
def world(tmp_path, until):
    """Starts processes, and ends all that is left of them."""
    assert subreaper.hold()
    made = World(tmp_path, until)
    yield made
    made.close()
    subreaper.release()


class World:
    def __init__(self, top, until):
        self.top, self.until = top, until
        self._before = {one.identity for one in table.descendants(os.getpid())}
        self._children = []

    def begin(self, *argv, **given):
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        child = subprocess.Popen(list(map(str, argv)), **{**quiet, "cwd": self.top, **given})
        self._children.append(child)
        # A moment after exec a process has no arguments yet.
        self.until(lambda: not (table.command(child.pid) or (b"",))[0].startswith(b"["))
        return child.pid

    def python(self, code, *argv, **given):
        return self.begin(sys.executable, "-c", textwrap.dedent(code), *argv, **given)

    def tree(self, pid):
        found = [table.look(pid), *table.descendants(pid)]
        (tree,) = sight(found, Sighting()).state.trees
        return tree

    def recorded(self, pid, **given):
        (tree,) = with_services([self.tree(pid)], **given)
        return tree

    def listening(self, pid):
        self.until(lambda: any(one.listens for one in self.tree(pid).processes))

    def end(self, pid):
        for one in [table.look(pid), *table.descendants(pid)]:
            os.kill(one.pid, signal.SIGKILL)
        self.close()

    def close(self):
        self.until(self._ended)
        for child in self._children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def _ended(self):
        left = [one for one in table.descendants(os.getpid()) if one.identity not in self._before]
        ours = {child.pid for child in self._children}
        for one in left:
            if not one.ended:
                os.kill(one.pid, signal.SIGKILL)
            elif one.pid not in ours:
                with contextlib.suppress(ChildProcessError):  # its parent has to go first
                    os.waitpid(one.pid, os.WNOHANG)
        return all(one.ended and one.pid in ours for one in left)


def again(tree, run=""):
    """All of a tree, started again."""
    missing = Revival(missing=(Missing(tree.top, "no image", tree.startable),))
    return respawn(ProcessState("boot", (tree,)), missing, run)


def asked(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        return json.loads(b"".join(iter(lambda: client.recv(1 << 16), b"")))


def commands(tree):
    return [b" ".join(one.command[-2:]) for one in tree.startable]


def test_all_that_was_recorded_is_as_it_was(world, port, tmp_path):
    (tmp_path / "where").mkdir()
    environment = {"PATH": os.environ["PATH"], "TOKEN": "sekrit", "ODD": "a=b\nc", "BAD": "\udcff"}
    environment["LONG"] = "x" * 100_000  # more than a pipe holds

    def otherwise():
        os.umask(0o027)
        os.nice(3)
        resource.setrlimit(resource.RLIMIT_NOFILE, (77, 99))

    with open(tmp_path / "log", "w") as log:
        log.write("before\n")
        log.flush()
        pid = world.python(
            TELLS, port, "with a space", cwd=tmp_path / "where", env=environment, stdout=log,
            stderr=log, preexec_fn=otherwise, start_new_session=True,
        )  # fmt: skip
    world.listening(pid)
    was = asked(port)
    assert was["umask"] == 0o027
    assert was["limit"] == [77, 99]
    world.until(lambda: "asked" in (tmp_path / "log").read_text())
    tree = world.recorded(pid)
    world.end(pid)
    done = again(tree)
    assert done.complete
    (started,) = done.started
    assert started.listens == (f"tcp 127.0.0.1:{port}",)
    assert (started.lost, started.silent) == ((), ())
    assert [who[0] for who in done.processes] == [started.pid]
    assert started.pid != pid
    assert asked(port) == was
    world.until(lambda: (tmp_path / "log").read_text().count("asked") == 2)
    assert (tmp_path / "log").read_text() == "before\nlistening\nasked\nlistening\nasked\n"


@pytest.mark.parametrize("how", ["session", "group", ""])
def test_who_led_a_session_or_a_group_does(world, port, how):
    given = {"session": {"start_new_session": True}, "group": {"process_group": 0}, "": {}}[how]
    pid = world.python(TELLS, port, **given)
    world.listening(pid)
    leads = asked(port)["leads"]
    assert leads == {"session": [True, True], "group": [False, True], "": [False, False]}[how]
    tree = world.recorded(pid)
    world.end(pid)
    (started,) = again(tree).started
    assert asked(port)["leads"] == leads
    assert table.look(started.pid).session != os.getsid(0), "Ctrl-C is not for it"


@pytest.mark.root
def test_another_users_process_is_his_again(world, port):
    pid = world.begin("python3", "-c", TELLS, port, user=65534, group=65534, extra_groups=[7, 9],
                      cwd="/")  # fmt: skip
    world.listening(pid)
    tree = world.recorded(pid)
    world.end(pid)
    again(tree)
    assert asked(port)["ids"] == [65534, 65534, [7, 9]]


def test_another_users_process_is_not_ours_to_start(world, monkeypatch):
    pid = world.begin("sleep", "1000")
    tree = world.recorded(pid)
    (service,) = tree.services
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    with pytest.raises(NotStarted, match=f"it ran as user {service.user}; only root"):
        start(tree.top, service, ())


def test_what_led_to_a_pipe_or_to_a_file_without_a_name_is_told(world, tmp_path):
    with open(tmp_path / "gone", "w") as gone:
        pid = world.begin(
            "sleep", "1000", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=gone
        )
    (tmp_path / "gone").unlink()
    tree = world.recorded(pid)
    world.end(pid)
    (started,) = again(tree).started
    assert started.lost == (
        "standard input led to a pipe: it is /dev/null now",
        "standard output led to a pipe: it is /dev/null now",
        "standard error led to a file that has no name any more: it is /dev/null now",
    )
    streams = [os.readlink(f"/proc/{started.pid}/fd/{fd}") for fd in range(3)]
    assert streams == ["/dev/null"] * 3


def test_a_log_is_appended_to_and_made_anew_if_it_is_gone(world, tmp_path):
    with open(tmp_path / "log", "a") as log:
        pid = world.begin("sh", "-c", "exec tail -f /dev/null", stdout=log)
    world.until(lambda: table.command(pid)[0] == b"tail")
    tree = world.recorded(pid)
    world.end(pid)
    (tmp_path / "log").unlink()
    (started,) = again(tree).started
    assert os.readlink(f"/proc/{started.pid}/fd/1") == str(tmp_path / "log")
    flags = Path(f"/proc/{started.pid}/fdinfo/1").read_text().split()[3]
    assert int(flags, 8) & os.O_APPEND


def test_an_output_that_cannot_be_opened_is_told(world, tmp_path):
    (tmp_path / "inside").mkdir()
    with open(tmp_path / "inside" / "log", "a") as log:
        pid = world.begin("sleep", "1000", stdout=log)
    tree = world.recorded(pid)
    world.end(pid)
    (tmp_path / "inside" / "log").unlink()
    (tmp_path / "inside").rmdir()
    (started,) = again(tree).started
    path = tmp_path / "inside" / "log"
    assert started.lost == (f"standard output is not {path}: No such file or directory",)


def test_one_that_was_stopped_runs_again_and_that_is_told(world):
    pid = world.begin("sleep", "1000")
    plain = world.recorded(pid)
    os.kill(pid, signal.SIGSTOP)
    world.until(lambda: table.look(pid).state == "T")
    tree = world.recorded(pid)
    assert [one.stopped for one in (*plain.services, *tree.services)] == [False, True]
    held = world.recorded(pid, daemons=False)  # by who brings processes back: he stopped it
    assert [one.stopped for one in held.services] == [False]
    world.end(pid)
    (started,) = again(tree).started
    assert started.lost == ("it was stopped, and runs now",)
    assert table.look(started.pid).state != "T"
    world.end(started.pid)
    assert again(plain).started[0].lost == ()


def test_it_says_whose_it_is(world):
    clean = {name: value for name, value in os.environ.items() if name != "CRAB_RUN"}
    trees = [world.recorded(world.begin("sleep", "1000", env=env)) for env in (
        clean, clean | {"CRAB_RUN": "other-1"}, clean | {"CRAB_RUN": "outer-1/mine-1,other-1"}
    )]  # fmt: skip
    said = []
    for tree in trees:
        (started,) = again(tree, "mine-1").started
        variables = Path(f"/proc/{started.pid}/environ").read_text().split("\0")
        said += [one for one in variables if one.startswith("CRAB_RUN=")]
    assert said == ["CRAB_RUN=mine-1", "CRAB_RUN=mine-1", "CRAB_RUN=outer-1/mine-1,other-1"]


def test_a_place_that_is_taken_is_named(world, port):
    pid = world.python(TELLS, port)
    world.listening(pid)
    tree = world.recorded(pid)
    world.end(pid)
    with socket.create_server(("0.0.0.0", port)):
        (missing,) = again(tree).missing
    assert missing.why.startswith(f"tcp 127.0.0.1:{port} is taken, by ")
    assert missing.why.endswith(f"(pid {os.getpid()}); end that, then try again")
    assert missing.startable == (tree.top,)
    assert again(tree).complete


def test_a_program_that_is_gone_is_named(world, tmp_path):
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    tree = world.recorded(world.begin(program, "1000"))
    program.unlink()
    (missing,) = again(tree).missing
    assert missing.why == f"cannot execute it {program}: No such file or directory"


def test_a_directory_that_is_gone_is_named(world, tmp_path):
    (tmp_path / "where").mkdir()
    tree = world.recorded(world.begin("sleep", "1000", cwd=tmp_path / "where"))
    (tmp_path / "where").rmdir()
    (missing,) = again(tree).missing
    assert missing.why == f"cannot enter its directory {tmp_path / 'where'}: {os.strerror(2)}"


@pytest.mark.parametrize(
    ("ends", "how"),
    [("sys.exit(3)", "with status 3"), ("os.kill(os.getpid(), 9)", "by signal 9")],
)
def test_one_that_ends_at_once_is_named(world, port, tmp_path, ends, how):
    code = f"import os, sys\nif os.path.exists('broken'): {ends}\n" + TELLS
    with open(tmp_path / "log", "w") as log:
        pid = world.python(code, port, stderr=log)
    world.listening(pid)
    tree = world.recorded(pid)
    world.end(pid)
    (tmp_path / "broken").touch()
    (missing,) = again(tree).missing
    assert missing.why == f"it ended at once, {how}; what it wrote is in {tmp_path / 'log'}"


def test_one_that_does_not_listen_any_more_is_told(world, port, tmp_path, monkeypatch):
    code = "import os, time\nif os.path.exists('deaf'): time.sleep(1000)\n" + TELLS
    pid = world.python(code, port)
    world.listening(pid)
    tree = world.recorded(pid)
    world.end(pid)
    (tmp_path / "deaf").touch()
    monkeypatch.setattr(launching, "LIMIT_S", 0.5)
    done = again(tree)
    assert not done.complete
    (started,) = done.started
    assert started.silent == (f"tcp 127.0.0.1:{port}",)
    assert table.look(started.pid) is not None


def test_one_that_was_given_another_port_is_not_waited_for(world):
    pid = world.python(TELLS, 0)
    world.listening(pid)
    tree = world.recorded(pid)
    world.end(pid)
    (started,) = again(tree).started
    (now,) = started.listens
    assert started.silent == tree.top.listens != (now,)


RELATIVE = """
import os, socket, sys, time
server = socket.socket(socket.AF_UNIX, int(sys.argv[1]) if sys.argv[1:] else socket.SOCK_STREAM)
server.bind("relative.sock")
server.listen()
time.sleep(1000)
"""


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_unix_socket_that_nobody_listens_on_any_more_is_in_nobodys_way(world, tmp_path, kind):
    pid = world.python(RELATIVE, int(kind))
    world.listening(pid)
    tree = world.recorded(pid)
    assert tree.top.listens == ("unix relative.sock",)
    (missing,) = again(tree).missing
    assert missing.why.startswith(f"unix relative.sock in {tmp_path} is taken, by ")
    assert missing.why.endswith(f"(pid {pid}); end that, then try again")
    world.end(pid)
    assert (tmp_path / "relative.sock").exists()
    assert again(tree).complete


@pytest.mark.parametrize("name", ["mine", "m" * 120])
def test_a_socket_of_the_same_name_in_another_directory_is_in_nobodys_way(world, tmp_path, name):
    mine, theirs = tmp_path / name, tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir()
    pid = world.python(RELATIVE, cwd=mine)
    world.listening(pid)
    tree = world.recorded(pid)
    other = world.python(RELATIVE, cwd=theirs)
    world.listening(other)
    (missing,) = again(tree).missing
    assert f"(pid {pid})" in missing.why
    os.kill(pid, signal.SIGKILL)
    world.until(lambda: table.look(pid).ended)
    assert again(tree).complete
    assert table.look(other).state != "Z"


def test_a_place_is_taken_by_whatever_path_it_was_bound_to(world, tmp_path):
    pid = world.python(RELATIVE)
    world.listening(pid)
    tree = world.recorded(pid)
    world.end(pid)
    (tmp_path / "relative.sock").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "relative.sock"))
        server.listen()
        (missing,) = again(tree).missing
    assert f"(pid {os.getpid()})" in missing.why


DAEMON = (
    """
import os, sys
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
"""
    + TELLS
)


def test_one_that_goes_into_the_background_is_followed_there(world, port):
    world.python(DAEMON, port)

    def daemon():
        new = [one for one in table.descendants(os.getpid()) if sockets.listens(one.pid)]
        return new[0].pid if new else None

    pid = world.until(daemon)
    tree = world.recorded(pid)
    assert commands(tree)
    assert commands(world.recorded(pid, daemons=False)) == []
    world.end(pid)
    (started,) = again(tree).started
    assert sockets.listens(started.pid) == (f"tcp 127.0.0.1:{port}",)
    assert started.processes == (table.look(started.pid).identity,)


def test_a_fork_of_the_loop_itself_is_never_started(world):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.pause()
        os._exit(0)
    world.until(lambda: table.look(pid).session == pid)
    assert world.recorded(pid).services == ()


def test_a_process_that_shows_a_title_is_not_started(world):
    pid = world.begin("sleep", "1000", executable="/bin/sleep")
    shown = msgspec.structs.replace(world.tree(pid).top, command=(b"sleep: as a title", b""))
    (tree,) = with_services([ProcessTree((shown,))])
    assert tree.services == ()


@pytest.mark.parametrize(
    ("script", "started"),
    [
        # A subshell has its parent's arguments: all of them would run once more.
        ("mkdir sub; (cd sub && {server}; true) & wait", ["{port}"]),
        ("mkdir sub; cd sub; {server}; true", ["{port}"]),
        ("while true; do sleep 1000; done", ["-c while true; do sleep 1000; done"]),
        ("(sleep 1001; true) & {server}; true", ["1001", "{port}"]),
        ("exec {server}", ["{port}"]),
    ],
)  # fmt: skip
def test_of_a_shell_what_it_runs_is_started(world, port, script, started):
    world.top.joinpath("server.py").write_text(TELLS)
    server = f"{sys.executable} {world.top}/server.py {port}"
    pid = world.begin("sh", "-c", script.format(server=server))
    sleeps = "sleep" in script
    world.until(lambda: "server" not in script or asked_once(world, pid))
    world.until(lambda: not sleeps or b"sleep" in b" ".join(map(all_of, world.tree(pid).processes)))
    tree = world.recorded(pid)
    wanted = [one.format(port=port).encode() for one in started]
    found = sorted(map(all_of, tree.startable), key=lambda one: b"sleep" not in one)
    assert [one[-len(end) :] for one, end in zip(found, wanted, strict=True)] == wanted
    world.end(pid)
    done = again(tree)
    assert done.complete, done.missing
    assert len(done.started) == len(started)


def all_of(process):
    return b" ".join(process.command)


def asked_once(world, pid):
    return any(one.listens for one in world.tree(pid).processes)


def test_of_a_shell_that_read_its_commands_what_it_runs_is_started(world):
    pid = world.begin("bash", "--norc", "+o", "history", stdin=subprocess.PIPE)
    world._children[-1].stdin.write(b"sleep 1002 & sleep 1003 &\n")
    world._children[-1].stdin.flush()
    world.until(lambda: len(world.tree(pid).processes) == 3)
    world.until(lambda: all(b"sleep" in all_of(one) for one in world.tree(pid).processes[1:]))
    assert sorted(commands(world.recorded(pid))) == [b"sleep 1002", b"sleep 1003"]


def test_of_a_shell_what_is_not_recorded_is_told(world, port):
    """A tree of which a part runs again is not back."""
    world.top.joinpath("server.py").write_text(TELLS)
    server = f"{sys.executable} {world.top}/server.py {port}"
    hidden = "(exec -a 'server *:6379' sleep 1006) &"
    pid = world.begin("bash", "-c", f"{hidden} {server}; true")
    world.until(lambda: asked_once(world, pid))
    world.until(lambda: b"server *:6379 1006" in map(all_of, world.tree(pid).processes))
    tree = world.recorded(pid)
    world.end(pid)
    done = again(tree)
    assert [b"server.py" in all_of(one.was) for one in done.started] == [True]
    assert [all_of(one.top) for one in done.missing] == [b"server *:6379 1006"]
    assert "nothing tells how it was started" in done.missing[0].why
    assert not done.complete


@pytest.mark.parametrize("isolation", ["session", "auto"])
def test_of_a_shell_of_ours_what_it_runs_is_started(world, isolation):
    """Never the shell itself: who needs it makes it anew, with its state."""
    with Shell(cwd=world.top, isolation=isolation) as shell:
        shell.run("true")
        first = shell.record.init_pid
        assert world.recorded(first).services == ()
        shell.run("sleep 1004 &")
        world.until(lambda: commands(world.recorded(first)) == [b"sleep 1004"])


def test_they_begin_in_the_order_in_which_they_once_began(world, tmp_path):
    """One that needs another finds it there."""
    trees = []
    for name in ("first", "second"):
        code = f"open('order', 'a').write('{name} ')\nimport time; time.sleep(1000)"
        trees.append(world.recorded(world.python(code)))
        text = "first " if name == "first" else "first second "
        world.until(lambda text=text: (tmp_path / "order").exists()
                    and (tmp_path / "order").read_text() == text)  # fmt: skip
        ticks = Path("/proc/uptime").read_text().split()[0]
        world.until(lambda ticks=ticks: Path("/proc/uptime").read_text().split()[0] != ticks)
    (tmp_path / "order").unlink()
    state = ProcessState("boot", tuple(reversed(trees)))
    missing = Revival(missing=tuple(Missing(one.top, "", one.startable) for one in state.trees))
    assert respawn(state, missing).complete
    world.until(lambda: (tmp_path / "order").read_text() == "first second ")


def test_nobody_tells_what_its_environment_holds(world):
    pid = world.begin("sleep", "1000", env={"TOKEN": "sekrit"})
    tree = world.recorded(pid)
    assert b"TOKEN=sekrit" in tree.services[0].environment
    assert "sekrit" not in repr(tree)


def test_nothing_is_recorded_of_who_has_an_image_or_is_gone(world):
    pid = world.begin("sleep", "1000")
    tree = world.tree(pid)
    (imaged,) = with_services([msgspec.structs.replace(tree, imaged=True)])
    assert imaged.services == ()
    world.end(pid)
    (gone,) = with_services([tree])
    assert gone.services == ()


def test_a_state_of_before_is_read(world):
    """Trees had no services once."""
    tree = world.recorded(world.begin("sleep", "1000"))
    fields = msgspec.to_builtins(ProcessState("boot", (tree,)), builtin_types=(bytes,))
    assert fields[1][0][5] != []
    del fields[1][0][5:]
    encoded = msgspec.msgpack.encode(fields)
    found = msgspec.msgpack.decode(encoded, type=ProcessState)
    assert found.trees == (msgspec.structs.replace(tree, services=()),)


def test_what_is_started_is_nobodys_until_it_is_handed_over(world):
    """A run that is live in the same program does not take it for its own."""
    tree = world.recorded(world.begin("sleep", "1000"))
    world.end(tree.top.pid)
    (started,) = again(tree).started
    assert started.pid in {one.pid for one in claims.descendants(os.getpid())}
    assert table.look(started.pid).parent == os.getpid(), "its launcher is gone"


def test_a_launcher_that_gives_no_answer_is_named(world, tmp_path, monkeypatch):
    tree = world.recorded(world.begin("sleep", "1000"))
    silent = tmp_path / "silent.py"
    silent.write_text("")
    monkeypatch.setattr(launching, "_LAUNCHER", silent)
    (missing,) = again(tree).missing
    assert missing.why == "the program that starts it gave no answer"
    monkeypatch.setattr(sys, "executable", "")
    (missing,) = again(tree).missing
    assert missing.why == "there is no Python interpreter to start it with"


def test_a_limit_that_cannot_be_set_is_told(world):
    pid = world.begin("sleep", "1000")
    tree = world.recorded(pid)
    (service,) = tree.services
    wrong = msgspec.structs.replace(service.limits[0], resource=99)
    started = start(tree.top, msgspec.structs.replace(service, limits=(wrong,)), ())
    assert started.lost == ("its limit 99 cannot be what it was",)
