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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from blake3 import blake3

from crabrt.core.secrets import without_secrets
from crabrt.runtime.codec import Codecs
from crabrt.runtime.messages import Message, Messages, canonical

_MESSAGE_ARGUMENTS = ("messages", "input")
_PLAIN = msgspec.msgpack.Decoder()


@dataclasses.dataclass(frozen=True)
class Asked:
    """The request of one call.

    Attributes:
        arguments: encoded arguments, without the messages (readable, not always decodable).
        digest: 16 bytes; equal requests have equal digests.
        messages: the messages, or None where the call has none.
        model: the name of the model, where it is an argument.
    """

    arguments: bytes
    digest: bytes
    messages: tuple[Message, ...] | None = None
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
    codecs: Codecs, named: Mapping[str, Any], *, key: Any = None, known: Messages | None = None
) -> Asked:
    """The request that `named` arguments make.

    Args:
        codecs: how values are stored.
        named: arguments by name.
        key: stands for the arguments in the digest, where the user gave a ``key=`` function.
        known: of a model call, whose messages are stored one by one: those its run knows.
    """
    name, messages = _messages(named, known) if known is not None else (None, None)
    rest = without_secrets({k: v for k, v in named.items() if k != name})
    arguments = codecs.encode_readable(rest)
    if key is not None:
        seen = canonical(codecs, key)
    elif messages is None:
        seen = canonical(codecs, rest)
    else:
        seen = _seen(codecs, messages, named)
    model = named.get("model")
    return Asked(
        arguments, blake3(seen).digest(16), messages, model if isinstance(model, str) else None
    )


def _seen(codecs: Codecs, messages: Sequence[Message], named: Mapping[str, Any]) -> bytes:
    """The canonical encoding of ``{"messages": ..., "model": ..., "tools": ...}``."""
    others = canonical(codecs, {"model": named.get("model"), "tools": named.get("tools")})
    head = b"\x83" + msgspec.msgpack.encode("messages") + _array_header(len(messages))
    return b"".join([head, *[message.visible for message in messages], others[1:]])


def _array_header(length: int) -> bytes:
    """How msgpack begins a list of `length` items."""
    if length < 16:
        return bytes([0x90 | length])
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def _messages(
    named: Mapping[str, Any], known: Messages
) -> tuple[str, tuple[Message, ...]] | tuple[None, None]:
    for name in _MESSAGE_ARGUMENTS:
        value = named.get(name)
        if isinstance(value, list) and value:
            messages = known.read(value)
            if messages is not None:
                return name, messages
    return None, None


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
