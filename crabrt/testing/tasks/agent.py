"""The scripted agent of ``crab bench recovery``, run as a program, killed, and run again.

usage: python -m crabrt.testing.tasks.agent {run|ask} TASK WORKSPACE NOTES [options]

``run`` is an ordinary loop: a model that says what its script says, two tools that run commands.
It notes in the file NOTES when it begins and when a call really acts, and prints what all calls
gave, as JSON. ``ask`` asks the questions of a task after a restore, from outside of any run.

With ``--chat FILE`` crabrt is not there at all: the conversation is kept in FILE, a line a message,
synced, as a checkpointer of messages does it; run again, the loop takes its calls from it and goes
on with the first that has no answer, on whatever files and processes it finds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crabrt
from crabrt.core.config import Config
from crabrt.core.ids import ObjectId
from crabrt.journal import RunIndex
from crabrt.journal.restores import RestoreLog
from crabrt.operations.targets import resolve
from crabrt.process import table
from crabrt.process.shell import ShellUnavailable
from crabrt.process.shells import record_of
from crabrt.process.state import read_state
from crabrt.store import Store
from crabrt.testing.tasks import TASKS, Call, Task, Tool
from crabrt.testing.tasks.digesting import digest
from crabrt.workspace import Workspace

COMMAND_LIMIT_S = 30.0


class Hands:
    """What the tools do: commands in `workspace`, in a process each, or in one shell.

    Args:
        workspace: where.
        notes: a file that is told what really acts, and when.
    """

    def __init__(self, workspace: Path, notes: Path) -> None:
        self.workspace, self._notes = workspace, notes
        self.shell = crabrt.Shell(cwd=workspace)

    def note(self, what: str) -> None:
        """A line: when (``time.monotonic``, in seconds), and what."""
        with open(self._notes, "a", encoding="utf-8") as file:
            file.write(f"{time.monotonic():.6f} {what}\n")

    def act(self, call: Call) -> str:
        """What `call` prints, and how it ended unless that was well."""
        self.note("acts")
        if call.tool is Tool.BASH:
            result = self.shell.run(call.command, timeout=COMMAND_LIMIT_S)
            return _told(result.output, result.exit_status)
        # Into a file: who is left in the background with it open holds nobody up.
        with tempfile.TemporaryFile() as output:
            done = subprocess.Popen(
                ["/bin/sh", "-c", call.command],
                cwd=self.workspace,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
            )
            try:
                status = done.wait(COMMAND_LIMIT_S)
            except subprocess.TimeoutExpired:
                done.kill()
                status = done.wait()
            output.seek(0)
            return _told(output.read().decode("utf-8", "backslashreplace"), status)


def _told(output: str, status: int | None) -> str:
    return output if status == 0 else f"{output}(exit {status})"


class Messages:
    """A checkpointer of messages: what was said is kept, nothing else is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: list[str] = []
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            os.truncate(path, sum(map(len, whole)))
            self._kept = [json.loads(line) for line in whole]
        self._at = 0

    def once(self, say: Callable[[], str]) -> str:
        """The next message: the kept one, or what `say` gives, kept before anybody sees it."""
        if self._at == len(self._kept):
            self._kept.append(say())
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(self._kept[-1]) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self._at += 1
        return self._kept[self._at - 1]


def run(task: Task, hands: Hands, wait_s: float, messages: Messages | None) -> list[str]:
    """The loop; what all its calls gave, in their order."""

    @crabrt.model
    def think(turn: int) -> list[list[str]]:
        hands.note("thinks")
        time.sleep(wait_s)
        return [[call.tool.value, call.command] for call in task.script[turn]]

    @crabrt.tool
    def sh(command: str) -> str:
        return hands.act(Call(Tool.SH, command))

    @crabrt.tool
    def bash(command: str) -> str:
        return hands.act(Call(Tool.BASH, command))

    tools = {Tool.SH: sh, Tool.BASH: bash}

    @crabrt.agent(workspace=hands.workspace, name="recovery")
    def loop(turns: int) -> list[str]:
        said = []
        for turn in range(turns):
            for tool, command in think(turn):
                said.append(tools[Tool(tool)](command))
        return said

    def chatting(kept: Messages) -> list[str]:
        said = []
        for turn in range(len(task.script)):
            asked = json.loads(kept.once(lambda turn=turn: json.dumps(think(turn))))  # type: ignore[misc]
            for tool, command in asked:
                call = Call(Tool(tool), command)
                said.append(kept.once(lambda call=call: hands.act(call)))  # type: ignore[misc]
        return said

    hands.note("begins")
    return loop(len(task.script)) if messages is None else chatting(messages)


def watched(task: Task, hands: Hands, *, asks: bool) -> dict[str, list[Any]]:
    """The same without crabrt, and what was so after every turn: answers, or the files' digest."""
    said, after = [], [_state(task, hands, asks=asks)]
    for turn in task.turns:
        said += [hands.act(call) for call in turn]
        after.append(_state(task, hands, asks=asks))
    said += [hands.act(call) for call in task.questions]
    return {"said": said, "after": [*after, _state(task, hands, asks=asks)]}


def _state(task: Task, hands: Hands, *, asks: bool) -> list[str] | str:
    if asks:
        return [hands.act(call) for call in task.questions]
    return digest(task, hands.workspace)


def answers(task: Task, hands: Hands, target: str) -> list[str]:
    """What processes answer that ``crab restore TARGET`` has brought back."""
    with _taken_up(hands, target):
        return [hands.act(call) for call in task.questions]


@contextlib.contextmanager
def _taken_up(hands: Hands, target: str) -> Iterator[None]:
    """The shell of a restored state, if it has one, in our hands for a moment."""
    home = Config.from_env().home
    with RunIndex.open(home) as index:
        index.refresh()
        state = resolve(index, target)
    store = Store.open(home)
    kept = read_state(ObjectId(state.processes), store).shells if state.processes else ()
    back = RestoreLog(Workspace.open(hands.workspace, home).state_dir).last_revived()
    if kept and back is not None:
        firsts = [pid for pid, _ in back.processes if table.inner_number(pid) == 1]
        for pid in firsts:
            with contextlib.suppress(ShellUnavailable):
                hands.shell = crabrt.Shell.attach(record_of(kept[0]), init_pid=pid)  # type: ignore[assignment]
    yield
    if kept:
        with contextlib.suppress(ShellUnavailable):
            hands.shell.detach()


def main() -> None:
    """Do as the arguments say."""
    parser = argparse.ArgumentParser(prog="recovery_agent")
    parser.add_argument("verb", choices=["run", "watched", "ask"])
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("workspace", type=Path)
    parser.add_argument("notes", type=Path)
    parser.add_argument("--wait", type=float, default=0.0, help="of the model, in seconds")
    parser.add_argument("--chat", type=Path)
    parser.add_argument("--asks", action="store_true")
    parser.add_argument("--target")
    given = parser.parse_args()
    task, hands = TASKS[given.task], Hands(given.workspace, given.notes)
    found: object
    if given.verb == "ask":
        found = answers(task, hands, given.target)
    elif given.verb == "watched":
        found = watched(task, hands, asks=given.asks)
    else:
        messages = Messages(given.chat) if given.chat is not None else None
        found = run(task, hands, given.wait, messages)
        hands.note("ends")
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
