"""A scripted language model: the same replies, with the same waits, whoever asks how often.

Which reply is due is told by the conversation alone: it is the one after as many replies as the
request contains. So a loop that is killed and run again gets the answers it got before, and a
request that is sent twice gets the same answer twice.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec


class ToolCall(msgspec.Struct, frozen=True):
    """A tool that the model wants called.

    Attributes:
        name: of the tool.
        arguments: JSON values by name.
    """

    name: str
    arguments: dict[str, Any] = {}


class Reply(msgspec.Struct, frozen=True):
    """One reply of the script.

    Attributes:
        content: the text, None for a reply of tool calls only.
        tool_calls: in order.
        wait_s: how long the model thinks.
        tokens_in, tokens_out: what it claims to have used.
    """

    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    wait_s: float = 0.0
    tokens_in: int = 100
    tokens_out: int = 20

    def message(self, number: int) -> dict[str, Any]:
        """The assistant's message as OpenAI's chat API has it; ids derive from `number`."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": f"call_{number}_{index}",
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": json.dumps(call.arguments, sort_keys=True),
                    },
                }
                for index, call in enumerate(self.tool_calls)
            ]
        return message


class ScriptEnded(Exception):
    """The conversation has more replies than the script."""


def parse_script(data: bytes | str) -> tuple[Reply, ...]:
    """A script from JSON: a list of replies.

    Raises:
        ValueError: it is no such list.
    """
    try:
        return msgspec.json.decode(data, type=tuple[Reply, ...])
    except msgspec.DecodeError as error:
        raise ValueError(f"not a script of replies: {error}") from error


def dump_script(replies: Iterable[Reply]) -> bytes:
    """The JSON that `parse_script` reads."""
    return msgspec.json.encode(tuple(replies))


def replies_so_far(messages: Sequence[Mapping[str, Any]]) -> int:
    """How many replies a conversation contains."""
    return sum(message.get("role") == "assistant" for message in messages)


class ScriptedModel:
    """A model to call: ``model(messages)`` gives the assistant's message that is due.

    Attributes:
        script: its replies.
        requests: every conversation it was asked about, as it was then.

    Args:
        script: the replies; a plain string is a reply of that text.
        wait: how it waits; a test may pass something that does not.
    """

    def __init__(
        self,
        script: Iterable[Reply | str],
        *,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.script = tuple(Reply(item) if isinstance(item, str) else item for item in script)
        self.requests: list[list[dict[str, Any]]] = []
        self._wait = wait if wait is not None else threading.Event().wait

    def reply(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, Reply]:
        """Which reply is due, and that reply.

        Raises:
            ScriptEnded: there is none left.
        """
        number = replies_so_far(messages)
        if number >= len(self.script):
            raise ScriptEnded(f"the script has {len(self.script)} replies, number {number} is due")
        return number, self.script[number]

    def __call__(
        self, messages: Sequence[Mapping[str, Any]], **_parameters: object
    ) -> dict[str, Any]:
        """The assistant's message that is due, after its wait.

        Raises:
            ScriptEnded: there is none left.
        """
        self.requests.append([dict(message) for message in messages])
        number, reply = self.reply(messages)
        if reply.wait_s > 0:
            self._wait(reply.wait_s)
        return reply.message(number)
