"""Recorded calls of others' agents, a line a call, as traces: read for measuring, never written.

The format: every object names its trajectory (``traj``), the index of the reply (``turn``), of the
call in it (``call``) and their number (``n``); then tool, arguments, waits, exit codes. A reply
without calls is one object with ``tool: null``. A file holds any number of trajectories, and their
commands speak of a workspace at ``/testbed``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from crabrt.errors import Ambiguous, NotFound
from crabrt.traces.errors import DamagedTrace
from crabrt.traces.schema import (
    RECORDED,
    SCHEMA,
    UNKNOWN,
    VERSION,
    Header,
    ModelCall,
    ToolCall,
    Trace,
    Turn,
)

WORKSPACE = "/testbed"


class _Replay(msgspec.Struct):
    dur_s: float | None = None


class _Line(msgspec.Struct):
    """The fields of a line that a replay needs."""

    traj: str
    turn: int
    call: int
    tool: str | None = None
    src: str = ""
    args: dict[str, Any] | None = None
    llm_s: float | None = None
    period_s: float | None = None
    tok: dict[str, float] | None = None
    exit: int | None = None
    err: bool | None = None
    tool_s: float | None = None
    rejected: bool = False
    timeout: bool = False
    replay: _Replay | None = None


_decode_line = msgspec.json.Decoder(_Line).decode


def is_call(fields: dict[str, Any] | None) -> bool:
    """Whether a first line is of this format."""
    return fields is not None and {"traj", "turn", "call", "tool"} <= fields.keys()


def trajectories(path: Path, numbered: Iterable[tuple[int, bytes]]) -> dict[str, list[_Line]]:
    """The calls of every trajectory in a file, in order.

    Raises:
        DamagedTrace: a line is not of the format.
    """
    found: dict[str, list[_Line]] = {}
    for number, data in numbered:
        try:
            line = _decode_line(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DamagedTrace(
                f"this line is no recorded call: {error}", where=f"{path}, line {number}"
            ) from error
        found.setdefault(line.traj, []).append(line)
    return found


def read_calls(path: Path, numbered: Iterable[tuple[int, bytes]], trajectory: str | None) -> Trace:
    """One trajectory of a file.

    Raises:
        NotFound, Ambiguous: see ``reading.read_trace``.
        DamagedTrace: a line is not of the format.
    """
    found = trajectories(path, numbered)
    if trajectory is None and len(found) > 1:
        raise Ambiguous(
            f"the file holds {len(found)} trajectories: choose one", sorted(found), where=str(path)
        )
    name = next(iter(found)) if trajectory is None else trajectory
    if name not in found:
        near = ", ".join(sorted(found)[:8])
        raise NotFound(f"no trajectory {name!r}", where=str(path), hint=f"there are: {near}")
    return _trace(name, found[name])


def _trace(name: str, lines: list[_Line]) -> Trace:
    grouped: dict[int, list[_Line]] = {}
    for line in lines:
        grouped.setdefault(line.turn, []).append(line)
    turns: list[Turn] = []
    wait_ms: float | None = None  # where only periods are known: what is left of the last one
    for number, calls in sorted(grouped.items()):
        first = calls[0]
        known = first.llm_s * 1e3 if first.llm_s is not None else wait_ms
        tools = tuple(_tool(line) for line in calls if line.tool is not None)
        tokens = first.tok or {}
        model = ModelCall(
            wait_ms=known,
            tokens_in=_whole(tokens.get("inp")),
            tokens_out=_whole(tokens.get("out")),
        )
        turns.append(Turn(turn=number, models=(model,), tools=tools))
        wait_ms = _rest_of_period(first.period_s, tools)
    timed = any(turn.models[0].wait_ms is not None for turn in turns)
    header = Header(
        schema=SCHEMA,
        version=VERSION,
        id=name,
        turns=len(turns),
        workspace=WORKSPACE,
        source=lines[0].src,
        timing=RECORDED if timed else UNKNOWN,
    )
    return Trace(header, tuple(turns))


def _tool(line: _Line) -> ToolCall:
    assert line.tool is not None
    seconds = line.tool_s
    if seconds is None and line.replay is not None:
        seconds = line.replay.dur_s
    return ToolCall(
        name=line.tool,
        arguments=line.args or {},
        exit_code=line.exit,
        ok=None if line.err is None else not line.err,
        duration_ms=None if seconds is None else seconds * 1e3,
        ran=not line.rejected,
    )


def _rest_of_period(period_s: float | None, tools: tuple[ToolCall, ...]) -> float | None:
    """The next wait, where only reply to reply was measured: a period without its tools."""
    if period_s is None:
        return None
    return max(0.0, period_s * 1e3 - sum(tool.duration_ms or 0.0 for tool in tools))


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
