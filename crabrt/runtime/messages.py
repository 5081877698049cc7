"""What a model is told, message by message: what this run has told one before is not stored again.

A conversation grows by a message or two a turn and is sent whole each time. So that a turn costs
what it adds, each message is encoded, hashed and put once; from then on it is known by the hash of
its `marshal` form. That form says all a message of plain values consists of (exact types, order,
every bit; version 2 has no back references), and is made anew at every call: a message that was
changed in place, however deep, is another one. Clients' messages that are pydantic models have it
by their state. Objects of other classes have none: they are encoded at every call, and only not put
again.

An id is believed as long as an entry of this journal names it (collection then keeps the object)
and no write of the store was lost since.

Memory: about twice what the messages of the last few requests take encoded.
"""

from __future__ import annotations

import marshal
import os
import threading
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from xxhash import xxh3_128_digest

from crabrt.core.content import Content, build
from crabrt.core.ids import Buffer, ObjectId, ObjectKind
from crabrt.runtime.codec import MARK, Codecs
from crabrt.store import StoreWriter

_VISIBLE_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name")
_MARSHAL_VERSION = 2
_KEEP_AT_LEAST = 256
_ATOMS = frozenset({str, int, float, bool, type(None)})

_CANONICAL = msgspec.msgpack.Encoder(order="sorted")
_PLAIN = msgspec.msgpack.Decoder()


class Message:
    """One message.

    Attributes:
        encoded: all of it, as it is stored.
        visible: the canonical encoding of what a model sees of it.
        id: the object it is stored as, once an entry of this journal names it.
        age: how often all ids had been forgotten when it got this one.
    """

    __slots__ = ("age", "encoded", "id", "visible")

    def __init__(self, encoded: bytes, visible: bytes) -> None:
        self.encoded = encoded
        self.visible = visible
        self.id: ObjectId | None = None
        self.age = 0


class Told:
    """The messages of one request while it is written down: what their entry will name."""

    def __init__(self, age: int) -> None:
        self.age = age
        self.ids: dict[Message, ObjectId] = {}
        self.nodes: dict[bytes, ObjectId] = {}


