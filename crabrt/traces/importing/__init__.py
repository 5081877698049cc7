"""Sessions of other agents as traces, so that people can replay their own history.

One module a format, each tolerant of fields it does not know and strict about those that a replay
rests on. What a format does not tell (waits, exit codes) stays unknown; nothing is made up. Keys
and tokens are replaced, as in an export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from crabrt.traces import values
from crabrt.traces.errors import DamagedTrace, NotATrace
from crabrt.traces.importing import claude_code, mini_swe_agent, swe_agent
from crabrt.traces.importing.fields import Malformed
from crabrt.traces.importing.session_files import no_session, read_session
from crabrt.traces.schema import SCHEMA, ModelCall, ToolCall, Trace, Turn

_SUFFIXES = frozenset({".traj", ".json", ".jsonl"})
_TEXT_CHARS = 4_000
_ARGUMENT_CHARS = 200_000

FORMATS: Mapping[str, Callable[[Any, str], Trace]] = {
    "swe-agent": swe_agent.to_trace,
    "mini-swe-agent": mini_swe_agent.to_trace,
    "claude-code": claude_code.to_trace,
}
"""The formats by name: each makes a trace of a decoded file (of JSONL: of its numbered lines)."""


def import_file(path: Path, format_name: str | None = None) -> Trace:
    """The session in a file.

    Args:
        path: a ``.traj`` of SWE-agent, a trajectory of mini-swe-agent, or a session of Claude Code.
        format_name: one of `FORMATS`; None: it is recognized.

    Raises:
        NotFound: there is no such file.
        UsageError: it cannot be read, or is too big.
        NotATrace: it is none of these.
        DamagedTrace: it is one, but cut off or malformed; the error says where.
    """
    document, numbered = read_session(path)
    if (document or (numbered or [(1, {})])[0][1]).get("schema") == SCHEMA:
        raise NotATrace("it is a trace already", where=str(path), hint="use `crab replay` on it")
    found = format_name or _recognize(document, numbered)
    if found is None:
        raise no_session(path, "this is no session of an agent that is known here")
    content = numbered if found == "claude-code" else document
    if content is None:
        raise no_session(path, f"not a file of {found}")
    try:
        trace = FORMATS[found](content, _name(path))
    except Malformed as error:
        raise DamagedTrace(
            f"not as {found} writes it: {error}",
            where=f"{path}, {error.where}",
            hint="copy it again; if it is whole, its format is newer than this crabrt",
        ) from error
    if not trace.turns:
        raise no_session(path, "the session holds no reply of a model")
    return msgspec.structs.replace(trace, turns=tuple(_clean(turn) for turn in trace.turns))


def _name(path: Path) -> str:
    """The file's name without what only says how it is written: ``x`` of ``x.traj.json``."""
    name = path.name
    while path.suffix in _SUFFIXES:
        path = path.with_suffix("")
        name = path.name
    return name


def _recognize(document: Any, numbered: list[tuple[int, Any]] | None) -> str | None:
    if isinstance(document, dict):
        if mini_swe_agent.recognizes(document):
            return "mini-swe-agent"
        if swe_agent.recognizes(document):
            return "swe-agent"
    lines = [value for _, value in numbered or ()]
    return "claude-code" if claude_code.recognizes(lines) else None


def _clean(turn: Turn) -> Turn:
    return msgspec.structs.replace(
        turn,
        models=tuple(_clean_model(model) for model in turn.models),
        tools=tuple(_clean_tool(tool) for tool in turn.tools),
    )


def _clean_model(model: ModelCall) -> ModelCall:
    request = model.request
    if request is not None:
        new = tuple(msgspec.structs.replace(said, text=_short(said.text)) for said in request.new)
        request = msgspec.structs.replace(request, new=new)
    return msgspec.structs.replace(model, reply=_short(model.reply), request=request)


def _clean_tool(tool: ToolCall) -> ToolCall:
    plain = values.jsonable(tool.arguments)
    clean = values.without_tokens(plain)
    arguments = values.map_text(clean, lambda text: values.cut_text(text, _ARGUMENT_CHARS))
    return msgspec.structs.replace(
        tool,
        arguments=arguments,
        result=_short(tool.result),
        cut=values.is_cut(arguments),
        redacted=clean != plain,
    )


def _short(value: Any) -> Any:
    return values.cut(values.without_tokens(values.jsonable(value)), _TEXT_CHARS)
