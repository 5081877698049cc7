"""Shells of every form that this machine allows, and ways to wait for what they do."""

from __future__ import annotations

import os
import time

import pytest

from crabrt.process.shell import Shell
from crabrt.process.shell.launching import refusal

FORMS = (
    pytest.param("namespace", marks=pytest.mark.root),
    "user-namespace",
    "session",
)


def _eventually(condition, *, limit_s=20.0):
    """What `condition` gives as soon as it is true; fails if it never is."""
    until = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.01)
    return found


def _is_there(pid):
    """Whether a process runs, or waits to be reaped by somebody."""
    return os.path.exists(f"/proc/{pid}")


def _runs(pid):
    """Whether a process runs."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _outside(shell, inner):
    """The number of a process of a shell's session as seen from here."""
    for one in shell._holding.session.members():
        with open(f"/proc/{one.pid}/status") as file:
            for line in file:
                if line.startswith("NSpid:") and int(line.split()[-1]) == int(inner):
                    return one.pid
    raise AssertionError(f"{inner} is not in the session")


@pytest.fixture(params=FORMS)
def form(request):
    why = refusal(request.param)
    if why is not None:
        pytest.skip(f"kernel: {why}")
    return request.param


@pytest.fixture
def open_shell(tmp_path):
    """Opens shells that end with the test."""
    shells = []

    def open_one(form="session", **options):
        options.setdefault("cwd", tmp_path)
        options.setdefault("timeout", 30)
        shell = Shell(isolation=form, directory=tmp_path / "channels", **options)
        shells.append(shell)
        return shell

    yield open_one
    for shell in shells:
        if not shell._holding._is_closed:
            assert shell.close(grace=0) == ()


@pytest.fixture
def shell(open_shell, form):
    """A shell of each form."""
    return open_shell(form)


@pytest.fixture
def plain(open_shell):
    """A shell in a session, for what does not depend on the form."""
    return open_shell("session")


@pytest.fixture(scope="session")
def eventually():
    return _eventually


@pytest.fixture(scope="session")
def is_there():
    return _is_there


@pytest.fixture(scope="session")
def runs():
    return _runs


@pytest.fixture(scope="session")
def outside():
    return _outside
