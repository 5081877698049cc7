"""What the runtime's tests share: a workspace, a store of its own, and a child that really dies."""

from __future__ import annotations

import faulthandler
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from crabrt.core.ids import RunId
from crabrt.journal import Record, RunIndex, TurnRow, read_journal, run_dir
from crabrt.testing.oracle import digest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of this test, where `crabrt` finds it."""
    for name in list(os.environ):
        if name.startswith("CRAB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CRAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "home"


@pytest.fixture
def ws(tmp_path: Path, home: Path) -> Path:
    """An empty workspace."""
    path = tmp_path / "ws"
    path.mkdir()
    return path


class Store:
    """Reads what the runs of a test left."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def turns(self, run: str = "last") -> list[TurnRow]:
        with RunIndex.open(self.home) as index:
            index.refresh()
            return index.turns(index.find(run).run)

    def run(self, name: str = "last"):
        with RunIndex.open(self.home) as index:
            index.refresh()
            return index.find(name)

    def runs(self):
        with RunIndex.open(self.home) as index:
            index.refresh()
            return index.runs()

    def records(self, run: str = "last") -> list[Record]:
        return list(read_journal(run_dir(self.home, RunId(self.run(run).run))))

    def kinds(self, run: str = "last") -> list[str]:
        return [record.entry.kind for record in self.records(run)]

    def bodies(self, kind: type, run: str = "last") -> list:
        return [record.body for record in self.records(run) if isinstance(record.body, kind)]


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home)


@pytest.fixture
def killed() -> Callable[[Callable[[], object]], None]:
    """Run a function in a forked child, which must end by SIGKILLing itself (`die`)."""

    def run(body: Callable[[], object]) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                faulthandler.dump_traceback_later(120, exit=True)  # a child that hangs says where
                body()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)  # it was to be killed
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"the child ended with status {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL

    return run


@pytest.fixture
def die() -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def state() -> Callable[[Path], str]:
    return lambda path: digest(path)
