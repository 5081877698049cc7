"""What can be done from the interface: each is a command line of ``crab``, and nothing else.

So it does what the command does, can be repeated without the interface, and outlives it: a
command runs in a process of its own. Before it changes anything it is asked what it would do, and
then does that or nothing. Whoever pastes it may be in another directory and have another store, so
it names both in full.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_path, safe_text, shell_word

REFUSED = 5
"""The exit code of what would lose changes, or is not what was expected (see ``cli.exits``)."""

INCOMPLETE = 3

PREVIEW_LIMIT_S = 600.0
"""How long a deed may take to say what it would do."""

OUTPUT_MOST_BYTES = 4 << 20
"""How much of a command's output is shown."""

_NAMED_MOST = 3  # paths in a title
_READ_BYTES = 1 << 12
_TOLD = re.compile(rb"([0-9]{1,15}) ([0-9]{1,15})")  # done, of how many
_EXPECT = re.compile(r"^To do this and nothing else: --expect ([0-9a-f]{16})\n", re.MULTILINE)
"""The line of a dry run that names what it listed; it is behind nothing that an agent chose."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something to do.

    Attributes:
        title: what it is, for people: ``Restore fixer-7f3a@12``.
        verb: of ``crab``.
        operands: of the verb.
        options: what else it takes.
        lists: whether it takes ``--all``: what it would do may be a long list.
        forces: whether it takes ``--force``.
    """

    title: str
    verb: str
    operands: tuple[str, ...]
    options: tuple[str, ...] = ()
    lists: bool = False
    forces: bool = False

    def words(self, *more: str) -> list[str]:
        """Of its command, behind ``crab``; with more options. Paths may be many: they come last."""
        ended = ["--"] if any(operand.startswith("-") for operand in self.operands) else []
        return [self.verb, *self.options, *more, *ended, *self.operands]

    @property
    def dry(self) -> Deed:
        """The same, saying what it would do."""
        return replace(self, options=(*self.options, "--dry-run"))

    @property
    def forced(self) -> Deed:
        """The same, over what somebody else changed."""
        return replace(self, options=(*self.options, "--force"))

    def expecting(self, preview: str) -> Deed:
        """The same, if it does what a dry run listed; empty: that gave no id."""
        return replace(self, options=(*self.options, "--expect", preview)) if preview else self


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended.

    Attributes:
        code: its exit code; negative: the signal that ended it.
        text: what it printed, safe to show.
        preview: the id of what a dry run listed; empty if it gave none.
    """

    code: int
    text: str
    preview: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was done, wholly or with a list of what is missing."""
        return self.code in {0, INCOMPLETE}


def target(run: str, turn: int, path: bytes | None = None) -> str:
    """A turn, or a path in it (relative to the workspace), as commands take it."""
    return f"{run}@{turn}" if path is None else shell_word(f"{run}@{turn}:{os.fsdecode(path)}")


def restore(run: str, turn: int, workspace: bytes = b"", paths: Sequence[bytes] = ()) -> Deed:
    """Put the workspace, or only some paths (relative to it), back to a turn."""
    named = [os.fsdecode(os.path.join(workspace, path)) for path in paths]
    what = f"{_listed(paths)} of " if paths else ""
    title = f"Restore {what}{run}@{turn}"
    return Deed(title, "restore", (f"{run}@{turn}", *named), lists=True, forces=True)


def _listed(paths: Sequence[bytes]) -> str:
    shown = ", ".join(safe_path(path) for path in paths[:_NAMED_MOST])
    return shown + (f" and {len(paths) - _NAMED_MOST} more" if len(paths) > _NAMED_MOST else "")


def undo(workspace: bytes) -> Deed:
    """Undo the last restore of a workspace."""
    operands = (os.fsdecode(workspace),)
    return Deed("Undo the last restore", "undo", operands, lists=True, forces=True)


def fork(run: str, turn: int, directory: str) -> Deed:
    """A new run in a new directory, from a turn; ``~`` and what is relative count from here."""
    whole = os.path.abspath(os.path.expanduser(directory))
    title = f"Fork {run}@{turn} to {safe_text(whole)}"
    return Deed(title, "fork", (f"{run}@{turn}",), ("--to", whole), lists=True)


def label(run: str, turn: int, name: str) -> Deed:
    """Name a turn."""
    return Deed(f"Label {run}@{turn} {safe_text(name)}", "label", (f"{run}@{turn}", name))