class Messages:
    """The messages that the last requests of a run consisted of. Thread-safe."""

    def __init__(self, codecs: Codecs) -> None:
        self._codecs = codecs
        self._lock = threading.Lock()
        self._seed = int.from_bytes(os.urandom(8), "big")  # nobody can write a message to collide
        self._recent: dict[object, Message] = {}
        self._older: dict[object, Message] = {}
        self._nodes: dict[bytes, ObjectId] = {}
        self._classes: dict[type, int] = {}
        self._age = 0
        self._losses = 0

    def read(self, value: Sequence[Any]) -> tuple[Message, ...] | None:
        """`value` as messages, as they are at this moment; None if one of them has no role."""
        items = list(value)
        with self._lock:
            marks = self._marks(items)
            found = list(map(self._recent.get, marks))
            for at, message in enumerate(found):
                if message is None:
                    found[at] = met = self._meet(items[at], marks[at])
                    if met is None:
                        return None
            if len(self._recent) > 2 * len(found) + _KEEP_AT_LEAST:
                self._older, self._recent = self._recent, {}
        return tuple(typing.cast("list[Message]", found))

    def _marks(self, items: list[Any]) -> list[object]:
        """What each is known by; None for one that is not of plain values."""
        dumps, seed = marshal.dumps, self._seed
        try:  # of everything here this alone is done for every message at every call
            return [xxh3_128_digest(dumps(item, _MARSHAL_VERSION), seed) for item in items]
        except ValueError:
            return [self._mark(item) for item in items]

    def _mark(self, item: Any) -> object:
        try:
            if type(item) is dict:
                return xxh3_128_digest(marshal.dumps(item, _MARSHAL_VERSION), self._seed)
            state = marshal.dumps(self._state(item), _MARSHAL_VERSION)
            return xxh3_128_digest(state, self._seed ^ 1)  # never that of a plain value
        except (ValueError, AttributeError, RecursionError):  # models may lack parts of their state
            return None

    def _state(self, value: Any) -> Any:
        """`value` with each pydantic model in it as its class and its state: of plain values.

        Raises:
            ValueError: it holds something else.
        """
        cls = type(value)
        if cls in _ATOMS:
            return value
        if cls is dict:
            return {key: self._state(part) for key, part in value.items()}
        if cls is list:
            return [self._state(part) for part in value]
        if hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_fields"):
            number = self._classes.setdefault(cls, len(self._classes))
            beside = value.__pydantic_extra__, value.__pydantic_private__
            parts = [self._state(part) for part in (value.__dict__, *beside)]
            return (number, sorted(value.__pydantic_fields_set__), *parts)  # the only tuples here
        raise ValueError

    def _meet(self, item: Any, mark: object) -> Message | None:
        """A message that is not among the recent ones; None if it is no message."""
        message = self._older.get(mark)
        if message is None:
            if _role(item) is None:
                return None
            encoded = self._codecs.encode_readable(item)
            visible = self._visible(item, encoded)
            if mark is None or (type(item) is dict and _holds_bytes(item)):  # see there
                mark = (encoded, visible)
                message = self._recent.get(mark) or self._older.get(mark)
            message = message or Message(encoded, visible)
        self._recent[mark] = message
        return message

    def _visible(self, item: Any, encoded: bytes) -> bytes:
        plain = _PLAIN.decode(encoded) if type(item) is dict else {MARK: None}
        if MARK in plain:
            return canonical(self._codecs, _seen(item))
        return _CANONICAL.encode(_seen(plain))

    def put(self, messages: Sequence[Message], writer: StoreWriter) -> tuple[Content, Told]:
        """Store those that no entry names yet; their `Content`, whose pieces are the messages.

        Returns:
            The content, and what to tell `named` once an entry with it is written.

        Raises:
            StoreUnavailable: they cannot be written.
        """
        with self._lock:
            if writer.losses != self._losses:
                self._losses = writer.losses
                self._forget()
            told = Told(self._age)

            def put_node(data: Buffer, kind: ObjectKind) -> ObjectId:
                key = bytes(data)
                told.nodes[key] = self._nodes.get(key) or writer.put(key, kind)
                return told.nodes[key]

            ids = [message.id if message.age == told.age else None for message in messages]
            for at, known in enumerate(ids):
                if known is None:
                    message = messages[at]
                    put = told.ids.get(message) or writer.put(message.encoded)
                    ids[at] = told.ids[message] = put
            pieces = typing.cast("list[ObjectId]", ids)
            return build(len(messages), pieces, put_node), told

    def named(self, told: Told) -> None:
        """An entry of this journal names them: what it names stays."""
        with self._lock:
            if told.age != self._age:
                return
            for message, object_id in told.ids.items():
                message.id, message.age = object_id, told.age
            if told.nodes:
                self._nodes = told.nodes

    def forget(self) -> None:
        """The journal is another one: what this one names is not known."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._age += 1
        self._nodes = {}


def canonical(codecs: Codecs, value: Any) -> bytes:
    """The encoding of `value` that does not depend on the order of keys."""
    return _CANONICAL.encode(_PLAIN.decode(codecs.encode_readable(value)))


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else getattr(message, "role", None)


def _seen(message: Any) -> dict[str, Any]:
    if isinstance(message, Mapping):
        return {key: message[key] for key in _VISIBLE_KEYS if message.get(key) is not None}
    found = ((key, getattr(message, key, None)) for key in _VISIBLE_KEYS)
    return {key: value for key, value in found if value is not None}


def _holds_bytes(value: Any) -> bool:
    """Whether a value that `marshal` took has a buffer in it: of any type, it is bytes there.

    What `Messages._state` made has none.
    """
    if isinstance(value, dict):
        return any(_holds_bytes(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(_holds_bytes(part) for part in value)
    return not isinstance(value, str | int | float | complex | None)
