"""What tools make again by themselves: by path, and git's index by what it says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crabrt.core.config import Config
from crabrt.core.content import Content
from crabrt.core.trees import Entry, Kind
from crabrt.core.verdicts import Effect
from crabrt.errors import DamagedObject, UsageError
from crabrt.inspector import CallFact, Observation, classify
from crabrt.inspector.caches import PATTERNS, Caches, last, left_out
from crabrt.inspector.caches_git import same_but_cached
from crabrt.workspace.changes import Change


def git(repository: Path, *args: str, **settings: str) -> None:
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(repository), "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip
    command = ["git", *options, *args]
    subprocess.run(command, cwd=repository, env=environment, check=True, capture_output=True)


class Repository:
    """A repository with some files, all committed, in an index of the given version."""

    def __init__(self, path: Path, version: int, object_format: str) -> None:
        self.path = path
        git(path, "init", "-q", f"--object-format={object_format}", ".")
        git(path, "config", "index.version", str(version))
        for name in ("a", "b" * 7, "c" * 8, "sub/d", "sub/" + "long" * 1100 + "/e"):
            file = path / Path(*[part[:200] for part in name.split("/")])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)
        git(path, "add", "-A")
        git(path, "commit", "-qm", "x")
        git(path, "update-index", "--index-version", str(version))

    def index(self) -> bytes:
        return (self.path / ".git/index").read_bytes()

    def shake(self) -> None:
        """Move the times of every file: what the index knows of them is no longer so."""
        for file in self.path.rglob("*"):
            if ".git" not in file.parts and file.is_file():
                os.utime(file, (1_000_000, 1_000_000))


@pytest.fixture(params=["2", "3", "4", "2-sha256", "4-sha256"])
def repository(request, tmp_path):
    version, _, rest = request.param.partition("-")
    made = Repository(tmp_path, int(version), rest or "sha1")
    if version == "3":  # git writes 2 where no entry has what only 3 can say
        (tmp_path / "later").write_text("x")
        git(tmp_path, "add", "--intent-to-add", "later")
    assert int.from_bytes(made.index()[4:8]) == int(version)
    return made


def test_a_status_that_found_moved_times_changes_the_stat_cache_alone(repository):
    before = repository.index()
    repository.shake()
    git(repository.path, "status")
    after = repository.index()
    assert after != before
    assert same_but_cached(before, after)
    assert same_but_cached(before, before)


def _stage(path):
    (path / "a").write_text("other")
    git(path, "add", "a")


def _of_same_size(path):
    (path / "a").write_text("A")
    git(path, "add", "a")


CHANGES = {
    "staged": _stage,
    "staged with the same size": _of_same_size,
    "removed": lambda path: git(path, "rm", "-q", "a"),
    "renamed to a name as long": lambda path: git(path, "mv", "a", "z"),
    "executable": lambda path: git(path, "update-index", "--chmod=+x", "a"),
    "assumed unchanged": lambda path: git(path, "update-index", "--assume-unchanged", "a"),
    "not in the work tree": lambda path: git(path, "update-index", "--skip-worktree", "a"),
    "one more": lambda path: ((path / "n").write_text(""), git(path, "add", "n")),
    "one more to come": lambda path: ((path / "n").write_text(""), git(path, "add", "-N", "n")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_somebody_did_to_the_index_is_a_change(repository, change):
    before = repository.index()
    change(repository.path)
    after = repository.index()
    assert after != before
    assert not same_but_cached(before, after)
    assert not same_but_cached(after, before)


def test_a_conflict_that_was_resolved_is_no_cache(tmp_path):
    repository = Repository(tmp_path, 2, "sha1")
    git(tmp_path, "checkout", "-qb", "other")
    (tmp_path / "a").write_text("other")
    git(tmp_path, "commit", "-qam", "other")
    git(tmp_path, "checkout", "-q", "-")
    (tmp_path / "a").write_text("mine")
    git(tmp_path, "commit", "-qam", "mine")
    with pytest.raises(subprocess.CalledProcessError):
        git(tmp_path, "merge", "other")
    open_conflict = repository.index()
    (tmp_path / "a").write_text("both")
    git(tmp_path, "add", "a")
    resolved = repository.index()
    assert b"REUC" in resolved
    git(tmp_path, "commit", "-qm", "both")
    assert not same_but_cached(open_conflict, resolved)


def test_an_index_without_a_checksum_is_read_and_one_with_a_wrong_one_is_not(tmp_path):
    repository = Repository(tmp_path, 2, "sha1")
    sealed = repository.index()
    bare = sealed[:-20] + bytes(20)
    assert same_but_cached(bare, bare)
    assert same_but_cached(sealed, bare)
    assert not same_but_cached(sealed, sealed[:-1] + bytes([sealed[-1] ^ 1]))


def test_damaged_indexes_are_never_the_same_as_whole_ones(tmp_path):
    index = bytearray(Repository(tmp_path, 4, "sha1").index()[:-20] + bytes(20))
    for at in range(len(index) - 20):
        for bit in (1, 0x80):
            other = bytearray(index)
            other[at] ^= bit
            same = same_but_cached(bytes(index), bytes(other))
            if same:  # only where the stat cache is, or an extension that git derives
                assert at >= 12
    for size in range(0, len(index), 7):
        assert not same_but_cached(bytes(index), bytes(index[:size]))


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_can_be_compared(one, other):
    header = b"DIRC\0\0\0\2\0\0\0\1"
    for before, after in ((one, other), (header + one + bytes(20), header + other + bytes(20))):
        assert same_but_cached(before, after) in {True, False}


# -- paths -------------------------------------------------------------------------------------


def entry(path: bytes, kind: Kind = Kind.FILE, content: bytes = b"") -> Entry:
    name = path.rpartition(b"/")[2]
    return Entry(
        name, int(kind), 0o644, 0, 0, 0,
        content=Content(len(content), 0, ()) if kind is Kind.FILE else None,
        child=bytes(32) if kind is Kind.DIR else b"",
    )  # fmt: skip


def added(path: bytes, kind: Kind = Kind.FILE) -> Change:
    return Change(path, ("added",), None, entry(path, kind))


def never(_: Entry) -> bytes:
    raise AssertionError("nothing has to be read")


@pytest.mark.parametrize(
    ("path", "kind", "cache"),
    [
        (b"__pycache__", Kind.DIR, True),
        (b"a/b/__pycache__/c.pyc", Kind.FILE, True),
        (b"a/__pycache__", Kind.SYMLINK, False),
        (b"a/__pycache__", Kind.FILE, False),
        (b"a.pyc", Kind.FILE, False),
        (b".pytest_cache/v/cache/lastfailed", Kind.FILE, True),
        (b"sub/.mypy_cache/3.11/\xff.json", Kind.FILE, True),
        (b"src/cache/a", Kind.FILE, False),
        (b".hypothesis/examples/ab", Kind.FILE, False),
        (b".hypothesis/unicode_data/x", Kind.FILE, True),
        (b"web/tsconfig.tsbuildinfo", Kind.FILE, True),
        (b"web/node_modules/x/index.js", Kind.FILE, False),
        (b"web/node_modules/.cache/x", Kind.FILE, True),
        (b"", Kind.DIR, False),
    ],
)
def test_caches_are_known_by_their_paths(path, kind, cache):
    assert bool(Caches().among([added(path, kind)], never)) is cache


def test_what_turned_into_a_cache_was_none():
    change = Change(
        b"__pycache__", ("kind",), entry(b"__pycache__"), entry(b"__pycache__", Kind.DIR)
    )
    assert not Caches().among([change], never)


def test_more_patterns_add_and_take_away():
    caches = Caches(("*.o", "!.ruff_cache/"))
    found = caches.among([added(b"a/b.o"), added(b".ruff_cache/x"), added(b"c")], never)
    assert found == {b"a/b.o"}


def test_a_line_that_is_no_pattern_matches_nothing_and_breaks_nothing():
    caches = Caches(("!", "\\", "*.o"))
    assert caches.among([added(b"a.o"), added(b"b")], never) == {b"a.o"}


def test_paths_of_any_length_are_judged_in_no_time():
    deep = b"/".join([b"d" * 250] * 2_000)
    assert not Caches().among([added(deep), added(deep + b"/__pycache__/a.pyc")], never)
    assert not Caches().within(deep)


PARTS = st.lists(
    st.sampled_from([b"__pycache__", b"a", b".ruff_cache", b"\xff", b"x.tsbuildinfo", b".git"]),
    min_size=1,
    max_size=6,
)


@given(st.lists(PARTS.map(b"/".join), max_size=8))
def test_what_is_in_a_cache_is_a_cache_in_any_order_of_asking(paths):
    caches = Caches()
    found = caches.among([added(path) for path in paths], never)
    for path in paths:
        above = [b"/".join(path.split(b"/")[:n]) for n in range(1, path.count(b"/") + 1)]
        inside = any(p.rpartition(b"/")[2] in {b"__pycache__", b".ruff_cache"} for p in above)
        in_name = any(p.endswith(b".tsbuildinfo") for p in (*above, path))
        assert (path in found) is (inside or in_name)
        assert Caches().among([added(path)], never) == ({path} & found)


@given(st.lists(st.integers()))
def test_caches_come_last_and_nothing_is_lost(numbers):
    order = list(last(numbers, lambda n: n % 2 == 1))
    assert order == [n for n in numbers if n % 2 == 0] + [n for n in numbers if n % 2 == 1]


def test_an_index_that_cannot_be_read_counts_as_changed():
    before, after = entry(b"index", content=b"1"), entry(b"index", content=b"22")
    change = Change(b".git/index", ("content", "times"), before, after)

    def damaged(_: Entry) -> bytes:
        raise DamagedObject("gone")

    assert not Caches().among([change], damaged)
    same = Change(b".git/index", ("times",), before, before)
    assert Caches().among([same], never)
    assert not Caches().among([Change(b".git/index", ("mode",), before, before)], never)


# -- verdicts ----------------------------------------------------------------------------------


def verdict(*paths: bytes, skipped: bool = False):
    changes = tuple(added(path) for path in paths)
    found = Caches().among(changes, never)
    return classify((CallFact("sh"),), Observation(changes, caches=found, skipped=skipped))


def test_a_turn_of_caches_alone_says_so():
    found = verdict(b".pytest_cache/a", b".pytest_cache/b", b".pytest_cache/c", b".pytest_cache/d")
    assert found.effects == (Effect.FILES,)
    assert found.evidence == ("files: caches only: .pytest_cache/ 4 new",)
    assert found.files_added == 4


def test_a_turn_of_more_than_caches_tells_them_apart():
    found = verdict(b"a.py", b"__pycache__/a.pyc")
    assert found.effects == (Effect.FILES,)
    assert found.evidence == ("files: a.py new; caches: __pycache__/a.pyc new",)
    assert found.files_added == 2
    assert not any("caches only" in line for line in found.evidence)


def test_skipped_caches_are_no_effect():
    found = verdict(b"__pycache__/a.pyc", skipped=True)
    assert (found.effects, found.files_added, found.sample) == ((), 0, ())
    assert found.evidence == ("caches only: __pycache__/a.pyc new",)
    both = verdict(b"a.py", b"__pycache__/a.pyc", skipped=True)
    assert (both.effects, both.files_added, both.sample) == ((Effect.FILES,), 1, (b"a.py",))


@given(st.lists(PARTS.map(b"/".join), max_size=6, unique=True), st.booleans())
def test_a_verdict_is_none_only_where_nothing_or_skipped_caches_changed(paths, skipped):
    found = verdict(*paths, skipped=skipped)
    caches = Caches().among([added(path) for path in paths], never)
    work = [path for path in paths if path not in caches]
    assert (not found.effects) is (not work if skipped else not paths)


# -- configuration -----------------------------------------------------------------------------


def test_only_the_user_may_have_caches_skipped(tmp_path):
    environ = {"CRAB_HOME": str(tmp_path)}
    skipping = Config.from_env(
        environ=environ,
        user={"regenerable": "skip", "regenerable_patterns": ["*.o"]},
        workspace={"exclude": ["big/"]},
    )
    assert left_out(skipping) == (*PATTERNS, "*.o", "big/")
    assert left_out(Config.from_env(environ=environ, exclude=("x",))) == ("x",)
    for table in ({"regenerable": "skip"}, {"regenerable_patterns": ["src/"]}):
        with pytest.raises(UsageError, match="may not be set there"):
            Config.from_env(environ=environ, workspace=table)
    with pytest.raises(UsageError, match="regenerable is 'never'"):
        Config.from_env(environ=environ, regenerable="never")
