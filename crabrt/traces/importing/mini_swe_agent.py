"""mini-swe-agent's trajectories: a JSON document with ``messages``, of format 1 and 1.1.

In 1.1 a reply lists its ``extra.actions`` and what follows has ``extra.returncode``, each with a
``timestamp``. In 1 the command is the one fenced block of the reply, the return code stands in the
observation's text, and times are those of the API's ``created``, in whole seconds: a wait is then
the time from reply to reply, tools included, and the trace says so.
"""

from __future__ import annotations

import re
from typing import Any

from crabrt.traces.importing.fields import (
    between_ms,
    content_text,
    maybe_count,
    maybe_map,
    maybe_number,
    maybe_text,
    needed_list,
    needed_map,
    needed_text,
    seconds,
)
from crabrt.traces.schema import (
    RECORDED,
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

_FENCE = re.compile(r"```(?:bash|sh|mswea_bash_command)\s*\n(.*?)\n```", re.DOTALL)
_RETURN_CODE = re.compile(r"<returncode>\s*(-?\d+)\s*</returncode>")
_PERIODS = "waits are from reply to reply, in whole seconds, with the tool calls between them"


def recognizes(document: dict[str, Any]) -> bool:
    """Whether a JSON document is one of these."""
    format_name = document.get("trajectory_format")
    if isinstance(format_name, str):
        return format_name.startswith("mini-swe-agent")
    info = maybe_map(document.get("info"))
    return isinstance(document.get("messages"), list) and "mini_version" in info


def to_trace(document: dict[str, Any], name: str) -> Trace:
    """The trace of a document.

    Raises:
        Malformed: a message is not as it should be.
    """
    messages = [
        needed_map(raw, "a message", f"messages[{number}]")
        for number, raw in enumerate(needed_list(document, "messages", "the document"))
    ]
    replies = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    timed = any(_moment(messages[i]) is not None for i in replies)
    turns = []
    for place, start in enumerate(replies):
        end = replies[place + 1] if place + 1 < len(replies) else len(messages)
        since = replies[place - 1] + 1 if place else 0
        wait_ms = (
            between_ms(_moment(messages[start - 1]) if start else None, _moment(messages[start]))
            if timed
            else between_ms(
                _created(messages[replies[place - 1]]) if place else None,
                _created(messages[start]),
            )
        )
        said = messages[since:start]
        turns.append(_turn(place + 1, start, messages[start:end], said, wait_ms, first=not place))
    info = maybe_map(document.get("info"))
    config = maybe_map(info.get("config"))
    cwd = maybe_text(maybe_map(config.get("environment")).get("cwd")) or ""
    known = any(turn.models[0].wait_ms is not None for turn in turns)
    header = Header(
        schema=SCHEMA,
        version=VERSION,
        id=maybe_text(document.get("instance_id")) or name,
        turns=len(turns),
        workspace=cwd if cwd.startswith("/") else "",
        source="mini-swe-agent",
        source_version=maybe_text(info.get("mini_version")) or "",
        status=maybe_text(info.get("exit_status")) or "",
        timing=RECORDED if known else UNKNOWN,
        notes=() if timed or not known else (_PERIODS,),
    )
    return Trace(header, tuple(turns))


def _turn(
    number: int,
    place: int,
    messages: list[dict[str, Any]],
    before: list[dict[str, Any]],
    wait_ms: float | None,
    *,
    first: bool,
) -> Turn:
    """The turn of a reply, the first of `messages`, and of what follows up to the next reply."""
    reply, *after = messages
    extra = maybe_map(reply.get("extra"))
    usage = maybe_map(maybe_map(extra.get("response")).get("usage"))
    new = tuple(
        Said(str(message["role"]), content_text(message.get("content")))
        for message in before
        if first and message.get("role") in {"system", "user"}
    )
    model = ModelCall(
        model=maybe_text(maybe_map(extra.get("response")).get("model")),
        wait_ms=wait_ms,
        request=Request(messages=place, new=new),
        reply=content_text(reply.get("content")),
        tokens_in=maybe_count(usage.get("prompt_tokens")),
        tokens_out=maybe_count(usage.get("completion_tokens")),
        cost_usd=maybe_number(extra.get("cost")),
    )
    commands = _commands(reply, extra, f"messages[{place}]")
    outputs = [m for m in after if m.get("role") in {"tool", "user"}]
    took_ms = between_ms(_moment(reply), _moment(outputs[-1]) if outputs else None)
    alone = len(commands) == 1
    tools = tuple(
        _tool(command, outputs[i] if i < len(outputs) else None, took_ms if alone else None)
        for i, command in enumerate(commands)
    )
    return Turn(turn=number, models=(model,), tools=tools)


def _commands(reply: dict[str, Any], extra: dict[str, Any], where: str) -> list[str]:
    if "actions" in extra:
        actions = needed_list(extra, "actions", f"{where}.extra")
        return [
            needed_text(needed_map(action, "an action", where), "command", f"{where}.extra.actions")
            for action in actions
        ]
    found = _FENCE.findall(content_text(reply.get("content")))
    return found if len(found) == 1 else []  # else the agent was told that its form is wrong


def _tool(command: str, output: dict[str, Any] | None, took_ms: float | None) -> ToolCall:
    if output is None:  # the one that ended the session has no observation
        return ToolCall(name="bash", arguments={"command": command})
    extra = maybe_map(output.get("extra"))
    text = content_text(output.get("content"))
    code = maybe_count(extra.get("returncode"))
    if code is None and "returncode" not in extra:
        match = _RETURN_CODE.search(text)
        code = int(match.group(1)) if match else None
    shown = maybe_text(extra.get("raw_output"))
    return ToolCall(
        name="bash",
        arguments={"command": command},
        result=text if shown is None else shown,
        exit_code=None if code == -1 else code,
        ok=None if code is None else code == 0,
        failure=maybe_text(extra.get("exception_info")) or None,
        duration_ms=took_ms,
        ran=maybe_text(extra.get("exception_info")) != "action was not executed",
    )


def _moment(message: dict[str, Any]) -> float | None:
    extra = maybe_map(message.get("extra"))
    return seconds(extra.get("timestamp", message.get("timestamp")))


def _created(message: dict[str, Any]) -> float | None:
    return maybe_number(maybe_map(maybe_map(message.get("extra")).get("response")).get("created"))
