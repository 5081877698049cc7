"""Every key of every screen, on runs with real files; what is done, is done by real commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading

from textual import events

from crabrt.tui import deeds
from crabrt.tui.deeds import Done, Errand, Hand, Progress, Told
from crabrt.tui.themes import DARK, LIGHT


def cursor(seen):
    return seen.app.screen.timeline.key


async def test_the_list_of_runs_is_a_tree_and_opens_what_is_under_the_cursor(stage, show, tmp_path):
    stage(full=True).end()
    child = stage("fixer-2", parent="fixer-1", where=tmp_path / "other")
    child.turn()
    async with show() as seen:
        await seen.until("fixer-2")
        assert "└ fixer-2" in seen.text
        assert "▶ running" in seen.line("fixer-2")
        assert "✓ done" in seen.line("fixer-1 ")
        view = seen.app.screen.view
        await seen.press("end", "home")
        assert view.key == view.keys[0]
        await seen.press("down")
        assert view.key == view.keys[1]
        await seen.press("up", "enter", until="ended done")
        await seen.press("escape", until="2 runs")
        await seen.press("q")
        await seen.until(lambda: not seen.app.is_running)


async def test_the_cursor_moves_and_the_newest_turn_is_followed_until_somebody_leaves_it(run, show):
    async with show("fixer-1", size=(100, 12)) as seen:
        await seen.until(lambda: cursor(seen) == 8)
        run.turn()
        await seen.until(lambda: cursor(seen) == 9)
        await seen.press("k")
        assert cursor(seen) == 8
        run.turn()
        await seen.until(lambda: seen.app.screen.state.rows.numbers[-1] == 10)
        assert cursor(seen) == 8
        for key, at in (("home", 0), ("j", 1), ("pagedown", 7), ("pageup", 1), ("space", 7),
                        ("g", 0), ("G", 10), ("up", 9), ("down", 10)):  # fmt: skip
            await seen.press(key)
            assert cursor(seen) == at, key
        run.turn()
        await seen.until(lambda: cursor(seen) == 11)


async def test_the_mouse_moves_the_cursor_opens_turns_and_scrolls(run, show):
    async with show("fixer-1", size=(100, 12)) as seen:
        await seen.until(lambda: cursor(seen) == 8)
        view = seen.app.screen.timeline
        top = view.scroll_offset.y
        view.post_message(_wheel(view, up=True))
        await seen.until(lambda: view.scroll_offset.y < top)
        run.turn()
        await seen.until(lambda: seen.app.screen.state.rows.numbers[-1] == 9)
        assert view.scroll_offset.y < top
        await seen.pilot.click("#timeline", offset=(10, 2))
        clicked = cursor(seen)
        assert clicked not in {8, 9}
        await seen.pilot.click(
            "#timeline", offset=(10, view.line_of(clicked) - view.scroll_offset.y)
        )
        await seen.until(f"fixer-1@{clicked}")
        await seen.pilot.click("#tabs", offset=(34, 0))
        await seen.until("[3 Calls]")


def _wheel(view, *, up):
    kind = events.MouseScrollUp if up else events.MouseScrollDown
    return kind(view, 5, 3, 0, -1, 0, False, False, False)


async def test_turns_are_filtered_while_one_types(run, show):
    async with show("fixer-1") as seen:
        await seen.until(lambda: cursor(seen) == 8)
        await seen.press("slash")
        await seen.type("tool:edit")
        await seen.until("2 turns")
        assert seen.app.screen.timeline.keys == (1, 4)
        await seen.press("enter", "end")
        assert cursor(seen) == 4
        run.turn(None, tool="edit")
        await seen.until("3 turns")
        await seen.press("escape")
        await seen.until(lambda: len(seen.app.screen.timeline.keys) == 10)
        await seen.press("slash")
        await seen.type("gone")
        await seen.until(lambda: seen.app.screen.timeline.keys == (8,))
        await seen.press("escape", "slash")
        await seen.type("tool:")
        await seen.type("zzz")
        await seen.until("0 turns")
        await seen.press("escape", "escape", until="1 run")


async def test_a_filter_that_is_none_says_why(run, show):
    async with show("fixer-1") as seen:
        await seen.until(lambda: cursor(seen) == 8)
        await seen.press("slash")
        await seen.type("verdict:colours")
        await seen.until("verdict:colours")
        await seen.until(lambda: "files" in seen.line("verdict:colours"))


async def test_which_turns_touched_a_path(run, show):
    async with show("fixer-1") as seen:
        await seen.until(lambda: cursor(seen) == 8)
        await seen.press("t", until="Which path?")
        await seen.type("src/app.py")
        await seen.press("enter")
        await seen.until(lambda: seen.app.screen.timeline.keys == (1, 4))
        assert "touched src/app.py" in seen.text
        await seen.press("escape")
        await seen.until(lambda: len(seen.app.screen.timeline.keys) == 9)


async def test_two_turns_are_compared(run, show):
    async with show("fixer-1") as seen:
        await seen.until(lambda: cursor(seen) == 8)
        await seen.press("c", until="from fixer-1@7 to @8")
        await seen.until("- notes.txt")
        await seen.press("escape")
        await seen.press("home", "m", "end", "c", until="from fixer-1@0 to @8")
        await seen.until("src/util.py")
        await seen.press("end", until="+X = 1")
        assert "notes.txt" not in seen.text
        assert "README.md" in seen.text
        await seen.press("enter")
        await seen.until(lambda: seen.app.screen.focused.id == "patch")
        await seen.press("escape")
        assert seen.app.screen.focused.id == "paths"
        await seen.press("escape")
        await seen.press("home", "m", "end", "c", until="from fixer-1@7 to @8")


async def test_a_turn_is_shown_in_parts(run, show):
    async with show("fixer-1", 4) as seen:
        await seen.until(lambda: cursor(seen) == 4)
        await seen.press("enter", until="[1 Overview]")
        await seen.until("as staged")
        await seen.press("2", until="reply 3")
        await seen.press("3", until="[3 Calls]")
        await seen.press("4", until='+    return f"{value} bytes"')
        await seen.press("5", until="src/")
        await seen.press("tab", until="[1 Overview]")
        await seen.press("shift+tab", until="[5 Files]")
        await seen.press("right_square_bracket", until="fixer-1@5")
        await seen.press("1", until="declared external")
        await seen.press("right_square_bracket", "3", until="no such thing")
        assert "\x1b" not in seen.text
        assert r"raised ValueError: no such thing \x1b[31mred" in seen.text
        await seen.press("left_square_bracket", until="fixer-1@5")
        await seen.press("escape")
        await seen.until(lambda: cursor(seen) == 5)


async def test_the_files_of_a_turn_are_browsed(run, show):
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        await seen.press("enter", "5", until="src/")
        await seen.press("enter", until="app.py")
        assert "README.md" not in seen.text
        await seen.press("down", until='return f"{value} B"')
        await seen.press("enter")
        await seen.until(lambda: seen.app.screen.focused.id == "file")
        await seen.press("left")
        assert seen.app.screen.focused.id == "entries"
        await seen.press("backspace")
        await seen.until(lambda: seen.app.screen.focused.path == b"src")


async def test_text_with_newlines_is_shown_as_a_block(run, show):
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        await seen.press("enter", "3", until="│ def size(value):")
        assert "path src/app.py" in seen.text


async def test_words_are_found_in_a_long_text(run, show):
    lines = "\n".join(f"line {n}" + (" NEEDLE" if n % 700 == 650 else "") for n in range(3_000))
    run.turn(None, result=lines)
    async with show("fixer-1", 9) as seen:
        await seen.until(lambda: cursor(seen) == 9)
        await seen.press("enter", "3", until="line 7")
        await seen.press("slash", until="Find in this text")
        await seen.type("needle")
        await seen.press("enter", until="line 650 NEEDLE")
        await seen.press("n", until="line 1350 NEEDLE")
        await seen.press("n", until="line 2050 NEEDLE")
        await seen.press("N", until="line 1350 NEEDLE")
        await seen.press("N", "N")
        await seen.until(lambda: "nothing before this: needle" in seen.said)
        await seen.press("slash")
        for _ in range(6):
            await seen.press("backspace")
        await seen.type("nowhere")
        await seen.press("enter")
        await seen.until(lambda: "not found: nowhere" in seen.said)
        await seen.press("end", until="line 2999")
        await seen.press("home", until="line 0")


async def test_a_wide_screen_has_the_turn_beside_the_timeline(run, show):
    async with show("fixer-1", 1, size=(180, 40)) as seen:
        await seen.until("src/app.py added")
        await seen.until("│ def size(value):")
        await seen.press("down", "down", until="3 passed")
        await seen.pilot.resize_terminal(100, 30)
        await seen.until(lambda: "3 passed" not in seen.text)


async def test_help_names_every_key_of_the_screen_below(run, show):
    async with show("fixer-1", size=(120, 80)) as seen:
        await seen.until(lambda: cursor(seen) == 8)
        await seen.press("question_mark", until="What a turn did")
        for words in ("Put the workspace back", "Undo the last restore", "Pin the turn",
                      "Which turns changed a path?", "● durable", "Dark or light"):  # fmt: skip
            assert words in seen.text, words
        assert "Scroll Left" not in seen.text
        await seen.press("escape")
        assert "What a turn did" not in seen.text


async def test_the_palette_does_what_keys_do(run, show):
    async with show("fixer-1") as seen:
        await seen.until(lambda: cursor(seen) == 8)
        await seen.press("ctrl+p", until="Search for commands")
        await seen.type("touched")
        await seen.until("Which turns changed a path?")
        await seen.pilot.pause(0.5)
        await seen.press("enter", until="relative to the workspace")


async def test_dark_and_light(run, show):
    async with show("fixer-1") as seen:
        await seen.until(lambda: cursor(seen) == 8)
        assert seen.app.theme == DARK.name
        await seen.press("D")
        assert seen.app.theme == LIGHT.name
        await seen.until("edit")
        await seen.press("D")
        assert seen.app.theme == DARK.name


async def test_names_and_commands_are_copied(run, home, show):
    run.end()
    async with show("fixer-1", 3) as seen:
        await seen.until(lambda: cursor(seen) == 3)
        await seen.press("y")
        assert seen.app.clipboard == "fixer-1@3"
        await seen.press("Y")
        await seen.until(lambda: "nothing has been done yet" in seen.said)
        await seen.press("L", until="A name for turn 3")
        await seen.type("no name")
        await seen.press("enter", until="letters, digits")
        for _ in range(7):
            await seen.press("backspace")
        await seen.type("mine")
        await seen.press("enter", until="Do it?")
        command = f"crab label --home {home} fixer-1@3 mine"
        assert command in seen.unwrapped
        assert "Would label fixer-1@3" in seen.listed
        await seen.press("d", until="Done.")
        await seen.press("escape", until="⚑ mine")
        await seen.press("Y")
        assert seen.app.clipboard == command
        await seen.press("P", until="Do it?")
        assert "Would pin fixer-1@3" in seen.listed
        await seen.press("d", until="Done.")
        assert "It was read back, and is so." in seen.listed
        await seen.press("escape", until="⚑★3" if "⚑★3" in seen.text else "★3")


async def test_a_restore_is_previewed_done_and_undone(run, home, workspace, show):
    run.end()
    now = (workspace / "src/app.py").read_text()
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        await seen.press("r", until="Do it?")
        assert re.search(r"crab restore --expect [0-9a-f]{16} --home \S+ fixer-1@1", seen.unwrapped)
        assert (workspace / "src/app.py").read_text() == now
        await seen.press("n", until="ended done")
        assert (workspace / "src/app.py").read_text() == now
        await seen.press("r", until="Do it?")
        await seen.press("d", until="Done.")
        assert "was read back, and is right" in seen.text
        assert "took" in seen.text
        assert " B" in (workspace / "src/app.py").read_text()
        assert not (workspace / "README.md").exists()
        await seen.press("escape", until="files restored")
        await seen.press("u", until="Do it?")
        await seen.press("d", until="Done.")
        assert (workspace / "src/app.py").read_text() == now
        await seen.press("escape", until="undone")
        await seen.press("Y")
        assert seen.app.clipboard == f"crab undo --home {home} {workspace}"


async def test_only_the_chosen_paths_are_restored(run, workspace, show):
    run.turn(lambda: [run.write(name, "new\n") for name in ("README.md", "src/app.py", "-x.txt")])
    run.end()
    async with show("fixer-1", 9) as seen:
        await seen.until(lambda: cursor(seen) == 9)
        (workspace / "README.md").unlink()
        (workspace / "src/app.py").unlink()
        (workspace / "-x.txt").unlink()
        await seen.press("enter", "4", until="~ src/app.py")
        await seen.press("home", "space", "space")
        assert seen.text.count("✓") == 2
        await seen.press("R", until="type: overwrite")
        await seen.type("overwrite")
        await seen.press("enter", until="Done.")
    assert sorted(os.listdir(workspace)) == ["-x.txt", "README.md", "src"]
    assert not (workspace / "src/app.py").exists()


async def test_a_fork_asks_where_to(run, tmp_path, show):
    run.end()
    async with show("fixer-1", 2) as seen:
        await seen.until(lambda: cursor(seen) == 2)
        await seen.press("F", until="to which directory?")
        await seen.press("enter", until="a directory is needed")
        await seen.type(str(tmp_path / "fork"))
        await seen.press("enter", until="Do it?")
        assert "Would restore fixer-1@2" in seen.listed
        assert "+ README.md" in seen.listed
        assert not (tmp_path / "fork").exists()
        await seen.press("d", until="Done.")
        assert (tmp_path / "fork" / "README.md").read_text() == "# An app\n"
        await seen.press("escape", until="⑂ fork")


def crab(home, *words):
    """A command as in another terminal; its exit code."""
    argv = [sys.executable, "-m", "crabrt", *words, "--home", str(home)]
    return subprocess.run(argv, capture_output=True, check=False).returncode


async def test_a_path_means_that_path_wherever_the_screen_was_started(
    stage, workspace, show, monkeypatch
):
    run = stage()
    run.turn(lambda: (run.write("README.md", "top\n"), run.write("docs/README.md", "below\n")))
    run.turn(lambda: (run.write("README.md", "2\n"), run.write("docs/README.md", "2\n")))
    run.end()
    monkeypatch.chdir(workspace / "docs")
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        await seen.press("enter", "5", until="README.md")
        await seen.press("down", until="top")
        await seen.press("R", until="Do it?")
        assert f"{workspace}/README.md" in seen.unwrapped
        await seen.press("d", until="Done.")
    assert (workspace / "README.md").read_text() == "top\n"
    assert (workspace / "docs/README.md").read_text() == "2\n"


async def test_a_path_is_not_looked_up_through_what_is_a_link_by_now(stage, workspace, show):
    run = stage()
    run.turn(lambda: (run.write("src/a.txt", "a\n"), run.write("lib/a.txt", "lib\n")))
    run.turn(lambda: run.write("lib/a.txt", "newer\n"))
    run.turn(lambda: (workspace / "src/a.txt").unlink())
    run.turn(lambda: ((workspace / "src").rmdir(), (workspace / "src").symlink_to("lib")))
    run.end()
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        await seen.press("enter", "5", until="src/")
        await seen.press("down", "enter", until="a.txt")
        await seen.press("down", "R", until="esc: ")
        await seen.press("d", until="esc: back")
    assert (workspace / "lib/a.txt").read_text() == "newer\n"


async def test_a_fork_goes_where_the_question_was_answered(run, tmp_path, show, monkeypatch):
    run.end()
    (tmp_path / "me").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    async with show("fixer-1", 2) as seen:
        await seen.until(lambda: cursor(seen) == 2)
        for typed, meant in (("~/fork", tmp_path / "me" / "fork"), ("fork", tmp_path / "fork")):
            monkeypatch.chdir(tmp_path)
            await seen.press("F", until="to which directory?")
            await seen.type(typed)
            await seen.press("enter", until="Do it?")
            assert f"--to {meant}" in seen.unwrapped
            monkeypatch.chdir("/")
            await seen.press("d", until="Done.")
            assert (meant / "README.md").exists()
            await seen.press("escape")
            await seen.until(lambda: cursor(seen) is not None)


async def test_no_key_of_the_other_screens_does_what_is_asked(run, workspace, show):
    run.end()
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        elsewhere = {key for key in seen.app.screen.active_bindings if key != "escape"}
        await seen.press("enter", "4", until="[4 Changes]")
        elsewhere |= {key for key in seen.app.screen.active_bindings if key != "escape"}
        assert {"y", "r", "enter", "space"} <= elsewhere
        assert "d" not in elsewhere
        await seen.press("escape", "r", until="Do it?")
        screen = seen.app.screen
        harmless = {key for key in elsewhere if "+" not in key}
        for key in sorted(harmless - {"n", "q", "question_mark", "slash"}):
            await seen.press(key)
            assert screen.is_attached, key
            assert screen._stage == "ready", key
        assert (workspace / "README.md").exists()
        await seen.press("escape")


async def test_what_is_undone_is_what_was_shown(run, home, workspace, show):
    run.end()
    assert crab(home, "restore", "fixer-1@2") == 0
    async with show("fixer-1", 4) as seen:
        await seen.until(lambda: cursor(seen) == 4)
        await seen.press("u", until="Do it?")
        assert "restore fixer-1@2" in seen.listed
        assert crab(home, "restore", "fixer-1@7") == 0
        assert (workspace / "notes.txt").exists()
        await seen.press("d", until="look again")
        assert (workspace / "notes.txt").exists()
        await seen.until("Do it?")
        assert "restore fixer-1@7" in seen.listed
        await seen.press("d", until="Done.")
        assert sorted(os.listdir(workspace)) == ["README.md", "src"]
        assert not (workspace / "src/util.py").exists()


async def test_what_is_restored_is_what_was_shown(run, workspace, show):
    run.end()
    async with show("fixer-1", 4) as seen:
        await seen.until(lambda: cursor(seen) == 4)
        await seen.press("r", until="Do it?")
        assert "- src/util.py" in seen.listed
        (workspace / "src/app.py").write_text("somebody's own\n")
        await seen.press("d", until="look again")
        await seen.until("type: overwrite")
        assert (workspace / "src/util.py").exists()
        assert "~ src/app.py" in seen.listed
        (workspace / "README.md").unlink()
        await seen.type("overwrite")
        await seen.press("enter", until="look again")
        await seen.until(lambda: "+ README.md" in seen.listed)
        assert (workspace / "src/util.py").exists()
        await seen.type("overwrite")
        await seen.press("enter", until="Done.")
    assert "bytes" in (workspace / "src/app.py").read_text()
    assert not (workspace / "src/util.py").exists()


async def test_a_preview_lists_everything(run, workspace, show):
    def many():
        for number in range(100):
            run.write(f"many/{number:03}.txt", "x\n")

    run.turn(many)
    run.end()
    for number in range(100):
        (workspace / f"many/{number:03}.txt").write_text("mine\n")
    async with show("fixer-1", 1, size=(80, 24)) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        await seen.press("r", until="type: overwrite")
        await seen.press("tab", "shift+tab", "end")
        await seen.until(lambda: seen.app.screen.query_one("TextView").done)
        for number in range(100):
            assert seen.listed.count(f"many/{number:03}.txt") == 2, number
        assert "lists all" not in seen.listed
        await seen.press("escape")


async def test_runs_and_paths_are_copied_as_commands_take_them(stage, home, show):
    run = stage()
    run.turn(lambda: run.write("a b.txt", "1\n"))
    run.end()
    async with show() as seen:
        await seen.until("fixer-1")
        await seen.press("y")
        assert seen.app.clipboard == "fixer-1"
        await seen.press("enter", until="ended done")
        await seen.press("enter", "4", until="+ a b.txt")
        await seen.press("y")
        assert seen.app.clipboard == "'fixer-1@1:a b.txt'"
        await seen.press("5", until="a b.txt")
        await seen.press("y")
        assert seen.app.clipboard == "'fixer-1@1:a b.txt'"
        assert crab(home, "show", *shlex.split(seen.app.clipboard)) == 0
        await seen.press("1", "y")
        assert seen.app.clipboard == "fixer-1@1"
        await seen.press("escape", "c", until="from fixer-1@0 to @1")
        await seen.until("+ a b.txt")
        await seen.press("y")
        assert seen.app.clipboard == "'fixer-1@1:a b.txt'"
        await seen.until(lambda: seen.app._notifications)
        titles = {told.title for told in seen.app._notifications}
        assert titles == {"sent to the terminal's clipboard"}


async def test_a_label_that_moves_says_from_where(run, show):
    run.end()
    async with show("fixer-1", 3) as seen:
        await seen.until(lambda: cursor(seen) == 3)
        await seen.press("L", until="A name for turn 3")
        await seen.type("good")
        await seen.press("enter", until="Do it?")
        assert "good is fixer-1@4 now, which loses that label: it moves." in seen.listed
        await seen.press("d", until="Done.")
        assert "(until now it was @4)" in seen.listed
        await seen.press("escape", until="⚑3")
        assert "⚑4" not in seen.text


async def test_columns_without_room_are_a_key_away(run, show):
    run.end()
    async with show("fixer-1", 3, size=(80, 24)) as seen:
        await seen.until(lambda: cursor(seen) == 3)
        assert "v More" in seen.lines[-1]
        met = set()
        for _ in range(seen.app.screen.timeline.pages):
            met |= set(seen.lines[3].split())
            await seen.press("v")
        assert {"took", "files", "held", "stored", "tokens", "cost", "effects"} <= met
        assert set(seen.lines[3].split()) < met
    async with show("fixer-1", 3, size=(320, 60)) as seen:
        await seen.until(lambda: cursor(seen) == 3)
        assert seen.app.screen.timeline.pages == 1
        assert "v More" not in seen.lines[-1]


async def test_what_is_done_says_how_far_it_is(run, show, monkeypatch):
    run.end()
    over, told = threading.Event(), []

    def do(*_):
        assert over.wait(60)
        return Done(0, "Restored.")

    monkeypatch.setattr(Hand, "do", do)
    monkeypatch.setattr(Hand, "progress", property(lambda _: told[-1] if told else None))
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        await seen.press("r", until="Do it?")
        await seen.press("d", until="working ...")
        told.append(Progress(1_250, 5_000))
        await seen.until("██████░░░░░░░░░░░░░░░░░░  1,250 of 5,000 steps")
        told.append(Progress(5_000, 5_000))
        await seen.until("all 5,000 steps: checking what was written")
        over.set()
        await seen.until("Done.")
        assert "steps" not in seen.text


def test_a_command_tells_how_far_it_is(run, home, workspace):
    run.end()
    errand = Errand(home, deeds.restore("fixer-1", 0), 80)
    assert errand.wait(120).ok
    done = errand.progress
    assert done is not None
    assert done.done == done.total > 0
    assert not (workspace / "src").exists()


def test_of_what_is_told_only_whole_lines_of_numbers_count():
    told = Told()
    try:
        assert told.last() is None
        os.write(told.theirs, b"1 10\n2 1")
        assert told.last() == Progress(1, 10)
        os.write(told.theirs, b"0\nx y\n-1 3\n")
        assert told.last() == Progress(2, 10)
    finally:
        told.begun()
        told.close()
    assert told.last() == Progress(2, 10)


async def test_a_store_that_is_the_default_is_not_named(run, home, show):
    run.end()
    async with show("fixer-1", 3, is_default=True) as seen:
        await seen.until(lambda: cursor(seen) == 3)
        await seen.press("P", until="Do it?")
        assert str(home) not in seen.unwrapped
        await seen.press("d", until="Done.")
        await seen.press("escape", "Y")
        assert seen.app.clipboard == "crab pin fixer-1@3"
