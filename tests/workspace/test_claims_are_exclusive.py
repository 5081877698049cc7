"""One live run family for each directory, and a killed owner leaves nothing stuck."""

import os
import signal

import pytest

from crabrt.errors import WorkspaceBusy
from crabrt.workspace import Workspace


@pytest.fixture
def place(tmp_path):
    def make(*parts):
        path = tmp_path.joinpath("work", *parts)
        path.mkdir(parents=True, exist_ok=True)
        return Workspace.open(path, tmp_path / "home")

    return make


def in_child(act):
    """Run `act` in a child that then waits to be killed; its pid."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os.write(write, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 1) == b"1"
    os.close(read)
    return pid


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize("theirs", [(), ("a",), ("a", "b"), ("a", "b", "c")])
def test_overlapping_directories_are_refused_while_the_other_lives(place, theirs):
    pid = in_child(lambda: place(*theirs).claim("theirs-1"))
    mine = place("a", "b")
    with pytest.raises(WorkspaceBusy, match=rf"theirs-1 \(pid {pid}\)") as caught:
        mine.claim("mine-1")
    assert caught.value.exit_code == 6
    kill(pid)
    mine.claim("mine-1").release()


def test_siblings_and_longer_names_do_not_overlap(place):
    pid = in_child(lambda: place("a").claim("theirs-1"))
    place("ab").claim("mine-1").release()
    place("b").claim("mine-1").release()
    kill(pid)


def test_the_same_family_and_those_who_share_are_let_in(place):
    first = place("a").claim("family-1")
    second = place("a").claim("family-1")
    with pytest.raises(WorkspaceBusy):
        place("a").claim("other-1")
    third = place("a").claim("other-1", shared=True)
    first.release()
    first.release()
    with pytest.raises(WorkspaceBusy, match="family-1"):
        place("a").claim("third-1")
    second.release()
    third.release()
    place("a").claim("third-1").release()


def test_a_forked_child_neither_holds_nor_releases_the_claim(place):
    claim = place("a").claim("mine-1")
    pid = in_child(claim.release)

    def refused():
        with pytest.raises(WorkspaceBusy):
            place("a").claim("other-1")

    other = in_child(refused)
    claim.release()
    place("a").claim("other-1").release()
    kill(pid)
    kill(other)


def test_a_child_that_outlives_its_owner_does_not_keep_the_directory(place):
    read, write = os.pipe()

    def own_and_fork():
        place("a").claim("theirs-1")
        orphan = in_child(lambda: None)
        os.write(write, orphan.to_bytes(4, "big"))

    owner = in_child(own_and_fork)
    orphan = int.from_bytes(os.read(read, 4), "big")
    kill(owner)
    place("a").claim("mine-1").release()
    os.kill(orphan, signal.SIGKILL)


def test_a_claim_that_cannot_be_read_counts_as_everywhere(place):
    def spoil():
        claim = place("a").claim("theirs-1")
        os.ftruncate(claim._fd, 0)
        os.pwrite(claim._fd, b"\xff garbage", 0)

    pid = in_child(spoil)
    with pytest.raises(WorkspaceBusy, match="unknown"):
        place("elsewhere").claim("mine-1")
    kill(pid)
