"""A turn as a row of the report: short names, words ready to show, nothing that is absent.

What a row holds (all but ``n``, ``at``, ``v`` and ``c`` only where there is something to say):

====== ============================================================================
``n``  the turn's number
``b``  the turn it went back to
``at`` when it began, since the run began; ``on``: the same, as a date
``d``  how long it took
``v``  its verdict, ``c`` its checkpoint: places in the table of signs
``w``  its first tool call: name and text; ``k``: how many further calls
``tl`` names of the tools it called
``sp`` spans for its bar, three numbers each: kind, start, length in milliseconds
``m``  waited for models, ``t`` tools ran, ``x`` gates held the loop; ``xx``: long
``f``  files added, changed, removed; ``p``: some of their paths
``s``  bytes stored, ``tk`` tokens in and out, ``usd`` cost
``e``  names of its effects that cannot be taken back; ``?`` behind those that are only likely
``l``  labels; ``fl``: what sets it apart, in the words of the filter
====== ============================================================================
"""

from __future__ import annotations

from typing import Any

from crabrt.report import wording
from crabrt.report.redaction import Redaction
from crabrt.timeline import amounts
from crabrt.timeline.filtering import FLAGS, Filter
from crabrt.timeline.marks import Mark
from crabrt.timeline.rows import Row, Span
from crabrt.timeline.safe_text import safe_text
from crabrt.timeline.signs import Sign

SPANS_MOST = 24
_PATHS_MOST = 6
_PATH_CHARS = 120
_TOOLS_MOST = 8
_LABELS_MOST = 8
_NAME_CHARS = 60
_LONG_EXPOSED_MS = 1.0
_ALWAYS = ("n", "at", "v", "c")

TOOL, MODEL, FAILED, OPEN = 0, 1, 2, 4
"""Kinds of spans: a sum of these."""


class SignTable:
    """The signs that occur, each once: rows name them by their place."""

    def __init__(self) -> None:
        self._places: dict[Sign, int] = {}

    def place(self, sign: Sign) -> int:
        """The place of `sign`, which it gets when it is first asked for."""
        return self._places.setdefault(sign, len(self._places))

    def data(self) -> list[list[str]]:
        """Shape, word and tone of each."""
        return [sign_data(sign) for sign in self._places]


def sign_data(sign: Sign) -> list[str]:
    """Shape, word, tone."""
    return [safe_text(sign.shape), safe_text(sign.word), str(sign.tone)]


def row_data(row: Row, redaction: Redaction, signs: SignTable, origin_ns: int) -> dict[str, Any]:
    """A row, but for the text of its first call (`turndata` has read that).

    Args:
        row: of the timeline.
        redaction: what may be told.
        signs: is added to.
        origin_ns: when the run began.
    """
    view = row.view
    data: dict[str, Any] = {
        "n": view.turn,
        "at": wording.since(view.started_ns, origin_ns),
        "on": wording.utc(view.started_ns),
        "d": amounts.duration(row.took_ms),
        "v": signs.place(row.verdict),
        "c": signs.place(row.checkpoint),
        "k": max(0, len(view.tools) - 1),
        "tl": _tools(row, redaction),
        "sp": spans(row),
        "m": amounts.duration(view.model_wait_ms) if view.models else "",
        "t": amounts.duration(row.tool_ms) if view.tools else "",
        "x": amounts.duration(view.exposed_ms) if view.exposed_ms > 0 else "",
        "xx": view.exposed_ms >= _LONG_EXPOSED_MS,
        "f": [view.files_added, view.files_changed, view.files_removed] if view.files else None,
        "p": [redaction.path(path, _PATH_CHARS) for path in view.sample[:_PATHS_MOST]],
        "s": amounts.size(view.bytes_stored) if view.bytes_stored else "",
        "tk": _tokens(view.tokens_in, view.tokens_out),
        "usd": wording.dollars(view.cost_usd),
        "e": _outside(row, redaction),
        "l": [redaction.line(label, _NAME_CHARS) for label in view.labels[:_LABELS_MOST]],
        "fl": [flag for flag in FLAGS if Filter(flags=frozenset({flag})).fits(row)],
    }
    kept = {key: value for key, value in data.items() if value or key in _ALWAYS}
    if row.went_back_to is not None:  # to 0, perhaps
        kept["b"] = row.went_back_to
    return kept


def mark_data(mark: Mark, redaction: Redaction, origin_ns: int) -> dict[str, Any]:
    """What happened between two turns."""
    parts = [redaction.line(mark.text, 160)]
    if mark.run is not None and mark.run not in mark.text:
        parts.append(redaction.line(mark.run))
    sign = mark.sign
    return {
        "after": mark.after,
        "sign": sign_data(sign),
        "to": mark.to,
        "at": wording.since(mark.wall_ns, origin_ns) if mark.wall_ns else "",
        "text": " · ".join(part for part in parts if part and part != sign.word),
    }


def spans(row: Row) -> list[int]:
    """Kind, start and length of each call; what is too much for a bar is one span at its end."""
    found = [_span(row, span) for span in row.spans]
    shown, rest = found[:SPANS_MOST], found[SPANS_MOST:]
    if rest:
        start = min(one[1] for one in rest)
        shown.append((TOOL, start, max(one[1] + one[2] for one in rest) - start))
    return [number for span in shown for number in span]


def _span(row: Row, span: Span) -> tuple[int, int, int]:
    kind = MODEL if span.asks_model else TOOL
    if span.length_ms is None:
        took = row.took_ms or span.start_ms
        return kind + OPEN, round(span.start_ms), max(1, round(took - span.start_ms))
    kind += FAILED if span.ok is False else 0
    return kind, round(span.start_ms), round(span.length_ms)


def _outside(row: Row, redaction: Redaction) -> list[str]:
    """What acted outside, by name, and what may have."""
    names = [redaction.line(one.name, _NAME_CHARS) for one in row.effects[:_TOOLS_MOST]]
    likely = row.suspected[: max(0, _TOOLS_MOST - len(names))]
    return names + [redaction.line(one.name, _NAME_CHARS) + "?" for one, _ in likely]


def _tools(row: Row, redaction: Redaction) -> list[str]:
    names = list(dict.fromkeys(tool.name for tool in row.view.tools))
    return [redaction.line(name, _NAME_CHARS) for name in names[:_TOOLS_MOST]]


def _tokens(tokens_in: int, tokens_out: int) -> str:
    if not (tokens_in or tokens_out):
        return ""
    return f"{wording.short_count(tokens_in)} / {wording.short_count(tokens_out)}"
