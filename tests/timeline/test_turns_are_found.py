"""Filters of rows, and searches through a whole run."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from crabrt.core.entries import CallId, Intent, Payload, Result
from crabrt.core.verdicts import Prior, Protection
from crabrt.errors import UsageError
from crabrt.inspector.classify import SAMPLE_PATHS
from crabrt.journal import label_turn
from crabrt.journal.views import TurnView
from crabrt.store import Store
from crabrt.store.contents import put_bytes
from crabrt.timeline import searching
from crabrt.timeline.feed import RunFeed
from crabrt.timeline.filtering import SAMPLE_MOST, Filter, parse_filter
from crabrt.timeline.rows import Row
from crabrt.timeline.searching import TextSearch, TouchSearch


@pytest.fixture
def made(builder, tmp_path):
    run = builder.small_run(tmp_path / "store", tmp_path / "workspace")
    yield run
    run.close()


def timeline(made):
    with RunFeed(made.home, made.run) as feed:
        return feed.read_all()


def fitting(made, text):
    wanted = parse_filter(text)
    return [row.number for row in timeline(made).rows if wanted.fits(row)]


def found(search):
    return {(hit.turn, hit.what) for hit in search.finish().hits}


def test_what_is_typed_is_what_is_wanted(made):
    made.unprotected_turn("disk full")
    made.turn(None, tool="charge", prior=Prior.EXTERNAL)
    label_turn(made.directory, "before-it", 2)
    assert fitting(made, "") == [0, 1, 2, 3, 4, 5]
    assert fitting(made, "verdict:files") == [1, 2]
    assert fitting(made, "verdict:none tool:LOOK") == [3]
    assert fitting(made, "verdict:unknown") == [0, 4]
    assert fitting(made, "unprotected") == fitting(made, "is:unprotected") == [4]
    assert fitting(made, "label:before") == fitting(made, "labelled") == [2]
    assert fitting(made, "tool:nothing") == []
    assert fitting(made, "some words") == [0, 1, 2, 3, 4, 5]  # for a search to decide


def test_words_that_are_no_condition_are_the_text():
    wanted = parse_filter('verdict:files path:src/ "no such" http://x.org text:unprotected oops')
    assert wanted == Filter(
        verdicts=frozenset({"files"}),
        paths=(b"src/",),
        text="no such http://x.org unprotected oops",
    )
    assert wanted.is_about_rows
    assert not parse_filter("only text").is_about_rows


@pytest.mark.parametrize("text", ["verdict:fiels", "is:lost", 'text:"open'])
def test_what_makes_no_sense_is_refused_and_what_there_is_is_said(text):
    with pytest.raises(UsageError):
        parse_filter(text)


def a_row(*sample, verdict=("files",), files=None, turn=3, **options):
    """A turn whose row names these paths."""
    names = tuple(name.encode() for name in sample)
    changed = len(names) if files is None else files
    live = options.pop("live", False)
    view = TurnView(
        turn, turn - 1, 0, verdict=verdict, files_added=changed, sample=names, **options
    )
    return Row(view, 1.0, live)


@pytest.mark.parametrize(
    ("row", "fits"),
    [
        (a_row("src/app.py", "x"), True),
        (a_row("lib/app.py", "x"), False),
        (a_row("lib/app.py", files=7), None),  # six more
        (a_row("src/app.py", files=7), True),
        (a_row(*(f"lib/{n}" for n in range(SAMPLE_MOST))), None),  # directories are not counted
        (a_row(verdict=("files",)), None),  # the state before was not captured
        (a_row(verdict=("none",)), False),
        (a_row(verdict=("processes",)), False),
        (a_row(verdict=()), None),  # it was cut off, or lost its protection
        (a_row(verdict=(), live=True), False),  # it goes on
        (a_row(verdict=(), live=True, protection=Protection.UNPROTECTED), None),
        (a_row(verdict=(), turn=0), False),
    ],
)
def test_a_row_says_whether_a_path_changed_or_that_it_cannot_tell(row, fits):
    wanted = parse_filter("path:src/")
    assert wanted.fits_paths(row) is fits
    assert wanted.fits(row)
    assert parse_filter("tool:sh").fits_paths(row) is True


def test_of_several_paths_each_has_to_be_met():
    wanted = parse_filter("path:src/ path:.py")
    assert wanted.fits_paths(a_row("src/app.c", "lib/app.py")) is True
    assert wanted.fits_paths(a_row("src/app.c", "lib/app.c")) is False


def test_a_row_has_no_more_paths_than_filters_believe():
    assert SAMPLE_MOST == SAMPLE_PATHS


def test_a_failed_call_is_found(made):
    call = CallId("0", "sh", 91)
    made.journal.append(Intent(call, b"", Payload(b"\xc0")), turn=3)
    made.journal.append(Result(call, 1.0, cancelled=True), turn=3)
    assert fitting(made, "failed") == [3]


def test_text_is_found_where_it_came_up_whatever_its_case(made):
    assert found(TextSearch(made.store, made.run, "TURN 2?")) == {(2, "message")}
    assert found(TextSearch(made.store, made.run, "reply 1")) == {(1, "reply")}
    assert found(TextSearch(made.store, made.run, "MAKE")) == {(1, "call"), (2, "call")}
    assert found(TextSearch(made.store, made.run, "as staged")) == {
        (1, "evidence"),
        (2, "evidence"),
        (3, "evidence"),
    }
    assert found(TextSearch(made.store, made.run, "nowhere")) == set()
    assert found(TextSearch(made.store, made.run, "")) == set()


def test_letters_beyond_ascii_are_found_in_any_case_too(made):
    made.turn(None, result="GRÜSSE aus Köln")
    search = TextSearch(made.store, made.run, "grüsse AUS")
    [hit] = search.finish().hits
    assert (hit.turn, hit.what) == (4, "output")
    assert "Köln" in hit.excerpt


def test_a_text_across_the_pieces_of_a_large_output_is_found(made, builder):
    call = CallId("0", "sh", 90)
    data = msgspec.msgpack.encode("a" * (1 << 20) + "needle" + "b" * (1 << 20))
    content = put_bytes(data, made.writer)
    made.writer.sync()
    made.journal.append(Intent(call, b"", Payload(b"\xc0")), turn=3)
    made.journal.append(Result(call, 1.0, Payload(content=content)), turn=3)
    made.journal.sync()
    assert (3, "output") in found(TextSearch(made.store, made.run, "needle"))
    assert (3, "output") in found(TextSearch(made.store, made.run, "aneedleb"))


def test_what_is_found_shows_what_is_around_it_without_tokens(made):
    made.turn(None, result="before\nkey sk-abcdefghijklmnop1234 needle\x1b[2J after")
    [hit] = TextSearch(made.store, made.run, "needle").finish().hits
    assert "before" in hit.excerpt
    assert "sk-abc" not in hit.excerpt
    assert "\n" not in hit.excerpt


def test_a_search_goes_on_in_steps_and_says_how_far_it_is(made):
    search = TextSearch(made.store, made.run, "reply")
    seen = [search.step(0.0)]
    while not seen[-1].done:
        seen.append(search.step(0.0))
    assert len(seen) > 1 or seen[0].done
    assert seen[-1].turns == {1, 2, 3}
    assert search.step() is seen[-1]


def test_a_search_that_was_done_goes_on_where_it_was(made, monkeypatch):
    read = []
    whole = searching.read_journal

    def told(directory, **options):
        for record in whole(directory, **options):
            read.append(record.entry.seq)
            yield record

    monkeypatch.setattr(searching, "read_journal", told)
    search = TextSearch(made.store, made.run, "reply")
    assert search.finish().turns == {1, 2, 3}
    before = read[-1]
    assert read == list(range(1, before + 1))
    read.clear()
    made.turn(None, result="a reply")
    search.go_on()
    assert not search.found.done
    assert search.finish().turns == {1, 2, 3, 4}
    assert read == list(range(before + 1, made.journal.seq + 1))
    search.go_on()
    assert search.finish().turns == {1, 2, 3, 4}


def test_a_search_in_a_run_that_went_on_otherwise_begins_again(told, home, tmp_path):
    """As after a power cut: what was looked through was never durable."""
    run = told().open().start()
    run.turn(tool="kept")
    run.close()
    shutil.copytree(run.directory, tmp_path / "durable")
    run.open()
    run.turn(tool="lost-tool")
    with Store.open(home, create=True) as store:
        search = TextSearch(store, run.run, "tool")
        assert search.finish().turns == {2}
        run.close()
        shutil.rmtree(run.directory)
        shutil.copytree(tmp_path / "durable", run.directory)
        run.open()
        run.turns = 1
        run.turn(tool="other")
        run.turn(tool="found-tool")
        search.go_on()
        assert search.finish().turns == {3}


def test_a_search_with_too_many_hits_stops_and_says_so(made, monkeypatch):
    monkeypatch.setattr(searching, "HITS_MOST", 2)
    result = TextSearch(made.store, made.run, "reply").finish()
    assert result.cut
    assert len(result.hits) == 2


def test_damage_ends_a_search_and_is_told(made):
    [segment] = (made.directory / "journal").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    result = TextSearch(made.store, made.run, "zzz").finish()
    assert [problem.kind for problem in result.problems] == ["damaged-journal"]
    assert result.done


def test_which_turns_touched_a_file_the_latest_first(made):
    made.turn(lambda: (made.path / "other").write_text("x"))
    made.turn(lambda: (made.path / "app.py").unlink())
    state = timeline(made)
    result = TouchSearch(made.store, state, [b"app.py"]).finish()
    assert [hit.turn for hit in result.hits] == [5, 2, 1]
    assert [hit.turn for hit in TouchSearch(made.store, state, [b"."]).finish().hits] == [
        5,
        4,
        2,
        1,
    ]
    with pytest.raises(UsageError):
        TouchSearch(made.store, state, [b"../elsewhere"])
