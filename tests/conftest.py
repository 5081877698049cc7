"""What all tests share: no property is timed, and no test meets another's processes."""

import fcntl
import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def _runtime_directories(tmp_path_factory):
    return tmp_path_factory.mktemp("runtime")


@pytest.fixture(autouse=True)
def _runtime_directory(_runtime_directories, monkeypatch):
    """A user's runs share a watch: one that a test kills must not be another test's."""
    directory = _runtime_directories / str(next(_NUMBERS))
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))


@pytest.fixture
def one_mounts_at_a_time():
    """A file system that one test mounts shows in another's fork too, which CRIU cannot image."""
    with open(Path(tempfile.gettempdir()) / "crabrt-tests-mounts.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
