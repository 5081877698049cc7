"""Whatever became of a journal's files, the index answers as one that is built anew.

A power cut, a person or a program changes them; ``runs.sqlite`` stays as it was.
"""

from __future__ import annotations

import os
import random

import pytest

from crabrt.core.entries import TurnOpened
from crabrt.core.targets import TurnRef, parse_turn
from crabrt.errors import DamagedJournal, NotFound
from crabrt.journal import PositionLost, RunIndex, label_turn, read_journal, watermarks


@pytest.fixture
def reboot(monkeypatch):
    """From now on it is another boot."""

    def now(name="the next boot"):
        monkeypatch.setattr("crabrt.journal.updating.boot_id", lambda: name)

    return now


def answers(home):
    """What is known of every run, as the index stands now."""
    with RunIndex.open(home) as index:
        index.refresh()
        return [(row, index.turns(row.run)) for row in index.runs()]


def built_anew(home):
    with RunIndex.open(home) as index:
        index.rebuild()
        return [(row, index.turns(row.run)) for row in index.runs()]


def put_in_place(path, data):
    """Other bytes under the same name, inode and times."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.write(data)
        file.truncate(len(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def killed(run):
    """The owner dies: nothing is closed."""
    run.journal._close_file()
    run.lease.release()


def one_synced_turn_and_one_not(run):
    run.open()
    run.start()
    run.turn(1)
    run.journal.sync()
    synced = run.journal.position.offset
    run.turn(2)
    position = run.journal.position
    killed(run)
    return run.segments()[0], synced, position


@pytest.mark.parametrize("rest", [b"\0", b"\xff"])
def test_a_turn_that_a_power_cut_replaced_by_bytes_of_the_same_length_is_gone(run, reboot, rest):
    path, synced, _ = one_synced_turn_and_one_not(run)
    assert len(answers(run.home)[0][1]) == 3
    data = path.read_bytes()
    put_in_place(path, data[:synced] + rest * (len(data) - synced))
    reboot()
    kept = answers(run.home)
    assert [turn.turn for turn in kept[0][1]] == [0, 1]
    assert kept == built_anew(run.home)


def test_a_page_that_a_power_cut_took_before_one_that_it_left_ends_the_journal(run, reboot):
    path, synced, position = one_synced_turn_and_one_not(run)
    answers(run.home)
    data = path.read_bytes()
    put_in_place(path, data[: synced + 20] + bytes(64) + data[synced + 84 :])
    assert list(read_journal(run.directory, after=position)) == []  # its last entry is there
    reboot()
    kept = answers(run.home)
    assert [turn.turn for turn in kept[0][1]] == [0, 1]
    assert kept == built_anew(run.home)


def test_the_turns_of_a_run_that_went_on_after_a_power_cut_are_its_own(run, reboot):
    path, synced, _ = one_synced_turn_and_one_not(run)
    answers(run.home)
    data = path.read_bytes()
    put_in_place(path, data[:synced] + bytes(len(data) - synced))
    reboot()
    run.open()
    run.journal.append(TurnOpened(2, 1), turn=2)
    kept = answers(run.home)
    assert kept[0][1][2].root is None
    assert kept == built_anew(run.home)


def test_a_reboot_that_took_nothing_is_looked_at_once(run, reboot, monkeypatch):
    one_synced_turn_and_one_not(run)
    before = answers(run.home)
    reboot()
    assert answers(run.home) == before
    monkeypatch.setattr(watermarks, "_digest", None)  # not called again
    assert answers(run.home) == before


def test_a_run_that_was_closed_costs_a_reboot_nothing(run, reboot, monkeypatch):
    run.open(segment_bytes=2000)
    run.start()
    for turn in range(1, 9):
        run.turn(turn)
        run.journal.sync()
    run.close()
    before = answers(run.home)
    reboot()
    monkeypatch.setattr(watermarks, "_digest", None)
    assert answers(run.home) == before


def test_a_position_that_other_bytes_of_the_same_length_replaced_is_lost(run):
    path, synced, position = one_synced_turn_and_one_not(run)
    assert list(read_journal(run.directory, after=position)) == []
    data = path.read_bytes()
    put_in_place(path, data[:synced] + bytes(len(data) - synced))
    with pytest.raises(PositionLost):
        list(read_journal(run.directory, after=position))


@pytest.mark.parametrize("length", [0, 1, 4000, 4096, 4100, 20_000, 300_000])
def test_a_position_behind_an_entry_of_any_length_is_found(run, length):
    run.open()
    run.note("c1" + "\xc1ENT" * 3)
    run.note("x" * length)
    run.note("ENT" * (length // 3))
    records = list(read_journal(run.directory))
    for at, record in enumerate(records):
        rest = list(read_journal(run.directory, after=record.position))
        assert [one.entry.seq for one in rest] == [one.entry.seq for one in records[at + 1 :]]


def damaged_in_the_middle(run, turn=3):
    """A closed run whose journal was folded, and then changed in the middle."""
    run.open()
    run.start()
    for number in range(1, 6):
        run.turn(number)
    run.journal.sync()
    label_turn(run.directory, "good", 1)
    run.close()
    assert len(answers(run.home)[0][1]) == 6
    [path] = run.segments()
    data = bytearray(path.read_bytes())
    with RunIndex.open(run.home) as index:
        place = index.turns(run.id, turn, turn)[0].first.offset
    data[place + 60] ^= 1
    path.write_bytes(data)
    return place


def test_a_journal_broken_in_the_middle_shows_though_it_was_folded_before(run):
    place = damaged_in_the_middle(run)
    [(row, turns)] = answers(run.home)
    assert row.status == "damaged"
    assert f"{run.id}/00000001-00000001.seg:{place}: " in row.problem
    assert [turn.turn for turn in turns] == [0, 1, 2]
    assert answers(run.home) == built_anew(run.home)


@pytest.mark.parametrize("meant", ["3", "5", "9", "-1", "-2", "nolabel", "2.4"])
def test_what_damage_may_hide_is_refused_and_named(run, meant):
    place = damaged_in_the_middle(run)
    with RunIndex.open(run.home) as index:
        index.refresh()
        for ask in (index.checkpoint, index.turn):
            if (ask, meant) == (index.turn, "2.4"):
                continue
            with pytest.raises(DamagedJournal, match="broken") as caught:
                ask(run.id, parse_turn(meant))
            assert caught.value.where == f"{run.id}/00000001-00000001.seg:{place}"
            assert "crab repair" in caught.value.hint


def test_turns_before_the_damage_can_be_asked_for(run):
    damaged_in_the_middle(run)
    with RunIndex.open(run.home) as index:
        index.refresh()
        assert index.checkpoint(run.id, TurnRef(turn=2)).turn == 2
        assert index.checkpoint(run.id, TurnRef(label="good")).turn == 1
        assert index.find("last").run == run.id


def test_damage_before_the_end_shows_though_the_run_went_on(run):
    run.open()
    run.start()
    for number in range(1, 4):
        run.turn(number)
    answers(run.home)
    [path] = run.segments()
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    put_in_place(path, data)
    run.turn(4)
    run.journal.sync()
    run.close()
    kept = answers(run.home)
    assert kept[0][0].status == "damaged"
    assert kept == built_anew(run.home)


def test_a_mended_journal_is_whole_again(run):
    damaged_in_the_middle(run)
    answers(run.home)
    [path] = run.segments()
    data = bytearray(path.read_bytes())
    with RunIndex.open(run.home) as index:
        index.refresh()
        place = int(index.run(run.id).problem.partition(".seg:")[2].partition(":")[0])
    data[place + 60] ^= 1
    path.write_bytes(data)
    kept = answers(run.home)
    assert (kept[0][0].problem, len(kept[0][1])) == (None, 6)


def test_damage_before_damage_that_is_known_shows_too(run):
    damaged_in_the_middle(run)
    answers(run.home)
    with RunIndex.open(run.home) as index:
        place = index.turns(run.id, 1, 1)[0].first.offset
    [path] = run.segments()
    data = bytearray(path.read_bytes())
    data[place + 60] ^= 1
    path.write_bytes(data)
    kept = answers(run.home)
    assert [turn.turn for turn in kept[0][1]] == [0]
    assert kept == built_anew(run.home)


def test_damage_that_moved_to_an_earlier_place_is_seen_there(run):
    place = damaged_in_the_middle(run)
    answers(run.home)
    with RunIndex.open(run.home) as index:
        earlier = index.turns(run.id, 1, 1)[0].first.offset
    [path] = run.segments()
    data = bytearray(path.read_bytes())
    data[place + 60] ^= 1  # mended
    data[earlier + 60] ^= 1
    path.write_bytes(data)
    kept = answers(run.home)
    assert [turn.turn for turn in kept[0][1]] == [0]
    assert kept == built_anew(run.home)


def test_a_segment_that_vanished_or_was_copied_or_touched_is_looked_at(run):
    run.open(segment_bytes=2000)
    run.start()
    for number in range(1, 9):
        run.turn(number)
        run.journal.sync()
    run.close()
    before = answers(run.home)
    second = run.segments()[1]
    data = second.read_bytes()
    os.utime(second)
    assert answers(run.home) == before
    second.unlink()
    gone = answers(run.home)
    assert gone[0][0].status == "damaged"
    assert gone == built_anew(run.home)
    second.write_bytes(data)
    assert answers(run.home) == before


def test_a_message_changed_in_place_shows(run):
    run.open()
    run.start()
    label_turn(run.directory, "a", 0)
    answers(run.home)
    [path] = (run.directory / "inbox").iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert answers(run.home)[0][0].status == "damaged"
    data[-1] ^= 1
    path.write_bytes(data)
    assert answers(run.home)[0][0].labels == {"a": (0, 0)}


def test_a_journal_that_could_not_be_read_is_tried_again(run, monkeypatch):
    run.open()
    run.start()
    run.turn(1)
    run.close()
    whole = os.open

    def refusing(path, *args, **options):
        if str(path).endswith(".seg"):
            raise PermissionError(13, "Permission denied")
        return whole(path, *args, **options)

    monkeypatch.setattr(os, "open", refusing)
    assert "Permission denied" in answers(run.home)[0][0].problem
    monkeypatch.setattr(os, "open", whole)
    assert answers(run.home)[0][0].problem is None


class Fate:
    """A run and what becomes of it, at random."""

    def __init__(self, run, seed, reboot):
        self.run, self.rng, self.reboot = run, random.Random(seed), reboot
        self.turns = self.boots = 0
        self.alive = False
        self.revive()
        run.start()

    def revive(self):
        self.run.open(segment_bytes=3000)
        self.alive = True

    def turn(self):
        self.turns += 1
        self.run.turn(self.turns)

    def sync(self):
        self.run.journal.sync()

    def kill(self):
        killed(self.run)
        self.alive = False

    def cut_power(self):
        synced, path = self.run.journal._durable.offset, self.run.journal.path
        self.kill()
        data = path.read_bytes()
        length = len(data) - synced
        tails = (b"", bytes(length), self.rng.randbytes(length))
        put_in_place(path, data[:synced] + self.rng.choice(tails))
        self.boots += 1
        self.reboot(f"boot {self.boots}")

    def damage(self):
        path = self.rng.choice(self.run.segments())
        data = bytearray(path.read_bytes())
        data[self.rng.randrange(160, len(data) + 1) - 1] ^= 1
        path.write_bytes(data)

    def goes_on(self):
        """One thing happens; whether more can."""
        if not self.alive:
            try:
                self.revive()
            except (DamagedJournal, NotFound):
                return False
        likely = [self.turn] * 12 + [self.sync] * 3 + [self.kill] * 2 + [self.cut_power] * 2
        self.rng.choice([*likely, self.damage])()
        return True


@pytest.mark.parametrize("seed", range(30))
def test_after_any_history_it_answers_as_one_built_anew(run, reboot, seed):
    fate = Fate(run, seed, reboot)
    with RunIndex.open(run.home) as index:
        for _ in range(25):
            if not fate.goes_on():
                break
            if fate.rng.random() < 0.4:
                index.refresh()
        index.refresh()
        kept = [(row, index.turns(row.run)) for row in index.runs()]
    assert kept == built_anew(run.home)
