"""``usage=``, ``key=``, ``target=``: functions of the user's that fail leave a sealed call."""

from __future__ import annotations

from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Intent, Request, Response, Result


def broken(*_args: object, **_kwargs: object) -> str:
    raise KeyError("usage")


def run_twice(ws: Path, ask, act) -> None:
    @crabrt.agent(workspace=ws, name="described")
    def loop() -> None:
        for n in range(2):
            ask([{"role": "user", "content": f"{n}"}])
            act(n)

    loop()


@crabrt.tool
def nothing(n: int) -> int:
    return n


@crabrt.model
def plain(messages: list) -> str:
    return "ok"


@pytest.mark.parametrize(
    "usage",
    [
        broken,
        lambda _: {"tokens_in": 1},
        lambda _: crabrt.Usage(tokens_in="12"),
        lambda _: crabrt.Usage(tokens_out=-1),
        lambda _: crabrt.Usage(tokens_out=1 << 70),
        lambda _: crabrt.Usage(cost_usd="dear"),
    ],
)
def test_a_usage_that_fails_is_told_of_once_and_the_reply_is_sealed(usage, ws: Path, store) -> None:
    @crabrt.model(usage=usage)
    def ask(messages: list) -> str:
        return "ok"

    with pytest.warns(crabrt.CallbackWarning, match="usage= of ask failed") as caught:
        run_twice(ws, ask, nothing)
    assert len(caught) == 1
    assert len(store.bodies(Response)) == len(store.bodies(Request)) == 2
    assert store.run().status == "done"


def test_a_key_that_fails_leaves_the_comparison_to_the_arguments(ws: Path, store) -> None:
    @crabrt.model(key=broken)
    def ask(messages: list) -> str:
        return "ok"

    with pytest.warns(crabrt.CallbackWarning, match="key= of ask failed"):
        run_twice(ws, ask, nothing)
    first, second = store.bodies(Request)
    assert first.digest != second.digest
    assert len(store.bodies(Response)) == 2


@pytest.mark.parametrize("option", ["target", "idempotency_key"])
def test_an_external_call_is_made_once_and_sealed_where_its_words_fail(
    option: str, ws: Path, store
) -> None:
    made = []

    @crabrt.tool(effect="external", **{option: broken})
    def act(n: int) -> None:
        made.append(n)

    with pytest.warns(crabrt.CallbackWarning, match=f"{option}= of act failed") as caught:
        run_twice(ws, plain, act)
    assert len(caught) == 1
    assert made == [0, 1]
    assert len(store.bodies(Result)) == len(store.bodies(Intent)) == 2
