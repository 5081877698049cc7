"""``crab bench tui``: a real terminal, real figures; and what is not shown is not measured."""

from __future__ import annotations

import sys

import pytest

from crabrt.bench import TuiOptions, interface, measure_tui
from crabrt.bench.on_screen import NothingCame, Terminal


def test_everything_that_has_a_bar_is_measured(scratch, environ, monkeypatch):
    monkeypatch.setattr(interface, "_KEYS", 5)
    monkeypatch.setattr(interface, "_ENTRIES", 3)
    monkeypatch.setattr(interface, "_IDLE_S", 0.3)
    monkeypatch.setattr(interface, "_WATCHED_TURNS", 2)
    held = []

    def watch(doing):
        if doing.startswith("round"):
            packs = (scratch / "interface" / "packs").rglob("*.pack")
            held.append(sum(path.stat().st_size for path in packs))

    options = TuiOptions(scratch, turns=30, store_bytes=3 << 20, repetitions=1)
    report = measure_tui(options, environ, watch)
    assert 3 << 20 < held[0] < 4 << 20
    figures = {row.what: row.series.median for row in report.rows}
    assert {bar.what for bar in report.bars} - {"wall time"} <= set(figures)
    assert len(report.bars) == 8
    for what in ("first paint", "key to screen, p95", "durable entry to screen, p50"):
        assert figures[what] > 0
    assert 20 < figures["peak memory"] < 500
    assert {row.who for row in report.rows if row.what == "wall"} == {"watched", "not watched"}
    assert all(row.series.low > 150 for row in report.rows if row.what == "wall")
    assert {path.name for path in scratch.iterdir()} <= {"config", "tmp"}


def test_what_does_not_appear_is_said(environ):
    argv = [sys.executable, "-c", "input('hello')"]
    with Terminal(argv, environ) as terminal:
        terminal.until("hello")
        with pytest.raises(NothingCame, match="'never' did not appear"):
            terminal.until("never", limit_s=0.2)
        assert terminal.press(b"x") > 0
        assert terminal.peak_mib() > 1
