"""The agent: a loop of the user's own that becomes a run when it is called, and can be re-entered.

The loop is called again on resume, not unpickled: its local state rebuilds itself from the recorded
replies and results.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import typing
import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from crabrt.core.config import Config, resume_request
from crabrt.core.entries import Failure, Payload
from crabrt.core.targets import Target, parse_target
from crabrt.errors import NotFound, StoreUnavailable
from crabrt.runtime import registry
from crabrt.runtime.calls import Acting, Answer, begin
from crabrt.runtime.codec import NotEncodable, known_classes
from crabrt.runtime.entering import Entry, arguments_of, enter, enter_child, look_up, result_of
from crabrt.runtime.opening import Setup, check_name
from crabrt.runtime.replay import Species
from crabrt.runtime.requests import Binder
from crabrt.runtime.scopes import Frame, watch_tasks
from crabrt.runtime.session import CODECS, Session, UnprotectedWarning
from crabrt.runtime.settings import load_config
from crabrt.runtime.specs import Effects, Spec
from crabrt.runtime.streams import Inside
from crabrt.runtime.waits import Steps, adrive, drive

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class AgentFunction(Protocol[P, R]):
    """What `agent` makes of a function: the same function, with `resume`."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the loop (inside another run: as a child of it)."""
        ...

    def resume(self, run: str, /, **override: Any) -> R:
        """Take up a run: the recorded calls are answered, then the loop is live.

        Args:
            run: ``RUN`` (goes on where it stopped), or ``RUN@TURN`` (goes on differently from
                that turn, as a new run).
            override: arguments that could not be stored, or should be others.

        Raises:
            NotFound, Ambiguous: there is no such run or turn.
            NotResumable: it cannot be replayed; the message says why.
            RunBusy, WorkspaceBusy: somebody alive has it.
            Diverged: the loop made another call than was recorded.
        """
        ...


@overload
def agent(function: Callable[P, R], /) -> AgentFunction[P, R]: ...
@overload
def agent(
    *,
    workspace: str | os.PathLike[str] = ".",
    name: str | None = None,
    returns: Any = None,
    raises: Iterable[type[BaseException]] | type[BaseException] = (),
    **options: Any,
) -> Callable[[Callable[P, R]], AgentFunction[P, R]]: ...
def agent(
    function: Callable[..., Any] | None = None,
    /,
    *,
    workspace: str | os.PathLike[str] = ".",
    name: str | None = None,
    returns: Any = None,
    raises: Iterable[type[BaseException]] | type[BaseException] = (),
    **options: Any,
) -> Any:
    """Make a function an agent loop: each call of it is a run, journalled and protected.

    Args:
        workspace: the directory it works in, protected in place (relative: to the current
            directory at the time of the call).
        name: what its runs are called (default: the function's name).
        returns, raises: classes that come back on replay, where the annotations don't say.
        options: any field of `crabrt.Config`: ``strict``, ``shared``, ``force``, ``exclude``,
            ``gate_limit_ms``, ``on_divergence``, ...

    Raises:
        UsageError: the name is not legal.
    """
    if name is not None:
        check_name(name)

    def decorate(plain: Callable[..., Any]) -> Any:
        return _wrapped(_Agent(plain, workspace, name, returns, raises, options))

    return decorate if function is None else decorate(function)


def resume(run: str, /, **override: Any) -> Any:
    """Take up a run by name, when its agent function is imported. See `AgentFunction.resume`.

    Raises:
        NotFound: its agent function is not imported, or there is no such run.
    """
    target = parse_target(run)
    recorded = look_up(load_config("."), target)
    found = registry.agent_named(recorded.started.agent or "")
    if found is None:
        raise NotFound(
            f"the agent function {recorded.started.agent!r} of this run is not imported",
            where=recorded.run,
            hint="import the module that defines it, or use `crab resume`, which runs its command",
        )
    return found.resume(run, **override)


