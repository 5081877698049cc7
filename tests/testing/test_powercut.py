"""What was synced is never lost by the model, and what was not is lost in every way it can be."""

import os

import pytest

from crabrt.testing.powercut import PowerCut

COUNT = 200


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "home"
    path.mkdir()
    (path / "old").write_bytes(b"was there before")
    return path


def _append(path, data, *, sync):
    with open(path, "ab", buffering=0) as file:
        file.write(data)
        if sync:
            os.fdatasync(file.fileno())


def _drawn(power, tmp_path, **options):
    """The contents of every drawn disk, as a dict by name."""
    into = tmp_path / "drawn"
    for cut in power.each(COUNT, str(into), **options):
        yield cut, {p.name: p.read_bytes() for p in into.rglob("*") if p.is_file()}


def test_synced_bytes_stay_and_later_ones_go_at_every_length(home, tmp_path):
    synced, later = b"S" * 1000, bytes(range(1, 11))
    with PowerCut(str(home)) as power:
        _append(home / "log", synced, sync=True)
        _append(home / "log", later, sync=False)
    assert power.syncs == 1
    lengths = set()
    for cut, files in _drawn(power, tmp_path):
        assert files["log"].startswith(synced)
        assert files["old"] == b"was there before"
        assert bool(cut.lost) == (files["log"] != synced + later)
        if (synced + later).startswith(files["log"]):
            lengths.add(len(files["log"]) - 1000)
    assert lengths == set(range(11))


def test_a_tail_may_be_garbled_and_not_only_cut(home, tmp_path):
    data = b"D" * 4000
    with PowerCut(str(home)) as power:
        _append(home / "log", b"head", sync=True)
        _append(home / "log", data, sync=False)
    drawn = [files["log"] for _, files in _drawn(power, tmp_path)]
    same_size = [text for text in drawn if len(text) == 4004 and text != b"head" + data]
    assert any(text.endswith(bytes(10)) for text in same_size)  # blocks that were never written
    assert any(
        0 not in text[-100:] and b"D" * 5 not in text[-100:] for text in same_size
    )  # garbage
    assert any(text.endswith(b"D") and bytes(100) in text for text in same_size)  # out of order


def test_a_file_that_was_never_synced_may_lose_everything(home, tmp_path):
    with PowerCut(str(home)) as power:
        _append(home / "log", b"1234", sync=False)
    assert b"" in {files["log"] for _, files in _drawn(power, tmp_path)}


def test_what_was_there_before_is_durable(home, tmp_path):
    with PowerCut(str(home)) as power:
        _append(home / "old", b" and more", sync=False)
    for _, files in _drawn(power, tmp_path):
        assert files["old"].startswith(b"was there before")


def test_names_go_only_where_asked_and_only_without_a_directory_sync(home, tmp_path):
    with PowerCut(str(home)) as power:
        _append(home / "kept", b"k", sync=True)
        handle = os.open(home, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        _append(home / "new", b"n", sync=True)
    assert {frozenset(files) for _, files in _drawn(power, tmp_path)} == {
        frozenset({"old", "kept", "new"})
    }
    drawn = list(_drawn(power, tmp_path, lose_names=True))
    assert {frozenset(files) for _, files in drawn} == {
        frozenset({"old", "kept", "new"}),
        frozenset({"old", "kept"}),
    }
    assert {cut.lost for cut, _ in drawn} == {(), ("new: the name",)}


def test_a_rename_without_a_directory_sync_may_not_have_happened(home, tmp_path):
    with PowerCut(str(home)) as power:
        _append(home / "tmp", b"renewed", sync=True)
        os.replace(home / "tmp", home / "old")
    drawn = {files["old"] for _, files in _drawn(power, tmp_path, lose_names=True)}
    assert drawn == {b"was there before", b"renewed"}


def test_the_same_seed_draws_the_same_disk(home, tmp_path):
    with PowerCut(str(home)) as power:
        _append(home / "log", b"x" * 5000, sync=False)
    power.draw(3, str(tmp_path / "a"))
    power.draw(3, str(tmp_path / "b"))
    assert (tmp_path / "a/log").read_bytes() == (tmp_path / "b/log").read_bytes()


def test_syncs_elsewhere_and_afterwards_are_not_counted(home, tmp_path):
    real = os.fsync
    with PowerCut(str(home)) as power:
        _append(tmp_path / "elsewhere", b"x", sync=True)
    assert os.fsync is real
    _append(home / "log", b"x", sync=True)
    assert power.syncs == 0


def test_a_sync_that_fails_makes_nothing_durable(home, tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with PowerCut(str(home)) as power, pytest.raises(OSError, match="Input/output"):
        _append(home / "log", b"1234", sync=True)
    assert b"" in {files["log"] for _, files in _drawn(power, tmp_path)}
