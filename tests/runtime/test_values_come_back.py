"""Codecs: what is stored comes back as it was, or is refused with the place and the reason."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import pickle
import uuid
import zoneinfo
from typing import NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crabrt.errors import Damaged, ReplayedError
from crabrt.runtime.codec import Codecs
from crabrt.runtime.exceptions import revive_exception, seal_exception
from crabrt.runtime.standard import NotEncodable
from crabrt.runtime.structured import known_classes


class Colour(enum.Enum):
    RED = "r"


@dataclasses.dataclass(frozen=True)
class Inner:
    colour: Colour
    when: dt.datetime


@dataclasses.dataclass
class Outer:
    inner: list[Inner]
    extra: dict[str, int] = dataclasses.field(default_factory=dict)


class Point(NamedTuple):
    x: int
    y: int


class Packed(msgspec.Struct):
    a: int
    b: tuple[str, ...]


class Model(pydantic.BaseModel):
    name: str
    parts: list[int]


class Base(pydantic.BaseModel):
    a: int


class Sub(Base):
    b: float = 2.0


class Holder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    one: Base
    rest: dict[str, Base] = {}
    _seen: int = pydantic.PrivateAttr(default=0)


class Hashed(pydantic.BaseModel):
    """Validated twice, it is another value."""

    word: str

    @pydantic.field_validator("word")
    @classmethod
    def hashed(cls, word: str) -> str:
        return f"#{word}"


@dataclasses.dataclass
class Listed(list):
    name: str


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers() | st.text())
    ),
)


def equal(left: object, right: object) -> bool:
    """Equal, and of the same types all the way down (1 == 1.0 == True won't do)."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right


@given(plain)
def test_whatever_plain_python_holds_comes_back_with_its_types(value: object) -> None:
    codecs = Codecs()
    assert equal(codecs.decode(codecs.encode(value)), value)


@given(st.text(alphabet=st.characters(codec=None)))
def test_strings_that_are_not_utf8_come_back(text: str) -> None:
    codecs = Codecs()
    assert codecs.decode(codecs.encode({text: text})) == {text: text}


@given(st.binary(max_size=200))
def test_malformed_bytes_raise_typed_errors_only(data: bytes) -> None:
    with contextlib.suppress(Damaged, NotEncodable):
        Codecs().decode(data)


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Outer([Inner(Colour.RED, dt.datetime(2026, 1, 2, tzinfo=dt.UTC))], {"a": 1}),
        Point(1, 2),
        Packed(1, ("x", "y")),
        Model(name="n", parts=[1, 2]),
        decimal.Decimal("1.10"),
        uuid.UUID(int=7),
        pathlib.Path("/a/b"),
        dt.timedelta(days=1, microseconds=3),
        Hashed(word="x"),
        dt.timezone(dt.timedelta(hours=1), "CET"),
        uuid.UUID(int=7, is_safe=uuid.SafeUUID.safe),
    ],
    ids=lambda value: type(value).__name__,
)
def test_structured_values_come_back_when_their_class_is_known(value: object) -> None:
    codecs, known = Codecs(), known_classes([list[type(value)]])
    assert equal(codecs.decode(codecs.encode([value], known), known), [value])


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "moment",
    [
        dt.datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001  a time on a wall clock
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
        dt.datetime(2026, 7, 1, 12, tzinfo=BERLIN),
        dt.datetime(2026, 7, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
        dt.datetime(2026, 7, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        dt.datetime(2026, 7, 1, 12, 0, 0, 7, tzinfo=dt.UTC),
        dt.time(2, 30, fold=1),
        dt.time(2, 30, tzinfo=BERLIN),
    ],
    ids=str,
)
def test_moments_keep_their_zone_and_their_fold(moment: dt.datetime | dt.time) -> None:
    codecs = Codecs()
    back = codecs.decode(codecs.encode(moment))
    assert (back.replace(tzinfo=None), back.fold) == (moment.replace(tzinfo=None), moment.fold)
    assert type(back.tzinfo) is type(moment.tzinfo)
    assert pickle.dumps(back.tzinfo) == pickle.dumps(moment.tzinfo)


def test_a_zone_of_a_class_of_ones_own_is_refused() -> None:
    class Mine(dt.tzinfo):
        pass

    with pytest.raises(NotEncodable, match="Mine"):
        Codecs().encode({"at": dt.datetime(2026, 1, 1, tzinfo=Mine())})


def test_a_zone_that_is_not_in_the_database_is_refused() -> None:
    with pytest.raises(NotEncodable, match=r"value\['at'\].*the time zone"):
        Codecs().encode({"at": dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo.no_cache("UTC"))})


