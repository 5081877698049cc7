"""SWE-agent's ``.traj``: a JSON document with ``trajectory``, a step for every action.

A step has ``action``, ``observation``, ``response``, ``execution_time`` (s) and ``state``, whose
``working_dir`` is where the next action runs (older files hold it as JSON in a string). The format
tells no model waits and no exit codes. Files without steps (demonstrations) have a ``history``.
"""

from __future__ import annotations

import json
from typing import Any

from crabrt.traces.importing.fields import (
    Malformed,
    content_text,
    maybe_count,
    maybe_map,
    maybe_number,
    maybe_text,
    needed_list,
    needed_map,
    needed_text,
)
from crabrt.traces.schema import (
    SCHEMA,
    UNKNOWN,
    VERSION,
    Header,
    ModelCall,
    Request,
    Said,
    ToolCall,
    Trace,
    Turn,
)

_TOOL = "swe-agent"


def recognizes(document: dict[str, Any]) -> bool:
    """Whether a JSON document is one of these."""
    return isinstance(document.get("trajectory"), list) or (
        isinstance(document.get("history"), list) and "messages" not in document
    )


def to_trace(document: dict[str, Any], name: str) -> Trace:
    """The trace of a document.

    Raises:
        Malformed: a step is not as it should be.
    """
    history = document.get("history")
    prompts = _prompts(history if isinstance(history, list) else [])
    if document.get("trajectory") or not isinstance(history, list):
        turns, workspace = _from_steps(needed_list(document, "trajectory", "the document"))
    else:
        turns, workspace = _from_history(history), ""
    if turns and prompts:
        first, *rest = turns
        model = ModelCall(
            name=first.models[0].name,
            reply=first.models[0].reply,
            request=Request(messages=len(prompts), new=prompts),
        )
        turns = [Turn(turn=first.turn, models=(model,), tools=first.tools), *rest]
    info = maybe_map(document.get("info"))
    stats = maybe_map(info.get("model_stats"))
    notes = ["the format tells neither model waits nor exit codes"]
    calls = maybe_count(stats.get("api_calls"))
    if calls and calls != len(turns):
        notes.append(f"the session made {calls} model calls, the file has {len(turns)} actions")
    header = Header(
        schema=SCHEMA,
        version=VERSION,
        id=name,
        turns=len(turns),
        workspace=workspace,
        source="SWE-agent",
        source_version=maybe_text(info.get("swe_agent_version")) or "",
        status=maybe_text(info.get("exit_status")) or "",
        timing=UNKNOWN,
        notes=tuple(notes),
    )
    return Trace(header, tuple(turns))


def _from_steps(steps: list[Any]) -> tuple[list[Turn], str]:
    turns: list[Turn] = []
    workspace, cwd = "", None
    for number, raw in enumerate(steps):
        where = f"trajectory[{number}]"
        step = needed_map(raw, "a step", where)
        action = needed_text(step, "action", where)
        took_s = maybe_number(step.get("execution_time"))
        tool = ToolCall(
            name=_TOOL,
            arguments={"command": action},
            cwd=cwd,
            result=maybe_text(step.get("observation")),
            duration_ms=None if took_s is None else took_s * 1e3,
        )
        model = ModelCall(reply=maybe_text(step.get("response")))
        turns.append(
            Turn(turn=number + 1, models=(model,), tools=(tool,) if action.strip() else ())
        )
        cwd = _working_directory(step.get("state"), where) or cwd
        workspace = workspace or cwd or ""
    return turns, workspace


def _from_history(history: list[Any]) -> list[Turn]:
    turns: list[Turn] = []
    for number, raw in enumerate(history):
        message = needed_map(raw, "a message", f"history[{number}]")
        action = message.get("action")
        if message.get("role") != "assistant" or not isinstance(action, str):
            continue
        tool = ToolCall(name=_TOOL, arguments={"command": action})
        model = ModelCall(reply=content_text(message.get("content")))
        turns.append(Turn(turn=len(turns) + 1, models=(model,), tools=(tool,)))
    return turns


def _prompts(history: list[Any]) -> tuple[Said, ...]:
    """What the first request held: messages before the first reply, demonstrations aside."""
    found = []
    for raw in history:
        message = maybe_map(raw)
        role = maybe_text(message.get("role")) or ""
        if role == "assistant" and not message.get("is_demo"):
            break
        if role in {"system", "user"} and not message.get("is_demo"):
            found.append(Said(role, content_text(message.get("content"))))
    return tuple(found)


def _working_directory(state: Any, where: str) -> str | None:
    if isinstance(state, str) and state.strip():
        try:
            state = json.loads(state)
        except ValueError as error:
            raise Malformed(f"'state' is no JSON: {error}", where) from error
    found = maybe_text(maybe_map(state).get("working_dir"))
    return found if found and found.startswith("/") else None
