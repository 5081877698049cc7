"""litellm's replies, stream pieces and exceptions as values that a journal can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import litellm
from litellm import exceptions
from litellm.types.utils import ModelResponse, ModelResponseStream, Usage

import crabrt

_SCALARS = (type(None), bool, int, float, str, bytes)


def register() -> None:
    """Teach crabrt the classes; doing it again changes nothing."""
    for cls in (ModelResponse, ModelResponseStream, Usage):
        crabrt.register_codec(cls, f"litellm.{cls.__name__}", _encode_reply, _reply_decoder(cls))
    for name, member in sorted(vars(exceptions).items()):
        if isinstance(member, type) and issubclass(member, Exception):
            tag = f"litellm.exceptions.{name}"
            if member.__module__ == exceptions.__name__ and member.__name__ == name:
                crabrt.register_codec(member, tag, _encode_error, _error_decoder(member))


def usage_of(reply: Any) -> crabrt.Usage:
    """Tokens and cost, as far as a reply (or the list of a stream's pieces) says."""
    pieces = reply if isinstance(reply, list) else [reply]
    usage = next((u for p in reversed(pieces) if (u := getattr(p, "usage", None))), None)
    if usage is None:
        return crabrt.Usage()
    tokens_in = getattr(usage, "prompt_tokens", None)
    tokens_out = getattr(usage, "completion_tokens", None)
    return crabrt.Usage(tokens_in, tokens_out, _cost_of(pieces[-1], tokens_in, tokens_out))


def _cost_of(reply: Any, tokens_in: int | None, tokens_out: int | None) -> float | None:
    hidden = getattr(reply, "_hidden_params", None) or {}
    cost = hidden.get("response_cost")
    if cost is not None:
        return float(cost)
    model = getattr(reply, "model", None)
    price = litellm.model_cost.get(model) if isinstance(model, str) else None
    if price is None:
        return None  # a model without a known price; guessing would be worse than nothing
    return float(
        (tokens_in or 0) * (price.get("input_cost_per_token") or 0)
        + (tokens_out or 0) * (price.get("output_cost_per_token") or 0)
    )


def _encode_reply(reply: Any) -> dict[str, Any]:
    # The public part is what pydantic dumps. The rest are attributes that litellm adds beside it
    # (cost, headers, ids): loops read some of them, and two replies are equal only if they are.
    private = {name: _plain(value) for name, value in (reply.__pydantic_private__ or {}).items()}
    return {"fields": reply.model_dump(round_trip=True), "private": private}


def _reply_decoder(cls: Any) -> Callable[[Any], Any]:
    def decode(parts: Any) -> Any:
        reply = cls.model_validate(parts["fields"])
        for name in reply.__pydantic_private__ or {}:
            if name in parts["private"]:
                setattr(reply, name, parts["private"][name])
        return reply

    return decode


def _encode_error(error: BaseException) -> dict[str, Any]:
    return {"args": _plain(list(error.args)), "state": _plain(error.__dict__)}


def _error_decoder(cls: type[Exception]) -> Callable[[Any], Exception]:
    # Not by its constructor: each of these classes wants other arguments, some of them live HTTP
    # responses. What could not be kept (the response, its request) is there, and None.
    def decode(parts: Any) -> Exception:
        error = cls.__new__(cls)
        error.args = tuple(parts["args"])
        error.__dict__.update(parts["state"])
        return error

    return decode


def _plain(value: Any) -> Any:
    """`value` with None in the place of whatever is neither a scalar nor made of such.

    A `Usage` stays: litellm puts one among the hidden attributes of a stream's last piece.
    """
    if type(value) in _SCALARS or type(value) is Usage:
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None
