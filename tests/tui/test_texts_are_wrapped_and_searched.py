"""Long texts without a terminal: rows of a width, lines in bounds, words found and marked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crabrt.timeline.signs import Tone
from crabrt.tui.pieces import Piece, marked, plain, width_of
from crabrt.tui.wrapping import LINE_MOST, Wrapped, bounded

texts = st.text("ab \té你", max_size=60)
lines = st.lists(texts.map(lambda text: (Piece(text),)), max_size=20)


@given(lines, st.integers(2, 40), st.integers(2, 40))
def test_rows_know_their_lines_in_every_width(given_lines, width, other):
    wrapped = Wrapped()
    wrapped.add(given_lines[:5])
    wrapped.fit(width)
    wrapped.add(given_lines[5:])
    wrapped.fit(other)
    assert len(wrapped.lines) == len(given_lines)
    assert all(width_of(row) <= other for row in wrapped.rows)
    for line in range(len(given_lines)):
        assert wrapped.line_of(wrapped.row_of(line)) == line
    assert wrapped.characters == sum(len(plain(line)) for line in given_lines)


def test_words_are_found_in_any_case_and_on_the_row_where_they_stand():
    wrapped = Wrapped()
    wrapped.fit(10)
    wrapped.add([(Piece("nothing"),), (Piece("x" * 25 + "Needle"),)])
    assert wrapped.find("needle", range(2)) == 1
    assert wrapped.find("needle", range(1)) is None
    assert wrapped.row_of(1) == 1
    assert plain(wrapped.rows[3]) == "  xxxxxxxN"
    assert wrapped.row_of(1, "needle") == 3
    assert wrapped.row_of(1, "eedle") == 4


@given(st.lists(st.integers(0, 3 * LINE_MOST), max_size=4))
def test_a_long_line_is_cut_and_loses_nothing(lengths):
    line = tuple(Piece(str(at % 10) * length) for at, length in enumerate(lengths))
    parts = list(bounded(line))
    assert "".join(map(plain, parts)) == plain(line)
    assert all(len(plain(part)) <= LINE_MOST for part in parts)


@given(st.lists(st.text("abA", max_size=6), max_size=6), st.text("ab", min_size=1, max_size=3))
def test_what_is_found_is_marked_and_the_text_stays(parts, words):
    line = tuple(map(Piece, parts))
    shown = marked(line, words, Tone.NEWS)
    assert plain(shown) == plain(line)
    ground = "".join(("#" if piece.ground else ".") * len(piece.text) for piece in shown)
    text, at, wanted = plain(line).lower(), 0, ""
    while at < len(text):
        hit = text.startswith(words, at)
        wanted += "#" * len(words) if hit else "."
        at += len(words) if hit else 1
    assert ground == wanted
