"""A turn as a row: everything that a line about it shows, derived from the journal's view of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from crabrt.core.verdicts import Consistency, Prior, Protection
from crabrt.journal.outside import DECLARED, suspects
from crabrt.journal.views import ModelView, RunView, ToolView, TurnView
from crabrt.timeline.signs import Sign, checkpoint_sign, verdict_sign


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that has begun and not ended.

    Attributes:
        name: of the tool, or of the function that asks a model.
        asks_model: whether it asks a model; `model` is which, as far as the adapter knew.
        since_ns: wall clock when it began; 0 if that is not known.
    """

    name: str
    asks_model: bool
    since_ns: int
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """One call on a time scale, for bars.

    Attributes:
        name, asks_model: as in `OpenCall`.
        start_ms: from the turn's beginning; never below 0.
        length_ms: None while it goes on.
        ok: True: it returned; False: it raised or was cancelled; None: it has no result.
    """

    name: str
    asks_model: bool
    start_ms: float
    length_ms: float | None
    ok: bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """One turn, to be shown.

    Attributes:
        view: the turn, its marks from the inbox filled in (see `TurnView` for what there is).
        took_ms: how long it took, without the time in which nobody worked on the run; None: time
            went backwards. An open turn counts up to the run's last entry.
        live: somebody works on the run (on any of its turns).
        newest: it is the run's latest turn.
    """

    view: TurnView
    took_ms: float | None
    live: bool = False
    newest: bool = False

    @property
    def number(self) -> int:
        """The turn's number."""
        return self.view.turn

    @property
    def verdict(self) -> Sign:
        """What it did."""
        return verdict_sign(self.view, live=self.live)

    @property
    def checkpoint(self) -> Sign:
        """How safe it is."""
        return checkpoint_sign(self.view, live=self.live)

    @property
    def torn(self) -> bool:
        """Whether files kept changing while they were read."""
        return self.view.consistency is Consistency.TORN

    @property
    def is_unprotected(self) -> bool:
        """Whether it lost protection, wholly or in part (`view.unprotected` says why)."""
        view = self.view
        return bool(view.unprotected) or view.protection is Protection.UNPROTECTED

    @property
    def went_back_to(self) -> int | None:
        """The turn on whose state it began, where that is not the turn before; else None."""
        view = self.view
        return None if view.base in (view.turn - 1, view.turn) else view.base

    @property
    def tool_ms(self) -> float:
        """How long at least one tool ran: tools that run side by side count once."""
        return tool_time_ms(self.view)

    @property
    def effects(self) -> tuple[ToolView, ...]:
        """Its calls that were declared external: what a restore cannot take back."""
        return tuple(tool for tool in self.view.tools if tool.prior is Prior.EXTERNAL)

    @property
    def suspected(self) -> tuple[tuple[ToolView, str], ...]:
        """Its other calls that may have acted outside: ``guess`` or ``seen`` beside each.

        See `journal.outside`: a restore cannot take back what they did there, either.
        """
        return tuple((tool, how) for tool, how in suspects(self.view) if how != DECLARED)

    @property
    def open_calls(self) -> tuple[OpenCall, ...]:
        """Calls without a result: they run now if the run is live, else they were cut off."""
        return open_calls(self.view)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Its calls in the order in which they began."""
        calls: list[ModelView | ToolView] = [*self.view.models, *self.view.tools]
        calls.sort(key=lambda call: (call.began_ns, call.seq))
        return tuple(self._span(call) for call in calls)

    @property
    def attention(self) -> tuple[str, ...]:
        """What a person should read about it, a line each."""
        view = self.view
        return (
            *(f"unprotected: {reason}" for reason in view.unprotected),
            *(f"{note.topic}: {note.text}" for note in view.notes),
        )

    def tool_counts(self) -> dict[str, int]:
        """How often each tool was called; ``!`` behind the name: it failed, ``?``: no result."""
        counts: dict[str, int] = {}
        for tool in self.view.tools:
            name = tool.name + ("!" if tool.ok is False else "?" if tool.ok is None else "")
            counts[name] = counts.get(name, 0) + 1
        return counts

    def _span(self, call: ModelView | ToolView) -> Span:
        asks, began_ns = isinstance(call, ModelView), call.began_ns
        start_ms = max(0.0, (began_ns - self.view.started_ns) / 1e6) if began_ns else 0.0
        length_ms = None if call.ok is None else _length_ms(call)
        return Span(call.call.callable, asks, start_ms, length_ms, call.ok)


def rows_of(run: RunView, views: Iterable[TurnView], *, live: bool) -> Iterator[Row]:
    """Rows for turns that follow each other; the last one ends where the run's last entry stands.

    Args:
        run: whose they are.
        views: in turn order.
        live: somebody works on the run.
    """
    before: TurnView | None = None
    for view in views:
        if before is not None:
            yield Row(before, took_ms(run, before.started_ns, view.started_ns), live)
        before = view
    if before is not None:
        took = took_ms(run, before.started_ns, run.updated_ns)
        yield Row(before, took, live, newest=before.turn == run.turn)


def took_ms(run: RunView, start_ns: int, end_ns: int) -> float | None:
    """How long somebody worked on `run` between two moments; None: time went backwards."""
    return run.worked_ns(start_ns, end_ns) / 1e6 if end_ns >= start_ns else None


def open_calls(view: TurnView) -> tuple[OpenCall, ...]:
    """The calls of a turn that have no result, in the order in which they began."""
    models = [
        OpenCall(one.call.callable, True, one.began_ns, one.model)
        for one in view.models
        if one.ok is None
    ]
    tools = [OpenCall(one.name, False, one.began_ns) for one in view.tools if one.ok is None]
    return tuple(sorted((*models, *tools), key=lambda call: call.since_ns))


def tool_time_ms(view: TurnView) -> float:
    """How long at least one tool of the turn ran, as far as its calls have ended."""
    ended = [tool for tool in view.tools if tool.ok is not None]
    if len(ended) < 2 or any(not tool.began_ns for tool in ended):
        return sum(tool.duration_ms for tool in ended)
    total, until = 0.0, 0.0
    for tool in sorted(ended, key=lambda tool: tool.began_ns):
        start = tool.began_ns / 1e6
        end = start + tool.duration_ms
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _length_ms(call: ModelView | ToolView) -> float:
    return call.wait_ms if isinstance(call, ModelView) else call.duration_ms
