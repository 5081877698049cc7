"""Traces to files: one line at a time, each within its bound, the file whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from crabrt.errors import CrabError
from crabrt.traces.schema import LINE_MAX_BYTES, Header, ModelCall, ToolCall, Trace, Turn
from crabrt.traces.values import cut, is_cut

_SHORTER = (16_384, 4_096, 1_024, 256, 64)


class CannotWrite(CrabError):
    """The output cannot be written: full, read-only, no such directory."""

    kind = "cannot-write"


def lines(header: Header, turns: Iterable[Turn]) -> Iterator[bytes]:
    """The lines of a trace file, newline included."""
    yield msgspec.json.encode(header) + b"\n"
    for turn in turns:
        yield turn_line(turn)


def trace_lines(trace: Trace) -> Iterator[bytes]:
    """The lines of a trace that is in memory."""
    return lines(msgspec.structs.replace(trace.header, turns=len(trace.turns)), trace.turns)


def turn_line(turn: Turn) -> bytes:
    """The line of one turn: results and replies are cut shorter, at last arguments, until it fits.

    What was cut says so where it stands. A turn of thousands of calls loses the last of them, and
    its evidence tells how many it had.
    """
    line = msgspec.json.encode(turn) + b"\n"
    for limit in _SHORTER:
        if len(line) <= LINE_MAX_BYTES:
            return line
        turn = msgspec.structs.replace(
            turn,
            models=tuple(_shorter_model(model, limit) for model in turn.models),
            tools=tuple(_shorter_tool(tool, limit) for tool in turn.tools),
        )
        line = msgspec.json.encode(turn) + b"\n"
    note = f"trace: of {len(turn.models)} model and {len(turn.tools)} tool calls the last left out"
    while len(line) > LINE_MAX_BYTES:
        turn = msgspec.structs.replace(
            turn,
            models=turn.models[: len(turn.models) // 2],
            tools=turn.tools[: len(turn.tools) // 2],
            evidence=(*turn.evidence[:20], note),
            files=None,
        )
        line = msgspec.json.encode(turn) + b"\n"
    return line


def write_file(path: Path, content: Iterable[bytes]) -> int:
    """Write `content` to `path`, whole or not at all; how many bytes.

    Raises:
        CannotWrite: the file system refused.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    size = 0
    try:
        with open(beside, "wb") as file:
            for line in content:
                size += file.write(line)
        os.replace(beside, path)
    except OSError as error:
        raise CannotWrite(
            f"cannot be written: {error.strerror}", where=str(path), hint="name another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or the place is not writable
            os.unlink(beside)
    return size


def _shorter_model(model: ModelCall, limit: int) -> ModelCall:
    request = model.request
    if request is not None:
        new = tuple(
            msgspec.structs.replace(said, text=cut(said.text, limit)) for said in request.new
        )
        request = msgspec.structs.replace(request, new=new)
    return msgspec.structs.replace(model, reply=cut(model.reply, limit), request=request)


def _shorter_tool(tool: ToolCall, limit: int) -> ToolCall:
    """Its result cut; its arguments only where they alone are too long for a line of many calls."""
    arguments = tool.arguments
    if limit <= _SHORTER[2]:
        arguments = {key: cut(value, limit * 16) for key, value in arguments.items()}
    return msgspec.structs.replace(
        tool, result=cut(tool.result, limit), arguments=arguments, cut=is_cut(arguments)
    )
