"""Functions the user gave to describe a call: ``usage=``, ``key=``, ``target=``, ...

They say something *about* a call; none of them may stop it or leave it without an outcome. One that
raises, or gives what it should not, is told of once a run, and the call goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from crabrt.core.entries import External
from crabrt.core.verdicts import Prior
from crabrt.runtime.codec import described
from crabrt.runtime.losses import CallbackWarning, Losses
from crabrt.runtime.specs import Effects, Spec, Usage

T = TypeVar("T")
_TOKENS = range(1 << 63)


def usage_of(spec: Spec, reply: Any, losses: Losses) -> Usage:
    """What a model call cost, as ``usage=`` reads it off the reply."""
    ask = spec.usage
    if ask is None:
        return Usage()
    return _asked(losses, spec, "usage", lambda: _checked(ask(reply))) or Usage()


def key_of(spec: Spec, named: Mapping[str, Any], losses: Losses) -> Any:
    """What stands for the arguments when requests are compared; None: they do themselves."""
    ask = spec.key
    return None if ask is None else _asked(losses, spec, "key", lambda: ask(**named))


def external_of(spec: Spec, named: Mapping[str, Any], losses: Losses) -> External | None:
    """How an external call is recorded; None if it is not external."""
    effects = spec.effects
    if effects is None or effects.prior is not Prior.EXTERNAL:
        return None
    return External(
        kind=effects.kind,
        in_doubt=effects.in_doubt,
        idempotency_key=_word(spec, effects, "idempotency_key", named, losses),
        target=_word(spec, effects, "target", named, losses),
        has_check=effects.check is not None,
        has_undo=effects.undo is not None,
    )


def _word(
    spec: Spec, effects: Effects, option: str, named: Mapping[str, Any], losses: Losses
) -> str | None:
    ask = getattr(effects, option)
    if ask is None:
        return None
    return _asked(losses, spec, option, lambda: _storable(str(ask(**named))))


def _asked(losses: Losses, spec: Spec, option: str, ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except Exception as error:  # noqa: BLE001  it is the user's: it may raise what it likes
        losses.mention(
            f"{option}= of {spec.name} failed, and is done without:"
            f" {type(error).__name__}: {described(error)}",
            CallbackWarning,
            once=f"{option} {spec.name}",
        )
        return None


def _storable(text: str) -> str:
    text.encode()  # raises what `_asked` tells of
    return text


def _checked(usage: Any) -> Usage:
    """`usage`, if the journal can hold it."""
    if not isinstance(usage, Usage):
        raise TypeError(f"it gave a {type(usage).__name__}, not a crabrt.Usage")
    for tokens in (usage.tokens_in, usage.tokens_out):
        if tokens is not None and not (type(tokens) is int and tokens in _TOKENS):
            raise ValueError(f"{tokens!r} is no count of tokens")
    cost = usage.cost_usd
    return Usage(usage.tokens_in, usage.tokens_out, None if cost is None else float(cost))
