"""The public handle of a run, inside the loop; and the null run outside of one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self

from crabrt.core.entries import Labelled, RolledBack
from crabrt.core.ids import valid_name
from crabrt.core.targets import TurnRef
from crabrt.errors import NotFound, Unprotected, UsageError
from crabrt.journal import RunIndex, TurnRow
from crabrt.runtime import registry
from crabrt.runtime.calls import Acting, Answer, begin
from crabrt.runtime.engine import Fate
from crabrt.runtime.golive import go_live
from crabrt.runtime.recorded import recorded
from crabrt.runtime.replay import Species
from crabrt.runtime.scopes import FRAME, Frame
from crabrt.runtime.session import Session
from crabrt.runtime.specs import Effects, Spec
from crabrt.runtime.streams import Inside
from crabrt.runtime.structured import known_classes
from crabrt.runtime.waits import Steps, Wait, adrive, drive
from crabrt.workspace import restore


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
        if label is not None and not valid_name(label):
            raise UsageError(f"{label!r} may not be a label", hint="letters, digits, . _ -")
        return recorded(lambda: self._checkpoint(label), name="crabrt.checkpoint")

    def _checkpoint(self, label: str | None) -> str:
        session = self._session
        job = session.inner_checkpoint()
        if job is None:
            raise UsageError("a checkpoint can't be made while a tool is running")
        job.durable.result()
        if job.fate is not Fate.CAPTURED or job.error is not None:
            raise Unprotected(f"the checkpoint failed: {job.error}", where=self.id)
        if label is not None:
            session.append(Labelled(job.turn, label, job.inner))
        return f"{self.id}@{job.turn}.{job.inner}"

    def rollback(self, to: int) -> int:
        """Put the workspace back to the state after turn `to`, and go on; the new turn's number.

        The turns between stay in the journal; the next one says that it began on `to`. What the
        workspace was is kept as an undo point. The conversation is the loop's own: it decides what
        the model hears of it.

        Raises:
            NotFound: that turn has no checkpoint.
            UsageError: a tool is running.
        """
        return recorded(lambda: drive(_rollback(self._session, to)), name="crabrt.rollback")

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
            options: ``returns=``, ``raises=``, ``usage=``, as in `crabrt.model`; ``name=``.
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
            options: ``returns=``, ``raises=``, ``effects=`` (an `Effects`).
        """
        spec = _spec(name, options.pop("effects", None) or Effects(), options)
        return self._call(spec, Species.TOOL, dict(arguments), do, arguments)

    def _call(
        self, spec: Spec, species: Species, named: dict[str, Any], act: Any, given: Any
    ) -> Any:
        frame = self._here()
        block = Call(frame, spec, species, named)
        if act is None:
            return block
        if inspect.iscoroutinefunction(act):
            return block.arun(lambda: _apply(act, given))
        return block.run(lambda: _apply(act, given))

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
    known = known_classes([options.pop("returns", None), *classes])
    spec = Spec(name, known, options.pop("key", None), effects, options.pop("usage", None))
    if options:
        raise UsageError(f"unknown option {next(iter(options))!r}")
    return spec


def _apply(act: Callable[..., Any], given: Any) -> Any:
    """Call `act` with what it can take: nothing, the arguments by name, or the request itself."""
    try:
        signature = inspect.signature(act)
        signature.bind()
    except ValueError:
        return act()
    except TypeError:
        if isinstance(given, Mapping):
            try:
                signature.bind(**given)
            except TypeError:
                return act(given)
            return act(**given)
        return act(given)
    return act()


