"""A CRIU to test with, found or unpacked once for this checkout, and process trees to image."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from crabrt.process import subreaper, table
from crabrt.process.criu import Cause, Criu, NotRevived, find, install, restore

from .counted_runs import Agent
from .forked_runs import Original

LIMIT_S = 20


def wait_until(condition, limit_s=LIMIT_S):
    """What `condition` gives as soon as that is true of it."""
    end = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
    return found


@pytest.fixture(scope="session")
def until():
    return wait_until


@pytest.fixture(scope="session")
def criu(request):
    configured = os.environ.get("CRAB_CRIU")
    found = find(Path(configured)) if configured else None
    if not isinstance(found, Criu):
        programs = request.config.cache.mkdir("programs")
        with open(programs / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = find(programs=programs)
            if not isinstance(found, Criu):
                found = install(programs)
    assert isinstance(found, Criu), found
    return found


class Trees:
    """Starts trees, each in a session of its own, and ends all that is left of them."""

    def __init__(self, top):
        self.top = top
        self._children = []
        self._before = {one.identity for one in table.descendants(os.getpid())}

    def start(self, code, *words, **given):
        """A Python program that says `.` on its standard output when it is ready."""
        ready, told = os.pipe()
        program = f"import os\ndef ready(): os.write({told}, b'.'); os.close({told})\n"
        command = [sys.executable, "-c", program + textwrap.dedent(code), *map(str, words)]
        command = [*given.pop("before", ()), *command]
        quiet = dict.fromkeys(("stdin", "stdout"), subprocess.DEVNULL)
        options = {**quiet, "start_new_session": True, **given}
        options["pass_fds"] = (*options.get("pass_fds", ()), told)
        with open(self.top / "stderr", "ab") as stderr:
            child = subprocess.Popen(command, stderr=stderr, **options)
        os.close(told)
        self._children.append(child)
        with open(ready, "rb") as file:
            said = file.read(1)
        assert said == b".", (self.top / "stderr").read_text()
        return child

    def inside(self, code, *words):
        """The same as the first process of PID and mount namespaces of its own; its number."""
        quiet = (
            "import os; os.setsid()\n"
            "for n in range(3): os.dup2(os.open('/dev/null', os.O_RDWR), n)\n"
            "os.closerange(4, 10)\n"
        )
        child = self.start(
            quiet + textwrap.dedent(code),
            *words,
            before=("unshare", "--pid", "--fork", "--mount-proc"),
        )
        (root,) = table.children(child.pid)
        return root

    def end(self, *pids):
        """End trees and collect them, so that their numbers are free."""
        everybody = {one.pid for pid in pids for one in table.descendants(pid)} | set(pids)
        for one in everybody:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        for child in self._children:
            if child.pid in pids:
                child.wait()
        for one in everybody:
            wait_until(lambda one=one: self._gone(one))

    def _gone(self, pid):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return table.look(pid) is None

    def restore(self, criu, images, **given):
        """Bring a tree back; its number.

        Where somebody else was given one of its numbers meanwhile, that is waited for.
        """
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                return restore(criu, images, **given)
            except NotRevived as error:
                if error.cause is not Cause.PID_TAKEN or time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def close(self):
        """End and collect whatever began since; orphans have come to us."""
        wait_until(self._ended_all)
        for child in self._children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def _ended_all(self):
        left = [one for one in table.descendants(os.getpid()) if one.identity not in self._before]
        popped = {child.pid for child in self._children if child.returncode is None}
        for one in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
            if one.pid not in popped:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(one.pid, os.WNOHANG)
        for child in self._children:
            child.poll()
        return not left


@pytest.fixture
def trees(tmp_path):
    assert subreaper.hold()  # whoever loses its parent is ours to collect
    made = Trees(tmp_path)
    yield made
    made.close()
    subreaper.release()


@pytest.fixture
def images(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def agent(tmp_path, criu):
    """Runs of the counting agent."""
    made = Agent(tmp_path, criu.program)
    yield made
    made.close()


@pytest.fixture
def original(tmp_path, criu):
    """A run that forks are made of."""
    made = Original(tmp_path, criu.program)
    yield made
    made.close()


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """Where the channels of shells are."""
    directory = tmp_path / "runtime"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory / "crabrt"
