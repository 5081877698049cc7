"""Values to bytes and back, exactly, without ever running code that a store names.

Encoded values are plain msgpack, so anybody can read a journal. What JSON has no type for is a map
of one key, ``{"$crab": [tag, value]}``. Built-in tags cover tuples, sets, times, paths and the
like. A dataclass, msgspec struct, pydantic model or enum is tagged by its name, and comes back only
if the caller *knows* the class: from a return annotation, ``returns=``, ``raises=``, or
`Codecs.register`. Nothing is ever imported by a name found in a store.

Exactness beats convenience: a value that would come back as something else (a subclass of ``dict``,
say) is refused with `NotEncodable`, which names the place.
"""

from __future__ import annotations

import builtins
import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from crabrt.core.entries import Failure, Payload
from crabrt.errors import Damaged, InDoubt, NotDurable, ReplayedError, Unprotected

MARK = "$crab"

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder()
_INT64 = range(-(1 << 63), 1 << 64)
_DEPTH_MAX = 200

Known = Mapping[str, type]
"""Classes that may come back, by tag."""


class NotEncodable(Exception):
    """A value, or a part of it, that would not come back as it was. Says which part and why."""


@dataclasses.dataclass(frozen=True)
class Codec:
    """How values of one class are stored: `encode` to something encodable, `decode` back."""

    type: type
    tag: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_SIMPLE: tuple[Codec, ...] = (
    Codec(bytearray, "bytearray", bytes, bytearray),
    Codec(complex, "complex", lambda v: [v.real, v.imag], lambda v: complex(*v)),
    Codec(dt.datetime, "datetime", dt.datetime.isoformat, dt.datetime.fromisoformat),
    Codec(dt.date, "date", dt.date.isoformat, dt.date.fromisoformat),
    Codec(dt.time, "time", dt.time.isoformat, dt.time.fromisoformat),
    Codec(
        dt.timedelta,
        "timedelta",
        lambda v: [v.days, v.seconds, v.microseconds],
        lambda v: dt.timedelta(*v),
    ),
    Codec(decimal.Decimal, "decimal", str, decimal.Decimal),
    Codec(uuid.UUID, "uuid", str, uuid.UUID),
    Codec(pathlib.PosixPath, "path", str, pathlib.PosixPath),
    Codec(pathlib.PurePosixPath, "purepath", str, pathlib.PurePosixPath),
)


