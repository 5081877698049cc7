"""The public handle of a run, inside the loop.

`checkpoint` and `rollback` block, `acheckpoint` and `arollback` await. They are two names because
one value cannot be both: a target that is also awaitable would have blocked the event loop before
it could be awaited, or, not awaited, would name a state that is not durable.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from crabrt.errors import UsageError
from crabrt.journal import RunIndex, TurnRow
from crabrt.process.shell import ShellResult
from crabrt.runtime import points, registry
from crabrt.runtime.block import Call, apply
from crabrt.runtime.nullrun import NullRun
from crabrt.runtime.recorded import Kept
from crabrt.runtime.replay import Species
from crabrt.runtime.scopes import FRAME, Frame
from crabrt.runtime.session import Session
from crabrt.runtime.specs import Effects, Spec, parse_effects
from crabrt.runtime.structured import known_classes
from crabrt.runtime.waits import adrive, drive

_EFFECTS = frozenset(inspect.signature(parse_effects).parameters)


class Run:
    """A live run. Get it with `crabrt.current_run` or `crabrt.open_run`."""

    def __init__(self, session: Session, frame: Frame | None = None) -> None:
        self._session = session
        self._frame = frame

    @property
    def id(self) -> str:
        """The run's id, e.g. ``fixer-7f3a91c2``."""
        return self._session.id

    @property
    def turn(self) -> int:
        """The open turn; 0 before the first call."""
        return self._session.machine.turn

    def __repr__(self) -> str:
        return f"<crabrt.Run {self.id}@{self.turn}>"

    def checkpoint(self, label: str | None = None) -> str:
        """Make the state as it is now restorable, between two calls; its target ``RUN@k.n``.

        Blocks until it is durable. On resume, a checkpoint that was made is not made again.

        Args:
            label: a name for it, to restore by.

        Raises:
            UsageError: the label is not legal, or a tool is running.
            Unprotected: it cannot be made.
        """
        label = points.checked_label(label)
        kept = Kept(self._here(), "crabrt.checkpoint")
        return kept.give(lambda: drive(points.checkpoint(self._session, label)))

    async def acheckpoint(self, label: str | None = None) -> str:
        """As `checkpoint`, awaiting: the event loop goes on meanwhile.

        Raises:
            UsageError, Unprotected: as `checkpoint`.
        """
        label = points.checked_label(label)
        kept = Kept(self._here(), "crabrt.checkpoint")
        return await kept.agive(lambda: adrive(points.checkpoint(self._session, label)))

    def rollback(self, to: int) -> int:
        """Put the workspace back to the state after turn `to`, and go on; the new turn's number.

        The turns between stay in the journal; the next one says that it began on `to`. What the
        workspace was is kept as an undo point. The conversation is the loop's own: it decides what
        the model hears of it. Blocks until the state is durable.

        Raises:
            NotFound: that turn has no checkpoint.
            UsageError: `to` is no turn's number, or a tool is running.
            RestoreFailed: the file system refused it.
            Unprotected: the state cannot be made durable.
        """
        points.check_turn(to)
        kept = Kept(self._here(), "crabrt.rollback")
        return kept.give(lambda: drive(points.rollback(self._session, to)))

    async def arollback(self, to: int) -> int:
        """As `rollback`, awaiting: the event loop goes on meanwhile.

        Raises:
            NotFound, UsageError, RestoreFailed, Unprotected: as `rollback`.
        """
        points.check_turn(to)
        kept = Kept(self._here(), "crabrt.rollback")
        return await kept.agive(lambda: adrive(points.rollback(self._session, to)))

    def history(self) -> list[TurnRow]:
        """The turns so far, as ``crab log`` lists them."""
        with RunIndex.open(self._session.engine.config.home) as index:
            index.refresh()
            return index.turns(self.id)

    def model_call(
        self, request: Any, ask: Callable[..., Any] | None = None, **options: Any
    ) -> Any:
        """A model call without a decorator.

        Short form: ``reply = run.model_call(request, ask)``; `ask` is called (with the request, if
        it takes a parameter) only if the journal has no answer. An async `ask` gives an awaitable.
        Block form: ``with run.model_call(request) as call``.

        Args:
            request: what is asked: a list of messages, or a mapping of arguments.
            ask: does it.
            options: ``returns=``, ``raises=``, ``key=``, ``usage=``, as in `crabrt.model`; and
                ``name=``.
        """
        named = request if isinstance(request, Mapping) else {"messages": request}
        spec = _spec(options.pop("name", "model"), None, options)
        return self._call(spec, Species.MODEL, dict(named), ask, request)

    def tool_call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        do: Callable[..., Any] | None = None,
        **options: Any,
    ) -> Any:
        """A tool call without a decorator; forms as in `model_call`.

        Args:
            name: what it is called in the journal.
            arguments: by name.
            do: does it; called with the arguments by name, if it takes parameters.
            options: ``returns=``, ``raises=``, ``key=``; and what it does: ``effect=``, ``kind=``,
                ``in_doubt=``, ... All as in `crabrt.tool`.

        Raises:
            UsageError: an unknown option, or an unknown word for one.
        """
        declared = {word: options.pop(word) for word in _EFFECTS if word in options}
        spec = _spec(name, parse_effects(**declared), options)
        return self._call(spec, Species.TOOL, dict(arguments), do, arguments)

    def _call(
        self, spec: Spec, species: Species, named: dict[str, Any], act: Any, given: Any
    ) -> Any:
        frame = self._here()
        block = Call(frame, spec, species, named)
        if act is None:
            return block
        if inspect.iscoroutinefunction(act):
            return block.arun(lambda: apply(act, given))
        return block.run(lambda: apply(act, given))

    def _here(self) -> Frame:
        """Where a call of *this* run is made now, whichever run is the current one.

        Raises:
            UsageError: the run is over.
        """
        if self._session.inert:
            raise UsageError("the run is over: nothing can be called in it", where=self.id)
        current = FRAME.get()
        if current is not None and current.session is self._session:
            return current
        return self._frame or Frame(self._session, self._session.scope)


def _spec(name: str, effects: Effects | None, options: dict[str, Any]) -> Spec:
    raises = options.pop("raises", ())
    classes = [raises] if isinstance(raises, type) else list(raises)
    known = known_classes([ShellResult, options.pop("returns", None), *classes])
    spec = Spec(name, known, options.pop("key", None), effects, options.pop("usage", None))
    if options:
        raise UsageError(f"unknown option {next(iter(options))!r}")
    return spec


NULL_RUN = NullRun()


def current_run() -> Run | NullRun:
    """The run that a call made now would belong to; a null run (false) outside of one.

    Raises:
        NoCurrentRun: the context was lost in a thread, and several runs are live.
    """
    frame = registry.current_frame()
    return NULL_RUN if frame is None else Run(frame.session, frame)
