"""One test for each thing that reading a journal checks: everything else about the bytes is right.

The journals are forged: every checksum and hash that the check under test does not look at fits.
"""

from __future__ import annotations

import sqlite3
import struct

import msgspec
import pytest
import xxhash

from crabrt.core.entries import CallId, Forked, Intent, Lineage, Noted, Payload, TurnOpened
from crabrt.core.envelopes import encode_entry
from crabrt.core.targets import TurnRef
from crabrt.core.verdicts import Prior
from crabrt.errors import CrabError, DamagedJournal, FormatTooNew
from crabrt.journal import (
    PositionLost,
    RunIndex,
    fork_journal,
    label_turn,
    read_journal,
    read_marks,
)
from crabrt.journal.database import checksum
from crabrt.journal.framing import (
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    SEAL_MARK,
    Header,
    chain_after,
    encode_frame,
    encode_header,
    genesis,
)
from crabrt.journal.lease import Lease, lease_holder
from crabrt.journal.reading import Position


def entry(seq, **changes):
    fields = {"turn": 0, "wall_ns": 1, "mono_ns": 1, "boot": "b"}
    return encode_entry(Noted("t", f"{seq}"), seq=seq, **{**fields, **changes})


class Forged:
    """A journal, segment by segment, with whatever is wrong about it."""

    def __init__(self, directory):
        self.folder = directory / "journal"
        self.folder.mkdir(parents=True)
        self.directory = directory
        self.chain, self.seq, self.end = genesis(directory.name), 0, 0
        self.header, self.data = None, b""

    def segment(self, number, epoch=1, *, name=None, **changes):
        """Begin a segment; what was written so far becomes the one before it."""
        before = self.header
        self.header = Header(
            segment=number,
            epoch=epoch,
            first_seq=self.seq + 1,
            previous_epoch=0 if before is None else before.epoch,
            previous_length=len(self.data) if before is not None else 0,
            previous_chain=self.chain,
            nonce=bytes([number]) * 16,
            run=genesis(self.directory.name),
            created_ns=1,
        )
        self.header = msgspec.structs.replace(self.header, **changes)
        self.data = encode_header(self.header)
        self.name = name or f"{number:08d}-{epoch:08d}.seg"
        return self.write()

    def entries(self, count=1, **changes):
        for _ in range(count):
            self.seq += 1
            self.frame(entry(self.seq, **changes))
        return self

    def frame(self, payload, *, chain=None, durable=HEADER_BYTES, **options):
        self.chain = chain_after(self.chain, payload) if chain is None else chain
        self.data += encode_frame(
            payload, self.chain, durable=durable, seed=self.header.seed, offset=len(self.data),
            **options,
        )  # fmt: skip
        return self.write()

    def write(self):
        (self.folder / self.name).write_bytes(self.data)
        return self


@pytest.fixture
def forged(tmp_path):
    return Forged(tmp_path / "home" / "runs" / "r-1")


def read(forged):
    return [record.entry.seq for record in read_journal(forged.directory)]


def refused(forged, match, error=DamagedJournal):
    with pytest.raises(error, match=match):
        read(forged)


def test_what_is_forged_here_is_whole_when_nothing_is_wrong(forged):
    forged.segment(1).entries(3)
    forged.segment(2).entries(2)
    forged.segment(3, epoch=2).entries(2)
    forged.frame(b"", mark=SEAL_MARK, chain=forged.chain)
    assert read(forged) == [1, 2, 3, 4, 5, 6, 7]


# -- headers -----------------------------------------------------------------------------


def resummed(forged, at, data):
    """Other bytes in the header, under a checksum that fits."""
    header = bytearray(forged.data[: HEADER_BYTES - 8])
    header[at : at + len(data)] = data
    header += struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(header)))
    forged.data = bytes(header) + forged.data[HEADER_BYTES:]
    forged.write()


