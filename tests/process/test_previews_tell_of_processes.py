"""``--expect`` where processes are restored with the files: they go on, and it holds."""

from __future__ import annotations

import re

import pytest

from .counted_runs import succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]


def preview(agent, *words):
    shown = succeeded(agent.crab(*words, "--dry-run"))
    return re.search(r"--expect ([0-9a-f]{16})$", shown, re.MULTILINE)[1]


def test_who_goes_on_working_meanwhile_is_still_who_was_listed(agent):
    succeeded(agent.run(4))
    seen = preview(agent, "restore", "last@2")
    assert agent.add(10) == 14
    succeeded(agent.crab("restore", "last@2", "--expect", seen))
    assert agent.add(0) == 1
    undoing = ("undo", str(agent.ws))
    seen = preview(agent, *undoing)
    assert agent.add(10) == 11
    succeeded(agent.crab(*undoing, "--expect", seen))
    assert agent.add(0) == 14


def test_another_restore_since_is_another_list(agent):
    succeeded(agent.run(4))
    seen = preview(agent, "restore", "last@0")
    succeeded(agent.crab("restore", "last@2"))
    refused = agent.crab("restore", "last@0", "--expect", seen)
    assert refused.returncode == 5
    assert "not what was expected; nothing was touched" in refused.stderr
    assert agent.add(0) == 1
