"""Pieces, plots and lines: exact widths, nothing hidden that should be seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from crabrt.core.entries import CallId
from crabrt.core.verdicts import Prior, Protection
from crabrt.journal.views import ModelView, NoteView, ToolView, TurnView
from crabrt.timeline.marks import Mark, MarkKind
from crabrt.timeline.rows import OpenCall, Row
from crabrt.timeline.signs import Tone
from crabrt.timeline.timeline import Activity
from crabrt.tui.lines import Scale, activity_line, layout, mark_line
from crabrt.tui.pieces import Piece, aligned, cut, fit, joined, plain, width_of
from crabrt.tui.plots import filled, sparkline, wait_and_work
from crabrt.tui.wrapping import wrap

texts = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp", "Mn",
                                                  "Me", "Mc"]), max_size=40)  # fmt: skip
amounts = st.floats(0, 1e9, allow_nan=False)


def a_row(**given):
    view = TurnView(
        87, 86, 1_000_000_000,
        verdict=("files", "external"),
        files_added=3, files_changed=2, files_removed=1,
        tools=(
            ToolView(CallId("0", "sh", 1), ok=True, seq=1, duration_ms=2_000.0),
            ToolView(CallId("0", "pay", 1), ok=False, seq=2, prior=Prior.EXTERNAL),
        ),
        models=(ModelView(CallId("0", "think", 1), ok=True, seq=3, wait_ms=8_000.0, tokens_in=1_200,
                          tokens_out=300, cost_usd=0.25),),
        protection=Protection.DURABLE,
        bytes_stored=4_096,
        exposed_ms=12.0,
        labels=("good",),
        notes=(NoteView("shared", "somebody else works here"),),
        **given,
    )  # fmt: skip
    return Row(view, 10_000.0)


@given(texts, st.integers(0, 60), st.booleans())
def test_a_text_is_made_to_fit_exactly(text, width, right):
    assert cell_len(fit(text, width, right=right)) == width


@given(st.lists(texts, max_size=6), st.integers(1, 60))
def test_a_line_is_cut_and_filled_to_a_width(parts, width):
    line = tuple(map(Piece, parts))
    assert width_of(cut(line, width)) <= width
    assert width_of(aligned(line, width)) == width
    if width_of(line) <= width:
        assert plain(cut(line, width)) == "".join(parts)


@given(st.lists(texts, max_size=6), st.integers(3, 60))
def test_a_wrapped_line_loses_nothing(parts, width):
    line = tuple(map(Piece, parts))
    rows = list(wrap(line, width))
    assert all(width_of(row) <= width for row in rows)
    first, *rest = map(plain, rows)
    assert first + "".join(row[2 if width >= 8 else 0 :] for row in rest) == "".join(parts)


def test_words_are_not_broken_unless_they_are_long():
    line = (Piece("Would restore the workspace: "), Piece("6003 created, "), Piece("0 unchanged."))
    assert [plain(row) for row in wrap(line, 40)] == [
        "Would restore the workspace: 6003 ",
        "  created, 0 unchanged.",
    ]
    assert [plain(row) for row in wrap(line, 46)] == [
        "Would restore the workspace: 6003 created, 0 ",
        "  unchanged.",
    ]
    path = Piece("a " + "x" * 30)
    assert [plain(row) for row in wrap((path,), 20)] == ["a " + "x" * 18, "  " + "x" * 12]


def test_tabs_are_wide():
    (row,) = wrap((Piece("a\tb"),), 40)
    assert plain(row) == "a       b"


def test_empty_parts_leave_no_gap():
    one, two = (Piece("one"),), (Piece("two"),)
    assert plain(joined([one, (), two], " / ")) == "one / two"


@given(amounts, amounts, st.floats(1e-3, 1e9), st.integers(0, 60))
def test_a_bar_is_as_wide_as_its_room(wait, work, full, width):
    parts = wait_and_work(wait, work, full, width)
    assert sum(map(cell_len, parts)) == width


def test_a_bar_tells_waiting_from_working():
    assert wait_and_work(5, 5, 20, 8) == ("░░", "██", "    ")
    assert wait_and_work(0, 1e-6, 20, 8)[1] != ""
    assert wait_and_work(1e-6, 0, 20, 8)[0] == "░"
    assert wait_and_work(50, 50, 20, 8)[1].endswith("»")
    assert "»" not in wait_and_work(10, 10, 20, 8)[1]


@given(st.lists(amounts, max_size=80), st.integers(0, 60))
def test_a_plot_shows_whatever_there_is(values, width):
    plot = sparkline(values, width)
    assert len(plot) == min(len(values), width)
    if any(values[:width]):
        shown = zip(values, plot, strict=False)
        assert all((value > 0) == (column != " ") for value, column in shown)


@pytest.mark.parametrize("width", range(20, 260, 7))
def test_every_column_is_on_one_of_the_pages(width):
    def titles(page):
        return {column.title for column in layout(width, Scale(), page).columns}

    pages = layout(width, Scale()).pages
    met = set().union(*map(titles, range(pages)))
    assert titles(pages) == titles(0)
    if width >= 60:
        assert {"took", "files", "held", "stored", "tokens", "cost", "effects"} <= met
    for page in range(pages):
        assert {"turn", "calls"} <= titles(page)
        assert width_of(layout(width, Scale(), page).row(a_row())) <= width


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999, 1.0])
def test_a_share_is_as_wide_as_its_room(share):
    done, rest = filled(share, 24)
    assert cell_len(done + rest) == 24
    assert (rest == "") is (share > 0.99)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 130, 160, 240, 400])
def test_a_row_fills_its_line_and_names_the_turn(width):
    shape = layout(width, Scale(10_000.0))
    line = shape.row(a_row())
    assert width_of(line) <= width
    assert width_of(shape.head()) <= width
    assert "87" in plain(line)
    assert "FX" in plain(line)


def test_a_wide_line_says_everything():
    line = plain(layout(240, Scale(10_000.0)).row(a_row()))
    for part in ("FX files+external", "● durable", "10.0 s", "+3 ~2 -1", "12 ms", "4.0 KiB",
                 "2k", "$0.25", "sh", "pay!", "⚑ good", "somebody else works here"):  # fmt: skip
        assert part in line


def test_titles_stand_over_their_columns():
    shape = layout(160, Scale(10_000.0))
    head, line = plain(shape.head()), plain(shape.row(a_row()))
    assert head.index("safe") == line.index("● durable")
    assert head.index("files") == line.index("+3 ~2 -1")


def test_what_tools_are_called_cannot_hurt_a_terminal():
    row = Row(
        TurnView(1, 0, 1, tools=(ToolView(CallId("0", "a\x1b[2Jb", 1), ok=True, seq=1),)), None
    )
    line = plain(layout(100, Scale()).row(row))
    assert "\x1b" not in line
    assert r"a\x1b[2Jb" in line


def test_marks_say_what_happened_and_where_to():
    back = mark_line(Mark(MarkKind.ROLLED_BACK, 9, 1, to=4), 80)
    assert "rolled back to 4" in plain(back)
    fork = mark_line(Mark(MarkKind.FORK, 9, 1, 9, "fixer-2"), 80)
    assert "fork fixer-2@9" in plain(fork)
    restored = mark_line(Mark(MarkKind.RESTORED, 9, 1, 4, "fixer-1", "restore fixer-1@4"), 30)
    assert width_of(restored) <= 30
    assert restored[0].tone is Tone.WARNING


def test_what_goes_on_is_told_with_its_time():
    waiting = Activity(3, (OpenCall("think", True, 1_000_000_000, "model-x"),), 1_000_000_000)
    assert "waiting for model-x  2.0 s" in plain(activity_line(waiting, 3_000_000_000, 80))
    tool = Activity(3, (OpenCall("sh", False, 1),), 1)
    assert "running sh" in plain(activity_line(tool, 1, 80))
    assert "in the loop" in plain(activity_line(Activity(3, (), 1), 1, 80))
