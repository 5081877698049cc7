"""What all tests share: no property is timed, and no test meets another's processes."""

import itertools

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