@pytest.mark.parametrize(
    ("at", "data", "match", "error"),
    [
        (0, b"CRABWHAT", "magic", DamagedJournal),
        (8, b"\x02", "version 2", FormatTooNew),
        (12, b"\x01", "requirements 0x1", FormatTooNew),
        (40, b"\x07", "contradicts itself", DamagedJournal),
        (32, b"\x00", "contradicts itself", DamagedJournal),
    ],
)
def test_a_header_must_make_sense(forged, at, data, match, error):
    forged.segment(1).entries(1)
    resummed(forged, at, data)
    refused(forged, match, error)


def test_a_headers_checksum_is_looked_at(forged):
    forged.segment(1).entries(1)
    data = bytearray(forged.data)
    data[144] ^= 1  # the wall clock: nothing depends on it
    forged.data = bytes(data)
    forged.write()
    refused(forged, "header's checksum")


def test_a_header_that_was_never_finished_is_passed_over_only_if_nothing_follows(forged):
    forged.segment(1).entries(2)
    whole = forged.data
    forged.segment(2)
    forged.data = forged.data[: HEADER_BYTES - 8] + b"\x55" * 8  # its pages came in part
    forged.write()
    assert read(forged) == [1, 2]
    forged.data = forged.data[: HEADER_BYTES - 8] + bytes(8)
    forged.write()
    assert read(forged) == [1, 2]
    forged.data += b"x"  # no checksum at all: it was never finished, and nothing depends on it
    forged.write()
    assert read(forged) == [1, 2]
    forged.data = whole[: HEADER_BYTES - 1] + b"\x55" + b"entries"
    forged.write()
    refused(forged, "header's checksum")


# -- the path of segments ----------------------------------------------------------------


def test_what_an_older_epoch_wrote_behind_a_newer_one_is_void(forged):
    forged.segment(1, epoch=3).entries(1)
    forged.segment(2, epoch=2).entries(1)
    assert read(forged) == [1]


def test_the_first_entries_of_segments_do_not_go_back(forged):
    forged.segment(1).entries(1)
    forged.segment(2).entries(1)
    forged.segment(3, first_seq=1).entries(1)
    refused(forged, "out of order")


def test_an_epoch_in_the_middle_of_the_path_does_not_go_back(forged):
    forged.segment(1, epoch=5).entries(1)
    forged.segment(2, epoch=2).entries(1)
    forged.segment(3, epoch=9).entries(1)
    refused(forged, "out of order")


def test_a_segment_is_what_its_name_says(forged):
    forged.segment(1).entries(1)
    forged.segment(2, name="00000003-00000001.seg").entries(1)
    refused(forged, "another one's name")


def test_a_segment_that_says_less_than_a_header_of_the_one_before_contradicts_itself(forged):
    forged.segment(1)
    forged.segment(2, previous_length=HEADER_BYTES - 1).entries(1)
    refused(forged, "contradicts itself")


def test_the_first_segment_begins_at_the_first_entry(forged):
    forged.seq = 4
    forged.segment(1).entries(1)
    refused(forged, "does not begin at entry 1")


def test_a_segment_that_nothing_leads_to_is_not_passed_over(forged):
    forged.segment(1, epoch=2).entries(1)
    other = Forged(forged.directory.parent / "r-2")
    other.segment(1, epoch=1)
    other.segment(5, epoch=1).entries(1)
    (forged.folder / other.name).write_bytes(other.data)
    assert read(forged) == [1]  # of an older epoch: a zombie's
    forged.segment(2, epoch=2).entries(1)
    (forged.folder / "00000007-00000002.seg").write_bytes(
        encode_header(msgspec.structs.replace(forged.header, segment=7, previous_epoch=2))
    )
    refused(forged, "missing or cut short")


