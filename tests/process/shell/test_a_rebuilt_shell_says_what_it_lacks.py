"""The first command in a shell that was rebuilt for a run says what the shell lacks."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import pytest

from crabrt.process.shell import Shell
from crabrt.process.shells import Shells

WHO = ("main", 0)


@pytest.fixture
def taken_up(tmp_path):
    """A shell of a run; what it was is given by the shells of the run before, if any."""
    made = []

    def take_up(before=()):
        shells, shell = Shells(), Shell(cwd=tmp_path, isolation="session")
        shells.recorded(before, {})
        shell._holding.opening = functools.partial(shells.open, WHO, shell)
        made.append(shell)
        return shells, shell

    yield take_up
    for shell in made:
        shell.close()


def test_what_it_lacks_is_in_the_note_of_the_first_result_alone(taken_up, tmp_path):
    shells, shell = taken_up()
    assert shell.run("X=1; exec 7>fd7; sleep 701 &").note is None
    kept = shells.take()
    shell.close()
    _, again = taken_up(kept)
    first = again.run("echo $X; echo lost >&7")
    assert first.output.startswith("1\n")
    assert "7: Bad file descriptor" in first.output
    assert first.note == (
        "the shell had ended; this is a new one with what was recorded of it, but without: "
        f"process in the background: sleep 701; open descriptor 7 {tmp_path}/fd7 "
        "(what was started again is no job of this shell)"
    )
    assert again.run("echo $X").note is None


def test_one_that_lacks_nothing_says_nothing(taken_up):
    shells, shell = taken_up()
    shell.run("X=1; f() { echo $X; }; cd /")
    kept = shells.take()
    shell.close()
    _, again = taken_up(kept)
    first = again.run("f; pwd")
    assert (first.output, first.note) == ("1\n/\n", None)


def test_one_that_lacks_a_lot_names_some(taken_up):
    shells, shell = taken_up()
    shell.run('for n in {20..39}; do eval "exec $n>/dev/null"; done')
    kept = shells.take()
    shell.close()
    _, again = taken_up(kept)
    note = again.run("true").note
    assert note.count("open descriptor") == 10
    assert note.endswith("; 10 more")
    assert len(again.not_rebuilt) == 20


def test_one_of_which_nothing_was_recorded_says_so(taken_up):
    shells, shell = taken_up()
    shell.run("X=1")
    with shell._holding.turn, ThreadPoolExecutor(1) as other:  # as while a command runs
        kept = other.submit(shells.take).result()
    assert [one.state for one in kept] == [b""]
    shell.close()
    _, again = taken_up(kept)
    first = again.run("echo [$X]")
    assert first.output == "[]\n"
    assert first.note.startswith("the shell had ended; this is a new one, without its variables")


def test_the_end_of_a_shell_is_told_beside_what_it_lacked(taken_up):
    shells, shell = taken_up()
    shell.run("exec 7>/dev/null")
    kept = shells.take()
    shell.close()
    _, again = taken_up(kept)
    note = again.run("exit 3").note
    assert "without: open descriptor 7" in note
    assert "ended with status 3" in note
