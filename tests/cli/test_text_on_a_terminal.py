import io

import pytest

from crabrt.cli.screen import Screen
from crabrt.cli.table import Cell, Column, cell_width, render_table
from crabrt.timeline import amounts
from crabrt.timeline.safe_text import path_fields, safe_bytes, safe_path, safe_text


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\x9b31mb", "a\\x9b31mb"),
        ("a\rb\x08\x7f", "a\\x0db\\x08\\x7f"),
        ("txt\u202egnp.exe", "txt\\u202egnp.exe"),
        ("a\u2028b\U000e0041", "a\\u2028b\\U000e0041"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("plain é 漢 👩\u200d🚀", "plain é 漢 👩\u200d🚀"),
    ],
)
def test_what_could_move_a_cursor_or_hide_text_is_shown_escaped(hostile, shown):
    assert safe_text(hostile) == shown


def test_a_block_keeps_its_lines_and_nothing_else():
    assert safe_text("a\n\tb\x1b[2J\r\n", lines=True) == "a\n\tb\\x1b[2J\\x0d\n"


def test_bytes_that_are_not_utf8_are_shown_as_bytes():
    assert safe_bytes(b"caf\xc3\xa9 \xff") == "café \\xff"


def test_a_path_with_anything_escaped_is_quoted_so_that_it_cannot_pass_for_another():
    assert safe_path(b"src/a.py") == "src/a.py"
    assert safe_path(b"back\\slash") == "back\\slash"
    assert safe_path(b"a\n\\b") == '"a\\n\\\\b"'
    assert safe_path(b"a\\n\xff") == '"a\\\\n\\xff"'
    assert safe_path(b"") == "."


def test_a_path_in_json_has_its_bytes_beside_it_only_where_they_are_not_utf8():
    assert path_fields("é".encode()) == {"path": "é"}
    assert path_fields(b"\xff") == {"path": "\\xff", "path_b64": "/w=="}


def test_sizes_and_ages_are_read_and_shown():
    assert [amounts.parse_size(text) for text in ("500", "2K", "1.5MiB", "20gb")] == [
        500,
        2048,
        3 << 19,
        20 << 30,
    ]
    assert [amounts.parse_duration_s(text) for text in ("90", "30m", "14d")] == [90, 1800, 1209600]
    assert [amounts.size(number) for number in (0, 612, 4096, 5 << 30)] == [
        "0 B",
        "612 B",
        "4.0 KiB",
        "5.0 GiB",
    ]
    assert [amounts.duration(ms) for ms in (None, 0, 320, 4100, 185_000, 7_800_000)] == [
        "",
        "0 ms",
        "320 ms",
        "4.1 s",
        "3 m 05 s",
        "2 h 10 m",
    ]


@pytest.mark.parametrize("text", ["", "-1", "many", "5X", "nan", "inf"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises((ValueError, IndexError)):
        amounts.parse_size(text)


def test_a_piped_table_loses_nothing_and_carries_no_escapes():
    screen = Screen(io.StringIO(), {})
    long = "x" * 500
    lines = list(
        render_table(screen, [Column("a"), Column("n", right=True)], [[Cell(long, ("red",)), "7"]])
    )
    assert long in lines[1]
    assert lines[1].endswith("  7")
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_colour_and_no_line_wider_than_itself(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    screen = Screen(Terminal(), {})
    lines = list(
        render_table(
            screen,
            [Column("title", flexible=True), Column("n", right=True)],
            [[Cell("漢" * 60, ("green",)), "12"], [Cell("y" * 90), "3"]],
        )
    )
    assert "\x1b[32m" in lines[1]
    plain = [
        line.replace("\x1b[32m", "").replace("\x1b[1m", "").replace("\x1b[0m", "") for line in lines
    ]
    assert max(cell_width(line) for line in plain) <= 40
    assert "…" in plain[1]


def test_no_color_and_a_dumb_terminal_are_honoured():
    assert Screen(Terminal(), {}).colour
    assert not Screen(Terminal(), {"NO_COLOR": "1"}).colour
    assert not Screen(Terminal(), {"TERM": "dumb"}).colour
    assert not Screen(io.StringIO(), {}).colour


def test_a_long_table_keeps_a_column_that_fills_up_late():
    screen = Screen(io.StringIO(), {})
    rows = [[str(i), "late" if i == 1500 else ""] for i in range(1600)]
    lines = list(render_table(screen, [Column("n"), Column("label")], rows))
    assert lines[1501].split() == ["1500", "late"]
    short = list(render_table(screen, [Column("n"), Column("label")], rows[:3]))
    assert short[0] == "n"