def test_a_segment_of_the_same_epoch_off_the_path_is_damage(forged):
    forged.segment(1, epoch=2).entries(1)
    keep = forged.header, forged.data, forged.chain, forged.seq
    forged.segment(2, epoch=2).entries(1)
    forged.header, forged.data, forged.chain, forged.seq = keep
    forged.segment(2, epoch=3).entries(1)
    assert read(forged) == [1, 2]  # taken over: void
    keep = forged.header, forged.data, forged.chain, forged.seq
    (forged.folder / "00000001-00000003.seg").write_bytes(
        encode_header(msgspec.structs.replace(keep[0], segment=1, first_seq=1))
    )
    refused(forged, "follows on no other")


def test_a_segment_beside_the_path_and_before_the_takeover_is_damage(forged):
    forged.segment(1).entries(1)
    beside = encode_header(
        msgspec.structs.replace(forged.header, segment=2, epoch=2, previous_epoch=1, first_seq=2)
    )
    forged.segment(2).entries(1)
    forged.segment(3, epoch=3).entries(1)
    assert read(forged) == [1, 2, 3]
    (forged.folder / "00000002-00000002.seg").write_bytes(beside)
    refused(forged, "follows on no other")


# -- entries -----------------------------------------------------------------------------


def test_the_chain_is_followed(forged):
    forged.segment(1).entries(1)
    forged.seq += 1
    forged.frame(entry(2), chain=b"\x01" * 32)
    refused(forged, "hash chain is broken")


def test_a_frames_checksum_counts_even_where_the_chain_fits(forged):
    forged.segment(1).entries(3)
    forged.frame(b"", mark=SEAL_MARK, chain=forged.chain, durable=len(forged.data))
    data = bytearray(forged.data)
    second = data.index(b"\xc1ENT", HEADER_BYTES + 4)
    for at in (second + 8, data.index(b"\xc1ENT", second + 4) - 1):  # the mark; the sum itself
        data[at] ^= 1
        forged.data = bytes(data)
        forged.write()
        refused(forged, "bytes that were durable are broken")
        data[at] ^= 1


def test_a_frame_belongs_to_its_segment(forged):
    forged.segment(1).entries(2)
    first = forged.data
    start = {"first_seq": 1, "previous_epoch": 0, "previous_length": 0}
    forged.segment(1, nonce=b"z" * 16, previous_chain=genesis("r-1"), **start)
    forged.data += first[HEADER_BYTES:]
    forged.write()
    assert read(forged) == []


def test_a_frame_that_vouches_for_what_is_behind_it_was_not_written_by_us(forged):
    forged.segment(1)
    forged.seq = 1
    forged.frame(entry(1), durable=HEADER_BYTES + 1)
    assert read(forged) == []


def test_a_frame_of_an_unknown_sort_is_none(forged):
    forged.segment(1).entries(1)
    forged.frame(entry(2), mark=b"\xc1EXT")
    assert read(forged) == [1]


def test_no_length_above_the_greatest_is_believed(forged):
    forged.segment(1)
    forged.frame(entry(1) + bytes(MAX_PAYLOAD_BYTES))
    assert read(forged) == []


def test_entries_are_numbered_without_gaps(forged):
    forged.segment(1).entries(1)
    forged.frame(entry(3))
    refused(forged, "says it is number 3")


@pytest.mark.parametrize(
    "changes", [{"turn": -1}, {"turn": 1 << 63}, {"wall_ns": 1 << 63}, {"mono_ns": 1 << 63}]
)
def test_an_entrys_turn_and_times_make_sense(forged, changes):
    forged.segment(1).entries(1, **changes)
    refused(forged, "makes no sense")


def test_what_is_no_entry_or_no_such_entry_is_damage(forged):
    forged.segment(1).frame(msgspec.msgpack.encode([1, 2]))
    refused(forged, "not an entry")
    fields = msgspec.msgpack.decode(entry(1))
    fields[-1] = {"topic": 3}
    forged.chain = genesis("r-1")
    forged.segment(1).frame(msgspec.msgpack.encode(fields))
    refused(forged, "not a 'note' entry")


