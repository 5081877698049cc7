"""What models took before says what they will take, and work is put where that hides it."""

from __future__ import annotations

import contextlib
import time

import pytest

import crabrt
from crabrt.core.entries import Response
from crabrt.runtime import checkpoints
from crabrt.runtime.engine import PUT_OFF_MOST, Engine
from crabrt.runtime.forecast import LAST, MODELS_MOST, Forecast


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def taught(*waits_s, clock=None):
    forecast = Forecast(clock or Clock())
    for wait_s in waits_s:
        forecast.ended(forecast.began("run", "m"), wait_s)
    return forecast


def test_nothing_is_expected_of_a_model_that_nobody_asked():
    assert Forecast().coming_s() == 0
    assert Forecast().left_s() is None


def test_it_is_what_nine_in_ten_exceeded():
    assert taught(5, 3, 4).coming_s() == 3
    assert taught(1, *[8] * 9).coming_s() == 8
    assert taught(1, 1, *[8] * 9).coming_s() == 1


def test_what_is_long_ago_no_longer_counts():
    assert taught(1, *[8] * LAST).coming_s() == 8


def test_a_call_without_a_reply_teaches_nothing():
    forecast = taught(5)
    forecast.ended(forecast.began("run", "m"), None)
    assert forecast.coming_s() == 5


def test_a_run_is_expected_to_ask_whom_it_asked_last_and_the_first_of_several_counts():
    forecast = Forecast(Clock())
    forecast.learn("one", "quick", 1)
    forecast.learn("one", "slow", 20)
    assert forecast.coming_s() == 20
    forecast.learn("other", "middling", 9)
    assert forecast.coming_s() == 9
    forecast.left("other")
    assert forecast.coming_s() == 20


def test_what_is_left_of_a_wait_shrinks_to_nothing():
    clock = Clock()
    forecast = taught(5, clock=clock)
    first = forecast.began("run", "m")
    assert forecast.left_s() == 5
    clock.now = 2
    second = forecast.began("other", "m")
    assert forecast.left_s() == 3
    clock.now = 6
    assert forecast.left_s() == 0
    forecast.ended(first, 6)
    assert forecast.left_s() == 1
    forecast.ended(second, None)
    assert forecast.left_s() is None


def test_names_that_are_made_up_do_not_fill_the_memory():
    forecast = Forecast()
    for number in range(2 * MODELS_MOST):
        forecast.learn("run", f"model-{number}", 1)
    assert len(forecast._took) == MODELS_MOST
    assert forecast.coming_s() == 1


# -- in real runs ---------------------------------------------------------------------------------


@crabrt.model
def think(model: str) -> str:
    time.sleep(0.02)
    if model == "broken":
        raise ValueError(model)
    return model


@crabrt.tool
def act(path, text) -> None:
    path.write_text(text)


def test_a_run_that_is_taken_up_again_knows_its_models(ws, store, killed, die):
    seen = []

    @crabrt.tool
    def note() -> None:
        seen.append(crabrt.current_run()._session.engine.forecast.coming_s())
        if not (ws.parent / "again").exists():
            die()

    @crabrt.agent(workspace=ws, name="run")
    def loop():
        for turn, model in enumerate(("fast", "broken", "fast")):
            with contextlib.suppress(ValueError):
                act(ws / "file", f"{think(model)} {turn}")
        note()

    killed(loop)
    (ws.parent / "again").touch()
    loop.resume("last")
    took = [one.wait_ms / 1e3 for one in store.bodies(Response) if one.failure is None]
    assert len(took) == 2
    assert seen == [min(took)]


@pytest.mark.parametrize(("takes_s", "most"), [(1e6, 5), (0.0, 40)])
def test_upkeep_waits_for_a_wait_that_hides_it_but_not_for_ever(ws, monkeypatch, takes_s, most):
    kept, turns = [], 3 * PUT_OFF_MOST
    monkeypatch.setattr(checkpoints, "_keep_up", lambda session: kept.append(session.machine.turn))
    monkeypatch.setattr(Engine, "_is_time", told(Engine._is_time, takes_s))

    @crabrt.agent(workspace=ws, name="run")
    def loop():
        for turn in range(turns):
            think("fast")
            act(ws / "file", str(turn))

    loop()
    assert 2 <= len(kept) <= most
    assert any(0 < turn < turns for turn in kept)


def told(is_time, takes_s):
    def asked(engine):
        engine._upkeep_s = takes_s
        return is_time(engine)

    return asked
