"""Values on their way into a trace: JSON types only, nothing secret, nothing endless.

A long text becomes ``{"$cut": {"chars", "blake3", "head", "tail"}}``; a text that was left out on
request ``{"$out": {"chars"}}`` (without a digest: a short text could be guessed from one). What
JSON has no type for keeps the mark that the journal gives it: ``{"$crab": [tag, value]}``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

import msgspec
from blake3 import blake3

from crabrt.core.secrets import redact_text, without_secrets
from crabrt.errors import Damaged

MARK, CUT, OUT = "$crab", "$cut", "$out"

_DEPTH_MAX = 300
_TAIL_CHARS = 200
_MAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


def decode(data: bytes) -> Any:
    """The plain value in stored bytes, tags still in their marks.

    Raises:
        Damaged: it is not msgpack.
    """
    try:
        return msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"a stored value cannot be decoded: {error}") from error


def jsonable(value: Any, depth: int = 0) -> Any:
    """`value` with JSON types only."""
    if depth > _DEPTH_MAX:
        return {MARK: ["unencodable", "nested too deep"]}
    if isinstance(value, bytes):
        return {MARK: ["base64", base64.b64encode(value).decode("ascii")]}
    if isinstance(value, dict):
        return {str(key): jsonable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, depth + 1) for item in value]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return {MARK: ["str", jsonable(value.encode("utf-8", "surrogatepass"))]}
        return value
    if value is None or isinstance(value, bool | int | float):
        return value
    return {MARK: ["unencodable", type(value).__name__]}


def revive(value: Any) -> Any:
    """What a tool was called with, from a trace's argument: marks of bytes, texts, paths, tuples.

    Raises:
        ValueError: a mark is malformed.
    """
    if isinstance(value, list):
        return [revive(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) != {MARK}:
        return {key: revive(item) for key, item in value.items()}
    marked = value[MARK]
    if not isinstance(marked, list) or len(marked) != 2:
        raise ValueError("a malformed mark")
    tag, inner = marked[0], revive(marked[1])
    if tag == "base64" and isinstance(inner, str):
        try:
            return base64.b64decode(inner, validate=True)
        except binascii.Error as error:
            raise ValueError("a malformed base64 mark") from error
    if tag == "str" and isinstance(inner, bytes):
        return inner.decode("utf-8", "surrogatepass")
    return inner


def map_text(value: Any, change: Callable[[str], Any]) -> Any:
    """`value` with `change` applied to every text in it (names of fields aside)."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: map_text(item, change) for key, item in value.items()}
    return [map_text(item, change) for item in value] if isinstance(value, list) else value


def without_tokens(value: Any) -> Any:
    """`value` without what lies under secret names or is shaped like a token or private key."""
    return map_text(without_secrets(value), redact_text)


def cut_text(text: str, limit: int) -> Any:
    """`text`, or its beginning and end with length and digest where it has over `limit` chars."""
    if len(text) <= limit:
        return text
    tail = min(_TAIL_CHARS, limit // 4)
    return {
        CUT: {
            "chars": len(text),
            "blake3": blake3(text.encode("utf-8", "surrogatepass")).hexdigest(),
            "head": text[: limit - tail],
            "tail": text[len(text) - tail :],
        }
    }


def cut(value: Any, limit: int) -> Any:
    """`value` with every long text in it cut; a value of too many parts becomes a cut of its JSON.

    Args:
        value: JSON types only.
        limit: characters; of one text, and (fourfold) of all of it.
    """
    short = map_text(value, lambda text: cut_text(text, limit))
    encoded = msgspec.json.encode(short)
    if len(encoded) <= 4 * limit + 1_000:
        return short
    return cut_text(encoded.decode(), limit)


def is_cut(value: Any) -> bool:
    """Whether something in `value` was cut or left out, so that the whole is not there."""
    if isinstance(value, dict):
        return CUT in value or OUT in value or any(is_cut(item) for item in value.values())
    return any(is_cut(item) for item in value) if isinstance(value, list) else False


def left_out(value: Any) -> Any:
    """In place of `value`: how long it is."""
    if value is None:
        return None
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return {OUT: {"chars": len(text)}}


class Renaming:
    """Renames the places and people that texts speak of, for a trace that is given away.

    Args:
        places: (directory, its new name), longest first where one lies in another.
    """

    def __init__(self, places: list[tuple[str, str]]) -> None:
        self._places = [(re.compile(boundary(old)), new) for old, new in places if len(old) > 1]

    def __call__(self, text: str) -> str:
        """`text` with every place and mail address renamed."""
        for pattern, new in self._places:
            text = pattern.sub(lambda _, new=new: new, text)  # type: ignore[misc]
        return _MAIL.sub("user@example.com", text)


def boundary(path: str) -> str:
    """A pattern for `path` where it stands as a path, or begins one; not where a name goes on."""
    before = r"(?:(?<![A-Za-z0-9._/-])|(?<=\s-[A-Za-z])|(?<=file://))"  # -I/path is one word, too
    return rf"{before}{re.escape(path)}(?![A-Za-z0-9_-]|\.[A-Za-z0-9])"