# -- where segments meet -----------------------------------------------------------------


def test_a_segment_follows_on_the_entry_and_the_chain_before_it(forged):
    forged.segment(1).entries(2)
    forged.segment(2, first_seq=2).entries(1)
    refused(forged, "the next segment follows on something else")
    forged.segment(2, first_seq=3, previous_epoch=1, previous_chain=b"\x07" * 32)
    refused(forged, "broken|follows on something else")


def test_the_chain_that_the_next_segment_states_is_compared(forged):
    forged.segment(1).entries(2)
    length = len(forged.data)
    forged.segment(2, previous_chain=b"\x07" * 32, previous_length=length)
    refused(forged, "follows on something else")


def test_a_segment_before_ends_exactly_where_the_next_one_says(forged):
    forged.segment(1).entries(2)
    forged.segment(2, previous_length=len(forged.data) - 1).entries(1)
    entries = read_journal(forged.directory)
    assert next(entries).entry.seq == 1
    with pytest.raises(DamagedJournal, match="an entry is broken and more follow"):
        next(entries)


def test_a_journal_begins_with_the_chain_of_its_run(forged):
    forged.segment(1).entries(2)
    (forged.folder / forged.name).write_bytes(
        encode_header(msgspec.structs.replace(forged.header, previous_chain=b"\x07" * 32))
        + forged.data[HEADER_BYTES:]
    )
    refused(forged, "hash chain is broken")


# -- positions ---------------------------------------------------------------------------


def last(forged):
    *_, record = read_journal(forged.directory)
    return record.position


def lost(forged, position):
    with pytest.raises(PositionLost):
        list(read_journal(forged.directory, after=position))


def test_a_position_is_compared_by_its_chain(forged):
    forged.segment(1).entries(2)
    position = last(forged)
    assert list(read_journal(forged.directory, after=position)) == []
    lost(forged, msgspec.structs.replace(position, chain=b"\x07" * 32))
    lost(forged, msgspec.structs.replace(position, offset=position.offset - 1))
    lost(forged, msgspec.structs.replace(position, offset=position.offset + 1))
    lost(forged, msgspec.structs.replace(position, epoch=9))
    first = next(read_journal(forged.directory)).position
    lost(forged, msgspec.structs.replace(first, offset=first.offset + 1))


def test_a_position_before_the_first_entry_of_a_segment_is_compared_too(forged):
    forged.segment(1).entries(2)
    chain = forged.chain
    forged.segment(2).entries(1)
    start = Position(2, 1, HEADER_BYTES, 2, chain)
    assert [one.entry.seq for one in read_journal(forged.directory, after=start)] == [3]
    lost(forged, msgspec.structs.replace(start, seq=1))
    lost(forged, msgspec.structs.replace(start, chain=b"\x07" * 32))


def test_a_position_behind_what_the_next_segment_counts_is_found_where_it_was_written_again(forged):
    forged.segment(1).entries(1)
    keep = forged.chain, forged.seq, len(forged.data)
    forged.entries(2)
    position = last(forged)
    forged.chain, forged.seq, length = keep
    forged.segment(2, previous_length=length).entries(3)
    assert [one.entry.seq for one in read_journal(forged.directory, after=position)] == [4]
    lost(forged, msgspec.structs.replace(position, chain=b"\x07" * 32))


def forked_at(forged, upto, place):
    child = forged.directory.parent / f"r-{len(list(forged.directory.parent.iterdir())) + 1}"
    child.mkdir()
    lineage = Lineage("r-1", "r-1", upto)
    fork_journal(
        forged.directory, child, upto=upto, forked=Forked("c", "c", b"", "w", lineage, 0),
        place=place,
    )  # fmt: skip
    return [record.entry.kind for record in read_journal(child)]


