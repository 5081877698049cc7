"""Truncation, bit flips, moved and missing segments: a clean prefix, or a typed error."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crabrt.core.entries import BODIES, Body, Noted
from crabrt.errors import CrabError, DamagedJournal, FormatTooNew, NotFound
from crabrt.journal import PositionLost, follow, read_journal


def _read(directory):
    """What can be read, and the error that ended it."""
    texts, error = [], None
    try:
        for record in read_journal(directory):
            texts.append(record.body.text)  # noqa: PERF401 - what came before the error counts
    except CrabError as caught:
        error = caught
    return texts, error


def _three_synced_three_not(run):
    run.open()
    for n in range(3):
        run.note(f"{n}")
    run.journal.sync()
    synced = run.segments()[0].stat().st_size
    for n in range(3, 6):
        run.note(f"{n}")
    return run.segments()[0], synced


def test_cut_at_any_byte_behind_the_synced_part_it_is_a_clean_prefix_with_all_that_was_synced(run):
    path, synced = _three_synced_three_not(run)
    data = path.read_bytes()
    lengths = set()
    for end in range(synced, len(data) + 1):
        path.write_bytes(data[:end])
        texts, error = _read(run.directory)
        assert error is None
        assert texts == [str(n) for n in range(len(texts))]
        assert len(texts) >= 3
        lengths.add(len(texts))
    assert lengths == {3, 4, 5, 6}


def test_zeros_or_garbage_behind_the_synced_part_are_a_torn_tail(run):
    path, synced = _three_synced_three_not(run)
    data = path.read_bytes()
    for end in range(synced, len(data)):
        for rest in (bytes(len(data) - end), b"\xff" * (len(data) - end)):
            path.write_bytes(data[:end] + rest)
            texts, error = _read(run.directory)
            assert error is None
            assert texts == [str(n) for n in range(len(texts))]
            assert len(texts) >= 3


def test_a_lost_page_before_a_kept_one_is_a_torn_tail_when_neither_was_synced(run):
    path, synced = _three_synced_three_not(run)
    data = bytearray(path.read_bytes())
    data[synced : synced + 8] = bytes(8)
    path.write_bytes(data)
    assert _read(run.directory) == (["0", "1", "2"], None)


def test_every_broken_byte_that_was_durable_is_damage_once_the_journal_is_closed(run):
    run.open()
    for n in range(3):
        run.note(f"{n}")
    end = run.journal.position.offset
    run.close()
    path = run.segments()[0]
    data = path.read_bytes()
    for at in range(end):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        texts, error = _read(run.directory)
        assert isinstance(error, DamagedJournal | FormatTooNew), at
        assert error.where is not None
        assert texts == [str(n) for n in range(len(texts))]


def test_the_error_names_segment_offset_entry_and_what_to_do(run):
    run.open()
    run.note("0")
    offset = run.journal.position.offset
    run.note("1")
    run.close()
    path = run.segments()[0]
    data = bytearray(path.read_bytes())
    data[offset + 60] ^= 1
    path.write_bytes(data)
    _, error = _read(run.directory)
    assert error.where == f"fixer-1/00000001-00000001.seg:{offset}"
    assert "entry 2" in error.message
    assert "crab repair" in error.hint


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_damage_to_any_of_several_segments_gives_a_prefix_or_a_typed_error(
    make_run, data, tmp_path_factory
):
    home = tmp_path_factory.mktemp("home")
    run = make_run("fixer-1", home)
    for owner in range(3):
        run.open(segment_bytes=400)
        for n in range(4):
            run.note(f"{owner * 4 + n}")
            run.journal.sync()
        run.close()
    paths = run.segments()
    assert len(paths) >= 6
    path = data.draw(st.sampled_from(paths))
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["flip", "cut", "remove", "swap", "append", "rename"]))
    if how == "flip":
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    elif how == "remove":
        path.unlink()
    elif how == "append":
        path.write_bytes(content + data.draw(st.binary(max_size=100)))
    elif how == "swap":
        path.write_bytes(data.draw(st.sampled_from(paths)).read_bytes())
    else:
        path.rename(path.with_name("00000002-00000009.seg"))
    texts, _ = _read(run.directory)
    assert texts == [str(n) for n in range(len(texts))]


def test_a_missing_segment_in_the_middle_is_damage(run):
    run.open(segment_bytes=300)
    for n in range(9):
        run.note(f"{n}")
        run.journal.sync()
    run.close()
    run.segments()[1].unlink()
    texts, error = _read(run.directory)
    assert texts == []
    assert isinstance(error, DamagedJournal)
    assert "missing" in error.message


def test_a_segment_under_another_ones_name_is_damage(run):
    run.open()
    run.note("0")
    run.close()
    shutil.copy(run.segments()[0], run.directory / "journal" / "00000002-00000001.seg")
    assert "another one's name" in str(_read(run.directory)[1])


class Unheard(Body, frozen=True):
    kind = "unheard"
    x: int = 0


class UnheardOptional(Body, frozen=True):
    kind = "unheard-optional"
    optional = True


def test_an_unknown_kind_is_passed_over_only_if_it_says_so(run):
    assert "unheard" not in BODIES
    run.open()
    run.journal.append(UnheardOptional(), turn=0)
    run.note("after")
    bodies = [record.body for record in read_journal(run.directory)]
    assert bodies[0] is None
    assert bodies[1].text == "after"
    run.journal.append(Unheard(), turn=0)
    with pytest.raises(FormatTooNew, match="unheard"):
        list(read_journal(run.directory))


def test_reading_goes_on_from_a_position_and_follows_a_live_writer(run):
    run.open(segment_bytes=300)
    run.note("0")
    [first] = list(read_journal(run.directory))
    more = iter(range(1, 8))

    def wait():
        n = next(more, None)
        if n is None:
            return False
        run.note(f"{n}")
        run.journal.sync()
        return True

    followed = [r.body.text for r in follow(run.directory, wait, after=first.position)]
    assert followed == [str(n) for n in range(1, 8)]
    assert len(run.segments()) > 2


def test_a_position_that_the_power_cut_took_is_lost_and_not_mistaken(run):
    run.open()
    run.note("0")
    run.journal.sync()
    kept = run.segments()[0].stat().st_size
    run.note("old")
    position = run.journal.position
    run.close()
    data = run.segments()[0].read_bytes()
    run.segments()[0].write_bytes(data[:kept])
    run.open()
    run.note("new")
    with pytest.raises(PositionLost):
        list(read_journal(run.directory, after=position))
    assert run.texts() == ["0", "new"]


def test_no_run_and_no_journal_are_not_found(tmp_path):
    with pytest.raises(NotFound):
        list(read_journal(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound):
        list(read_journal(tmp_path / "empty"))


def test_a_body_with_fake_frames_in_it_is_only_a_body(run):
    run.open()
    run.note("0")
    frame = run.segments()[0].read_bytes()[160:]
    run.journal.append(Noted("t", "1", (frame * 3,)), turn=0)
    run.note("2")
    path = run.segments()[0]
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert run.texts() == ["0", "1"]
