"""The hands of a replay: shell commands really run, files are really written, in the workspace.

A trace from elsewhere is code from elsewhere: whoever replays it runs it. What is kept from it: the
home directory (it gets a scratch one), this process's standard input, edits outside the workspace,
and, if asked for, the network.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crabrt.traces.actions import (
    Action,
    EditFile,
    Editor,
    InsertLines,
    Nothing,
    Patch,
    ReadFile,
    Shell,
    Unknown,
    WriteFile,
)
from crabrt.traces.patching import FileChange, PatchFailed, apply_hunks, parse_patch
from crabrt.traces.places import OutsideWorkspace, Places
from crabrt.traces.swe_agent import OpenFile, ReplaceLines

_OUTPUT_BYTES = 16_384


@dataclass(frozen=True)
class Outcome:
    """What an action gave now.

    Attributes:
        exit_code: of a command; of an edit 0, or 1 where it failed. None: it was not done.
        output: the end of what a command printed, or why it failed.
        skipped: why it was not done; empty where it was.
    """

    exit_code: int | None = None
    output: str = ""
    skipped: str = ""


class Failed(Exception):
    """An edit cannot be made, as it would have been told to the agent."""


class Hands:
    """Does actions. One thread uses it.

    Args:
        places: where the recorded paths are now.
        environ: what commands see, before HOME and git's identity are replaced.
        home: an existing directory that serves as their home.
        timeout_s: of one command; its process group is killed then.
        prefix: words before each command line's shell.
    """

    def __init__(
        self,
        places: Places,
        environ: Mapping[str, str],
        home: str,
        *,
        timeout_s: float,
        prefix: Sequence[str] = (),
    ) -> None:
        self.places = places
        self.environ = dict(environ) | {
            "HOME": home,
            "GIT_AUTHOR_NAME": "replay",
            "GIT_AUTHOR_EMAIL": "replay@localhost",
            "GIT_COMMITTER_NAME": "replay",
            "GIT_COMMITTER_EMAIL": "replay@localhost",
            "GIT_TERMINAL_PROMPT": "0",
        }
        self._timeout_s = timeout_s
        self._prefix = tuple(prefix)
        self._shell = shutil.which("bash", path=self.environ.get("PATH")) or "/bin/sh"
        self._editor = OpenFile()

    def do(self, action: Action) -> Outcome:
        """Do `action`. What fails is an outcome, never an exception."""
        try:
            return self._do(action)
        except OutsideWorkspace as error:
            return Outcome(skipped=f"it edits a file outside of the workspace: {error}")
        except (Failed, PatchFailed) as error:
            return Outcome(1, str(error))
        except OSError as error:
            return Outcome(1, f"{error.strerror}: {error.filename}")
        except ValueError as error:  # a NUL or a lone surrogate in a name: no system call takes it
            return Outcome(1, str(error))

    def _do(self, action: Action | ReplaceLines) -> Outcome:
        match action:
            case Shell():
                return self._run(action)
            case ReadFile():
                return _read(os.path.join(self.places.workspace, self.places.command(action.path)))
            case Editor():
                cwd = action.cwd or self.places.workspace
                return self._do(self._editor.understand(action.command, cwd))
            case Nothing():
                return Outcome(output=action.why)
            case Unknown():
                return Outcome(skipped=action.why)
            case _:
                self._change(action)
                return Outcome(0)

    def _change(self, action: WriteFile | EditFile | InsertLines | ReplaceLines | Patch) -> None:
        match action:
            case WriteFile():
                path = self.places.file(action.path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _write(path, action.content)
            case EditFile():
                self._edit(action)
            case InsertLines():
                self._splice(action.path, action.behind, 0, action.text)
            case ReplaceLines():
                count = action.last - action.first + 1
                self._splice(action.path, action.first - 1, count, action.text)
            case Patch():
                for change in parse_patch(action.text):
                    self._patch(change)

    def _run(self, action: Shell) -> Outcome:
        cwd = self.places.directory(action.cwd)
        command = self.places.command(action.command)
        # A file, not a pipe: a process that stays behind may hold it open as long as it likes.
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [*self._prefix, self._shell, "-c", command],
                cwd=cwd,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(self._timeout_s)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - _OUTPUT_BYTES))
            return Outcome(code, output.read().decode("utf-8", "replace"))

    def _edit(self, action: EditFile) -> None:
        path = self.places.file(action.path)
        text = _text(path)
        for edit in action.edits:
            if not edit.old and not text:
                text = edit.new
                continue
            found = text.count(edit.old) if edit.old else 0
            if not found:
                raise Failed(f"the text to replace is not there: {edit.old[:60]!r}")
            if found > 1 and not edit.everywhere:
                raise Failed(f"the text to replace is there {found} times")
            text = text.replace(edit.old, edit.new)
        _write(path, text.encode("utf-8", "surrogateescape"))

    def _splice(self, recorded: str, start: int, count: int, text: str) -> None:
        path = self.places.file(recorded)
        lines = _text(path).split("\n")
        ended = lines[-1] == ""
        if ended:
            lines.pop()
        start = len(lines) if start < 0 else start
        if start > len(lines):
            raise Failed(f"the file has only {len(lines)} lines")
        lines[start : start + count] = text.split("\n")
        _write(
            path, "\n".join([*lines, *([""] if ended else [])]).encode("utf-8", "surrogateescape")
        )

    def _patch(self, change: FileChange) -> None:
        path = self.places.file(change.path)
        if change.how == "delete":
            os.unlink(path)
            return
        new = change.how == "add"
        content = change.added() if new else apply_hunks(_text(path), change.hunks)
        target = path if change.move_to is None else self.places.file(change.move_to)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _write(target, content.encode("utf-8", "surrogateescape"))
        if target != path:
            os.unlink(path)


def _text(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "surrogateescape")


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _read(path: str) -> Outcome:
    with open(path, "rb") as file:
        return Outcome(0, file.read(_OUTPUT_BYTES).decode("utf-8", "replace"))