def test_a_fork_believes_no_place_that_is_not_there(forged):
    forged.segment(1).entries(2)
    keep = forged.chain, forged.seq
    forged.chain, forged.seq = genesis("r-1"), 0
    forged.segment(2, previous_length=HEADER_BYTES).entries(2)  # written again, to another segment
    assert (forged.chain, forged.seq) == keep
    place = last(forged)
    wanted = ["note", "note", "forked"]
    assert forked_at(forged, 2, place) == wanted
    assert forked_at(forged, 2, None) == wanted
    assert forked_at(forged, 1, place) == wanted[1:]
    for wrong in ({"segment": 1}, {"epoch": 7}, {"chain": b"\x07" * 32}, {"offset": 170}):
        assert forked_at(forged, 2, msgspec.structs.replace(place, **wrong)) == wanted, wrong


# -- messages and the lease --------------------------------------------------------------


def test_a_message_belongs_to_its_number(run):
    run.open()
    run.start()
    label_turn(run.directory, "a", 0)
    [path] = (run.directory / "inbox").iterdir()
    path.rename(path.with_name("00000002.msg"))
    with pytest.raises(DamagedJournal, match="checksum"):
        read_marks(run.directory)


def test_a_message_begins_with_its_magic(run):
    run.open()
    run.start()
    label_turn(run.directory, "a", 0)
    [path] = (run.directory / "inbox").iterdir()
    path.write_bytes(b"CRABWHAT" + path.read_bytes()[8:])
    with pytest.raises(DamagedJournal, match="checksum"):
        read_marks(run.directory)


def test_a_lease_file_whose_checksum_fails_names_nobody(tmp_path):
    with Lease.acquire(tmp_path / "r") as lease:
        assert lease_holder(tmp_path / "r") is not None
        assert lease.epoch == 1
    path = tmp_path / "r" / "lease"
    data = bytearray(path.read_bytes())
    at = data.index(b"epoch") + 5
    data[at] = 9  # another epoch, were it believed
    path.write_bytes(data)
    with Lease.acquire(tmp_path / "r") as lease:
        assert lease.epoch == 1


# -- the index ---------------------------------------------------------------------------


@pytest.fixture
def indexed(run):
    """A run of six turns, two of them with external calls, and its index on disk."""
    run.open()
    run.start()
    for turn in range(1, 6):
        run.turn(turn)
        if turn in {2, 4}:
            call = CallId("0", "pay", turn)
            run.journal.append(Intent(call, b"d", Payload(b"x"), Prior.EXTERNAL), turn=turn)
    with RunIndex.open(run.home) as index:
        index.refresh()
    return run


def change(run, statement, *values):
    connection = sqlite3.connect(run.home / "runs.sqlite", isolation_level=None)
    connection.execute(statement, values)
    assert connection.total_changes
    connection.close()


def told(run, *, refresh=False):
    with RunIndex.open(run.home) as index:
        if refresh:
            index.refresh()
        turns = [(turn.turn, turn.root) for turn in index.turns(run.id)]
        external = [turn.turn for turn in index.external_turns(run.id)]
        late = [turn.turn for turn in index.external_turns(run.id, 3)]
        last = index.checkpoint(run.id, TurnRef(turn=-1)).turn
        return turns, external, late, last, index.run(run.id).turns


TAMPERING = {
    "a turn is gone": "DELETE FROM turns WHERE turn = 3",
    "the last turn is gone": "DELETE FROM turns WHERE turn = 5",
    "an external turn is gone": "DELETE FROM turns WHERE turn = 4",
    "a turn is another's": "UPDATE turns SET row = (SELECT row FROM turns WHERE turn = 1),"
    " sum = (SELECT sum FROM turns WHERE turn = 1) WHERE turn = 5",
    "a turn's bytes changed": "UPDATE turns SET row = row || x'00' WHERE turn = 5",
    "a turn's sum changed": "UPDATE turns SET sum = sum + 1 WHERE turn = 5",
    "a turn is no bytes": "UPDATE turns SET row = 'text' WHERE turn = 5",
    "a turn is not marked external": "UPDATE turns SET external = 0 WHERE turn = 4",
    "a turn is marked external": "UPDATE turns SET external = 1 WHERE turn = 3",
    "the run's bytes changed": "UPDATE runs SET row = row || x'00'",
    "the run's sum changed": "UPDATE runs SET sum = sum + 1",
    "the run is no bytes": "UPDATE runs SET row = 'text'",
}