class Codecs:
    """The registered codecs of a process (one instance serves all its runs)."""

    def __init__(self) -> None:
        self._by_type: dict[type, Codec] = {codec.type: codec for codec in _SIMPLE}
        self._by_tag: dict[str, Codec] = {codec.tag: codec for codec in _SIMPLE}

    def register(
        self, cls: type, tag: str, encode: Callable[[Any], Any], decode: Callable[[Any], Any]
    ) -> None:
        """Store values of exactly `cls` under `tag`.

        Args:
            cls: the class; subclasses need a codec of their own.
            tag: a stable name; it is what the store holds.
            encode: value -> something encodable.
            decode: what `encode` gave -> the value.

        Raises:
            ValueError: the tag belongs to another class.
        """
        held = self._by_tag.get(tag)
        if held is not None and held.type is not cls:
            raise ValueError(f"tag {tag!r} is taken by {held.type.__qualname__}")
        self._by_type[cls] = self._by_tag[tag] = Codec(cls, tag, encode, decode)

    def encode(self, value: Any, known: Known = {}) -> bytes:  # noqa: B006  never mutated
        """The bytes of `value`.

        Raises:
            NotEncodable: a part of it would not come back as it was.
        """
        try:
            return _ENCODER.encode(self._plain(value, known, "value", 0))
        except NotEncodable:
            raise
        except Exception as error:
            raise NotEncodable(f"{type(value).__qualname__}: {_described(error)}") from error

    def encode_readable(self, value: Any) -> bytes:
        """The bytes of `value` for people and digests; what can't be encoded is a note."""
        try:
            return _ENCODER.encode(self._plain(value, None, "value", 0))
        except Exception:  # noqa: BLE001  the user's classes have a say in their parts
            return _ENCODER.encode({MARK: ["unencodable", type(value).__qualname__]})

    def decode(self, data: bytes, known: Known = {}) -> Any:  # noqa: B006  never mutated
        """The value that `encode` was given.

        Raises:
            NotEncodable: it holds a class that is not known here.
            Damaged: the bytes are not an encoded value.
        """
        try:
            plain = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Damaged(f"a stored value cannot be decoded: {error}") from error
        return self._value(plain, known)

    def _plain(self, value: Any, known: Known | None, path: str, depth: int) -> Any:
        cls = type(value)
        if value is None or cls is bool or cls is float or cls is bytes:
            return value
        if cls is int:
            return value if value in _INT64 else {MARK: ["int", str(value)]}
        if cls is str:
            return (
                value
                if _is_utf8(value)
                else {MARK: ["str", value.encode("utf-8", "surrogatepass")]}
            )
        if depth > _DEPTH_MAX:
            if known is None:
                return {MARK: ["unencodable", "nested too deep"]}
            raise NotEncodable(f"{path[:60]}... is nested more than {_DEPTH_MAX} levels deep")
        if cls is list or cls is tuple:
            items = [self._plain(v, known, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)]
            return items if cls is list else {MARK: ["tuple", items]}
        if cls is dict:
            return self._plain_dict(value, known, path, depth)
        if cls is set or cls is frozenset:
            items = [self._plain(v, known, f"{path}{{}}", depth + 1) for v in value]
            return {MARK: [cls.__name__, sorted(items, key=_ENCODER.encode)]}
        return self._plain_object(value, known, path, depth)

    def _plain_dict(self, value: dict[Any, Any], known: Known | None, path: str, depth: int) -> Any:
        if all(type(k) is str and _is_utf8(k) for k in value) and MARK not in value:
            return {k: self._plain(v, known, f"{path}[{k!r}]", depth + 1) for k, v in value.items()}
        pairs = [
            [
                self._plain(k, known, f"{path} key", depth + 1),
                self._plain(v, known, f"{path}[{k!r}]", depth + 1),
            ]
            for k, v in value.items()
        ]
        return {MARK: ["dict", pairs]}

    def _plain_object(self, value: Any, known: Known | None, path: str, depth: int) -> Any:
        cls = type(value)
        codec = self._by_type.get(cls)
        if codec is not None:
            return {MARK: [codec.tag, self._plain(codec.encode(value), known, path, depth + 1)]}
        tag = type_tag(cls)
        parts = _parts(value)
        if parts is None or (known is not None and known.get(tag) is not cls):
            if known is None:
                if parts is None:
                    return {MARK: ["unencodable", cls.__qualname__]}
            else:
                how = "name it in the return annotation or in returns=," if parts else "use"
                raise NotEncodable(f"{path} is a {cls.__qualname__}: {how} crabrt.register_codec")
        return {MARK: [tag, self._plain(parts, known, f"{path}.", depth + 1)]}

    def _value(self, plain: Any, known: Known) -> Any:
        if type(plain) is list:
            return [self._value(v, known) for v in plain]
        if type(plain) is not dict:
            return plain
        if MARK not in plain:
            return {k: self._value(v, known) for k, v in plain.items()}
        marked = plain[MARK]
        if type(marked) is not list or len(marked) != 2 or type(marked[0]) is not str:
            raise Damaged("a stored value has a malformed mark")
        tag, inner = marked
        try:
            return self._tagged(tag, self._value(inner, known), known)
        except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError) as error:
            raise Damaged(f"a stored {tag!r} cannot be rebuilt: {error}") from error

    def _tagged(self, tag: str, inner: Any, known: Known) -> Any:
        builtin = _BUILTIN.get(tag)
        if builtin is not None:
            return builtin(inner)
        codec = self._by_tag.get(tag)
        if codec is not None:
            return codec.decode(inner)
        cls = known.get(tag)
        if cls is None:
            raise NotEncodable(
                f"it holds a {tag}, which is not known here: name the class in the return"
                " annotation, in returns= or raises=, or use crabrt.register_codec"
            )
        return _rebuild(cls, inner)

    def seal_exception(self, error: BaseException, known: Known) -> Failure:
        """`error` as the journal keeps it; state that can't be encoded is left out and named."""
        codec = self._by_type.get(type(error))
        try:
            # Of an OSError, `args` does not have the file's name.
            args = error.__reduce__()[1] if isinstance(error, OSError) else error.args
            state = {"args": args, "dict": dict(error.__dict__)}
            inner = codec.encode(error) if codec else state
            payload = Payload(inline=self.encode(inner, known))
        except NotEncodable as problem:
            payload = Payload(missing=str(problem))
        return Failure(codec.tag if codec else type_tag(type(error)), _described(error), payload)

    def revive_exception(
        self, failure: Failure, state: bytes | None, known: Known
    ) -> BaseException:
        """The exception that `failure` sealed, or `ReplayedError` where its class is not known.

        Args:
            failure: what the journal holds.
            state: the encoded state, or None where there is none.
            known: classes that may come back (``raises=``); built-in exceptions always may.
        """
        if state is not None:
            try:
                inner = self.decode(state, known)
                codec = self._by_tag.get(failure.tag)
                if codec is not None:
                    return typing.cast("BaseException", codec.decode(inner))
                cls = known.get(failure.tag) or _OURS.get(failure.tag)
                if cls is not None and issubclass(cls, BaseException):
                    revived = cls.__new__(cls, *inner["args"])
                    if not isinstance(revived, OSError):  # those keep theirs from the start
                        revived.args = inner["args"]
                    revived.__dict__.update(inner["dict"])
                    return revived
                cls = getattr(builtins, failure.tag, None)
                if isinstance(cls, type) and issubclass(cls, BaseException):
                    revived = cls(*inner["args"])  # some keep what they say outside of `args`
                    revived.__dict__.update(inner["dict"])
                    return revived
            except (NotEncodable, TypeError, KeyError, ValueError):
                return ReplayedError(failure.tag, failure.message)
        return ReplayedError(failure.tag, failure.message)


