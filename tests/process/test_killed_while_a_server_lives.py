"""A loop dies at a step of a checkpoint while its server lives, or with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from crabrt.core.entries import Captured, Checkpoint
from crabrt.journal import RunIndex, read_journal, run_dir

from .counted_runs import succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]

STEPS = ("checkpoint.scanned", "checkpoint.flushed", "checkpoint.captured", "checkpoint.synced")
AT_THE_FOURTH_CHECKPOINT = 4
OF_A_TURN_THAT_COUNTED = 3


def records(agent):
    with RunIndex.open(agent.home) as index:
        index.refresh()
        run = index.find("last").run
    return [record.body for record in read_journal(run_dir(agent.home, run))]


def last_spool(agent) -> Path:
    """Where the images of the last capture lie; it is not durable."""
    bodies = records(agent)
    captured = [body for body in bodies if isinstance(body, Captured)][-1]
    durable = [(body.turn, body.inner) for body in bodies if isinstance(body, Checkpoint)]
    assert (captured.turn, captured.inner) not in durable
    assert captured.spool
    return Path(os.fsdecode(captured.spool))


def end_server(agent, until) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(agent.server, signal.SIGKILL)
    until(lambda: not agent.server_lives)


@pytest.mark.parametrize("with_server", [False, True], ids=["loop", "all"])
@pytest.mark.parametrize("step", [*STEPS, "checkpoint.committed"])
def test_it_goes_on_to_the_same_end(agent, until, step, with_server):
    agent.run(6, kill_at=f"{step}:{AT_THE_FOURTH_CHECKPOINT}")
    if with_server:
        end_server(agent, until)
    else:
        assert agent.server_lives
    assert succeeded(agent.run(6, resume="last")) == "[1, 4, 9]\n"
    assert agent.add(0) == 9
    assert not agent.spools


@pytest.mark.parametrize("damage", ["gone", "no image", "half an image", "no list", "torn list"])
def test_a_spool_that_is_not_whole_is_as_if_it_never_was(agent, until, damage):
    agent.run(6, kill_at=f"checkpoint.captured:{OF_A_TURN_THAT_COUNTED}")
    spool = last_spool(agent)
    images = spool / str(agent.server)
    assert images.is_dir()  # the server counted in this turn
    end_server(agent, until)
    if damage == "gone":
        shutil.rmtree(spool)
    elif damage == "no image":
        shutil.rmtree(images)
    elif damage == "half an image":
        pages = max(images.iterdir(), key=lambda path: path.stat().st_size)
        os.truncate(pages, pages.stat().st_size // 2)
    elif damage == "no list":
        (spool / "state").unlink()
    else:
        os.truncate(spool / "state", 10)
    assert succeeded(agent.run(6, resume="last")) == "[1, 4, 9]\n"
    assert agent.add(0) == 9
    assert not agent.spools


def test_what_a_run_spooled_is_dropped_when_it_ends(agent):
    succeeded(agent.run(6))
    assert not agent.spools
