"""The run at a glance: lanes above each other, one column for a turn or for a few, as SVG.

All lanes share the columns; waits, tools and exposed delays share a scale as well, so that their
heights can be compared. What a lane says is in words beside it: no colour or shape is needed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from crabrt.report.markup import Child, Markup, tag
from crabrt.report.scales import scale_of
from crabrt.timeline import amounts
from crabrt.timeline.rows import Row
from crabrt.timeline.totals import Figures, series

COLUMNS_MOST = 300
_HEIGHT = 32.0
_GAP = 0.22  # of a column; many columns stand side by side, as their gaps would flicker
_MANY = 150
_STRENGTH = {"none": 1, "files": 2, "processes": 3, "external": 4}
_UNKNOWN = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """What the lanes need of a turn: its number, what adds up, how strong its effects were."""

    number: int
    figures: Figures
    strength: int
    unprotected: bool

    @classmethod
    def of(cls, row: Row, figures: Figures) -> Turn:
        """Of a row."""
        strongest = max((_STRENGTH.get(name, 0) for name in row.view.verdict), default=_UNKNOWN)
        return cls(row.number, figures, strongest, row.is_unprotected)


@dataclass(frozen=True, slots=True)
class _Lane:
    """A lane of bars: where its values come from, and how they are worded."""

    key: str
    title: str
    unit: Callable[[float], str]
    value: Callable[[Figures], float]
    below: Callable[[Figures], float] | None = None


def _ms(amount: float) -> str:
    return amounts.duration(amount)


def _bytes(amount: float) -> str:
    return amounts.size(round(amount))


def _files(amount: float) -> str:
    return amounts.count(round(amount), "file")


_TIMES = (
    _Lane("model", "Waiting for the model", _ms, lambda one: one.model_ms),
    _Lane("tools", "Tools at work", _ms, lambda one: one.tool_ms),
    _Lane("exposed", "Loop held back", _ms, lambda one: one.exposed_ms),
)
_AMOUNTS = (
    _Lane(
        "files", "Files changed", _files,
        lambda one: float(one.added + one.changed), lambda one: float(one.removed),
    ),
    _Lane("bytes", "Bytes stored", _bytes, lambda one: float(one.bytes_stored)),
)  # fmt: skip


def lanes(turns: Sequence[Turn]) -> Markup:
    """All lanes of a run; nothing for one without turns."""
    shown = [turn for turn in turns if turn.number > 0] or list(turns)
    if not shown:
        return Markup()
    width = -(-len(shown) // COLUMNS_MOST)
    groups = [shown[at : at + width] for at in range(0, len(shown), width)]
    sums = {lane.key: _sums(shown, lane.value) for lane in (*_TIMES, *_AMOUNTS)}
    times = scale_of(value for lane in _TIMES for value in sums[lane.key])
    parts: list[Child] = [_deeds(groups)]
    parts += [_bars(lane, sums[lane.key], shown, times) for lane in _TIMES]
    parts += [_bars(lane, sums[lane.key], shown, None) for lane in _AMOUNTS]
    size = "lanes-few" if len(groups) <= 12 else "lanes-some" if len(groups) <= 60 else "lanes-many"
    return tag("div",
        tag("div", *parts, class_="lanes"),
        tag("div",
            tag("span", f"turn {shown[0].number}"),
            tag("output", class_="readout", aria_hidden="true"),
            tag("span", f"turn {shown[-1].number}"),
            class_="lane-axis"),
        class_=size,
    )  # fmt: skip


def columns(turns: Sequence[Turn]) -> dict[str, Any]:
    """What the script says of a column under the pointer: its turns, and each lane's value."""
    shown = [turn for turn in turns if turn.number > 0] or list(turns)
    width = max(1, -(-len(shown) // COLUMNS_MOST))
    first = [shown[at].number for at in range(0, len(shown), width)]
    last = [shown[min(at + width, len(shown)) - 1].number for at in range(0, len(shown), width)]
    said = {
        lane.key: [lane.unit(value) if value else "" for value in _sums(shown, lane.value)]
        for lane in (*_TIMES, *_AMOUNTS)
    }
    return {"first": first, "last": last, "said": said}


def _sums(turns: Sequence[Turn], value: Callable[[Figures], float]) -> tuple[float, ...]:
    return series((value(turn.figures) for turn in turns), COLUMNS_MOST).values


def _deeds(groups: Sequence[Sequence[Turn]]) -> Markup:
    """What turns did: the stronger the effect, the taller its column."""
    strengths = [max(turn.strength for turn in group) for group in groups]
    names = {place: name for name, place in _STRENGTH.items()}
    paths, gap = [], _gap(len(groups))
    for strength in range(1, 5):
        height = _HEIGHT * (0.1, 0.1, 0.4, 0.7, 1.0)[strength]
        found = [at for at, one in enumerate(strengths) if one == strength]
        if found:
            path = "".join(_bar(at, _HEIGHT - height, height, gap) for at in found)
            paths.append(tag("path", d=path, class_=f"deed-{names[strength]}"))
    lost = [at for at, group in enumerate(groups) if any(turn.unprotected for turn in group)]
    if lost:
        path = "".join(f"M{at + 0.1:g} 0h.8v3h-.8z" for at in lost)
        paths.append(tag("path", d=path, class_="deed-lost"))
    counted = _counted([turn for group in groups for turn in group])
    words = ("What turns did", counted, "taller is stronger")
    return _lane("deeds", words, len(groups), paths)


def _counted(turns: Sequence[Turn]) -> str:
    words = {1: "nothing", 2: "files", 3: "processes", 4: "external"}
    parts = []
    for strength, word in words.items():
        found = sum(turn.strength == strength for turn in turns)
        if found:
            parts.append(f"{found:,} {word}")
    unknown = sum(turn.strength == _UNKNOWN for turn in turns)
    parts += [f"{unknown:,} unknown"] if unknown else []
    lost = sum(turn.unprotected for turn in turns)
    parts += [f"{lost:,} without protection"] if lost else []
    return ", ".join(parts)


def _bars(
    lane: _Lane, values: Sequence[float], turns: Sequence[Turn], scale: float | None
) -> Markup:
    below = _sums(turns, lane.below) if lane.below is not None else ()
    top = scale if scale is not None else scale_of([*values, *below])
    base = _HEIGHT if not any(below) else _HEIGHT * 0.72
    gap = _gap(len(values))
    heights = [(at, min(base, max(0.6, value / top * base))) for at, value in _some(values)]
    path = "".join(_bar(at, base - height, height, gap) for at, height in heights)
    paths = [tag("path", d=path, class_=f"bar-{lane.key}")] if path else []
    broken = "".join(f"M{at:g} 5l1 -2v1.6l-1 2z" for at, value in _some(values) if value > top)
    if broken:
        paths.append(tag("path", d=broken, class_="bar-broken"))
    if any(below):
        room = _HEIGHT - base
        down = "".join(
            _bar(at, base + 1, max(1.0, min(1.0, value / top) * room - 1), gap)
            for at, value in _some(below)
        )
        paths.append(tag("path", d=down, class_=f"bar-{lane.key}-less"))
    total = sum(values)
    said = lane.unit(total) if total else "none"
    if any(below):
        said += f", {lane.unit(sum(below))} removed"
    words = (lane.title, said, _most(lane, values, turns))
    return _lane(lane.key, words, len(values), paths)


def _most(lane: _Lane, values: Sequence[float], turns: Sequence[Turn]) -> str:
    """Where the most of it was."""
    per_turn = [lane.value(turn.figures) for turn in turns]
    most = max(per_turn, default=0.0)
    if not most or len(values) < 2:
        return ""
    return f"most {lane.unit(most)}, turn {turns[per_turn.index(most)].number}"


def _lane(key: str, words: tuple[str, str, str], count: int, paths: Sequence[Markup]) -> Markup:
    """A lane of `count` columns; its words: a title, the sum, where the most of it was."""
    title, said, more = words
    spoken = ". ".join(part for part in words if part)
    drawn = tag(
        "svg", *paths, viewBox=f"0 0 {max(1, count)} {_HEIGHT:g}",
        preserveAspectRatio="none", role="img", aria_label=spoken, focusable="false",
    )  # fmt: skip
    label = tag(
        "div", tag("b", title), tag("span", said), tag("small", more) if more else None,
        class_="lane-words", aria_hidden="true",
    )  # fmt: skip
    return tag("div", label, tag("div", drawn, class_="lane-plot"), class_=f"lane lane-{key}")


def _some(values: Iterable[float]) -> list[tuple[int, float]]:
    return [(at, value) for at, value in enumerate(values) if value > 0]


def _gap(count: int) -> float:
    return 0.0 if count > _MANY else _GAP


def _bar(at: int, top: float, height: float, gap: float) -> str:
    return f"M{at + gap / 2:g} {top:.2f}h{1 - gap:g}v{height:.2f}h-{1 - gap:g}z"
