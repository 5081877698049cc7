"""What is declared of a tool or a model: names, types, effects. Values of the public decorators."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from crabrt.core.verdicts import ExternalKind, InDoubtPolicy, Prior
from crabrt.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a model call cost, as far as the reply says.

    Attributes:
        tokens_in, tokens_out: token counts.
        cost_usd: price in US dollars.
    """

    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None


@dataclasses.dataclass(frozen=True)
class Effects:
    """The declared effect of a tool (SEMANTICS "Effects").

    Attributes:
        prior: the class.
        kind: of an external effect: what repeating it would do.
        in_doubt: what to do on resume about a call that may or may not have happened.
        volatile: argument names that differ from call to call and identify nothing.
        target, idempotency_key, check, undo: called with the call's arguments.
    """

    prior: Prior = Prior.AUTO
    kind: ExternalKind = ExternalKind.IRREVERSIBLE
    in_doubt: InDoubtPolicy = InDoubtPolicy.ASK
    volatile: tuple[str, ...] = ()
    target: Callable[..., str] | None = None
    idempotency_key: Callable[..., str] | None = None
    check: Callable[..., Any] | None = None
    undo: Callable[..., Any] | None = None


def parse_effects(
    *,
    effect: str = "auto",
    kind: str | None = None,
    in_doubt: str | None = None,
    volatile: tuple[str, ...] = (),
    target: Callable[..., str] | None = None,
    idempotency_key: Callable[..., str] | None = None,
    check: Callable[..., Any] | None = None,
    undo: Callable[..., Any] | None = None,
) -> Effects:
    """The declared effect, checked. What the arguments mean: `crabrt.tool`.

    Raises:
        UsageError: a word that is none of the choices.
    """
    default = InDoubtPolicy.CHECK if check is not None else InDoubtPolicy.ASK
    return Effects(
        prior=_choice(Prior, "effect", effect),
        kind=ExternalKind.IRREVERSIBLE if kind is None else _choice(ExternalKind, "kind", kind),
        in_doubt=default if in_doubt is None else _choice(InDoubtPolicy, "in_doubt", in_doubt),
        volatile=tuple(volatile),
        target=target,
        idempotency_key=idempotency_key,
        check=check,
        undo=undo,
    )


def _choice(choices: Any, what: str, word: str) -> Any:
    try:
        return choices(word)
    except ValueError:
        raise UsageError(
            f"{what}={word!r} is not known", hint=f"one of: {', '.join(choices)}"
        ) from None


@dataclasses.dataclass(frozen=True)
class Spec:
    """A wrapped callable.

    Attributes:
        name: what it is called in the journal.
        known: classes its result or its exceptions may be of, by tag.
        key: stands for the arguments in the request digest.
        effects: what a tool does; None for a model.
        usage: reads tokens and cost off a model's reply.
    """

    name: str
    known: Mapping[str, type]
    key: Callable[..., Any] | None = None
    effects: Effects | None = None
    usage: Callable[[Any], Usage] | None = None
