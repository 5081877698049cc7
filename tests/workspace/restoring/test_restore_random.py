"""Random trees and hostile turns: any state gives way to any other, exactly, and comes back."""

import contextlib
import os
import random
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crabrt.testing import oracle
from crabrt.testing.hostile import HostileRun

NAMES = st.sampled_from([b"a", b"b", b"c.txt", b"\xff", b"-", b"a b", b"." * 3])
CONTENT = st.sampled_from([b"", b"one", b"two", b"x" * 5000])
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4711])
TIMES = st.sampled_from([0, 1_000_000_001, 1_700_000_000_123_456_789])


@st.composite
def leaves(draw):
    kind = draw(st.sampled_from(["file", "file", "symlink", "fifo", "link"]))
    if kind == "file":
        xattr = draw(st.sampled_from([None, b"1", b"2"]))
        return kind, draw(CONTENT), draw(MODES), draw(TIMES), xattr
    if kind == "symlink":
        return kind, draw(st.sampled_from([b"a", b"../x", b"/nowhere"])), draw(TIMES)
    return (kind,)


TREES = st.recursive(
    st.dictionaries(NAMES, leaves(), max_size=5),
    lambda below: st.dictionaries(NAMES, st.one_of(leaves(), below), max_size=4),
    max_leaves=12,
)


def _build(directory: bytes, tree) -> None:
    files: list[bytes] = []
    pending = [(directory, tree)]
    while pending:
        at, names = pending.pop()
        for name, what in sorted(names.items()):
            path = os.path.join(at, name)
            if isinstance(what, dict):
                os.mkdir(path)
                pending.append((path, what))
            else:
                _make(path, what, files)


def _make(path: bytes, what, files: list[bytes]) -> None:
    kind, *rest = what
    if kind == "file" or (kind == "link" and not files):
        content, mode, time_ns, xattr = rest or (b"first", 0o644, 5, None)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        if xattr is not None:
            os.setxattr(path, "user.x", xattr)
        os.utime(path, ns=(time_ns, time_ns))
        files.append(path)
    elif kind == "link":
        os.link(files[-1], path)
    elif kind == "symlink":
        target, time_ns = rest
        os.symlink(target, path)
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
    else:
        os.mkfifo(path)


def _empty(directory: bytes) -> None:
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(one=TREES, two=TREES)
def test_any_tree_gives_way_to_any_other(one, two, place):
    directory = os.fsencode(place.path)
    _empty(directory)
    _build(directory, one)
    target, wanted = place.checkpoint(), place.facts()
    _empty(directory)
    _build(directory, two)
    was = place.facts()
    report = place.restore(target)
    assert not oracle.describe_difference(wanted, place.facts())
    assert report.verified
    assert not report.not_restored
    if report.before is not None:
        place.undo()
        assert not oracle.describe_difference(was, place.facts())


@pytest.mark.root
@pytest.mark.parametrize("seed", range(3))
def test_every_turn_of_a_hostile_run_comes_back(seed, place, assert_same):
    states = []
    with HostileRun(seed, place.path, outside=place.top / "outside") as run:
        for _ in range(15):
            run.turn()
            _without_what_is_not_captured(place.path)
            states.append((place.checkpoint(), place.facts()))
    rng = random.Random(seed)
    for target, wanted in rng.sample(states, 8):
        was = place.facts()
        report = place.restore(target)
        assert_same(wanted, place.facts())
        assert report.verified
        if report.before is not None:
            place.undo()
            assert_same(was, place.facts())
            place.undo()
            assert_same(wanted, place.facts())


def _without_what_is_not_captured(path) -> None:
    """Remove sockets and devices: they are no state, and keep their directories."""
    for at, _, names, handle in os.fwalk(os.fsencode(path)):
        del at
        for name in names:
            status = os.stat(name, dir_fd=handle, follow_symlinks=False)
            if oracle_kind(status.st_mode) is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=handle)


def oracle_kind(mode: int):
    return {0o100000: "file", 0o120000: "link", 0o010000: "fifo"}.get(mode & 0o170000)
