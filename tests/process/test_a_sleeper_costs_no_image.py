"""Who was imaged and does nothing but sleep is not imaged again, however busy the machine is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import crabrt
from crabrt.core.ids import ObjectId
from crabrt.journal import RunIndex
from crabrt.process import imaging, table
from crabrt.process.criu import get_images, put_images
from crabrt.process.imaging import Imager
from crabrt.process.sighting import Sighting, sight
from crabrt.process.state import image_of, read_state
from crabrt.runtime import alive as runtime_alive
from crabrt.store import Store

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]

LIMIT_S = 60.0
QUIET = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)

SLEEPER = """
    import signal
    heard = []
    signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    ready()
    while True: signal.pause()
"""


class Images:
    """Takes images of one tree, and stores them when it is told."""

    def __init__(self, criu, child, store, writer, top: Path, until) -> None:
        self.imager = Imager(criu, store)
        self._child, self._writer, self._top, self._until = child, writer, top, until
        self._rounds = 0
        self.rest()

    def rest(self) -> Sighting:
        """The tree, when it is at rest."""

        def seen() -> Sighting | None:
            found = sight([table.look(self._child.pid)], Sighting())
            return found if found.quiet else None

        return self._until(seen)

    def take(self, copy=lambda: None) -> imaging.Taken:
        self._rounds += 1
        taken = self.imager.take(self.rest(), self._top / str(self._rounds), copy)
        assert taken.trees[0].imaged, taken.trees[0].why_not
        return taken

    def store(self, taken: imaging.Taken) -> None:
        (image,) = taken.images.values()
        image.stored = put_images(image.directory, self._writer)
        shutil.rmtree(image.directory)

    def work(self) -> None:
        """The process does something."""
        before = table.pulse(self._child.pid)
        self._child.send_signal(signal.SIGUSR1)
        self._until(lambda: table.pulse(self._child.pid) not in {None, before})

    @property
    def cpu(self) -> int:
        """The one that it ran on last."""
        line = Path(f"/proc/{self._child.pid}/stat").read_text()
        return int(line.rpartition(")")[2].split()[36])

    def move(self, cpu: int) -> None:
        """It is going to run there when it is woken."""
        os.sched_setaffinity(self._child.pid, {cpu})

    @property
    def is_due(self) -> bool:
        return self.imager.wants(self.rest())


@pytest.fixture
def images(criu, trees, tmp_path, until):
    child = trees.start(SLEEPER)
    with Store.open(tmp_path / "store", create=True) as store, store.writer() as writer:
        yield Images(criu, child, store, writer, tmp_path / "spool", until)


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "not yet stored"])
@pytest.mark.parametrize("is_settled", [True, False], ids=["settled", "ran on"])
def test_one_image_is_enough_while_it_sleeps(images, monkeypatch, is_stored, is_settled):
    if not is_settled:  # it got no CPU to go back to sleep while that was waited for
        monkeypatch.setattr(imaging, "_settled", lambda alive: Sighting(alive.state))
    taken = images.take()
    if is_stored:
        images.store(taken)
    assert not images.is_due
    assert not images.is_due
    assert images.imager.known(images.rest()).images == taken.images
    images.work()
    assert images.is_due


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "not yet stored"])
@pytest.mark.parametrize("is_settled", [True, False], ids=["settled", "ran on"])
def test_what_it_did_right_after_its_image_is_not_taken_for_sleep(
    images, monkeypatch, is_stored, is_settled
):
    real = imaging._settled

    def settled(alive: Sighting) -> Sighting:
        images.work()
        return real(alive) if is_settled else Sighting(alive.state)

    monkeypatch.setattr(imaging, "_settled", settled)
    taken = images.take()
    if is_stored:
        images.store(taken)
    assert images.is_due


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "not yet stored"])
def test_who_is_woken_on_another_cpu_is_not_taken_for_one_that_worked(images, is_stored):
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        pytest.skip("kernel: there is one CPU")
    images.move(first)
    images.work()
    assert images.cpu == first
    taken = images.take(lambda: images.move(others[0]))
    images.rest()
    assert images.cpu == others[0]
    if is_stored:
        images.store(taken)
    assert not images.is_due


def test_an_image_that_was_given_up_before_it_was_stored_is_taken_again(images):
    (image,) = images.take().images.values()
    assert not images.is_due
    shutil.rmtree(image.directory)
    assert images.is_due


def test_what_may_be_lost_is_taken_again(images):
    images.store(images.take())
    assert not images.is_due
    images.imager.forget()
    assert images.is_due


@pytest.fixture
def home(tmp_path, criu, monkeypatch):
    for name in [name for name in os.environ if name.startswith("CRAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CRAB_CRIU", str(criu.program))
    monkeypatch.setenv("CRAB_NETWORK_OBSERVER", "off")
    monkeypatch.setenv("CRAB_GATE_LIMIT_MS", "60000")
    return tmp_path / "home"


def images_of(home: Path, run: str, into: Path) -> list[str]:
    """What a turn says is not protected; all that is has an image, and it is whole."""
    with RunIndex.open(home) as index, Store.open(home) as store:
        index.refresh()
        turns = [turn for turn in index.turns(run) if turn.turn]
        for turn in turns:
            root = ObjectId(turn.processes)
            (tree,) = read_state(root, store).trees
            assert tree.imaged
            get_images(image_of(root, tree, store), into / str(turn.turn), store)
    return [reason for turn in turns for reason in turn.unprotected]


def test_turns_that_are_over_before_an_image_is_stored_need_no_other(
    home, tmp_path, monkeypatch, until
):
    stored, pids, may_store = [], [], threading.Event()

    def put_later(directory, writer):
        stored.append(directory)
        assert may_store.wait(LIMIT_S)
        return put_images(directory, writer)

    @crabrt.tool
    def leave() -> None:
        code = "import signal, sys; open(sys.argv[1], 'w').close(); signal.pause()"
        command = [sys.executable, "-c", code, str(tmp_path / "ready")]
        child = subprocess.Popen(command, **QUIET, start_new_session=True)
        pids.append(child.pid)
        child.returncode = 0  # nobody waits for it
        until((tmp_path / "ready").exists)
        until(lambda: table.pulse(child.pid) is not None)

    @crabrt.tool
    def write(turn: int) -> None:
        (tmp_path / "ws" / "file").write_text(str(turn))

    @crabrt.model
    def think(turn: int) -> int:
        if turn == 4:
            assert len(stored) == 1
            may_store.set()
        return turn

    (tmp_path / "ws").mkdir()

    @crabrt.agent(workspace=tmp_path / "ws", name="quick")
    def loop() -> str:
        for turn in range(5):
            think(turn)
            leave() if turn == 0 else write(turn)
        return crabrt.current_run().id

    monkeypatch.setattr(runtime_alive, "put_images", put_later)
    try:
        run = loop()
        assert len(stored) == 1
        assert not images_of(home, run, tmp_path)
    finally:
        may_store.set()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