class Call:
    """The block form of a call: ``with run.tool_call(...) as call``.

    Attributes:
        sealed: whether the journal has the outcome; then `value` is it.
    """

    def __init__(self, frame: Frame, spec: Spec, species: Species, named: dict[str, Any]) -> None:
        self._frame = frame
        self._spec = spec
        self._species = species
        self._named = named
        self._acting: Acting | None = None
        self._answer: Answer | None = None
        self._value: Any = None
        self._done = False

    @property
    def sealed(self) -> bool:
        """Whether the journal has the outcome."""
        return self._answer is not None

    @property
    def value(self) -> Any:
        """The recorded result (or the recorded exception raised)."""
        if self._answer is None:
            return self._value
        return self._answer.value()

    def result(self, value: Any) -> Any:
        """Seal `value` as the outcome, when the block ends; `value` again."""
        self._value, self._done = value, True
        return value

    def _begin(self) -> Steps[None]:
        outcome = yield from begin(self._frame, self._spec, self._species, self._named)
        if isinstance(outcome, Answer):
            self._answer = outcome
        else:
            self._acting = outcome
            self._inside = Inside(outcome.frame(self._frame))
            self._inside.__enter__()

    def _end(self, error: BaseException | None) -> Steps[None]:
        acting = self._acting
        if acting is None:
            return
        self._inside.__exit__()
        if error is not None:
            yield from acting.fail(error)
        elif self._done:
            yield from acting.finish(self._value)
        else:
            acting.abandon()
            raise UsageError(
                f"the block of {self._spec.name} ended without call.result(...)",
                hint="out = call.value if call.sealed else call.result(do())",
            )

    def __enter__(self) -> Self:
        drive(self._begin())
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        drive(self._end(error))

    async def __aenter__(self) -> Self:
        await adrive(self._begin())
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await adrive(self._end(error))

    def run(self, act: Callable[[], Any]) -> Any:
        """The short form: act only if not sealed."""
        with self:
            return self.value if self.sealed else self.result(act())

    async def arun(self, act: Callable[[], Any]) -> Any:
        """The short form for coroutine functions."""
        async with self:
            return self.value if self.sealed else self.result(await act())


class NullRun:
    """What `crabrt.current_run` gives outside of a run: calls act, nothing is recorded."""

    id = ""
    turn = 0

    def __bool__(self) -> bool:
        return False

    def checkpoint(self, label: str | None = None) -> str:
        """Nothing; an empty target."""
        del label
        return ""

    def rollback(self, to: int) -> int:
        """There is nothing to go back to.

        Raises:
            NotFound: always.
        """
        raise NotFound(f"there is no run to roll back to turn {to}", hint="open a run first")

    def history(self) -> list[TurnRow]:
        """No turns."""
        return []

    def model_call(self, request: Any, ask: Callable[..., Any], **_: Any) -> Any:
        """Ask."""
        return _apply(ask, request)

    def tool_call(
        self, name: str, arguments: Mapping[str, Any], do: Callable[..., Any], **_: Any
    ) -> Any:
        """Do it."""
        del name
        return _apply(do, arguments)


NULL_RUN = NullRun()


def current_run() -> Run | NullRun:
    """The run that a call made now would belong to; a null run (false) outside of one.

    Raises:
        NoCurrentRun: the context was lost in a thread, and several runs are live.
    """
    frame = registry.current_frame()
    return NULL_RUN if frame is None else Run(frame.session, frame)


def _rollback(session: Session, to: int) -> Steps[int]:
    if not session.acting:
        yield from go_live(session)
    with session.lock:
        if session.machine.running:
            raise UsageError("a rollback can't be made while a tool is running")
        job = session.close_turn()
    if job is not None and not job.durable.done():
        yield Wait(job.durable)
    with RunIndex.open(session.engine.config.home) as index:
        index.refresh()
        row = index.checkpoint(session.id, TurnRef(turn=to))
    engine = session.engine
    future = engine.submit(
        lambda: restore(
            engine.workspace, engine.writer, row.root, base=session.root, force=True,
            label=f"rollback of {session.id} to {to}", tracker=engine.tracker,
        )
    )  # fmt: skip
    if not future.done():
        yield Wait(future)
    future.result()
    with session.lock:
        session.root = session.turn_start = row.root
        session.append(RolledBack(to, row.root))
        session.machine.close()
        session.open_turn(base=to)
        job = session.inner_checkpoint()
    if job is not None and not job.durable.done():
        yield Wait(job.durable)
    if job is None or job.fate is not Fate.CAPTURED or job.error is not None:
        raise Unprotected("the state rolled back to could not be made durable", where=session.id)
    return session.machine.turn
