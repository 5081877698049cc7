"""The line of keys at the bottom: what it shows at each width, and the mouse on it."""

from __future__ import annotations

import pytest

from crabrt.tui.key_bar import KeyBar


def bar(seen):
    return seen.app.screen.query_one(KeyBar)


def place(seen, word):
    """Where a word stands on the line."""
    return seen.lines[-1].index(word)


async def test_a_click_on_a_key_presses_it(run, show):
    run.end()
    async with show("fixer-1", 3) as seen:
        await seen.until(lambda: seen.app.screen.timeline.key == 3)
        await seen.pilot.click(KeyBar, offset=(place(seen, "Open"), 0))
        await seen.until("[1 Overview]")
        await seen.pilot.click(KeyBar, offset=(place(seen, "Back"), 0))
        await seen.until("ended done")
        await seen.pilot.click(KeyBar, offset=(place(seen, "palette"), 0))
        await seen.until("Search for commands")


async def test_the_mouse_points_out_a_key_and_what_it_does(run, show):
    run.end()
    async with show("fixer-1", 3) as seen:
        await seen.until(lambda: seen.app.screen.timeline.key == 3)
        await seen.pilot.hover(KeyBar, offset=(place(seen, "Restore"), 0))
        assert bar(seen).tooltip == "Put the workspace back to this turn"
        await seen.pilot.hover("#timeline")
        await seen.until(lambda: bar(seen)._over is None)


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120])
async def test_no_key_is_shown_in_part(run, show, width):
    run.end()
    async with show("fixer-1", 3, size=(width, 24)) as seen:
        await seen.until(lambda: seen.app.screen.timeline.key == 3)
        await seen.until(lambda: "Open" in seen.lines[-1])
        shown = bar(seen)._shown()
        assert all(0 <= key.start < key.end <= width for key in shown)
        words = [word for key in shown for word in f"{key.shown} {key.word}".split()]
        assert seen.lines[-1].replace("▏", " ").split() == words


async def test_keys_that_mean_nothing_now_are_not_shown(run, show):
    run.end()
    async with show("fixer-1", 3) as seen:
        await seen.until(lambda: seen.app.screen.timeline.key == 3)
        await seen.press("r", until="Do it?")
        await seen.until(lambda: "d Do it" in seen.lines[-1])
        await seen.press("escape", until="ended done")
        await seen.until(lambda: "r Restore" in seen.lines[-1])
        assert "d Do it" not in seen.lines[-1]
