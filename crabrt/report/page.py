"""The page: head, plots, the frame of the timeline, data and script, in the order they are needed.

Rows and script come before the turns in full, so that the timeline stands before those, most of the
file, have been read. They lie in elements of `BLOCK_BYTES` each, which the script decodes when a
turn of theirs is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from crabrt.core.version import VERSION
from crabrt.report import head
from crabrt.report.embedding import data_element, json_bytes, policy, script_text, style_text
from crabrt.report.facts import Facts
from crabrt.report.lanes import columns, lanes
from crabrt.report.markup import Child, Markup, joined, tag
from crabrt.report.plain import plain_table
from crabrt.report.redaction import Redaction
from crabrt.report.scales import round_step, scale_of
from crabrt.timeline import amounts

BLOCK_BYTES = 192 << 10
_BLOCK_TURNS = 64

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M2 12V8h2v4zm4 0V3h2v9zm4 0V6h2v6z' fill='%23b4532a'/%3E%3C/svg%3E"
)
_FILTER_HELP = "text, verdict:files, tool:sh, path:src/, label:good, unprotected, failed"


@dataclass(frozen=True, slots=True)
class Told:
    """All that a page tells of a run, gathered.

    Attributes:
        facts: for the head and the lanes.
        rows, signs, marks: see `rowdata`.
        turns: number and JSON (see `embedding.json_bytes`) of each turn in full.
        omitted: how many of the oldest turns are not in the file at all.
        notes: what was left out or could not be read, a line each.
    """

    facts: Facts
    rows: Sequence[dict[str, Any]]
    signs: Sequence[Sequence[str]]
    marks: Sequence[dict[str, Any]]
    turns: Sequence[tuple[int, bytes]]
    omitted: int
    notes: Sequence[str]


def page(told: Told, redaction: Redaction) -> Iterator[bytes]:
    """The file, in pieces."""
    style, script = style_text(), script_text()
    title = redaction.line(told.facts.state.view.name or told.facts.state.run, 120)
    top = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"crabrt {VERSION}"),
        tag("title", f"{title} · crab report"),
        tag("link", rel="icon", href=_ICON),
        tag("style", Markup(style)),
    )
    yield f'<!doctype html>\n<html lang="en">\n{top}\n<body>\n'.encode()
    yield _body(told, redaction).encode()
    yield f"\n{data_element(json_bytes(_data(told)), id='rows')}\n".encode()
    yield f"{tag('script', Markup(script))}\n".encode()
    yield from _blocks(told.turns)
    yield b"</body>\n</html>\n"


def _body(told: Told, redaction: Redaction) -> Markup:
    facts = told.facts
    return joined(
        tag("a", "Skip to the timeline", class_="skip", href="#timeline"),
        tag("header", _toolbar(), head.heading(facts, redaction), class_="top"),
        "\n",
        tag(
            "main",
            _section("totals", "Totals", head.totals(facts), head.details(facts, redaction)),
            _section("lanes", "Over the run", lanes(facts.turns)),
            _section("losses", "What a restore cannot bring back", head.losses(facts.losses)),
            _timeline(told),
        ),
        "\n",
        _footer(told),
        _help(),
        tag("div", id="said", class_="unseen", role="status", aria_live="polite"),
    )


def _section(name: str, title: str, *children: Child) -> Markup:
    heading = tag("h2", title, id=f"h-{name}")
    return tag("section", heading, *children, class_=name, aria_labelledby=f"h-{name}")


def _toolbar() -> Markup:
    return tag(
        "div",
        tag("span", "crab report", class_="brand"),
        tag(
            "div",
            tag("button", "Theme: system", id="theme", type="button"),
            tag("button", "Keys", tag("kbd", "?"), id="help-open", type="button",
                aria_haspopup="dialog"),
            class_="tools", hidden=True, id="tools",
        ),
        class_="toolbar",
    )  # fmt: skip


def _timeline(told: Told) -> Markup:
    box = tag(
        "form",
        tag("label", "Filter", for_="filter"),
        tag("input", id="filter", type="search", autocomplete="off", spellcheck="false",
            placeholder=_FILTER_HELP, aria_describedby="filter-said"),
        tag("div", id="chips", role="group", aria_label="Kinds of turns"),
        tag("p", id="filter-said", class_="quiet"),
        id="filter-form", role="search", hidden=True,
    )  # fmt: skip
    omitted = None
    if told.omitted:
        missing = f"The oldest {amounts.count(told.omitted, 'turn')} are not in this file: "
        omitted = tag("p", missing, "it would be too large.", class_="tone-warning")
    return tag(
        "section",
        tag("h2", "Timeline", id="h-timeline"),
        box,
        omitted,
        tag("div", id="table"),
        plain_table(told.rows, told.signs, told.marks),
        id="timeline", class_="timeline", aria_labelledby="h-timeline", tabindex="-1",
    )  # fmt: skip


def _footer(told: Told) -> Markup:
    items = [tag("li", note) for note in told.notes]
    return tag(
        "footer",
        tag("h2", "About this file"),
        tag("ul", *items),
        tag(
            "p", f"Made by crabrt {VERSION}. It loads nothing, sends nothing and needs no network."
        ),
    )


def _help() -> Markup:
    keys = (
        ("j  k", "next, previous turn"),
        ("Enter", "open or close the turn"),
        ("n  p", "next, previous turn that needs attention"),
        ("g  G", "first, last turn"),
        ("/", "filter"),
        ("x", "close all turns"),
        ("t", "theme: system, light, dark"),
        ("?", "this help"),
        ("Esc", "leave the filter or this help"),
    )
    rows = [
        tag("div", tag("dt", *(tag("kbd", key) for key in names.split())), tag("dd", what))
        for names, what in keys
    ]
    return tag(
        "dialog",
        tag("h2", "Keys", id="h-help"),
        tag("dl", *rows),
        tag("label", tag("input", id="keys-on", type="checkbox", checked=True),
            " Single keys are commands"),
        tag("h3", "Filter"),
        tag("p", "Words are looked for in calls, paths, messages and outputs, as far as this file ",
            "has them: not in what was redacted or cut. These narrow it: ",
            tag("code", "verdict:files"), " ", tag("code", "tool:sh"), " ",
            tag("code", "path:src/"), " ", tag("code", "label:good"), " ",
            tag("code", "unprotected"), " ", tag("code", "failed"), " ", tag("code", "labelled"),
            " ", tag("code", "pinned"), " ", tag("code", "torn"), " ", tag("code", "noted")),
        tag("form", tag("button", "Close", type="submit"), method="dialog"),
        id="help", aria_labelledby="h-help",
    )  # fmt: skip


def _data(told: Told) -> dict[str, Any]:
    scale = scale_of(told.facts.longest_ms)
    return {
        "run": told.facts.state.run,
        "rows": told.rows,
        "signs": told.signs,
        "marks": told.marks,
        "scale": scale,
        "step": round_step(scale),
        "columns": columns(told.facts.turns),
    }


def _blocks(turns: Sequence[tuple[int, bytes]]) -> Iterator[bytes]:
    block: list[tuple[int, bytes]] = []
    size = 0
    for turn in turns:
        block.append(turn)
        size += len(turn[1])
        if size >= BLOCK_BYTES or len(block) >= _BLOCK_TURNS:
            yield _block(block)
            block, size = [], 0
    if block:
        yield _block(block)


def _block(turns: Sequence[tuple[int, bytes]]) -> bytes:
    value = b"[" + b",".join(data for _, data in turns) + b"]"
    first, last = turns[0][0], turns[-1][0]
    element = data_element(value, class_="turns", data_first=first, data_last=last)
    return f"{element}\n".encode()
