"""A loop that can be a run: opening one for a call of it, and what is sealed when it ends."""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crabrt.core.config import Config, resume_request
from crabrt.core.targets import parse_target
from crabrt.errors import StoreUnavailable
from crabrt.runtime import registry
from crabrt.runtime.calls import Acting, Outcome, begin
from crabrt.runtime.entering import Entry, arguments_of, enter, enter_child, look_up, result_of
from crabrt.runtime.exceptions import seal_exception
from crabrt.runtime.losses import UnprotectedWarning, warn
from crabrt.runtime.meaning import meant, refuse_anothers, refuse_disabled
from crabrt.runtime.opening import Setup
from crabrt.runtime.replay import Species
from crabrt.runtime.requests import Binder
from crabrt.runtime.scopes import FRAME, Frame
from crabrt.runtime.session import CODECS, Session
from crabrt.runtime.settings import load_config
from crabrt.runtime.specs import Effects, Spec
from crabrt.runtime.standard import NotEncodable
from crabrt.runtime.structured import known_classes
from crabrt.runtime.waits import Steps


class Loop:
    """A decorated agent function, behind its wrapper.

    Attributes:
        function: the user's own.
        name: the agent's: in journals, and as a call of another run. Its own runs are called so,
            too, where nothing else is configured.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        workspace: str | os.PathLike[str] | None,
        name: str | None,
        *,
        returns: Any,
        raises: Any,
        options: Mapping[str, Any],
    ) -> None:
        self.function = function
        self._workspace = os.curdir if workspace is None else workspace
        self._inherits = workspace is None
        self.name = name or function.__name__
        self._options = {"name": name, **options}
        self._binder = Binder(function)
        self._known = known_classes([returns, *_hints(function), *_classes(raises)])

    def config(self) -> Config:
        """The configuration for a call made now."""
        return load_config(self._workspace, **self._options)

    def opening(self, config: Config, args: Any, kwargs: Any) -> Entry:
        """The run for a call from outside of any run."""
        return enter(self._setup(config, self._named(config), args, kwargs), None, resume_request())

    def reopening(self, run: str, override: dict[str, Any]) -> tuple[Entry, dict[str, Any]]:
        """The run to take up, and the arguments to call the loop with."""
        config = self.config()
        refuse_disabled(config, run)
        target = meant(
            config, self._workspace, parse_target(run), f"of {self.name!r} ",
            lambda view: view.agent == self.name,
        )  # fmt: skip
        recorded = look_up(config, target)
        refuse_anothers(recorded.run, recorded.started.agent, self.name)
        arguments = arguments_of(recorded, self._known, CODECS, override)
        setup = self._setup(config, self._named(config), (), arguments)
        return enter(setup, target, None), arguments

    def _named(self, config: Config) -> str:
        """What a run of its own is called; child runs are called as the agent is."""
        return config.name or self.name

    def _setup(self, config: Config, name: str, args: Any, kwargs: Any) -> Setup:
        data, missing = None, None
        try:
            data = CODECS.encode(self._binder.bind(args, kwargs), self._known)
        except NotEncodable as error:
            missing = str(error)
        return Setup(config, Path(self._workspace), name, self.name, data, missing)

    def outer(self) -> Frame | None:
        """The frame that a call made now is nested in; None for a run of its own.

        Raises:
            NoCurrentRun: the context was lost, and several runs are live in the workspace.
        """
        frame = registry.frame_in(os.fsencode(os.path.realpath(self._workspace)))
        if frame is not None and FRAME.get() is None and self.config().shared:
            return None
        return frame

    def opened(self, config: Config, args: Any, kwargs: Any) -> Entry | None:
        """The run for a call from outside of any run; None, after a warning, where it cannot be."""
        return open_or_warn(lambda: self.opening(config, args, kwargs), config)

    def call_in(self, outer: Frame, args: Any, kwargs: Any) -> Steps[Outcome]:
        """The first half of a call from inside another run."""
        spec = Spec(self.name, self._known, effects=Effects())
        return begin(outer, spec, Species.TOOL, self._binder.bind(args, kwargs))

    def child(self, acting: Acting, args: Any, kwargs: Any) -> Entry | None:
        """The child run for such a call; None where its journal cannot be written."""
        parent = acting.session
        engine = parent.engine
        own = os.fsencode(os.path.realpath(self._workspace))
        if not (self._inherits or registry.overlap(own, engine.workspace.path)):
            parent.degrade(
                f"{os.fsdecode(own)}, the workspace of {self.name}, is not protected: as a child"
                f" run it shares {os.fsdecode(engine.workspace.path)}"
            )
        setup = self._setup(engine.config, self.name, args, kwargs)
        try:
            return enter_child(setup, parent, acting.call, settled_before=acting.settled_before)
        except StoreUnavailable as error:
            parent.degrade(f"the child run {self.name}: {error}")
            parent.tell()
            return None

    def finished(self, entry: Entry) -> Any:
        """The sealed result of a run that needs no running."""
        assert entry.recorded is not None
        return result_of(entry.recorded, self._known, CODECS)

    def ended(self, session: Session, value: Any, error: BaseException | None) -> Steps[None]:
        """The loop returned `value` or raised `error`."""
        if error is not None:
            yield from session.end(None, seal_exception(CODECS, error, self._known), error)
        else:
            yield from session.end(lambda: CODECS.encode(value, self._known), None)


def open_or_warn(opening: Callable[[], Entry], config: Config) -> Entry | None:
    """The run; or None, after a warning, where the store cannot be used and the loop must go on.

    Raises:
        StoreUnavailable: the run is strict.
    """
    try:
        return opening()
    except StoreUnavailable as error:
        if config.strict:
            raise
        warn(f"this run is not protected: {error}", UnprotectedWarning)
        return None


def give_back(entry: Entry | None) -> None:
    """A run was opened for a caller who is gone."""
    if entry is not None and entry.session is not None:
        close(entry.session)


def close(session: Session) -> None:
    """The run is over in this process."""
    registry.remove(session)
    session.close()


def _hints(function: Callable[..., Any]) -> list[Any]:
    try:
        return list(typing.get_type_hints(function).values())
    except (NameError, TypeError):  # annotations only a type checker resolves
        return []


def _classes(raises: Any) -> list[Any]:
    return [raises] if isinstance(raises, type) else list(raises)
