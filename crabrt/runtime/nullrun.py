"""What there is outside of a run: calls act, and nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from crabrt.errors import NotFound
from crabrt.journal import TurnRow
from crabrt.runtime.block import apply


class NullCall:
    """The block form of a call outside of a run: never sealed."""

    sealed = False
    value: Any = None

    def result(self, value: Any) -> Any:
        """`value` again."""
        self.value = value
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


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

    async def acheckpoint(self, label: str | None = None) -> str:
        """Nothing; an empty target."""
        return self.checkpoint(label)

    def rollback(self, to: int) -> int:
        """There is nothing to go back to.

        Raises:
            NotFound: always.
        """
        raise NotFound(f"there is no run to roll back to turn {to}", hint="open a run first")

    async def arollback(self, to: int) -> int:
        """As `rollback`.

        Raises:
            NotFound: always.
        """
        return self.rollback(to)

    def history(self) -> list[TurnRow]:
        """No turns."""
        return []

    def model_call(self, request: Any, ask: Callable[..., Any] | None = None, **_: Any) -> Any:
        """Ask; without `ask`, the block form."""
        return NullCall() if ask is None else apply(ask, request)

    def tool_call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        do: Callable[..., Any] | None = None,
        **_: Any,
    ) -> Any:
        """Do it; without `do`, the block form."""
        del name
        return NullCall() if do is None else apply(do, arguments)