def pin(run: str, turn: int, *, pinned: bool) -> Deed:
    """Keep a turn from retention; or no longer, if it is pinned now."""
    title = f"{'Unpin' if pinned else 'Pin'} {run}@{turn}"
    return Deed(title, "pin", (f"{run}@{turn}",), ("--remove",) if pinned else ())


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a command is: steps that it has done, and of how many."""

    done: int
    total: int


class Told:
    """What a command tells of its progress, through a pipe. Any thread may ask.

    Attributes:
        theirs: the end for the command.
    """

    def __init__(self) -> None:
        self._ours, self.theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._lock = threading.Lock()
        self._rest = b""
        self._last: Progress | None = None

    def begun(self) -> None:
        """The command has its end: ours of it is closed."""
        os.close(self.theirs)

    def last(self) -> Progress | None:
        """What was told last; None: nothing was."""
        with self._lock:
            if self._ours < 0:
                return self._last
            with contextlib.suppress(BlockingIOError):
                while came := os.read(self._ours, _READ_BYTES):
                    self._take(came)
            return self._last

    def close(self) -> None:
        """Hear no more; what was told last stays known."""
        self.last()
        with self._lock:
            os.close(self._ours)
            self._ours = -1

    def _take(self, came: bytes) -> None:
        *lines, rest = (self._rest + came).split(b"\n")
        self._rest = rest[-_READ_BYTES:]
        for line in reversed(lines):
            if (told := _TOLD.fullmatch(line)) is not None:
                self._last = Progress(int(told[1]), int(told[2]))
                return


class Errand:
    """A deed that is being done, in a process of its own. Any thread may ask.

    It has a session of its own as well: it ends what it began, whatever happens to the terminal.
    What it prints goes to a file: programs that it starts may keep that open as long as they like.
    """

    def __init__(self, home: Path, deed: Deed, columns: int) -> None:
        """Raises OSError: no process can be had."""
        every = ("--all",) if deed.lists else ()  # nobody here can ask for the rest of a list
        self._told = Told()
        telling = ("--progress-fd", str(self._told.theirs))
        argv = [*_program(), *deed.words("--home", str(home), *telling, *every)]
        env = {**os.environ, "COLUMNS": str(max(40, columns)), "NO_COLOR": "1"}
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - `wait` closes it
        try:
            self._process = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(self._told.theirs,),
            )
        except OSError:
            self._output.close()
            self._told.close()
            raise
        finally:
            self._told.begun()

    def wait(self, limit_s: float | None = None) -> Done:
        """How it ended.

        Args:
            limit_s: it is killed then; None: it has all the time it wants.
        """
        with self._output, contextlib.closing(self._told):
            try:
                code = self._process.wait(limit_s)
            except subprocess.TimeoutExpired:
                self.end()
                code = self._process.wait()
            text = _read(self._output)
        found = _EXPECT.search(text)
        text = _EXPECT.sub("", text, count=1)
        return Done(code, text.rstrip("\n"), "" if found is None else found[1])

    @property
    def progress(self) -> Progress | None:
        """How far it is; None: it has not said so."""
        return self._told.last()

    def end(self) -> None:
        """Kill it: only for what changes nothing."""
        if self._process.poll() is None:
            self._process.kill()


def _program() -> list[str]:
    """This program again; never one that an agent has put into the current directory."""
    ours = os.stat(Path(__file__).resolve().parents[2])
    in_checkout = os.path.samestat(ours, os.stat(os.curdir))
    return [sys.executable, *(() if in_checkout else ("-P",)), "-m", "crabrt"]


def _read(output: BinaryIO) -> str:
    """What was printed, safe to show; a last line says how much is left out."""
    size = output.seek(0, os.SEEK_END)
    output.seek(0)
    data = output.read(OUTPUT_MOST_BYTES)
    more = size - len(data)
    if more:
        whole = data.rpartition(b"\n")[0] or data
        more += len(data) - len(whole)
        data = whole
    text = safe_text(data.decode("utf-8", "surrogateescape"), lines=True)
    return f"{text}\n... and {amounts.size(more)} more that it printed" if more else text


class Hand:
    """Carries deeds out. Any thread may ask.

    Attributes:
        home: the store, an absolute path.
        names_home: whether commands name it: they would mean another one without.
    """

    def __init__(self, home: Path, *, names_home: bool = True) -> None:
        self.home = home.absolute()
        self.names_home = names_home
        self._looking: Errand | None = None
        self._doing: Errand | None = None

    def command(self, deed: Deed) -> str:
        """A deed as one would type it, anywhere: safe to show, and to paste into a shell."""
        home = ("--home", str(self.home)) if self.names_home else ()
        return " ".join(["crab", *map(shell_word, deed.words(*home))])

    def look(self, deed: Deed, columns: int = 80) -> Done:
        """Ask a deed what it would do; given up after `PREVIEW_LIMIT_S`.

        Args:
            deed: what would be done; every one of them takes ``--dry-run``.
            columns: how wide the lines of its output may be.
        """
        return self._do(deed.dry, columns, PREVIEW_LIMIT_S)

    def do(self, deed: Deed, columns: int = 80) -> Done:
        """Do it, to its end; arguments as of `look`."""
        return self._do(deed, columns, None)

    @property
    def progress(self) -> Progress | None:
        """How far what is being done is; None: it has not said so."""
        return None if self._doing is None else self._doing.progress

    def look_no_longer(self) -> None:
        """Nobody waits any more for what a deed would do."""
        if self._looking is not None:
            self._looking.end()

    def _do(self, deed: Deed, columns: int, limit_s: float | None) -> Done:
        try:
            errand = Errand(self.home, deed, columns)
        except OSError as error:
            return Done(1, f"no process can be had for it: {error}")
        self._looking, self._doing = (None, errand) if limit_s is None else (errand, None)
        return errand.wait(limit_s)
