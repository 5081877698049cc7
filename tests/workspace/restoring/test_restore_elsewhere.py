"""A state in another directory: the same in every respect, and nothing of others touched."""

import os

import pytest

from crabrt.errors import NotFound, UsageError


@pytest.fixture
def filled(place):
    place.file("a", b"1", 0o751)
    os.link(place.file("d/one", b"shared"), place.path / "d/two")
    os.setxattr(place.path / "d", "user.x", b"y")
    (place.path / "l").symlink_to("a")
    os.mkfifo(place.path / "p")
    (place.path / "d/closed").mkdir(mode=0o500)
    place.path.chmod(0o750)
    place.target, place.wanted = place.checkpoint(), place.facts()
    return place


def test_a_missing_directory_is_made(filled, assert_same):
    report = filled.restore_to(filled.target, filled.top / "x/y")
    assert_same(filled.wanted, filled.facts(filled.top / "x/y"))
    assert report.complete
    assert report.root == filled.target
    assert report.created == 5


def test_an_empty_directory_is_filled(filled, assert_same):
    (filled.top / "empty").mkdir()
    filled.restore_to(filled.target, filled.top / "empty")
    assert_same(filled.wanted, filled.facts(filled.top / "empty"))


def test_a_directory_with_something_in_it_is_refused_unless_forced(filled):
    new = filled.top / "new"
    new.mkdir()
    (new / "theirs").write_bytes(b"kept")
    (new / "a").write_bytes(b"replaced")
    with pytest.raises(UsageError) as refused:
        filled.restore_to(filled.target, new)
    assert refused.value.hint is not None
    assert sorted(os.listdir(new)) == ["a", "theirs"]
    assert filled.restore_to(filled.target, new, force=True).complete
    facts = filled.facts(new)
    assert facts.pop(b"theirs").kind == "file"
    assert facts == filled.wanted


def test_a_file_is_not_a_directory(filled):
    file = filled.top / "file"
    file.write_bytes(b"x")
    with pytest.raises(UsageError):
        filled.restore_to(filled.target, file)
    assert file.read_bytes() == b"x"


def test_paths_are_restored_with_the_directories_above_them(filled):
    report = filled.restore_to(filled.target, filled.top / "new", paths=[b"d/one"])
    facts = filled.facts(filled.top / "new")
    assert set(facts) == {b"", b"d", b"d/one"}
    assert facts[b"d"] == filled.wanted[b"d"]
    assert report.complete


def test_an_unknown_path_makes_nothing(filled):
    with pytest.raises(NotFound):
        filled.restore_to(filled.target, filled.top / "new", paths=[b"never"])
    assert not (filled.top / "new").exists()


def test_a_symlink_in_a_forced_directory_is_not_followed(filled):
    outside, new = filled.top / "outside", filled.top / "new"
    outside.mkdir()
    new.mkdir()
    (new / "d").symlink_to(outside)
    report = filled.restore_to(filled.target, new, force=True)
    assert os.listdir(outside) == []
    assert b"d/one" in dict(report.not_restored)
