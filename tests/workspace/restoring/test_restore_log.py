"""The log of restores: torn tails are cut, damage is told, and nothing in it is trusted."""

import contextlib
import os
import struct
import time

import msgspec
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from crabrt.core.ids import object_id
from crabrt.errors import CrabError, DamagedJournal, FormatTooNew, StoreUnavailable
from crabrt.journal import restores as logs
from crabrt.journal.restores import RestoreLog

ONE, TWO = object_id(b"one"), object_id(b"two")


def _begin(number, wall_ns=None):
    record = logs.begin(
        f"{number:016x}", ONE, TWO, base=None, paths=(b"a\xff",), force=False, label="it"
    )
    return record if wall_ns is None else type(record)(**{**_fields(record), "wall_ns": wall_ns})


def _fields(record):
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _end(number, *, changed=True):
    return logs.End(f"{number:016x}", TWO, changed=changed, wall_ns=time.time_ns())


@pytest.fixture
def log(tmp_path):
    return RestoreLog(tmp_path)


def test_records_come_back_in_order(log):
    records = [_begin(1), _end(1), _begin(2)]
    for record in records:
        log.append(record)
    assert log.records() == records
    assert log.interrupted() == records[2]
    assert log.undo_point(1) == (records[0], records[1])
    assert set(log.roots(1)) == {ONE, TWO}


def test_an_absent_log_is_empty(log):
    assert log.records() == []
    assert log.interrupted() is None
    assert log.last_end_root() is None
    assert log.roots(14) == ()


@pytest.mark.parametrize("filler", [b"", b"\0"])
def test_a_torn_tail_is_cut_at_any_byte(log, filler):
    log.append(_begin(1))
    whole = len(log.path.read_bytes())
    log.append(_end(1))
    data = log.path.read_bytes()
    for length in range(len(data)):
        torn = data[:length] + filler * (len(data) - length)
        if torn == data:
            continue  # the record ends in zeros: nothing is lost
        log.path.write_bytes(torn)
        kept = 1 if whole <= length else 0
        assert len(log.records()) == kept
        log.append(_begin(2))
        assert [r.id[-1] for r in log.records()] == (["1", "2"] if kept else ["2"])
        log.path.write_bytes(data)


def test_damage_in_the_middle_is_told(log):
    log.append(_begin(1))
    middle = len(log.path.read_bytes()) - 3
    log.append(_end(1))
    data = bytearray(log.path.read_bytes())
    data[middle] ^= 0x40
    log.path.write_bytes(data)
    with pytest.raises(DamagedJournal, match="restores:"):
        log.records()
    with pytest.raises(DamagedJournal):
        log.append(_begin(2))
    assert log.path.read_bytes() == data


def test_a_newer_version_is_refused(log):
    log.append(_begin(1))
    data = bytearray(log.path.read_bytes())
    data[len(logs.MAGIC)] = logs.VERSION + 1
    log.path.write_bytes(data)
    with pytest.raises(FormatTooNew):
        log.records()


def test_a_log_that_cannot_be_read_is_no_empty_log(log):
    os.mkdir(log.path)
    with pytest.raises(StoreUnavailable):
        log.records()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_malformed_bytes_raise_typed_errors_only(tmp_path_factory, data):
    log = RestoreLog(tmp_path_factory.mktemp("log"))
    for record in (_begin(1), _end(1), _begin(2)):
        log.append(record)
    good = log.records()
    bytes_there = bytearray(log.path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(bytes_there) - 1))
        bytes_there[at] = data.draw(st.integers(0, 255))
    log.path.write_bytes(bytes_there[: data.draw(st.integers(0, len(bytes_there)))])
    with contextlib.suppress(CrabError):
        assert log.records() == good[: len(log.records())]


def test_a_record_whose_id_would_lead_elsewhere_is_damage(log):
    log.append(_begin(1))
    evil = type(_begin(1))(**{**_fields(_begin(1)), "id": "../../../etc/pas"})
    log.append(evil)
    with pytest.raises(DamagedJournal):
        log.records()


def test_a_long_log_forgets_what_is_old(log, monkeypatch):
    monkeypatch.setattr(logs, "COMPACT_OVER_BYTES", 2000)
    old = time.time_ns() - 100 * logs.DAY_NS
    for number in range(20):
        log.append(_begin(number, wall_ns=old))
    log.append(_begin(30))
    log.append(_end(30))
    before = log.path.stat().st_size
    log.compact(14)
    assert log.path.stat().st_size < before // 4
    assert [record.id for record in log.records()] == [f"{30:016x}"] * 2
    log.append(_begin(31))
    assert len(log.records()) == 3


def test_a_restore_that_changed_nothing_is_no_undo_point(log):
    log.append(_begin(1))
    log.append(_end(1, changed=False))
    assert log.undo_point(14) is None
    assert log.last_end_root() is None


def test_a_log_from_before_there_was_another_known_state_is_read(log):
    """Records as they were: without the fields that came later."""
    log.append(_begin(1, wall_ns=1))
    started = {"type": "begin", "id": f"{2:016x}", "before": ONE, "target": TWO, "base": None}
    started |= {"paths": [b"a"], "force": False, "label": "undo", "wall_ns": 1, "boot": "b"}
    ended = {"type": "end", "id": f"{2:016x}", "root": TWO, "changed": True, "wall_ns": 1}
    for record in (started, ended):
        payload = msgspec.msgpack.encode(record)
        size = len(payload)
        frame = struct.pack("<IIQ", size, size ^ 0xFFFF_FFFF, xxhash.xxh3_64_intdigest(payload))
        with log.path.open("ab") as file:
            file.write(frame + payload)
    assert log.records()[1].known is None
    assert log.last_end().base == TWO
    assert log.roots(0) == (TWO,)


def test_what_is_known_is_kept_with_what_was_left(log):
    log.append(_begin(1, wall_ns=1))
    log.append(logs.End(f"{1:016x}", TWO, changed=True, wall_ns=1, known=ONE))
    log.append(_begin(2, wall_ns=1))
    log.append(_end(2, changed=False))
    assert log.last_end().base == ONE
    assert log.last_end_root() == (TWO, 1)
    assert set(log.roots(0)) == {ONE, TWO}
