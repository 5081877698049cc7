"""A store with a run in it, the command line as people start it, and ways to do harm."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from crabrt.core.ids import RunId
from crabrt.core.targets import TurnRef
from crabrt.journal import RunIndex, run_dir
from crabrt.operations.restoring import restore_beside
from crabrt.operations.targets import State
from crabrt.store import Store
from crabrt.testing.oracle import digest

FIXER = Path(__file__).with_name("fixer.py")
TURNS = 4


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    exit: int
    out: str
    err: str

    @property
    def data(self):
        return json.loads(self.out)["data"]

    @property
    def error(self):
        return json.loads(self.out)["error"]


class Place:
    """A workspace and a store, as a person has them."""

    def __init__(self, top):
        self.top = top
        self.ws = top / "ws"
        self.home = top / "home"

    @property
    def environment(self):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CRAB_")}
        return kept | {"CRAB_HOME": str(self.home), "XDG_CONFIG_HOME": str(self.top / "config")}

    def run(self, command, cwd=None):
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            cwd=cwd or self.top,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def crab(self, *words, cwd=None):
        return self.run(["-m", "crabrt", *words], cwd)

    def crab_json(self, *words, cwd=None):
        return self.crab(*words, "--json", cwd=cwd)

    def fix(self, *more, turns=TURNS):
        return self.run([FIXER, self.ws, turns, *more])

    def start(self, *command):
        """Start a command that goes on; it is ended with the test."""
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.top,
        )

    def journal(self):
        """The newest run's segment that has entries."""
        directory = run_dir(self.home, RunId(self.run_id())) / "journal"
        return max(directory.iterdir(), key=lambda path: path.stat().st_size)

    def run_id(self):
        with RunIndex.open(self.home) as index:
            index.refresh()
            return index.find("last").run

    def digests(self, into):
        """The digest of every turn of the newest run, by restoring each."""
        found = {}
        with Store.open(self.home) as store, RunIndex.open(self.home) as index:
            index.refresh()
            row = index.find("last")
            for turn in range(row.turns + 1):
                point = index.checkpoint(row.run, TurnRef(turn=turn))
                state = State(row, point.turn, point.inner, point.root, point.position)
                target = into / f"{turn}"
                report = restore_beside(store, index, state, target).report
                assert report.not_restored == ()
                found[turn] = digest(target)
        return found


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run, never to be changed: tests work on copies of its store."""
    place = Place(tmp_path_factory.mktemp("finished"))
    place.ws.mkdir()
    (place.ws / "start").write_text("as it was found")
    said = place.fix()
    assert (said.exit, said.out) == (0, "done\n"), said.err
    assert place.crab("runs").exit == 0  # now there is an index of runs, too
    return place


@pytest.fixture
def place(tmp_path, finished):
    """A copy of that store; its run names the workspace of the original, which stays as it is."""
    made = Place(tmp_path)
    made.ws = finished.ws
    shutil.copytree(finished.home, made.home, symlinks=True)
    return made


@pytest.fixture
def fresh(tmp_path):
    """A workspace with nothing recorded yet."""
    made = Place(tmp_path)
    made.ws.mkdir()
    (made.ws / "start").write_text("as it was found")
    return made
