"""The conversation of a run up to a state, as values that need no class of the application."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crabrt.core.content import piece_ids
from crabrt.core.entries import CallId, Intent, Payload, Request, Response, Result
from crabrt.core.ports import ObjectReader
from crabrt.errors import NotFound
from crabrt.journal import read_journal
from crabrt.store.contents import read_bytes


@dataclass(frozen=True)
class ToolOutcome:
    """A tool call after the last reply; arguments and result encoded, None where there are none."""

    name: str
    arguments: bytes | None
    result: bytes | None
    error: str | None


@dataclass(frozen=True)
class Conversation:
    """What the model had been told, and what it answered. Values are encoded (msgpack).

    Attributes:
        messages: the messages of the last request that belongs to the state.
        request: its arguments, where no messages could be told apart.
        reply: what the model answered, or None.
        results: the tool calls that followed the reply.
    """

    messages: tuple[bytes, ...]
    request: bytes | None
    reply: bytes | None
    results: tuple[ToolOutcome, ...]


def conversation_at(reader: ObjectReader, run_directory: Path, position: int) -> Conversation:
    """The conversation as of journal entry `position`.

    Raises:
        NotFound: no model had been asked yet.
        DamagedJournal, DamagedObject: part of it cannot be read.
    """
    request: Request | None = None
    reply: Response | None = None
    intents: dict[CallId, Intent] = {}
    results: dict[CallId, Result] = {}
    for record in read_journal(run_directory):
        if record.entry.seq > position:
            break
        match record.body:
            case Request() as body:
                request, reply = body, None
                intents, results = {}, {}
            case Response() as body:
                if request is not None and body.call == request.call:
                    reply = body
            case Intent() as body:
                intents[body.call] = body
            case Result() as body:
                results[body.call] = body
            case _:
                continue
    if request is None:
        raise NotFound("no model had been asked yet", where=run_directory.name)
    messages: tuple[bytes, ...] = ()
    if request.messages is not None:
        messages = tuple(reader.get(i) for i in piece_ids(request.messages, reader.get))
    return Conversation(
        messages,
        None if messages else payload_bytes(request.arguments, reader),
        None if reply is None else payload_bytes(reply.result, reader),
        tuple(_outcome(intent, results.get(call), reader) for call, intent in intents.items()),
    )


def payload_bytes(payload: Payload, reader: ObjectReader) -> bytes | None:
    """The encoded bytes of a stored value; None where it could not be encoded.

    Raises:
        DamagedObject: they cannot be read back.
    """
    return payload.inline if payload.content is None else read_bytes(payload.content, reader)


def _outcome(intent: Intent, result: Result | None, reader: ObjectReader) -> ToolOutcome:
    failure = None if result is None else result.failure
    return ToolOutcome(
        intent.call.callable,
        payload_bytes(intent.arguments, reader),
        None if result is None else payload_bytes(result.result, reader),
        None if failure is None else f"{failure.tag}: {failure.message}",
    )
