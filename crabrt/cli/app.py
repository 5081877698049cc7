"""What one command line has to work with: configuration, store, index, screens, questions.

Each is opened when it is first asked for and closed when the command ends, so that a verb which
needs no store opens none.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from crabrt.cli.progress import Progress, Teller
from crabrt.cli.screen import environment_screens
from crabrt.core.config import Config, user_config_path
from crabrt.core.targets import LAST, Target
from crabrt.errors import NotFound, UsageError
from crabrt.operations.settings_files import read_settings
from crabrt.timeline.safe_text import safe_path, shell_word

if TYPE_CHECKING:
    from crabrt.journal import RunIndex
    from crabrt.store import Store, StoreWriter
    from crabrt.workspace import Workspace


class App:
    """The surroundings of one verb. A context manager: leaving closes what was opened.

    Attributes:
        command: the verb's name, for the envelope.
        json: whether the envelope is wanted.
        out, err: standard output and standard error.
    """

    def __init__(
        self,
        command: str,
        *,
        json: bool = False,
        home: str | None = None,
        progress_fd: int | None = None,
    ) -> None:
        self._teller = None if progress_fd is None else Teller(progress_fd)
        self.command = command
        self.json = json
        self.out, self.err = environment_screens()
        self._home_given = home
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.__exit__(kind, error, trace)

    def workspace(self, path: bytes, exclude: Sequence[str] = ()) -> Workspace:
        """The workspace at `path`, with the excludes of its own configuration and of its runs.

        Args:
            path: of its directory.
            exclude: more patterns, of the run that it is about.

        Raises:
            NotFound, WorkspaceRefused, StoreUnavailable: see ``operations.places``.
            UsageError: its configuration file makes no sense.
        """
        from crabrt.inspector.caches import left_out  # noqa: PLC0415
        from crabrt.operations.places import open_workspace  # noqa: PLC0415 - as for the store
        from crabrt.runtime.settings import load_config  # noqa: PLC0415

        config = load_config(os.fsdecode(path), home=self.home)
        return open_workspace(path, self.home, (*exclude, *left_out(config)))

    def close(self) -> None:
        """Close what was opened, before the end of the command."""
        self._closing.close()

    @functools.cached_property
    def config(self) -> Config:
        """The configuration of this user, without any workspace's own file.

        Raises:
            UsageError: a setting makes no sense, or the user's file is not TOML.
        """
        given = Path(self._home_given).absolute() if self._home_given else None
        return Config.from_env(user=read_settings(user_config_path()), home=given)

    @property
    def home(self) -> Path:
        """The store's directory."""
        return self.config.home

    @functools.cached_property
    def store(self) -> Store:
        """The store, opened.

        Raises:
            NotFound: there is none yet; the hint says how one comes about.
            Damaged, FormatTooNew, StoreUnavailable: it cannot be used.
        """
        from crabrt.store import Store  # noqa: PLC0415 - help and completion open no store

        if not self.has_store():
            raise NotFound(
                "there is no store here yet",
                where=str(self.home),
                hint="the first protected run makes one (try `crab demo`); "
                "CRAB_HOME or --home points elsewhere",
            )
        return self._closing.enter_context(Store.open(self.home))

    @functools.cached_property
    def writer(self) -> StoreWriter:
        """A writer of the store, for what a restore has to save first."""
        writer = self.store.writer()
        self._closing.callback(writer.close)
        return writer

    @functools.cached_property
    def index(self) -> RunIndex:
        """The runs and turns, brought up to date."""
        from crabrt.journal import RunIndex  # noqa: PLC0415 - sqlite3 comes with it

        store = self.store
        index = RunIndex.open(store.home)
        self._closing.callback(index.close)
        index.refresh()
        return index

    @functools.cached_property
    def cwd(self) -> bytes:
        """The current directory, resolved; where it was, if it has been deleted meanwhile."""
        try:
            return os.path.realpath(os.getcwdb())
        except FileNotFoundError:  # an agent that deletes directories deletes people's shells' too
            return os.path.normpath(os.fsencode(os.environ.get("PWD") or "/"))

    def place(self, path: str) -> bytes:
        """The real path of `path`, as typed; ``.`` is what is left of the current directory."""
        place = os.path.realpath(os.path.join(self.cwd, os.fsencode(path)))
        while path == os.curdir and not os.path.isdir(place):
            place = os.path.dirname(place)
        return place

    def meant(self, target: Target, *, changes: bool = False) -> Target:
        """`target`, its ``last`` replaced: the last run of this directory (``targets.last_run``).

        If there is none, it is the last one anywhere, and that is said; but not for what `changes`
        the workspace of a run: who stands in a wrong directory means another one.

        Raises:
            NotFound: there are no runs, or none here. See `index` for more.
        """
        from crabrt.operations.targets import is_of, last_run  # noqa: PLC0415 - as for the store

        if target.run != LAST:
            return target
        run = last_run(self.index, self.cwd)
        found = msgspec.structs.replace(target, run=run.run)
        if not is_of(run, self.cwd):
            anywhere = f"the last one anywhere is {run.run}, in {safe_path(run.workspace)}"
            if changes:
                raise NotFound(
                    "no run was made in this directory",
                    where=safe_path(self.cwd),
                    hint=f"{anywhere}; if you mean that: {self.typed(self.command, str(found))}",
                )
            self._aside(f"no run of this directory: {anywhere}")
        return found

    @property
    def has_other_home(self) -> bool:
        """Whether the command line names the store, and not the user's surroundings."""
        return self._home_given is not None

    def typed(self, *words: str) -> str:
        """A command line of ``crab`` that means this store where it is pasted."""
        verb, *rest = words
        home = () if self._home_given is None else ("--home", self._home_given)
        return " ".join(map(shell_word, ("crab", verb, *home, *rest)))

    def undo_of(self, workspace: bytes) -> str:
        """The command that undoes the last restore of `workspace`, for people who stand here.

        It names the workspace where it would mean another one without that.
        """
        from crabrt.operations.standing import workspace_above  # noqa: PLC0415 - as for the store

        here = workspace_above(self.index, self.place(os.curdir)) == workspace
        return self.typed("undo") if here else self.undo_anywhere(workspace)

    def undo_anywhere(self, workspace: bytes) -> str:
        """The same for programs, wherever they stand: it always names the workspace."""
        return self.typed("undo", os.fsdecode(workspace))

    def keep(self, context: contextlib.AbstractContextManager[Any]) -> None:
        """Close `context` when the command has printed what it has to say."""
        self._closing.enter_context(context)

    def has_store(self) -> bool:
        """Whether anything was ever stored at `home`."""
        return (self.home / "format.json").exists()

    def progress(self, title: str) -> Progress:
        """A progress display on standard error: on a terminal only, and never beside ``--json``."""
        shown = self.err.terminal and not self.json
        return Progress(title, shown=shown, teller=self._teller, aside=self._aside)

    def _aside(self, text: str) -> None:
        if not self.json:
            self.err.line(text)
            self.err.flush()

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before acting, on a terminal.

        Raises:
            UsageError: nobody is there to ask, and ``--yes`` was not given.
            click.Abort: the answer was no.
        """
        import click  # noqa: PLC0415 - App is made without it in tests

        if yes:
            return
        if self.json or not sys.stdin.isatty():
            raise UsageError("this asks first, and nobody is there to answer", hint="add --yes")
        click.confirm(question, abort=True, err=True)
