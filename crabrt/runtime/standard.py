"""How values of the standard library are stored, exactly: times, numbers, paths, ids.

A time with a zone keeps the zone and its `fold`, not only the offset of the moment; a zone this
module does not know is refused, as is whatever else would come back as something else.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import pathlib
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

from crabrt.runtime.outcomes import Skipped


class NotEncodable(Exception):
    """A value, or a part of it, that would not come back as it was. Says which part and why."""


class Inexact(Exception):
    """A single value that its class's way of being stored would change. Says why."""


@dataclasses.dataclass(frozen=True)
class Codec:
    """How values of one class are stored: `encode` to something encodable, `decode` back."""

    type: type
    tag: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _is_iso(value: dt.datetime | dt.time) -> bool:
    """Whether the ISO form says it all: no zone, or a nameless offset."""
    zone = value.tzinfo
    nameless = type(zone) is dt.timezone and len(_offset_and_name(zone)) == 1
    return value.fold == 0 and (zone is None or nameless)


def _encode_moment(value: dt.datetime | dt.time) -> Any:
    if _is_iso(value):
        return value.isoformat()
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, value.tzinfo]


def _decode_datetime(stored: Any) -> dt.datetime:
    if isinstance(stored, str):
        return dt.datetime.fromisoformat(stored)
    text, fold, zone = stored
    return dt.datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _decode_time(stored: Any) -> dt.time:
    if isinstance(stored, str):
        return dt.time.fromisoformat(stored)
    text, fold, zone = stored
    return dt.time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _offset_and_name(zone: dt.timezone) -> tuple[Any, ...]:
    parts: tuple[Any, ...] = zone.__reduce__()[1]  # type: ignore[assignment]
    return parts


def _encode_zone(zone: zoneinfo.ZoneInfo) -> str:
    if zone.key is None or zoneinfo.ZoneInfo(zone.key) is not zone:
        raise Inexact(f"the time zone {zone!r} is not one that is known by its name")
    return zone.key


def _decode_zone(key: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise NotEncodable(f"the time zone {key!r} is not known on this machine") from error


def _encode_uuid(value: uuid.UUID) -> Any:
    safe = value.is_safe
    return str(value) if safe is uuid.SafeUUID.unknown else [str(value), safe.value]


def _decode_uuid(stored: Any) -> uuid.UUID:
    if isinstance(stored, str):
        return uuid.UUID(stored)
    return uuid.UUID(stored[0], is_safe=uuid.SafeUUID(stored[1]))


STANDARD: tuple[Codec, ...] = (
    Codec(bytearray, "bytearray", bytes, bytearray),
    Codec(complex, "complex", lambda v: [v.real, v.imag], lambda v: complex(*v)),
    Codec(dt.datetime, "datetime", _encode_moment, _decode_datetime),
    Codec(dt.date, "date", dt.date.isoformat, dt.date.fromisoformat),
    Codec(dt.time, "time", _encode_moment, _decode_time),
    Codec(
        dt.timedelta,
        "timedelta",
        lambda v: [v.days, v.seconds, v.microseconds],
        lambda v: dt.timedelta(*v),
    ),
    Codec(
        dt.timezone,
        "timezone",
        lambda v: list(_offset_and_name(v)),
        lambda v: dt.timezone(*v),
    ),
    Codec(zoneinfo.ZoneInfo, "zone", _encode_zone, _decode_zone),
    Codec(decimal.Decimal, "decimal", str, decimal.Decimal),
    Codec(uuid.UUID, "uuid", _encode_uuid, _decode_uuid),
    Codec(pathlib.PosixPath, "path", str, pathlib.PosixPath),
    Codec(pathlib.PurePosixPath, "purepath", str, pathlib.PurePosixPath),
    Codec(Skipped, "skipped", lambda v: v.call, Skipped),
)
"""The codecs that every process has."""
