"""A call without a decorator: the block form, and the short form made of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self

from crabrt.errors import UsageError
from crabrt.runtime.calls import Acting, Answer, begin
from crabrt.runtime.replay import Species
from crabrt.runtime.scopes import Frame
from crabrt.runtime.specs import Spec
from crabrt.runtime.streams import Inside
from crabrt.runtime.waits import Steps, adrive, drive


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
        if self._answer is not None:
            await self._answer.cancelled()
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


def apply(act: Callable[..., Any], given: Any) -> Any:
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
