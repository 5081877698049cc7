"""What a call was asked: its arguments for the journal, and the digest that tells requests apart.

The default digest covers the arguments without ``self``. Of a list of messages it covers only what
a model sees (role, content, tool calls, ids, names), and beside the messages only ``model`` and
``tools``: loops put timestamps and counters into their messages, and a resumed run must not be
taken for another because a clock moved. Keys and tokens among the arguments are neither stored nor
compared (``core.secrets``).
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from blake3 import blake3

from crabrt.core.secrets import without_secrets
from crabrt.runtime.codec import Codecs

_MESSAGE_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name")
_MESSAGE_ARGUMENTS = ("messages", "input")
_CANONICAL = msgspec.msgpack.Encoder(order="sorted")
_PLAIN = msgspec.msgpack.Decoder()


@dataclasses.dataclass(frozen=True)
class Asked:
    """The request of one call.

    Attributes:
        arguments: encoded arguments, without the messages (readable, not always decodable).
        digest: 16 bytes; equal requests have equal digests.
        messages: the encoded messages, or None where the call has none.
        model: the name of the model, where it is an argument.
    """

    arguments: bytes
    digest: bytes
    messages: tuple[bytes, ...] | None = None
    model: str | None = None


class Binder:
    """Binds calls of one function to its parameter names."""

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except (TypeError, ValueError):  # some callables written in C have none
            self._signature = None

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, without ``self``; unbindable calls are kept as ``args``."""
        if self._signature is None:
            return {"args": args, **kwargs}
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError:  # the call itself will raise it, with the function's own message
            return {"args": args, **kwargs}
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                named |= value
            elif name != "self":
                named[name] = value
        return named


def ask(
    codecs: Codecs, named: Mapping[str, Any], *, key: Any = None, split_messages: bool = False
) -> Asked:
    """The request that `named` arguments make.

    Args:
        codecs: how values are stored.
        named: arguments by name.
        key: stands for the arguments in the digest, where the user gave a ``key=`` function.
        split_messages: whether this is a model call, whose messages are stored one by one.
    """
    messages = _messages(named) if split_messages else None
    rest = without_secrets({k: v for k, v in named.items() if messages is None or k != messages[0]})
    arguments = codecs.encode_readable(rest)
    encoded = (
        None
        if messages is None
        else tuple(codecs.encode_readable(message) for message in messages[1])
    )
    if key is not None:
        seen: Any = key
    elif messages is None:
        seen = rest
    else:
        seen = {
            "messages": [_visible(message) for message in messages[1]],
            "model": named.get("model"),
            "tools": named.get("tools"),
        }
    canonical = _CANONICAL.encode(_PLAIN.decode(codecs.encode_readable(seen)))
    model = named.get("model")
    return Asked(
        arguments,
        blake3(canonical).digest(16),
        encoded,
        model if isinstance(model, str) else None,
    )


def _messages(named: Mapping[str, Any]) -> tuple[str, list[Any]] | None:
    for name in _MESSAGE_ARGUMENTS:
        value = named.get(name)
        if (
            isinstance(value, list)
            and value
            and all(_role(message) is not None for message in value)
        ):
            return name, value
    return None


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else getattr(message, "role", None)


def _visible(message: Any) -> dict[str, Any]:
    if isinstance(message, Mapping):
        return {key: message[key] for key in _MESSAGE_KEYS if message.get(key) is not None}
    found = ((key, getattr(message, key, None)) for key in _MESSAGE_KEYS)
    return {key: value for key, value in found if value is not None}


def difference(before: bytes, after: bytes) -> str:
    """A readable diff of two encoded requests."""

    def lines(data: bytes) -> list[str]:
        plain = _PLAIN.decode(data)
        return json.dumps(plain, indent=2, sort_keys=True, default=repr, ensure_ascii=False).split(
            "\n"
        )

    diff = difflib.unified_diff(
        lines(before), lines(after), "recorded", "asked now", lineterm="", n=2
    )
    return "\n".join(diff)