class _Agent(Generic[P, R]):
    """A decorated agent function, behind its wrapper."""

    def __init__(
        self,
        function: Callable[..., Any],
        workspace: str | os.PathLike[str],
        name: str | None,
        returns: Any,
        raises: Any,
        options: Mapping[str, Any],
    ) -> None:
        self.function = function
        self._workspace = workspace
        self._name = name or function.__name__
        self._options = dict(options)
        self._binder = Binder(function)
        self._known = known_classes([returns, *_hints(function), *_classes(raises)])

    def config(self) -> Config:
        """The configuration for a call made now."""
        return load_config(self._workspace, **self._options)

    def opening(self, config: Config, args: Any, kwargs: Any) -> Entry:
        """The run for a call from outside of any run."""
        return enter(self._setup(config, args, kwargs), None, resume_request())

    def reopening(self, run: str, override: dict[str, Any]) -> tuple[Entry, dict[str, Any]]:
        """The run to take up, and the arguments to call the loop with."""
        config, target = self.config(), parse_target(run)
        recorded = look_up(config, target)
        arguments = arguments_of(recorded, self._known, CODECS, override)
        return enter(self._setup(config, (), arguments), target, None), arguments

    def _setup(self, config: Config, args: Any, kwargs: Any) -> Setup:
        data, missing = None, None
        try:
            data = CODECS.encode(self._binder.bind(args, kwargs), self._known)
        except NotEncodable as error:
            missing = str(error)
        name = config.name or self._name
        return Setup(config, Path(self._workspace), name, self._name, data, missing)

    def call_in(self, outer: Frame, args: Any, kwargs: Any) -> Steps[Acting | Any]:
        """The first half of a call from inside another run."""
        spec = Spec(self._name, self._known, effects=Effects())
        return begin(outer, spec, Species.TOOL, self._binder.bind(args, kwargs))

    def child(self, acting: Acting, args: Any, kwargs: Any) -> Entry:
        """The child run for such a call."""
        parent = acting.session
        return enter_child(
            self._setup(parent.engine.config, args, kwargs), parent, acting.call
        )

    def finished(self, entry: Entry) -> Any:
        """The sealed result of a run that needs no running."""
        assert entry.recorded is not None
        return result_of(entry.recorded, self._known, CODECS)

    def ended(self, session: Session, value: Any, error: BaseException | None) -> Steps[None]:
        """The loop returned `value` or raised `error`."""
        failure: Failure | None = None
        payload = Payload()
        if error is not None:
            failure = CODECS.seal_exception(error, self._known)
        else:
            try:
                payload = session.payload(CODECS.encode(value, self._known))
            except NotEncodable as problem:
                payload = Payload(missing=str(problem))
        yield from session.end(payload, failure)


def _wrapped(made: _Agent[..., Any]) -> Any:
    """The function the user gets: of the same kind as his own."""
    function = made.function
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        wrapped = _generator(made)
    elif inspect.iscoroutinefunction(function):
        wrapped = _coroutine(made)
    else:
        wrapped = _function(made)
    registry.add_agent(made._name, wrapped)  # noqa: SLF001  its own half
    return wrapped


def _function(made: _Agent[..., Any]) -> Any:
    function = made.function

    def run(entry: Entry | None, args: Any, kwargs: Any) -> Any:
        if entry is None:
            return function(*args, **kwargs)
        if entry.session is None:
            return made.finished(entry)
        session = entry.session
        try:
            value = _body(made, session, args, kwargs)
        finally:
            _close(session)
        session.tell()
        return value

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        outer = registry.current_frame()
        if outer is not None:
            outcome = drive(made.call_in(outer, args, kwargs))
            if isinstance(outcome, Answer):
                return outcome.value()
            return _sealed(outcome, lambda: run(made.child(outcome, args, kwargs), args, kwargs))
        config = made.config()
        if config.disable:
            return function(*args, **kwargs)
        return run(_or_unprotected(lambda: made.opening(config, args, kwargs), config), args, kwargs)

    def take_up(name: str, /, **override: Any) -> Any:
        entry, arguments = made.reopening(name, override)
        return run(entry, (), arguments)

    wrapped.resume = take_up  # type: ignore[attr-defined]
    return wrapped


def _body(made: _Agent[..., Any], session: Session, args: Any, kwargs: Any) -> Any:
    try:
        with Inside(Frame(session, session.scope)):
            value = made.function(*args, **kwargs)
    except BaseException as error:
        drive(made.ended(session, None, error))
        raise
    drive(made.ended(session, value, None))
    return value


def _sealed(call: Acting, run: Callable[[], Any]) -> Any:
    """Run a child as the one call that it is to its parent."""
    try:
        value = run()
    except BaseException as error:
        drive(call.fail(error))
        raise
    drive(call.finish(value))
    call.session.inner_checkpoint()
    return value


