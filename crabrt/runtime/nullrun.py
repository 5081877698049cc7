"""What there is outside of a run: calls act, and nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crabrt.errors import NotFound
from crabrt.journal import TurnRow
from crabrt.runtime.block import apply


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

    def model_call(self, request: Any, ask: Callable[..., Any], **_: Any) -> Any:
        """Ask."""
        return apply(ask, request)

    def tool_call(
        self, name: str, arguments: Mapping[str, Any], do: Callable[..., Any], **_: Any
    ) -> Any:
        """Do it."""
        del name
        return apply(do, arguments)
