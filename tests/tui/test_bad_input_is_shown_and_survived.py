"""What is damaged, gone, hostile, huge or refused is told on the screen, and the screen goes on."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from crabrt.core.entries import Payload
from crabrt.journal.layout import journal_dir
from crabrt.store.contents import put_stream
from crabrt.tui import copying, deeds, turn_text
from crabrt.tui.app import CrabApp
from crabrt.tui.deeds import Done, Hand

_MIB = 1 << 20


def cursor(seen):
    return seen.app.screen.timeline.key


async def test_a_damaged_journal_is_told_and_what_can_be_read_is_shown(run, show):
    run.close()
    [segment] = journal_dir(run.directory).glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[len(data) * 3 // 4] ^= 0xFF
    segment.write_bytes(data)
    async with show("fixer-1") as seen:
        await seen.until("☒ damaged")
        assert "! " in seen.lines[0]
        assert 2 <= len(seen.app.screen.timeline.keys) < 9
        await seen.press("home", "down", "enter", until="src/app.py added")


async def test_a_run_that_is_deleted_while_it_is_shown_stays_readable(run, home, show):
    run.close()
    async with show("fixer-1") as seen:
        await seen.until(lambda: cursor(seen) == 8)
        shutil.rmtree(run.directory)
        await seen.until("this run was deleted")
        await seen.press("up", "enter", until="! ")
        await seen.press("escape", "escape", until="0 runs")


async def test_a_turn_whose_objects_are_gone_says_so(run, home, show):
    run.end()
    packs = list((home / "packs").rglob("*.*"))
    assert packs
    for pack in packs:
        if pack.is_file():
            pack.unlink()
    async with show("fixer-1", 4) as seen:
        await seen.until(lambda: cursor(seen) == 4)
        await seen.press("enter", "5")
        await seen.until(lambda: "src/" not in seen.text and len(seen.lines[3]) > 5)
        await seen.press("2", until="! ")
        await seen.press("escape", "escape", until="1 run")


async def test_a_store_of_a_newer_format_is_refused_in_words(run, home, show):
    run.end()
    text = (home / "format.json").read_text()
    (home / "format.json").write_text(text.replace('"version": 1', '"version": 99'))
    assert '"version": 99' in (home / "format.json").read_text()
    async with show("fixer-1") as seen:
        await seen.until("! ")
        assert "99" in seen.lines[0]
        await seen.press("r", "enter", "c", "slash", "escape")
        await seen.press("escape")
        await seen.until(lambda: "99" in seen.lines[0])


async def test_no_store_is_no_runs(home, show):
    async with show() as seen:
        await seen.until("there is no store here")
        assert not home.exists()
        await seen.press("enter", "down", "r", "question_mark", until="What a turn did")


@pytest.mark.parametrize("width", [20, 40])
async def test_a_narrow_terminal_shows_what_fits(width, run, show):
    async with show("fixer-1", 4, size=(width, 15)) as seen:
        await seen.until(lambda: cursor(seen) == 4)
        await seen.until("⚑4")
        assert all(len(line) <= width for line in seen.lines)
        for part in "12345":
            await seen.press(*(["enter"] if part == "1" else []), part)
            await seen.until(lambda: not seen.app.screen.workers._workers)
            assert all(len(line) <= width for line in seen.lines)
        await seen.press("escape", "escape", "r", "escape", "c", "escape", "question_mark")
        assert seen.app.is_running


async def test_a_terminal_may_change_its_size_at_any_time(run, show):
    async with show("fixer-1", 4, size=(120, 40)) as seen:
        await seen.until(lambda: cursor(seen) == 4)
        for size in ((40, 10), (240, 60), (20, 5), (3, 2), (1, 1), (80, 24)):
            await seen.pilot.resize_terminal(*size)
            await seen.pilot.pause()
        await seen.until("edit")
        assert cursor(seen) == 4
        await seen.press("enter", "3", until="[3 Calls]")
        await seen.pilot.resize_terminal(10, 3)
        await seen.pilot.resize_terminal(100, 30)
        await seen.until("edit(command")


HOSTILE = (
    "clear \x1b[2J\x1b[H title \x1b]0;owned\x07 bell \x07 bs \b\b c1 \x9b31m nul \x00 cr \r\n"
    "bidi \u202eabc\u202c \u2066iso\u2069 wide \u4f60\u597d combining e\u0301\u0301 zwj "
    "\U0001f469\u200d\U0001f52c tab\there bytes \udcff private \ue000 markup [red]x[/red] [/]\n"
)


async def test_hostile_output_is_shown_and_never_executed(stage, workspace, show):
    run = stage()
    name = "a\x1b[2J\u202e[bold].txt"
    run.turn(lambda: run.write(name, HOSTILE.encode("utf-8", "surrogateescape")),
             tool="sh\x1b[2J", arguments={"x\x1b[2J": HOSTILE.replace("\udcff", "")},
             result=HOSTILE.replace("\udcff", ""), evidence=("\x1b[2J[bold]",))  # fmt: skip
    run.end()
    async with show("fixer-1", 1, size=(180, 50)) as seen:
        await seen.until(r"\x1b[2J")
        for keys, there in (((), "sh"), (("enter",), r"\x1b[2J[bold]"), (("2",), "reply"),
                            (("3",), "[red]x[/red] [/]"), (("4",), r"\u202e[bold].txt"),
                            (("5",), r"[bold].txt")):  # fmt: skip
            await seen.press(*keys)
            await seen.until(there)
            drawn = [s for strip in seen.app.screen._compositor.render_strips() for s in strip]
            text = "".join(segment.text for segment in drawn)
            assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), keys
        await seen.press("R", until="$'")
        drawn = [s.text for strip in seen.app.screen._compositor.render_strips() for s in strip]
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "".join(drawn))
        await seen.press("escape", "y")


def _peak_mib(*, anew=False):
    """The most memory there was, at all or since the last call with `anew`."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024


