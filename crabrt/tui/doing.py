"""Keys that do something to a turn, for every screen that shows one."""

from __future__ import annotations

from collections.abc import Sequence

from textual.binding import Binding, BindingType

from crabrt.core.ids import valid_name
from crabrt.timeline.rows import Row
from crabrt.timeline.timeline import Timeline
from crabrt.tui import deeds
from crabrt.tui.copying import Copying
from crabrt.tui.deeds import Deed, Hand

DOING_BINDINGS: list[BindingType] = [
    Binding("r", "restore", "Restore", tooltip="Put the workspace back to this turn"),
    Binding("u", "undo", "Undo", tooltip="Undo the last restore of the workspace"),
    Binding("F", "fork", "Fork", show=False, tooltip="A new run from this turn, elsewhere"),
    Binding("L", "label", "Label", show=False, tooltip="Label the turn"),
    Binding("P", "pin", "Pin", show=False, tooltip="Pin the turn, or no longer"),
    Binding("y", "copy", "Copy", show=False, tooltip="Copy RUN@TURN; on a path, RUN@TURN:PATH"),
    Binding("Y", "copy_command", "Copy command", show=False,
            tooltip="Copy the command for what was done last"),
]  # fmt: skip


class Doing(Copying):
    """A screen about a run with a turn under its cursor; mixed into a `Screen`.

    Its `source` is what is read from.
    """

    @property
    def timeline_now(self) -> Timeline:
        """The run as it is now."""
        raise NotImplementedError

    @property
    def row_here(self) -> Row | None:
        """The turn that is meant."""
        raise NotImplementedError

    @property
    def path_here(self) -> bytes | None:
        """The path in that turn that is meant, relative to the workspace; None: the whole turn."""
        return None

    @property
    def _run(self) -> str:
        state = self.timeline_now
        return state.view.run or state.run

    def action_restore(self) -> None:
        """Put the workspace back to this turn."""
        if (row := self.row_here) is not None:
            self._do(deeds.restore(self._run, row.number))

    def restore_paths(self, paths: Sequence[bytes]) -> None:
        """Put paths back to this turn."""
        if (row := self.row_here) is not None:
            workspace = self.timeline_now.view.workspace_path
            self._do(deeds.restore(self._run, row.number, workspace, paths))

    def action_undo(self) -> None:
        """Undo the last restore of the run's workspace."""
        self._do(deeds.undo(self.timeline_now.view.workspace_path))

    def action_fork(self) -> None:
        """A new run from this turn."""
        row = self.row_here
        if row is None:
            return

        def go_on(directory: str | None) -> None:
            if directory:
                self._do(deeds.fork(self._run, row.number, directory))

        from crabrt.tui.ask_screen import AskScreen  # noqa: PLC0415 - first paint does not need it

        question = f"Fork {self._run}@{row.number} to which directory? (absent or empty)"
        self.app.push_screen(AskScreen(question, wrong=_no_directory), go_on)

    def action_label(self) -> None:
        """Name this turn."""
        row = self.row_here
        if row is None:
            return

        def go_on(name: str | None) -> None:
            if name:
                self._do(deeds.label(self._run, row.number, name))

        from crabrt.tui.ask_screen import AskScreen  # noqa: PLC0415 - first paint does not need it

        self.app.push_screen(AskScreen(f"A name for turn {row.number}:", wrong=_no_label), go_on)

    def action_pin(self) -> None:
        """Keep this turn from retention, or no longer."""
        if (row := self.row_here) is not None:
            self._do(deeds.pin(self._run, row.number, pinned=row.view.pinned))

    def action_copy(self) -> None:
        """Copy the name of this turn, as commands take it; of a path in it, if one is meant."""
        if (row := self.row_here) is not None:
            path = self.path_here
            self.copy(deeds.target(self._run, row.number, path))

    def action_copy_command(self) -> None:
        """Copy the command for what was done last."""
        if self.source.last_command:
            self.copy(self.source.last_command)
        else:
            self.notify("nothing has been done yet")

    def _do(self, deed: Deed) -> None:
        def note(command: str | None) -> None:
            if command:
                self.source.last_command = command

        from crabrt.tui.deed_screen import DeedScreen  # noqa: PLC0415 - first paint does not need it

        hand = Hand(self.source.home, names_home=not self.source.is_default)
        self.app.push_screen(DeedScreen(hand, deed), note)


def _no_label(name: str) -> str:
    return "" if valid_name(name) else "letters, digits, dot, dash and underscore; no number alone"


def _no_directory(directory: str) -> str:
    return "" if directory.strip() else "a directory is needed"
