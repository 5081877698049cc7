"""What the tests of the interface share: stores with runs, and a screen to look at."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import tempfile
import time
from pathlib import Path

import pytest

from crabrt.tui.app import CrabApp


@pytest.fixture
def tmp_path():
    """A directory with a short name: screens show paths, and cut long ones."""
    with tempfile.TemporaryDirectory(prefix="tui-") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Nothing of this user's own settings; one time zone; processes find this package."""
    for name in [name for name in os.environ if name.startswith(("CRAB_", "TEXTUAL"))]:
        if name != "CRAB_TUI_RECORD":
            monkeypatch.delenv(name)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    root = str(Path(__file__).parents[2])
    path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


@pytest.fixture(scope="session")
def staging():
    path = Path(__file__).parent / "staging.py"
    spec = importlib.util.spec_from_file_location("crab_test_staging", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def home(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def workspace(tmp_path):
    return tmp_path / "ws"


@pytest.fixture
def stage(staging, home, workspace):
    """Makes runs; closes them all."""
    made = []

    def make(run="fixer-1", *, full=False, where=workspace, **options):
        kind = staging.a_run if full else staging.Staged
        made.append(kind(home, where, run=run, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def run(stage):
    """Eight turns, still going on."""
    return stage(full=True)


class Seen:
    """The screen of a running application."""

    def __init__(self, app, pilot):
        self.app, self.pilot = app, pilot

    @property
    def lines(self):
        strips = self.app.screen._compositor.render_strips()
        return [strip.text.rstrip() for strip in strips]

    @property
    def text(self):
        return "\n".join(self.lines)

    @property
    def unwrapped(self):
        """The dialog's command, however it was broken into lines."""
        return str(self.app.screen.query_one("#command").content)

    @property
    def listed(self):
        """What the dialog shows, on the screen or beyond."""
        return self.app.screen.query_one("TextView").text

    @property
    def said(self):
        """What is told in passing."""
        return [told.message for told in self.app._notifications]

    def line(self, word):
        return next((line for line in self.lines if word in line), "")

    async def until(self, wanted, limit_s=20.0):
        """Wait for a text, or for a condition."""
        holds = (lambda: wanted in self.text) if isinstance(wanted, str) else wanted
        end = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < end, f"{wanted!r} is not to be seen:\n{self.text}"
            await asyncio.sleep(0.02)
        await self.pilot.pause()
        return self.text

    async def press(self, *keys, until=None):
        await self.pilot.press(*keys)
        await self.pilot.pause()
        return self.text if until is None else await self.until(until)

    async def type(self, text):
        for char in text:
            await self.pilot.press(char if char.isalnum() else _NAMES.get(char, char))
        await self.pilot.pause()


_NAMES = {"/": "slash", ".": "full_stop", ":": "colon", "-": "minus", " ": "space",
          "_": "underscore", "@": "at", "~": "tilde"}  # fmt: skip


@pytest.fixture
def show(home):
    """Run the interface without a terminal, of a size."""

    @contextlib.asynccontextmanager
    async def shown(run=None, at=None, size=(120, 40), **options):
        app = CrabApp(home, run, at, **options)
        async with app.run_test(size=size) as pilot:
            yield Seen(app, pilot)
        await asyncio.sleep(0)

    return shown