async def test_a_huge_output_is_read_as_far_as_it_is_looked_at(stage, show):
    size = 300 * _MIB
    run = stage()
    line = b"0123456789 " * 10 + b"\n"

    def stream():
        yield b"\xdb" + size.to_bytes(4, "big")
        block = line * (_MIB // len(line))
        left = size
        while left:
            part = block[:left]
            yield part
            left -= len(part)

    run.answer(run.begin())
    call = run.act("cat", {})
    stored = Payload(content=put_stream(stream(), run.writer))
    run.large = lambda _: stored
    run.done(call, object)
    run.checkpoint(1)
    run.end()
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        before = _peak_mib(anew=True)
        await seen.press("enter", "3", until="0123456789")
        view = seen.app.screen.query_one("#calls")
        assert len(view.text) < 2 * _MIB
        await seen.pilot.press("end")
        await seen.until(lambda: view.done, limit_s=60)
        assert "the screen shows no more of it" in view.text
        assert len(view.text) < 8 * _MIB
        assert _peak_mib() - before < 100


async def test_one_endless_line_is_shown_in_parts(stage, show):
    run = stage()
    run.turn(None, result="x" * (10 * _MIB) + "the end")
    run.end()
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        await seen.press("enter", "3", until="xxxx")
        await seen.press("down", "pagedown", "question_mark", until="What a turn did")


AGENT = """
import sys
import crabrt
with crabrt.open_run(workspace=sys.argv[1], home=sys.argv[2], name="live") as run:
    run.model_call([], lambda: "reply")
    run.tool_call("sh", {}, lambda: print(run.id, flush=True) or sys.stdin.read())
"""


@pytest.fixture
def agent(home, workspace):
    """A loop that is inside of a tool, in a process of its own; the process, and its run."""
    workspace.mkdir()
    argv = [sys.executable, "-c", AGENT, str(workspace), str(home)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


async def test_a_run_whose_process_is_killed_becomes_crashed(agent, show):
    process, run = agent
    async with show(run) as seen:
        await seen.until("▶ running")
        await seen.until("running sh")
        process.send_signal(signal.SIGKILL)
        await seen.until("! crashed")
        assert process.wait() == -signal.SIGKILL
        assert "running sh" not in seen.text
        await seen.press("escape", until="! crashed")


async def test_a_restore_that_would_lose_changes_wants_a_word(run, workspace, show):
    run.end()
    (workspace / "README.md").write_text("somebody's own\n")
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        await seen.press("r", until="type: overwrite")
        assert "--force" in seen.unwrapped
        await seen.press("d", "enter", until="unless you type")
        assert (workspace / "README.md").read_text() == "somebody's own\n"
        await seen.press("escape", until="ended done")
        assert (workspace / "README.md").read_text() == "somebody's own\n"
        await seen.press("r", until="type: overwrite")
        await seen.type("overwrite")
        await seen.press("enter", until="Done.")
        assert "--force" in seen.text
        assert "overwritten though changed by somebody else" in seen.text
        assert not (workspace / "README.md").exists()


async def test_a_workspace_that_is_in_use_is_left_alone(run, workspace, show):
    run.journal.sync()
    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        await seen.press("r")
        await seen.until(lambda: "exit code 6" in seen.text or "Do it?" in seen.text)
        if "Do it?" in seen.text:  # a preview harms nobody
            await seen.press("d", until="Not done (exit code 6)")
        assert (workspace / "README.md").exists()
        await seen.press("escape", until="▶ running")


async def test_a_command_that_is_killed_is_told(run, workspace, show, monkeypatch):
    run.end()
    killed = []

    def wait(errand, limit_s=None):
        errand._process.kill()
        killed.append(errand._process.wait())
        errand._output.close()
        return Done(killed[-1], "")

    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        monkeypatch.setattr(deeds.Errand, "wait", wait)
        await seen.press("r", until="ended by SIGKILL: nothing was changed")
        await seen.press("d", "escape", until="ended done")
    assert killed == [-signal.SIGKILL]


async def test_what_nobody_waits_for_any_more_is_ended(run, show, monkeypatch, tmp_path):
    run.end()
    begun, ended = threading.Event(), []
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ntime.sleep(60)\n")
    wait = deeds.Errand.wait

    def instead(errand, limit_s=None):
        errand._process.kill()
        errand._process.wait()
        errand._process = subprocess.Popen([sys.executable, str(slow)])
        begun.set()
        done = wait(errand, limit_s)
        ended.append(done.code)
        return done

    async with show("fixer-1", 1) as seen:
        await seen.until(lambda: cursor(seen) == 1)
        monkeypatch.setattr(deeds.Errand, "wait", instead)
        await seen.press("r", until="looking what would change")
        await seen.until(begun.is_set)
        await seen.press("escape")
        await seen.until(lambda: ended == [-signal.SIGKILL])


def test_a_preview_that_takes_too_long_is_given_up(home, monkeypatch):
    monkeypatch.setattr(deeds, "PREVIEW_LIMIT_S", 0.01)
    done = Hand(home).look(deeds.restore("fixer-1", 1))
    assert done.code == -signal.SIGKILL


def test_what_cannot_be_started_is_told(home, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere")
    done = Hand(home).do(deeds.pin("fixer-1", 1, pinned=False))
    assert done.code == 1
    assert "no process can be had" in done.text


def test_a_command_can_be_pasted_whatever_a_file_is_called(tmp_path):
    names = [b"-x", b"a b'c", b"\x1b[2J", b"new\nline", b"\xff\xfe", "\u202e".encode(), b"\\'"]
    command = Hand(tmp_path, names_home=False).command(deeds.restore("r-1", 2, b"/ws", names))
    assert command.isprintable()
    shown = subprocess.run(
        ["bash", "-c", command.replace("crab ", "printf '%s\\0' ", 1)],
        capture_output=True,
        check=True,
    )
    assert shown.stdout.split(b"\0")[2:-1] == [b"/ws/" + name for name in names]
    command = Hand(tmp_path / "a b").command(deeds.label("r-1", 2, "-x"))
    assert command == f"crab label --home '{tmp_path}/a b' -- r-1@2 -x"


def test_programs_in_the_current_directory_are_not_run(home, workspace, monkeypatch):
    workspace.mkdir()
    for name in ("crabrt", "click"):
        (workspace / name).mkdir()
        for module in ("__init__", "__main__"):
            (workspace / name / f"{module}.py").write_text("print('an agent put this here')\n")
    monkeypatch.chdir(workspace)
    done = Hand(home).do(deeds.pin("fixer-1", 1, pinned=False))
    assert done.code == 4
    assert "there is no store here yet" in done.text


def test_more_output_than_is_shown_is_told(home, tmp_path, monkeypatch):
    noisy = tmp_path / "noisy"
    noisy.write_text("#!/bin/sh\nyes 'a line of the output' | head -c 5000000\n")
    noisy.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(noisy))
    done = Hand(home).do(deeds.pin("fixer-1", 1, pinned=False))
    *lines, last = done.text.split("\n")
    assert done.code == 0
    assert set(lines) == {"a line of the output"}
    assert len("\n".join(lines)) == deeds.OUTPUT_MOST_BYTES // 21 * 21 - 1
    assert last == "... and 786.8 KiB more that it printed"


def test_what_tmux_says_to_a_text_is_told(monkeypatch, tmp_path):
    tmux = tmp_path / "tmux"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for script, said in (
        ("cat > $(dirname $0)/got", "in tmux's buffer, and sent to the terminal's clipboard"),
        ('[ "$2" = - ] && exec cat > $(dirname $0)/got; exit 1', "in tmux's buffer"),
        ("cat >/dev/null; echo no server >&2; exit 1",
         "sent to the terminal's clipboard; not in tmux: no server"),
    ):  # fmt: skip
        (tmp_path / "got").unlink(missing_ok=True)
        tmux.write_text(f"#!/bin/sh\n{script}\n")
        tmux.chmod(0o755)
        assert copying.to_tmux("fixer-1@3") == said
        assert ("not in tmux" in said) is not (tmp_path / "got").exists()
    tmux.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not in tmux: [Errno 2]" in copying.to_tmux("fixer-1@3")


async def test_a_mistake_of_ours_in_a_thread_is_a_message(run, show, monkeypatch):
    def broken(state):
        raise RuntimeError("of ours")

    monkeypatch.setattr(turn_text, "alive", broken)
    async with show("fixer-1", 4) as seen:
        await seen.until(lambda: cursor(seen) == 4)
        await seen.press("enter", until="unexpected RuntimeError: of ours")
        monkeypatch.setattr("crabrt.timeline.reader.RunReader.changed_by", broken_call)
        await seen.press("4", until="unexpected TypeError")
        monkeypatch.setattr(Hand, "look", broken_call)
        await seen.press("r", until="It cannot be done")
        assert "unexpected TypeError: of ours, too" in seen.text
        await seen.press("escape", "escape", until="8 turns")


def broken_call(*_, **__):
    raise TypeError("of ours, too")


async def test_a_feed_that_breaks_is_a_message_and_what_was_shown_stays(run, show, monkeypatch):
    async with show("fixer-1", 4) as seen:
        await seen.until(lambda: cursor(seen) == 4)
        monkeypatch.setattr("crabrt.timeline.feed.RunFeed.poll", broken_call)
        run.turn()
        await seen.until(lambda: any("nothing new is shown" in said for said in seen.said))
        await seen.press("down")
        assert cursor(seen) == 5


async def test_a_mistake_in_drawing_ends_the_screen_without_a_stack(run, home, capsys):
    app = CrabApp(home, "fixer-1")

    async def look():
        async with app.run_test() as pilot:
            app.call_later(broken_call)
            await pilot.pause(0.5)

    with pytest.raises(TypeError, match="of ours, too"):
        await look()
    assert isinstance(app.failure, TypeError)
    assert "Traceback" not in capsys.readouterr().err
