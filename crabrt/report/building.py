"""A report of one run: reads it once, turn by turn, and shares the bytes of the file among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from crabrt.errors import NotFound
from crabrt.report import wording
from crabrt.report.embedding import json_bytes
from crabrt.report.facts import Facts
from crabrt.report.losses import Losses
from crabrt.report.options import ReportOptions
from crabrt.report.page import Told, page
from crabrt.report.plain import TURNS_MOST
from crabrt.report.redaction import Redaction
from crabrt.report.rowdata import SignTable, mark_data, row_data
from crabrt.report.turndata import TurnTeller
from crabrt.store import Store
from crabrt.timeline import amounts
from crabrt.timeline.feed import RunFeed
from crabrt.timeline.reader import RunReader
from crabrt.timeline.timeline import Timeline

_FRAME_BYTES = 160 << 10
"""Style, script, head and plots of a page."""

_PLAIN_BYTES = 800
"""A line of the table for readers without a script."""

_ROW_BYTES = 560
"""A row gets so much, however long the run, and more where there is room."""

_LEAST_BYTES = 640
"""A turn gets so much, however long the run: its facts."""

_SPARED = ("p", "sp", "e", "l", "tl", "w")
"""What a row goes without where there is no room, in this order."""

_FAIR = 6
"""A turn may take so many times its share of what is left."""

_TURN_MOST_BYTES = 1 << 20
_MARKS_MOST = 2_000
_PROBLEMS_SHOWN = 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Report:
    """A report, ready to be written.

    Attributes:
        run: of which run.
        turns: how many rows it has (turn 0 is one).
        omitted: how many of the oldest turns did not fit into it.
        cut: how many turns are told shorter than asked for.
        problems: what could not be read, a line each.
        pieces: the file.
    """

    run: str
    turns: int
    omitted: int
    cut: int
    problems: tuple[str, ...]
    pieces: Iterator[bytes] = field(repr=False)


def make_report(
    store: Store, run: str, options: ReportOptions, progress: Progress | None = None
) -> Report:
    """The report of a run as it stands. The same run gives the same bytes.

    Args:
        store: where it is.
        run: its id.
        options: what may be told, and how much.
        progress: is called with turns done and turns in all.

    Raises:
        NotFound: the run has no turn yet, or is not there.
        UsageError: `run` could not be a run id.
    """
    with RunFeed(store.home, run) as feed:
        state = feed.read_all()
    if not state.rows:
        problem = state.problems[0].error() if state.problems else None
        raise problem or NotFound(
            "the run has no turn yet", where=run, hint="wait for its first call"
        )
    return _Builder(store, state, options).build(progress)


class _Builder:
    """One pass over one run."""

    def __init__(self, store: Store, state: Timeline, options: ReportOptions) -> None:
        self._state, self._options = state, options
        self._redaction = Redaction(options, state.view.workspace_path)
        self._teller = TurnTeller(RunReader(store, state.run), self._redaction, options)
        self._facts = Facts(state, Losses(self._redaction))
        self._signs = SignTable()
        self._rows: list[dict[str, Any]] = []
        self._turns: list[tuple[int, bytes]] = []

    def build(self, progress: Progress | None) -> Report:
        rows = self._state.rows
        left = self._options.max_bytes - _FRAME_BYTES - _PLAIN_BYTES * min(len(rows), TURNS_MOST)
        omitted = max(0, len(rows) - max(1, left // (_ROW_BYTES + _LEAST_BYTES)))
        for place, row in enumerate(rows):
            self._facts.look_at(row, rows.figures(place))
            if place < omitted:
                continue
            ahead = len(rows) - place
            told = row_data(row, self._redaction, self._signs, self._state.view.started_ns)
            fair = (left - ahead * _ROW_BYTES) // ahead * _FAIR
            limit = max(_LEAST_BYTES, min(fair, left - ahead * (_ROW_BYTES + _LEAST_BYTES)))
            first, encoded = self._teller.tell(rows, row, min(limit, _TURN_MOST_BYTES))
            if first:
                told["w"] = first
            left -= len(encoded) + _fit(told, max(_ROW_BYTES, fair // _FAIR // 2))
            self._rows.append(told)
            self._turns.append((row.number, encoded))
            if progress is not None:
                progress(place + 1, len(rows))
        return self._report(omitted)

    def _report(self, omitted: int) -> Report:
        origin_ns = self._state.view.started_ns
        marks = self._state.marks[-_MARKS_MOST:]
        told = Told(
            self._facts,
            self._rows,
            self._signs.data(),
            [mark_data(mark, self._redaction, origin_ns) for mark in marks],
            self._turns,
            omitted,
            list(self._notes(omitted)),
        )
        return Report(
            self._state.run,
            len(self._rows),
            omitted,
            self._teller.cut,
            tuple(self._teller.problems),
            page(told, self._redaction),
        )

    def _notes(self, omitted: int) -> Iterator[str]:
        options, teller, view = self._options, self._teller, self._state.view
        if options.redact:
            yield (
                "Redacted: the texts of messages, replies and outputs are left out, as is the "
                "content of files whose names promise secrets; the workspace, the home directory "
                "and mail addresses are renamed. Commands and changes of other files are here."
            )
        else:
            yield "Not redacted: messages, outputs and places are here as they were recorded."
        yield "What looks like a key or a token is replaced by [redacted] everywhere."
        yield (
            f"Of one text at most {amounts.size(options.text_bytes)} are here, of one patch "
            f"{amounts.size(options.patch_bytes)}. What was cut says so, and how to see it."
        )
        if omitted:
            yield f"The oldest {amounts.count(omitted, 'turn')} did not fit into the file."
        if teller.cut:
            yield f"{amounts.count(teller.cut, 'turn')} told shorter, so that the file stays small."
        for problem in teller.problems[:_PROBLEMS_SHOWN]:
            yield f"Cannot be read: {problem}"
        if len(teller.problems) > _PROBLEMS_SHOWN:
            yield f"… and {len(teller.problems) - _PROBLEMS_SHOWN:,} more that cannot be read."
        state = self._state.sign.word
        yield f"The run as it stood at its entry of {wording.utc(view.updated_ns)}: {state}."


def _fit(row: dict[str, Any], limit: int) -> int:
    """How long a row is as JSON; what can be spared is taken from one that is too long."""
    for key in ("", *_SPARED):
        row.pop(key, None)
        size = len(json_bytes(row))
        if size <= limit:
            break
    return size