@pytest.mark.parametrize("refresh", [False, True])
@pytest.mark.parametrize("what", TAMPERING)
def test_rows_that_are_not_what_was_written_are_not_believed(indexed, what, refresh):
    before = told(indexed)
    change(indexed, TAMPERING[what])
    assert told(indexed, refresh=refresh) == before


def test_a_row_of_another_run_is_not_believed(indexed, make_run):
    other = make_run("other-2")
    other.open()
    other.start(name="other")
    other.commit(0, b"o" * 32)
    before = told(indexed, refresh=True)
    for column in ("row", "sum"):
        part = f"(SELECT {column} FROM turns WHERE run = 'other-2' AND turn = 0)"
        change(
            indexed, f"UPDATE turns SET {column} = {part} WHERE run = ? AND turn = 0", indexed.id
        )
    assert told(indexed) == before


def test_a_runs_row_that_still_makes_sense_is_compared_with_its_sum(indexed):
    connection = sqlite3.connect(indexed.home / "runs.sqlite", isolation_level=None)
    [[row]] = connection.execute("SELECT row FROM runs")
    assert b"\xa5fixer" in row
    connection.execute("UPDATE runs SET row = ?", (row.replace(b"\xa5fixer", b"\xa5mixer"),))
    connection.close()
    with RunIndex.open(indexed.home) as index:
        assert index.run(indexed.id).name == "fixer"


@pytest.mark.parametrize("what", ["a turn is gone", "the last turn is gone"])
def test_rows_that_went_missing_are_not_made_right_by_counting_what_is_left(indexed, what):
    change(indexed, TAMPERING[what])
    indexed.journal.append(TurnOpened(6, 5), turn=6)
    assert [turn for turn, _ in told(indexed, refresh=True)[0]] == list(range(7))


def test_one_missing_row_is_missed_by_whoever_asks_for_its_neighbours(indexed):
    """Each way of asking alone: none relies on another to have counted."""
    change(indexed, TAMPERING["the last turn is gone"])
    with RunIndex.open(indexed.home) as index:
        assert index.checkpoint(indexed.id, TurnRef(turn=-1)).turn == 5
    change(indexed, TAMPERING["an external turn is gone"])
    with RunIndex.open(indexed.home) as index:
        assert [turn.turn for turn in index.external_turns(indexed.id)] == [2, 4]
    change(indexed, TAMPERING["a turn is gone"])
    with RunIndex.open(indexed.home) as index:
        assert [turn.turn for turn in index.turns(indexed.id, 2, 4)] == [2, 3, 4]
        assert index.turn(indexed.id, TurnRef(turn=3)).turn == 3


@pytest.mark.parametrize("table", ["runs", "turns"])
def test_a_row_with_a_fitting_sum_must_still_be_one(indexed, table):
    before = told(indexed)
    row, turn = msgspec.msgpack.encode("no row"), -1 if table == "runs" else 5
    where = "1" if table == "runs" else "turn = 5"
    statement = f"UPDATE {table} SET row = ?, sum = ? WHERE {where}"
    change(indexed, statement, row, checksum(indexed.id, turn, row))
    assert told(indexed) == before


def test_forged_or_not_it_is_a_typed_error(forged):
    forged.segment(1).entries(1)
    for at in range(len(forged.data)):
        data = bytearray(forged.data)
        data[at] ^= 0x80
        (forged.folder / forged.name).write_bytes(data)
        try:
            assert read(forged) in ([], [1])
        except CrabError:
            continue
