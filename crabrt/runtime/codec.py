"""Values to bytes and back, exactly, without ever running code that a store names.

Encoded values are plain msgpack, so anybody can read a journal. What JSON has no type for is a map
of one key, ``{"$crab": [tag, value]}``. Built-in tags cover tuples, sets, times, paths and the
like (``standard``). A dataclass, msgspec struct, pydantic model or enum (``structured``) is tagged
by its name, and comes back only if the caller *knows* the class: from a return annotation,
``returns=``, ``raises=``, or `Codecs.register`. Nothing is imported by a name found in a store.

Exactness beats convenience: a value that would come back as something else (a subclass of ``dict``,
say) is refused with `NotEncodable`, which names the place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from crabrt.errors import Damaged
from crabrt.runtime.standard import STANDARD, Codec, Inexact, NotEncodable
from crabrt.runtime.structured import parts_of, rebuild, type_tag

MARK = "$crab"

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder()
_INT64 = range(-(1 << 63), 1 << 64)
_DEPTH_MAX = 200

Known = Mapping[str, type]
"""Classes that may come back, by tag."""


class Codecs:
    """The registered codecs of a process (one instance serves all its runs)."""

    def __init__(self) -> None:
        self._by_type: dict[type, Codec] = {codec.type: codec for codec in STANDARD}
        self._by_tag: dict[str, Codec] = {codec.tag: codec for codec in STANDARD}

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

    def of(self, cls: type) -> Codec | None:
        """The codec that values of exactly `cls` have."""
        return self._by_type.get(cls)

    def tagged(self, tag: str) -> Codec | None:
        """The codec that is stored as `tag`."""
        return self._by_tag.get(tag)

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
            raise NotEncodable(f"{type(value).__qualname__}: {described(error)}") from error

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
        try:
            if codec is not None:
                inner = codec.encode(value)
                return {MARK: [codec.tag, self._plain(inner, known, path, depth + 1)]}
            parts = parts_of(value, exact=known is not None)
        except Inexact as problem:
            raise NotEncodable(f"{path}: {problem}") from problem
        tag = type_tag(cls)
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
        return rebuild(cls, inner)


_BUILTIN: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "str": lambda raw: raw.decode("utf-8", "surrogatepass"),
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": lambda pairs: {k: v for k, v in pairs},  # noqa: C416  pairs are lists, not tuples
}


def described(error: BaseException) -> str:
    """What `error` says, whatever its class does when asked."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  its class is the user's
        return f"({type(error).__qualname__}, which cannot say what it is)"


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
