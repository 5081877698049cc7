"""``crab tui`` where it cannot be shown: one sentence, no stack, nothing in the way."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from crabrt.cli.app import App
from crabrt.cli.verbs.tui import meant
from crabrt.core.targets import Target, TurnRef
from crabrt.errors import NotFound
from crabrt.store import Store


def test_without_a_terminal_it_names_what_prints_instead(crab):
    done = crab("tui", process=True)
    assert done.code == 2
    assert "needs a terminal" in done.err
    assert "crab log RUN" in done.err
    assert crab("tui", "--json", process=True).error["exit"] == 2


def test_the_id_of_a_run_needs_no_index_and_everything_else_is_looked_up(builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.close()
    with App("tui", home=str(home)) as app:
        assert meant(app, Target(run.run)) == (run.run, None)
        assert "index" not in vars(app)
        assert meant(app, Target(run.run, TurnRef(-1))) == (run.run, run.turns)
        assert meant(app, Target(run.run[:-1])) == (run.run, None)
        with pytest.raises(NotFound):
            meant(app, Target("nobody"))
        with pytest.raises(NotFound):
            meant(app, Target(run.run, TurnRef(99)))


def _in_a_terminal(home, *words, until=None, limit_s=30.0, **env):
    """What a command prints in a terminal, up to `until` or to its end; and how it ended."""
    master, slave = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "TERM"}
    process = subprocess.Popen(
        [sys.executable, "-m", "crabrt", *words, "--home", str(home)],
        stdin=slave, stdout=slave, stderr=slave, env=kept | env,
    )  # fmt: skip
    os.close(slave)
    said, end = b"", time.monotonic() + limit_s
    try:
        while time.monotonic() < end and (until is None or until not in said):
            if select.select([master], [], [], 0.1)[0]:
                try:
                    said += os.read(master, 65536)
                except OSError:  # its end of the terminal is closed
                    break
        if until is not None:
            os.write(master, b"q")
        while process.poll() is None and time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    said += os.read(master, 65536)
                except OSError:
                    break
        return process.wait(10), said
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.mark.parametrize("term", [{"TERM": "dumb"}, {}])
def test_a_terminal_that_cannot_move_its_cursor_is_refused(home, term):
    code, said = _in_a_terminal(home, "tui", **term)
    assert code == 2
    assert b"cannot move its cursor" in said
    assert b"\x1b[?1049h" not in said


def test_no_colour_means_no_colour(home):
    _, plain = _in_a_terminal(home, "tui", until=b"none yet", TERM="xterm-256color", NO_COLOR="1")
    code, coloured = _in_a_terminal(home, "tui", until=b"none yet", TERM="xterm-256color",
                                    COLORTERM="truecolor")  # fmt: skip
    assert code == 0
    assert _colours(coloured) - _grey(_colours(coloured))
    assert _colours(plain) == _grey(_colours(plain))


def _colours(said):
    """The red, green and blue of what is drawn."""
    found = set()
    for sequence in said.split(b"\x1b[")[1:]:
        numbers = sequence.partition(b"m")[0].split(b";")
        for at, number in enumerate(numbers):
            if number in {b"38", b"48"} and numbers[at + 1 : at + 2] == [b"2"]:
                found.add(tuple(map(int, numbers[at + 2 : at + 5])))
    return found


def _grey(colours):
    return {colour for colour in colours if len(set(colour)) == 1}


def test_a_run_that_is_not_there_is_told(home):
    Store.open(home, create=True).close()
    code, said = _in_a_terminal(home, "tui", "nobody", TERM="xterm")
    assert code == 4
    assert b"nobody" in said
    assert b"Traceback" not in said
