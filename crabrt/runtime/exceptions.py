"""Exceptions that a call ended with: sealed as tag, message and state, raised again on a replay."""

from __future__ import annotations

import builtins
import contextlib
import json
import subprocess
import typing

from crabrt.core.entries import Failure, Payload
from crabrt.errors import InDoubt, NotDurable, ReplayedError, Unprotected
from crabrt.runtime.codec import Codecs, Known, described
from crabrt.runtime.standard import NotEncodable
from crabrt.runtime.structured import type_tag

_ALWAYS = {
    type_tag(cls): cls
    for cls in (
        NotDurable, Unprotected, InDoubt,
        subprocess.CalledProcessError, subprocess.TimeoutExpired, json.JSONDecodeError,
    )
}  # fmt: skip
"""What a loop may have met at a call, and meets again on a replay, without naming it: errors of
this package, and those of the standard library that tools end with."""


def seal_exception(codecs: Codecs, error: BaseException, known: Known) -> Failure:
    """`error` as the journal keeps it; attributes that can't be encoded are left out."""
    codec = codecs.of(type(error))
    try:
        inner = codec.encode(error) if codec else _state(codecs, error, known)
        payload = Payload(inline=codecs.encode(inner, known))
    except NotEncodable as problem:
        payload = Payload(missing=str(problem))
    return Failure(codec.tag if codec else type_tag(type(error)), described(error), payload)


def _state(codecs: Codecs, error: BaseException, known: Known) -> dict[str, typing.Any]:
    # Of an OSError, `args` does not have the file's name.
    args = error.__reduce__()[1] if isinstance(error, OSError) else error.args
    kept = {}
    for name, value in error.__dict__.items():  # a client's hold its connection, for one
        with contextlib.suppress(NotEncodable):
            codecs.encode(value, known)
            kept[name] = value
    return {"args": args, "dict": kept}


def revive_exception(
    codecs: Codecs, failure: Failure, state: bytes | None, known: Known
) -> BaseException:
    """The exception that `failure` sealed, or `ReplayedError` where its class is not known.

    Args:
        codecs: how values are stored.
        failure: what the journal holds.
        state: the encoded state, or None where there is none.
        known: classes that may come back, and with them their subclasses (``raises=``); built-in
            exceptions always may.
    """
    if state is not None:
        try:
            revived = _revived(codecs, failure, codecs.decode(state, known), known)
        except (NotEncodable, TypeError, KeyError, ValueError):
            revived = None
        if revived is not None:
            return revived
    replayed = ReplayedError(failure.tag, failure.message)
    replayed.add_note(
        f"crabrt: this was a {failure.tag} when it was recorded. To have the loop catch it as one,"
        " name that class, or one that it is derived from, in raises= of the tool or model, and"
        " resume again."
    )
    return replayed


def _named(tag: str, known: Known) -> type[BaseException] | None:
    """The exception class of that tag, if `known` has it or a class that it is derived from."""
    todo = [cls for cls in known.values() if issubclass(cls, BaseException)]
    seen = set(todo)
    while todo:
        cls = todo.pop()
        if type_tag(cls) == tag:
            return cls
        below = set(cls.__subclasses__()) - seen
        seen |= below
        todo += below
    return None


def _revived(
    codecs: Codecs, failure: Failure, inner: typing.Any, known: Known
) -> BaseException | None:
    codec = codecs.tagged(failure.tag)
    if codec is not None:
        return typing.cast("BaseException", codec.decode(inner))
    cls = _named(failure.tag, known) or _ALWAYS.get(failure.tag)
    if cls is not None:
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
    return None
