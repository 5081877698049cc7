"""The timeline for readers without a script: a table in ``<noscript>``, of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crabrt.report.markup import Child, Markup, joined, tag
from crabrt.timeline import amounts

TURNS_MOST = 1_000
"""A longer run shows the first and the last half of so many."""

_HEADS = (
    "turn", "began", "took", "verdict", "what", "files", "stored", "tokens", "cost", "model",
    "tools", "held back", "checkpoint",
)  # fmt: skip


def plain_table(
    rows: Sequence[dict[str, Any]], signs: Sequence[Sequence[str]], marks: Sequence[dict[str, Any]]
) -> Markup:
    """The table; rows, signs and marks as the script gets them (see `rowdata`)."""
    between: dict[int, list[dict[str, Any]]] = {}
    for mark in marks:
        between.setdefault(mark["after"], []).append(mark)
    half = TURNS_MOST // 2
    cut = len(rows) > TURNS_MOST
    parts: list[Child] = []
    for row in rows[:half] if cut else rows:
        parts += _lines(row, signs, between)
    if cut:
        missing = amounts.count(len(rows) - TURNS_MOST, "turn")
        parts.append(_wide(f"… {missing}: shown with JavaScript, or by `crab log`"))
        for row in rows[-half:]:
            parts += _lines(row, signs, between)
    head = tag("tr", *(tag("th", word, scope="col") for word in _HEADS))
    table = tag("table", tag("thead", head), tag("tbody", *parts), class_="plain")
    hint = tag("p", "Without JavaScript: a line for each turn. With it, each line opens.")
    return tag("noscript", hint, tag("div", table, class_="plain-scroll"))


def _lines(
    row: dict[str, Any], signs: Sequence[Sequence[str]], between: dict[int, list[dict[str, Any]]]
) -> list[Markup]:
    name, text = row.get("w", ("", ""))
    more = f" (+{row['k']})" if row.get("k") else ""
    what = joined(tag("b", name), " ", tag("bdi", text), more, _labels(row))
    files = row.get("f", (0, 0, 0))
    words = " ".join(f"{sign}{count}" for sign, count in zip("+~-", files, strict=True) if count)
    number = f"{row['n']}" if "b" not in row else f"{row['n']} ← {row['b']}"
    cells: list[Child] = [
        tag("th", number, scope="row"),
        tag("td", row["at"]),
        tag("td", row.get("d", "")),
        _sign(signs[row["v"]]),
        tag("td", what, class_="what"),
        tag("td", words),
        *(tag("td", row.get(key, "")) for key in ("s", "tk", "usd", "m", "t", "x")),
        _sign(signs[row["c"]]),
    ]
    lines = [tag("tr", *cells, id=f"turn-{row['n']}")]
    lines += [_wide(_mark_words(mark)) for mark in between.get(row["n"], ())]
    return lines


def _sign(sign: Sequence[str]) -> Markup:
    shape, word, tone = sign
    return tag("td", f"{shape} {word}".strip(), class_=f"tone-{tone}")


def _labels(row: dict[str, Any]) -> list[Markup]:
    return [joined(" ", tag("span", label, class_="label")) for label in row.get("l", ())]


def _wide(text: str) -> Markup:
    return tag("tr", tag("td", text, colspan=len(_HEADS), class_="mark"))


def _mark_words(mark: dict[str, Any]) -> str:
    shape, word, _ = mark["sign"]
    to = "" if mark["to"] is None else f" to turn {mark['to']}"
    return " ".join(part for part in (shape, f"{word}{to}", mark["text"], mark["at"]) if part)
