"""The turns of a run while its journal is folded: those that may still change, and the rest.

A turn that an earlier fold left behind is loaded when an entry is about it; `Fold.take_changed`
hands out what changed and forgets it, so the memory of a fold does not grow with the journal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from crabrt.core.entries import CallId
from crabrt.errors import DamagedJournal
from crabrt.journal.reading import Position, Record
from crabrt.journal.views import MoveView, RunView, TurnView

_MAX_GAP = 1 << 16  # turns of a run that could not journal them; more is not believed
_RERUN_TURNS = 4096  # how far back a call that runs again is looked for


class FoldState(msgspec.Struct, array_like=True):
    """What the fold keeps besides the turns; encodable, so that a fold can be taken up later.

    Attributes:
        run: the run so far.
        after: the place behind the last entry folded.
        calls: calls without a result, and the turn of each.
        checked: the latest turn with a durable checkpoint: calls before it never run again.
    """

    run: RunView = RunView()
    after: Position | None = None
    calls: dict[CallId, int] = {}
    checked: int = 0


class OpenTurn:
    """A turn while it may still change: its row, and its calls by identity."""

    __slots__ = ("models", "tools", "view")

    def __init__(self, view: TurnView) -> None:
        self.view = view
        self.tools = {tool.call: tool for tool in view.tools}
        self.models = {model.call: model for model in view.models}

    def freeze(self) -> TurnView:
        """The row, with its calls."""
        return replace(
            self.view, tools=tuple(self.tools.values()), models=tuple(self.models.values())
        )

    def drop_calls_after(self, seq: int, *, keep_outside: bool) -> None:
        """Drop the calls that began after entry `seq`; those that left the machine may stay."""
        self.models = {call: m for call, m in self.models.items() if m.seq <= seq}
        self.tools = {
            call: t
            for call, t in self.tools.items()
            if t.seq <= seq or (keep_outside and t.outside)
        }


class Fold:
    """Where a fold stands.

    Args:
        state: where an earlier fold stopped.
        load: gives a turn of that earlier fold, or None; asked at most once a turn.

    Attributes:
        where: the entry being folded, for errors.
        state: what to keep for later, together with `take_changed`.
    """

    def __init__(
        self,
        *,
        state: FoldState | None = None,
        load: Callable[[int], TurnView | None] = lambda _: None,
    ) -> None:
        self.state = FoldState() if state is None else state
        self._load = load
        self._turns: dict[int, OpenTurn | None] = {}
        self._changed: set[int] = set()
        self.where = ""

    @property
    def run(self) -> RunView:
        """The run so far."""
        return self.state.run

    def turn(self, number: int) -> TurnView | None:
        """One turn, or None if there is none."""
        turn = self.get(number)
        return None if turn is None else turn.freeze()

    def turns(self) -> list[TurnView]:
        """All turns, in order."""
        found = (self.turn(number) for number in range(self.run.turn + 1))
        return [view for view in found if view is not None]

    def take_changed(self) -> dict[int, TurnView | None]:
        """The turns that changed since the last call (None: it went). They are forgotten here."""
        changed = {number: self.turn(number) for number in sorted(self._changed)}
        self._changed.clear()
        self._turns.clear()
        return changed

    def get(self, number: int) -> OpenTurn | None:
        """A turn to look at, or None; to change it, `touch` it."""
        if not 0 <= number <= self.run.turn:
            return None
        if number not in self._turns:
            view = self._load(number)
            self._turns[number] = None if view is None else OpenTurn(view)
        return self._turns[number]

    def touch(self, number: int, record: Record) -> OpenTurn:
        """The turn, made if need be; it is changed by `record`."""
        if not 0 <= number <= self.run.turn + _MAX_GAP:
            raise DamagedJournal(f"turn {number} makes no sense", where=self.where)
        turn = self.get(number)
        if turn is None:
            view = TurnView(number, max(number - 1, 0), record.entry.wall_ns, self.state.after)
            turn = self._turns[number] = OpenTurn(view)
            if number > self.run.turn:
                self.state.run = replace(self.run, turn=number)
        turn.view = replace(turn.view, last_seq=record.entry.seq)
        self._changed.add(number)
        return turn

    def mark_changed(self, number: int) -> None:
        """A turn that `get` gave was changed."""
        self._changed.add(number)

    def edit(self, number: int, record: Record, **changes: Any) -> None:
        """Change fields of a turn's row."""
        turn = self.touch(number, record)
        turn.view = replace(turn.view, **changes)

    def edit_run(self, **changes: Any) -> None:
        """Change fields of the run."""
        self.state.run = replace(self.state.run, **changes)

    def turn_of(self, call: CallId, record: Record) -> int | None:
        """The turn that already has `call`: an open one, or one that may run again."""
        known = self.state.calls.get(call)
        if known is not None:
            return known
        last = min(record.entry.turn, self.run.turn)
        first = max(self.state.checked, last - _RERUN_TURNS)
        for number in range(last, first - 1, -1):
            turn = self.get(number)
            if turn is not None and (call in turn.tools or call in turn.models):
                return number
        return None

    def begins_after(self, number: int, seq: int) -> bool:
        """Whether a turn has no entry up to `seq`."""
        turn = self.get(number)
        return turn is not None and turn.view.first is not None and turn.view.first.seq >= seq

    def has_call(self, number: int, call: CallId) -> bool:
        """Whether a turn has `call`."""
        turn = self.get(number)
        return turn is not None and (call in turn.tools or call in turn.models)

    def count_calls(self, number: int) -> int:
        """How many calls a turn has."""
        turn = self.get(number)
        return 0 if turn is None else len(turn.tools) + len(turn.models)

    def moves_from(self, first: int) -> list[MoveView]:
        """What happened to the run in the turns from `first` on."""
        turns = (self.get(number) for number in range(first, self.run.turn + 1))
        return [move for turn in turns if turn is not None for move in turn.view.moves]

    def add_moves(self, record: Record, *moves: MoveView) -> None:
        """Something happened to the run: it is told with the latest turn."""
        turn = self.touch(self.run.turn, record)
        turn.view = replace(turn.view, moves=(*turn.view.moves, *moves))

    def drop_turns(self, first: int) -> None:
        """Drop the turns from `first` on."""
        for number in range(first, self.run.turn + 1):
            self._turns[number] = None
            self._changed.add(number)
        run = self.run
        self.edit_run(turn=min(run.turn, first - 1))
        if run.restorable is not None and run.restorable >= first:
            self.edit_run(restorable=self.restorable_before(first - 1))

    def restorable_before(self, number: int) -> int | None:
        """The latest turn up to `number` that has a root."""
        for earlier in range(number, -1, -1):
            turn = self.get(earlier)
            if turn is not None and turn.view.root is not None:
                return earlier
        return None
