"""The conversation of a run up to a state, as JSON that any program can take up."""

from __future__ import annotations

import json
from typing import Any

from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome
from crabrt.core.ids import RunId
from crabrt.journal import run_dir
from crabrt.operations.conversations import Conversation, conversation_at
from crabrt.operations.targets import State
from crabrt.store import Store
from crabrt.timeline import values


def conversation_outcome(store: Store, state: State) -> Outcome:
    """The conversation of `state`; people get the same JSON, indented.

    Raises:
        NotFound: no model had been asked yet.
        Damaged: part of it cannot be read.
    """
    directory = run_dir(store.home, RunId(state.run.run))
    data = {"restored": state.name, **_fields(conversation_at(store, directory, state.position))}

    def text(out: Screen) -> None:
        out.line(json.dumps(data, indent=2))  # ASCII: control characters are escaped by JSON itself

    return Outcome(data, text)


def _fields(talk: Conversation) -> dict[str, Any]:
    return {
        "messages": [values.jsonable(values.decode(message)) for message in talk.messages],
        "request": _value(talk.request),
        "reply": _value(talk.reply),
        "results": [
            {
                "tool": outcome.name,
                "arguments": _value(outcome.arguments),
                "result": _value(outcome.result),
                "error": outcome.error,
            }
            for outcome in talk.results
        ],
    }


def _value(data: bytes | None) -> Any:
    return None if data is None else values.jsonable(values.decode(data))