_BUILTIN: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "str": lambda raw: raw.decode("utf-8", "surrogatepass"),
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": lambda pairs: {k: v for k, v in pairs},  # noqa: C416  pairs are lists, not tuples
}


def _described(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  its class is the user's
        return f"({type(error).__qualname__}, which cannot say what it is)"


def type_tag(cls: type) -> str:
    """The tag of a class that has no codec of its own: module and name, a label and no more."""
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


_OURS = {type_tag(cls): cls for cls in (NotDurable, Unprotected, InDoubt)}
"""Errors of this package that a loop may have met at a call, and meets again on a replay."""


def known_classes(hints: Iterable[Any]) -> dict[str, type]:
    """Every class that annotations (and classes) in `hints` mention, however deep, by tag."""
    found: dict[str, type] = {}
    todo = list(hints)
    while todo:
        hint = todo.pop()
        todo.extend(typing.get_args(hint))
        cls = typing.get_origin(hint) or hint
        if not isinstance(cls, type) or cls.__module__ == "builtins":
            continue
        if type_tag(cls) in found:
            continue
        if issubclass(cls, BaseException) or _is_structured(cls):
            found[type_tag(cls)] = cls
            todo.extend(_field_hints(cls))
    return found


def _is_structured(cls: type) -> bool:
    return (
        dataclasses.is_dataclass(cls)
        or issubclass(cls, msgspec.Struct | enum.Enum)
        or hasattr(cls, "model_fields")
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    )


def _field_hints(cls: type) -> list[Any]:
    try:
        return list(typing.get_type_hints(cls).values())
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        return []


def _parts(value: Any) -> Any:
    """What an instance of a structured class is made of, or None for any other object."""
    cls = type(value)
    if not _is_structured(cls):
        return None
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return list(value)
    if hasattr(cls, "model_fields"):
        return value.model_dump(mode="python", round_trip=True)
    return {
        f.name: getattr(value, f.name) for f in dataclasses.fields(value) if hasattr(value, f.name)
    }


def _rebuild(cls: Any, inner: Any) -> Any:
    if issubclass(cls, enum.Enum):
        return cls(inner)
    if issubclass(cls, msgspec.Struct):
        return cls(**inner)
    if issubclass(cls, tuple):
        return cls(*inner)
    if hasattr(cls, "model_fields"):
        return cls.model_validate(inner)
    made = cls.__new__(cls)
    for name, part in inner.items():
        object.__setattr__(made, name, part)
    return made


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
