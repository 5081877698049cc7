"""The main screens at three sizes, as text.

``CRAB_TUI_RECORD=1 pytest tests/tui/test_snapshots_of_the_screens.py`` writes them anew: look at
the difference before it is committed.
"""

from __future__ import annotations

import os
import types
from pathlib import Path

import pytest

from crabrt.tui import summary, timeline_view
from crabrt.tui.deeds import Done, Hand

_HERE = Path(__file__).parent / "snapshots"
_SIZES = ((80, 24), (120, 40), (240, 60))

# name: the turn that the cursor is on, keys, and what is there once the screen is complete
_SCREENS = {
    "runs": (None, (), "fixer-2"),
    "timeline": (4, (), "ended done"),
    "columns": (4, ("v",), "turn"),
    "filtered": (8, ("slash", *"tool", "colon", *"edit", "enter"), "2 turns"),
    "overview": (4, ("enter",), "edit(command"),
    "messages": (4, ("enter", "2"), "reply 1"),
    "calls": (1, ("enter", "3"), "Bytes, for people"),
    "changes": (4, ("enter", "4"), '+    return f"{value} bytes"'),
    "files": (4, ("enter", "5"), "src/"),
    "comparison": (8, ("home", "m", "end", "c"), "from fixer-1@0 to @8"),
    "help": (4, ("question_mark",), "Page down"),
    "label": (4, ("L",), "A name for turn 4"),
}

_WOULD = """\
Would restore fixer-1@4 in /work: 1 replaced, 1 deleted, 2 unchanged.
{refused}What happened outside since then is not undone:
  fixer-1@5: post (done)
What would change:
  ~ a directory with a long name/and another one/a file that is deep down.txt  content, times
  - src/util.py  removed
"""
_REFUSED = """\
Refused without --force, as somebody else changed these:
  a directory with a long name/and another one/a file that is deep down.txt
"""

# name: how the command that only looks ends, and the stage that the dialog is in then
_DIALOGS = {
    "restore": (Done(0, _WOULD.format(refused=""), "5f0c86a1d2b94e37"), "ready"),
    "overwrite": (Done(5, _WOULD.format(refused=_REFUSED), "5f0c86a1d2b94e37"), "typing"),
    "cannot": (Done(6, "crab: another run is live here\n  where: /work\n"), "done"),
}


def _normal(text, workspace, home):
    """Without what differs from run to run, and without the blanks at the ends of lines."""
    for path, name in ((str(workspace), "/work"), (str(home), "/store")):
        text = text.replace(path, name)
        for end in range(len(path), len("/tmp/"), -1):  # as much of it as a narrow screen shows
            text = text.replace(path[:end] + "…", name)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.fixture
def still(monkeypatch, staging):
    """Nobody's clock goes on."""
    now = types.SimpleNamespace(time_ns=lambda: staging.BEGINNING_NS + 45_000_000_000)
    for module in (summary, timeline_view):
        monkeypatch.setattr(module, "time", now)


@pytest.mark.parametrize("size", _SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", _SCREENS)
async def test_a_screen_looks_as_it_did(name, size, stage, show, still, monkeypatch, tmp_path):
    at, keys, there = _SCREENS[name]
    monkeypatch.chdir(tmp_path)
    first = stage(full=True, workspace_path=b"/work")
    first.end()
    second = stage("fixer-2", parent="fixer-1", where=tmp_path / "other", workspace_path=b"/other")
    second.turn()
    second.answer(second.begin())
    second.act("sh", {"command": "pytest"})
    second.journal.sync()
    async with show(None if at is None else "fixer-1", at, size) as seen:
        await seen.until("fixer-1")
        if at is not None:
            await seen.until(lambda: seen.app.screen.timeline.key == at)
        await seen.press(*keys)
        await seen.until(there)
        await seen.until(lambda: not seen.app.screen.workers._workers)
        shown = _normal(seen.text, tmp_path / "ws", tmp_path / "store")
    _compare(shown, name, size)


def _compare(shown, name, size):
    file = _HERE / f"{name}-{size[0]}x{size[1]}.txt"
    if os.environ.get("CRAB_TUI_RECORD"):
        file.write_text(shown)
    assert shown == file.read_text()


@pytest.mark.parametrize("size", [(40, 24), *_SIZES], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", _DIALOGS)
async def test_a_dialog_shows_its_command_and_its_question(
    name, size, stage, show, still, monkeypatch, tmp_path
):
    done, there = _DIALOGS[name]
    monkeypatch.setattr(Hand, "look", lambda *_: done)
    run = stage(full=True, workspace_path=b"/work")
    run.end()
    deep = b"a directory with a long name/and another one/a file that is deep down.txt"
    async with show("fixer-1", 4, size, is_default=True) as seen:
        await seen.until(lambda: seen.app.screen.timeline.key == 4)
        seen.app.screen.restore_paths([deep, b"src/util.py"])
        await seen.until(lambda: getattr(seen.app.screen, "_stage", "") == there)
        await seen.until(lambda: not seen.app.screen.workers._workers)
        shown = _normal(seen.text, tmp_path / "ws", tmp_path / "store")
        box = seen.app.screen.query_one("Vertical").content_region
        inside = [line[box.x : box.right] for line in seen.lines[box.y : box.bottom]]
        in_it = "".join("".join(inside).split())
        assert f"'/work/{deep.decode()}'/work/src/util.py".replace(" ", "") in in_it
        if there == "typing":
            assert "crabrestore--force--expect5f0c86a1d2b94e37" in in_it
            assert in_it.endswith("type:overwrite")
    _compare(shown, f"dialog-{name}", size)


async def test_a_live_run_says_what_it_does(stage, show, still):
    run = stage(full=True)
    run.answer(run.begin())
    run.act("sh", {"command": "pytest"})
    run.journal.sync()
    async with show("fixer-1") as seen:
        await seen.until("running sh")
        assert "running sh" in seen.lines[0]
        assert any(line.startswith("    ▶ ") and "running sh" in line for line in seen.lines[4:])
