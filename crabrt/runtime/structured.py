"""Classes with declared parts: dataclasses, msgspec structs, pydantic models, named tuples, enums.

An instance is stored as its parts under the tag of its class, and rebuilt from them without its
constructor's or validators' say wherever that is possible: it comes back as it was, not as it would
be made today. State beside the declared parts would be lost, so such an instance is refused.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Iterable
from typing import Any

import msgspec

from crabrt.runtime.standard import Inexact

_MODEL_PARTS = {"fields", "set", "extra", "private"}
_CONTAINERS = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex)


def type_tag(cls: type) -> str:
    """The tag of a class that has no codec of its own: module and name, a label and no more."""
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


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
        if issubclass(cls, BaseException) or is_structured(cls):
            found[type_tag(cls)] = cls
            todo.extend(_field_hints(cls))
    return found


def is_structured(cls: type) -> bool:
    """Whether instances of `cls` are made of declared parts."""
    return (
        dataclasses.is_dataclass(cls)
        or issubclass(cls, msgspec.Struct | enum.Enum)
        or _is_model(cls)
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    )


def _is_model(cls: type) -> bool:
    return hasattr(cls, "model_fields") and hasattr(cls, "__pydantic_validator__")


def _field_hints(cls: type) -> list[Any]:
    hints: list[Any] = []
    if _is_model(cls):  # pydantic resolves what only the module of the class can
        hints = [field.annotation for field in cls.model_fields.values()]  # type: ignore[attr-defined]
    try:
        return [*hints, *typing.get_type_hints(cls).values()]
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        return hints


def parts_of(value: Any, *, exact: bool) -> Any:
    """What an instance of a structured class is made of, or None for any other object.

    Args:
        value: any object.
        exact: everything `rebuild` needs; else what people and digests should see.

    Raises:
        Inexact: exactly that, its parts don't say.
    """
    cls = type(value)
    if not is_structured(cls):
        return None
    if isinstance(value, enum.Enum):
        return value.value
    if _is_model(cls):
        return _model_parts(value) if exact else _model_dump(value)
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
        parts: Any = {name: getattr(value, name) for name in names}
    elif isinstance(value, tuple):
        names, parts = (), list(value)
    else:
        names = tuple(field.name for field in dataclasses.fields(value))
        parts = {name: getattr(value, name) for name in names if hasattr(value, name)}
        if exact and isinstance(value, _CONTAINERS):
            raise Inexact(f"{cls.__qualname__} holds more than its fields")
    beside = getattr(value, "__dict__", {}).keys() - set(names)
    if exact and beside:
        raise Inexact(f"{cls.__qualname__} has {min(beside)!r}, which is none of its fields")
    return parts


def _model_dump(model: Any) -> Any:
    return model.model_dump(mode="python", round_trip=True, warnings=False)


def _model_parts(model: Any) -> dict[str, Any]:
    """A pydantic model as pickle sees it. What `model_dump` gives is not exact: a field that is
    declared as one model and holds a subclass of it would lose what the subclass adds.
    """  # noqa: D205  one thought
    state = model.__getstate__()
    return {
        "fields": state["__dict__"],
        "set": sorted(state["__pydantic_fields_set__"]),
        "extra": state.get("__pydantic_extra__"),
        "private": state.get("__pydantic_private__"),
    }


def rebuild(cls: Any, inner: Any) -> Any:
    """The instance of `cls` that `parts_of` took apart.

    Raises:
        TypeError, ValueError, AttributeError, LookupError: these are no parts of a `cls`.
    """
    if issubclass(cls, enum.Enum):
        return cls(inner)
    if issubclass(cls, msgspec.Struct):
        return cls(**inner)
    if _is_model(cls):
        return _rebuild_model(cls, inner)
    if issubclass(cls, tuple):
        return cls._make(inner)
    made = cls.__new__(cls)
    for name, part in inner.items():
        object.__setattr__(made, name, part)
    return made


def _rebuild_model(cls: Any, inner: Any) -> Any:
    if inner.keys() != _MODEL_PARTS:  # written before models were stored by their state
        return cls.model_validate(inner)
    made = cls.__new__(cls)
    made.__setstate__(
        {
            "__dict__": inner["fields"],
            "__pydantic_fields_set__": set(inner["set"]),
            "__pydantic_extra__": inner["extra"],
            "__pydantic_private__": inner["private"],
        }
    )
    return made
