"""An external call that was cut off: it may or may not have happened, and its policy says what now.

The policy is the tool's as it is declared when the run is resumed, not as it was when it died: so
somebody who has found out what happened can say it, and resume again.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any

from crabrt.core.entries import Noted, Result
from crabrt.core.verdicts import InDoubtPolicy
from crabrt.errors import InDoubt
from crabrt.runtime.codec import described
from crabrt.runtime.outcomes import NOT_DONE, UNKNOWN, Done, Doubt, Skipped
from crabrt.runtime.replay import Sealed
from crabrt.runtime.session import CODECS, Session
from crabrt.runtime.specs import Effects, Spec
from crabrt.runtime.standard import NotEncodable
from crabrt.runtime.waits import Steps, Wait

_HINT = (
    "find out whether it happened; then give the tool a check= that says so (crabrt.Done(result) or"
    ' crabrt.NOT_DONE), or in_doubt="retry" or "skip", and resume again'
)


def settle(
    session: Session, spec: Spec, sealed: Sealed, named: Mapping[str, Any]
) -> Steps[Sealed | None]:
    """What became of a call in doubt: its record, sealed and durable; None if it is to be made.

    Args:
        session: the run that is taken up again.
        spec: the tool.
        sealed: the call's record, which has no result.
        named: the call's arguments, by name.

    Raises:
        InDoubt: nobody has said, and a person has to.
    """
    effects = spec.effects or Effects()
    if effects.in_doubt is InDoubtPolicy.RETRY:
        found: Done | Doubt = NOT_DONE
    elif effects.in_doubt is InDoubtPolicy.SKIP:
        found = Done(Skipped(str(sealed.call)))
    elif effects.in_doubt is InDoubtPolicy.CHECK and effects.check is not None:
        found = yield from _checked(session, sealed, effects.check, named)
    else:
        raise _in_doubt(session, sealed)
    if isinstance(found, Doubt):
        _note(session, sealed, effects.in_doubt, "it is made")
        return None
    return (yield from _seal(session, spec, sealed, found, effects.in_doubt))


def _seal(
    session: Session, spec: Spec, sealed: Sealed, found: Done, policy: InDoubtPolicy
) -> Steps[Sealed]:
    try:
        data = CODECS.encode(found.result, spec.known)
    except NotEncodable as error:
        raise _in_doubt(
            session, sealed, f"what its check gives cannot be stored: {error}"
        ) from error
    with session.recording():
        session.follow(sealed.turn)
        _note(session, sealed, policy, "it is not made")
        payload = session.payload(data)
        session.append(Result(sealed.call, 0.0, payload))
        if sealed.cut_off and sealed.turn and session.replay is not None:
            session.append(session.replay.differs(sealed))
        settled = dataclasses.replace(
            sealed, sealed_seq=session.journal.seq, result=payload,
            failure=None, cancelled=False, streamed=False, cut_off=False,
        )  # fmt: skip
    yield from session.make_durable(acted=True)
    return settled


def _note(session: Session, sealed: Sealed, policy: InDoubtPolicy, outcome: str) -> None:
    text = f"{sealed.call} may or may not have happened: {outcome}, as in_doubt={policy} says"
    session.append(Noted("in-doubt", text), turn=sealed.turn or None)


def _checked(
    session: Session, sealed: Sealed, check: Callable[..., Any], named: Mapping[str, Any]
) -> Steps[Done | Doubt]:
    """What the tool's own check says: it happened (`Done`), or it did not.

    Raises:
        InDoubt: it does not know, fails, or says something else.
    """
    try:
        answer = yield from _asked(check, named)
    except Exception as error:  # it is the user's: it may raise what it likes
        why = f"its check failed: {type(error).__name__}: {described(error)}"
        raise _in_doubt(session, sealed, why) from error
    if answer is True:
        return Done()
    if answer is False or answer is NOT_DONE:
        return NOT_DONE
    if isinstance(answer, Done):
        return answer
    if answer is UNKNOWN:
        raise _in_doubt(session, sealed, "its check cannot tell")
    kind = type(answer).__name__
    raise _in_doubt(session, sealed, f"its check gave a {kind}, no Done, NOT_DONE, UNKNOWN or bool")


def _asked(check: Callable[..., Any], named: Mapping[str, Any]) -> Steps[Any]:
    """What `check` answers; on a thread of its own where it would hold an event loop up."""

    def ask() -> Any:
        answer = check(**named)
        return asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer

    try:
        asyncio.get_running_loop()
    except RuntimeError:  # none runs in this thread
        return ask()
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(ask))
        except BaseException as error:  # noqa: BLE001  whoever waits raises it
            future.set_exception(error)

    threading.Thread(target=work, name="crabrt-check", daemon=True).start()
    yield Wait(future)
    return future.result()


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def _in_doubt(session: Session, sealed: Sealed, why: str = "") -> InDoubt:
    because = f"; {why}" if why else ""
    what = "began and has no recorded result"
    if sealed.failure is not None:
        what = f"failed ({sealed.failure.tag}: {sealed.failure.message})"
    elif sealed.sealed_seq is not None:
        what = "was cancelled"
    return InDoubt(
        f"this external call {what}: it may or may not have happened{because}",
        where=str(sealed.call),
        hint=_HINT + _before(session, sealed),
    )


def _before(session: Session, sealed: Sealed) -> str:
    if not sealed.turn:  # of another run of the family
        return ""
    return f". `crab resume {session.id}@{sealed.turn - 1}`, from the turn before, makes it again"
