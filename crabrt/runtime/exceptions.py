"""Exceptions that a call ended with: sealed as tag, message and state, raised again on a replay."""

from __future__ import annotations

import builtins
import contextlib
import typing

from crabrt.core.entries import CallId, Failure, Payload
from crabrt.errors import InDoubt, NotDurable, ReplayedError, Unprotected
from crabrt.runtime.codec import Codecs, Known, described
from crabrt.runtime.standard import NotEncodable
from crabrt.runtime.structured import type_tag

_OURS = {type_tag(cls): cls for cls in (NotDurable, Unprotected, InDoubt)}
"""Errors of this package that a loop may have met at a call, and meets again on a replay."""

_BLAMED = "__crabrt_calls__"


def seal_exception(codecs: Codecs, error: BaseException, known: Known) -> Failure:
    """`error` as the journal keeps it; state that can't be encoded is left out and named."""
    codec = codecs.of(type(error))
    try:
        # Of an OSError, `args` does not have the file's name.
        args = error.__reduce__()[1] if isinstance(error, OSError) else error.args
        kept = {name: value for name, value in error.__dict__.items() if name != _BLAMED}
        state = {"args": args, "dict": kept}
        inner = codec.encode(error) if codec else state
        payload = Payload(inline=codecs.encode(inner, known))
    except NotEncodable as problem:
        payload = Payload(missing=str(problem))
    return Failure(codec.tag if codec else type_tag(type(error)), described(error), payload)


def blame(error: BaseException, run: str, call: CallId) -> None:
    """Note on `error` that `call` of `run` ended with it; the calls that it was made in come next.

    An exception knows best where it comes from and what it becomes: it is chained, put into groups
    and carried from one task to another.
    """
    inside = call.inside
    known = [
        one for one in getattr(error, _BLAMED, ()) if one[0] != run or one[1].is_within(inside)
    ]
    with contextlib.suppress(AttributeError, TypeError):  # of a class that allows no more
        setattr(error, _BLAMED, (*known, (run, call)))


def blamed(error: BaseException, run: str) -> tuple[CallId, ...]:
    """The calls of `run` that ended with `error`, or with what it was made of."""
    found: dict[CallId, None] = {}
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        found |= dict.fromkeys(call for where, call in getattr(one, _BLAMED, ()) if where == run)
        todo += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions
    return tuple(sorted(found))


def revive_exception(
    codecs: Codecs, failure: Failure, state: bytes | None, known: Known
) -> BaseException:
    """The exception that `failure` sealed, or `ReplayedError` where its class is not known.

    Args:
        codecs: how values are stored.
        failure: what the journal holds.
        state: the encoded state, or None where there is none.
        known: classes that may come back (``raises=``); built-in exceptions always may.
    """
    if state is not None:
        try:
            revived = _revived(codecs, failure, codecs.decode(state, known), known)
        except (NotEncodable, TypeError, KeyError, ValueError):
            revived = None
        if revived is not None:
            return revived
    return ReplayedError(failure.tag, failure.message)


def _revived(
    codecs: Codecs, failure: Failure, inner: typing.Any, known: Known
) -> BaseException | None:
    codec = codecs.tagged(failure.tag)
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
    return None
