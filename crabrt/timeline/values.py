"""Stored arguments, results and messages as people and programs read them: without their types.

Values are plain msgpack; what JSON has no type for is a map ``{"$crab": [tag, value]}``. A reader
needs no class of the application: a tagged value is shown as ``tag(value)``.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec

from crabrt.core.secrets import redact_text
from crabrt.errors import Damaged
from crabrt.timeline.safe_text import safe_text

MARK = "$crab"
_PAIR = 2
_DEPTH_MAX = 300  # what lies deeper is not shown: nobody reads it, and the stack has an end


def decode(data: bytes) -> Any:
    """The plain value in `data`: JSON types and bytes, tags still in their marks.

    Raises:
        Damaged: it is not msgpack.
    """
    try:
        return msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"a stored value cannot be decoded: {error}") from error


def decode_to_show(data: bytes) -> Any:
    """The same, with what is shaped like a token or a private key replaced in all text.

    Raises:
        Damaged: it is not msgpack.
    """
    return _redacted(decode(data))


def _redacted(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if depth > _DEPTH_MAX:  # nothing shows what lies deeper
        return "…"
    below = depth + 1
    if isinstance(value, dict):
        return {key: _redacted(item, below) for key, item in value.items()}
    return [_redacted(item, below) for item in value] if isinstance(value, list) else value


def jsonable(value: Any, depth: int = 0) -> Any:
    """`value` with JSON types only: bytes become ``{"$crab": ["base64", text]}``."""
    if depth > _DEPTH_MAX:
        return {MARK: ["unencodable", "nested too deep"]}
    if isinstance(value, bytes):
        return {MARK: ["base64", base64.b64encode(value).decode("ascii")]}
    if isinstance(value, dict):
        return {str(key): jsonable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, depth + 1) for item in value]
    if isinstance(value, msgspec.msgpack.Ext):
        return {MARK: ["ext", [value.code, base64.b64encode(value.data).decode("ascii")]]}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


def readable(value: Any) -> str:
    """`value` as safe text of one or more lines; a bare string is shown as it is."""
    return safe_text(value if isinstance(value, str) else _term(value), lines=True)


def arguments(value: Any) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of a stored call.

    A call is stored as one map of names to values. What went to ``*args``, or could not be bound to
    names, is a tuple under ``args`` before all others; anything else there is a parameter of that
    name. A pair of a list and a map is read, too, as is a value alone.
    """
    plain = _untuple(value)
    if isinstance(plain, list):
        first = _untuple(plain[0]) if len(plain) == _PAIR else None
        if isinstance(first, list) and isinstance(plain[1], dict):
            return first, _named(plain[1])
        return plain, {}
    if not isinstance(plain, dict) or set(plain) == {MARK}:
        return [plain], {}
    name, given = next(iter(plain.items()), ("", None))
    if name == "args" and _is_tuple(given):
        return _untuple(given), _named({key: plain[key] for key in list(plain)[1:]})
    return [], _named(plain)


def _named(value: dict[Any, Any]) -> dict[str, Any]:
    """`value` with names that are text, whatever a store has there."""
    return {key if isinstance(key, str) else _term(key): item for key, item in value.items()}


def call_text(name: str, value: Any, limit: int = 100) -> str:
    """A call on one line: ``sh("make", retries=2)``."""
    positional, named = arguments(value)
    parts = [_term(item) for item in positional]
    parts += [f"{key}={_term(item)}" for key, item in named.items()]
    text = safe_text(f"{name}({', '.join(parts)})")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def message_text(message: Any) -> tuple[str, str]:
    """A message as (role, text): content parts joined, tool calls shown as calls."""
    message = chat_message(message)
    if not isinstance(message, dict):
        return "", readable(message)
    role = safe_text(str(message.get("role", "")))
    parts = [_content_text(message.get("content"))]
    for call in _list(message.get("tool_calls")):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            parts.append(f"-> {function.get('name')}({function.get('arguments')})")
        else:
            parts.append(f"-> {_term(call)}")
    known = {"role", "content", "tool_calls"}
    rest = {k: item for k, item in message.items() if k not in known and not _is_empty(item)}
    if rest:
        parts.append(_term(rest))
    return role, safe_text("\n".join(p for p in parts if p), lines=True)


def chat_message(value: Any) -> Any:
    """The message in a client's chat completion of one choice, whatever its class; else `value`."""
    inner = _fields(value)
    choices = inner.get("choices") if isinstance(inner, dict) else None
    choice = _fields(choices[0]) if isinstance(choices, list) and len(choices) == 1 else None
    message = _fields(choice.get("message")) if isinstance(choice, dict) else None
    if not isinstance(message, dict) or "role" not in message:
        return value
    return {name: _plain_fields(part) for name, part in message.items()}


def _fields(value: Any) -> Any:
    """The fields of a stored object, by name; any other value as it is."""
    inner = value
    if isinstance(inner, dict) and set(inner) == {MARK}:
        marked = inner[MARK]
        inner = marked[-1] if isinstance(marked, list) and marked else None
    if isinstance(inner, dict) and isinstance(inner.get("fields"), dict):
        return inner["fields"]
    return inner


def _plain_fields(value: Any, depth: int = 0) -> Any:
    """`value` with the objects in it as what their fields are."""
    if depth > _DEPTH_MAX:
        return value
    if isinstance(value, dict) and set(value) == {MARK}:
        inner = _fields(value)
        return _plain_fields(inner, depth + 1) if isinstance(inner, dict) else value
    if isinstance(value, dict):
        return {name: _plain_fields(part, depth + 1) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain_fields(part, depth + 1) for part in value]
    return value


def _is_empty(value: Any) -> bool:
    """Whether nothing is said by `value`: None, or a map to nothing but None."""
    if isinstance(value, dict):
        return all(item is None for item in value.values())
    return value is None


def _content_text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [
            part["text"]
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else _term(part)
            for part in content
        ]
        return "\n".join(texts)
    return _term(content)


def _list(value: Any) -> list[Any]:
    value = _untuple(value)
    return value if isinstance(value, list) else []


def _untuple(value: Any) -> Any:
    """The items of a stored tuple, as a list; any other value as it is."""
    return value[MARK][-1] if _is_tuple(value) else value


def _is_tuple(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {MARK}:
        return False
    marked = value[MARK]
    return isinstance(marked, list) and marked[:1] == ["tuple"] and isinstance(marked[-1], list)


def _term(value: Any, depth: int = 0) -> str:
    if depth > _DEPTH_MAX:
        return "…"
    below = depth + 1
    if isinstance(value, dict):
        if set(value) == {MARK} and isinstance(value[MARK], list) and len(value[MARK]) == 2:
            tag, inner = value[MARK]
            return f"{tag}({_term(inner, below)})"
        pairs = (f"{_term(k, below)}: {_term(v, below)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_term(item, below) for item in value) + "]"
    if isinstance(value, bytes):
        return repr(value)
    if isinstance(value, msgspec.msgpack.Ext):
        return f"ext{value.code}({value.data!r})"
    if value is None or isinstance(value, str | bool | int | float):
        return json.dumps(value, ensure_ascii=False)
    return str(value)  # a timestamp: the one other type that msgpack knows