def _coroutine(made: _Agent[..., Any]) -> Any:
    function = made.function

    async def run(entry: Entry | None, args: Any, kwargs: Any) -> Any:
        if entry is None:
            return await function(*args, **kwargs)
        if entry.session is None:
            return made.finished(entry)
        session = entry.session
        session.scope.adopt()
        watch_tasks()
        try:
            value = await _abody(made, session, args, kwargs)
        finally:
            await asyncio.to_thread(_close, session)
        session.tell()
        return value

    @functools.wraps(function)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        outer = registry.current_frame()
        if outer is not None:
            outcome = await adrive(made.call_in(outer, args, kwargs))
            if isinstance(outcome, Answer):
                return outcome.value()
            return await _asealed(made, outcome, run, args, kwargs)
        config = made.config()
        if config.disable:
            return await function(*args, **kwargs)
        entry = await asyncio.to_thread(
            _or_unprotected, lambda: made.opening(config, args, kwargs), config
        )
        return await run(entry, args, kwargs)

    async def take_up(name: str, /, **override: Any) -> Any:
        entry, arguments = await asyncio.to_thread(made.reopening, name, override)
        return await run(entry, (), arguments)

    wrapped.resume = take_up  # type: ignore[attr-defined]
    return wrapped


async def _abody(made: _Agent[..., Any], session: Session, args: Any, kwargs: Any) -> Any:
    try:
        with Inside(Frame(session, session.scope)):
            value = await made.function(*args, **kwargs)
    except BaseException as error:
        await adrive(made.ended(session, None, error))
        raise
    await adrive(made.ended(session, value, None))
    return value


async def _asealed(
    made: _Agent[..., Any], call: Acting, run: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    try:
        entry = await asyncio.to_thread(made.child, call, args, kwargs)
        value = await run(entry, args, kwargs)
    except BaseException as error:
        await adrive(call.fail(error))
        raise
    await adrive(call.finish(value))
    call.session.inner_checkpoint()
    return value


def _generator(made: _Agent[..., Any]) -> Any:
    """Agents that yield their progress. Each step runs inside the run, each yield outside of it."""
    function = made.function

    def steps(entry: Entry | None, args: Any, kwargs: Any) -> Generator[Any, Any, Any]:
        source = function(*args, **kwargs)
        if entry is None or entry.session is None:
            return (yield from source)
        session, sent = entry.session, None
        try:
            while True:
                with Inside(Frame(session, session.scope)):
                    item = source.send(sent)
                sent = yield item
        except StopIteration as stop:
            drive(session.end(Payload(missing="a generator's items are not kept"), None))
            return stop.value
        except BaseException as error:
            source.close()
            drive(made.ended(session, None, error))
            raise
        finally:
            _close(session)

    async def asteps(entry: Entry | None, args: Any, kwargs: Any) -> AsyncGenerator[Any, Any]:
        source = function(*args, **kwargs)
        session = entry.session if entry is not None else None
        if session is None:
            async for item in source:
                yield item
            return
        session.scope.adopt()
        watch_tasks()
        try:
            while True:
                with Inside(Frame(session, session.scope)):
                    item = await anext(source)
                yield item
        except StopAsyncIteration:
            await adrive(session.end(Payload(missing="a generator's items are not kept"), None))
        except BaseException as error:
            drive(made.ended(session, None, error))
            raise
        finally:
            _close(session)

    shape = asteps if inspect.isasyncgenfunction(function) else steps

    def begun(args: Any, kwargs: Any) -> Any:
        config = made.config()
        if config.disable or registry.current_frame() is not None:
            return shape(None, args, kwargs)
        entry = _or_unprotected(lambda: made.opening(config, args, kwargs), config)
        return shape(entry, args, kwargs)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return begun(args, kwargs)

    def take_up(name: str, /, **override: Any) -> Any:
        entry, arguments = made.reopening(name, override)
        return shape(entry, (), arguments)

    wrapped.resume = take_up  # type: ignore[attr-defined]
    return wrapped


def _or_unprotected(opening: Callable[[], Entry], config: Config) -> Entry | None:
    """The run; or None, after a warning, where the store cannot be used and the loop must go on.

    Raises:
        StoreUnavailable: the run is strict.
    """
    try:
        return opening()
    except StoreUnavailable as error:
        if config.strict:
            raise
        warnings.warn(
            f"crabrt: this run is not protected: {error}", UnprotectedWarning, stacklevel=4
        )
        return None


def _close(session: Session) -> None:
    registry.remove(session)
    session.close()


def _hints(function: Callable[..., Any]) -> list[Any]:
    try:
        return list(typing.get_type_hints(function).values())
    except (NameError, TypeError):  # annotations only a type checker resolves
        return []


def _classes(raises: Any) -> list[Any]:
    return [raises] if isinstance(raises, type) else list(raises)
