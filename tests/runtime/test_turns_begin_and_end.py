"""The turn machine, rule by rule (docs/design: turns)."""

from __future__ import annotations

from crabrt.runtime.turns import TurnMachine


def test_the_first_model_call_opens_turn_1() -> None:
    machine = TurnMachine()
    assert machine.model_call_opens()
    assert machine.open() == 1
    assert machine.base == 0


def test_a_tool_call_opens_a_turn_only_where_none_is_open() -> None:
    machine = TurnMachine()
    assert machine.tool_call_opens()
    machine.open()
    assert not machine.tool_call_opens()


def test_helper_model_calls_before_any_tool_belong_to_the_open_turn() -> None:
    machine = TurnMachine()
    machine.open()
    assert not machine.model_call_opens()  # nothing was even replied yet
    machine.tool_began()
    machine.tool_ended()
    machine.open()
    machine.reply_delivered()
    assert not machine.model_call_opens()  # a retry or a judge: no tool ran since


def test_a_model_call_opens_the_next_turn_once_a_tool_finished() -> None:
    machine = TurnMachine()
    machine.open()
    machine.tool_began()
    assert not machine.model_call_opens()  # made by the tool itself, or beside it
    machine.tool_ended()
    assert machine.model_call_opens()


def test_parallel_tools_belong_to_one_turn_until_the_last_of_them_ended() -> None:
    machine = TurnMachine()
    machine.open()
    machine.tool_began()
    machine.tool_began()
    machine.tool_ended()
    assert not machine.model_call_opens()
    machine.tool_ended()
    assert machine.model_call_opens()


def test_without_wrapped_tools_each_reply_ends_a_turn() -> None:
    machine = TurnMachine()
    machine.open()
    assert not machine.model_call_opens()
    machine.reply_delivered()
    assert machine.model_call_opens()


def test_a_closed_turn_is_followed_by_another_whoever_calls() -> None:
    machine = TurnMachine()
    machine.open()
    machine.close()
    assert machine.model_call_opens()
    assert machine.tool_call_opens()


def test_a_rollback_gives_the_next_turn_another_base_and_never_a_lower_number() -> None:
    machine = TurnMachine()
    for _ in range(14):
        machine.open()
    machine.close()
    assert machine.open(base=9) == 15
    assert machine.base == 9