def test_moments_of_journals_from_before_zones_were_kept_come_back() -> None:
    old = msgspec.msgpack.encode({"$crab": ["datetime", "2026-01-02T00:00:00+02:00"]})
    when = dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert Codecs().decode(old) == when


def test_a_model_in_the_place_of_its_base_comes_back_whole_or_is_refused() -> None:
    codecs, value = Codecs(), Holder(one=Sub(a=1, b=3.0), rest={"x": Sub(a=2)}, more=[1])
    value._seen = 5
    known = known_classes([Holder, Sub])
    back = codecs.decode(codecs.encode(value, known), known)
    assert (back, type(back.one), back.one.b, back._seen) == (value, Sub, 3.0, 5)
    assert back.more == [1]
    assert back.rest["x"].model_fields_set == {"a"}
    with pytest.raises(NotEncodable, match=r"\['one'\] is a Sub"):
        codecs.encode(value, known_classes([Holder]))


def test_a_field_that_was_assigned_past_its_type_is_kept_as_it_is() -> None:
    codecs, value, known = Codecs(), Sub(a=1), known_classes([Sub])
    value.b = 7
    assert type(codecs.decode(codecs.encode(value, known), known).b) is int


def test_models_of_journals_from_before_their_state_was_kept_come_back() -> None:
    tag = next(iter(known_classes([Model])))
    old = msgspec.msgpack.encode({"$crab": [tag, {"name": "n", "parts": [1, 2]}]})
    assert Codecs().decode(old, known_classes([Model])) == Model(name="n", parts=[1, 2])


def test_state_beside_the_declared_parts_is_refused() -> None:
    codecs, known = Codecs(), known_classes([Outer, Listed])
    outer = Outer([])
    outer.beside = 1
    with pytest.raises(NotEncodable, match="'beside', which is none of its fields"):
        codecs.encode(outer, known)
    with pytest.raises(NotEncodable, match="more than its fields"):
        codecs.encode(Listed("x"), known)


def test_a_class_that_is_not_known_is_refused_with_its_place() -> None:
    with pytest.raises(NotEncodable, match=r"value\['reply'\]\[0\] is a Point"):
        Codecs().encode({"reply": [Point(1, 2)]})


def test_an_object_without_structure_is_refused() -> None:
    with pytest.raises(NotEncodable, match="register_codec"):
        Codecs().encode(object())


def test_subclasses_of_builtins_are_refused_rather_than_flattened() -> None:
    class Special(dict):
        pass

    with pytest.raises(NotEncodable, match="Special"):
        Codecs().encode(Special(a=1))


def test_a_stored_class_is_never_imported_by_its_name() -> None:
    codecs = Codecs()
    data = codecs.encode(Point(1, 2), known_classes([Point]))
    with pytest.raises(NotEncodable, match="not known here"):
        codecs.decode(data)


def test_a_registered_codec_serves_exactly_its_class() -> None:
    class Handle:
        def __init__(self, number: int) -> None:
            self.number = number

    codecs = Codecs()
    codecs.register(Handle, "handle", lambda h: h.number, Handle)
    assert codecs.decode(codecs.encode({"h": Handle(7)}))["h"].number == 7
    with pytest.raises(ValueError, match="taken by"):
        codecs.register(Colour, "handle", str, str)


def test_what_cannot_be_encoded_is_still_readable_as_a_note() -> None:
    codecs = Codecs()
    assert b"unencodable" in codecs.encode_readable({"client": object()})


class Refused(Exception):
    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def test_a_known_exception_comes_back_as_itself_with_its_state() -> None:
    codecs, known = Codecs(), known_classes([Refused])
    failure = seal_exception(codecs, Refused(7, reason="no"), known)
    revived = revive_exception(codecs, failure, failure.state.inline, known)
    assert type(revived) is Refused
    assert (revived.code, revived.reason, str(revived)) == (7, "no", "7: no")


def test_a_builtin_exception_comes_back_as_itself() -> None:
    codecs = Codecs()
    failure = seal_exception(codecs, FileNotFoundError(2, "gone", "/x"), {})
    revived = revive_exception(codecs, failure, failure.state.inline, {})
    assert type(revived) is FileNotFoundError
    assert revived.args == (2, "gone")


def test_an_unknown_exception_comes_back_as_a_replayed_error() -> None:
    codecs = Codecs()
    failure = seal_exception(codecs, Refused(7, reason="no"), {})
    revived = revive_exception(codecs, failure, failure.state.inline, {})
    assert isinstance(revived, ReplayedError)
    assert revived.tag.endswith("Refused")
    assert str(revived) == "7: no"
