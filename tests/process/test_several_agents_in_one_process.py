"""Whose a process is, where several runs of one program have tools that run at the same time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .counted_runs import Agent, succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]


@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_a_rollback_of_one_leaves_the_other_alone(tmp_path, criu, how):
    made = Agent(tmp_path, criu.program, Path(__file__).with_name("together.py"))
    for where in "ab":
        (made.ws / where).mkdir()
    try:
        said, turns, dead = json.loads(succeeded(made.run(how)))
        (first, one), (second, _), (last, again) = said["a"]
        assert [first, second, last] == [1, 11, 101]  # as at the end of turn 2, and 100
        assert one == again
        (first, other), (second, _), (last, _) = said["b"]
        assert [first, second, last] == [1, 11, 111]
        assert {pid for tops in turns["a"] for pid in tops} == {one}
        assert {pid for tops in turns["b"] for pid in tops} == {other}
        assert dead == []
    finally:
        for where in "ab":
            made.end_server(where)
