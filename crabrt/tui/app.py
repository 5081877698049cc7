"""The application: which screen is shown, the themes, what all screens share."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from textual import on
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from crabrt.timeline.safe_text import safe_text
from crabrt.tui.background import WentWrong
from crabrt.tui.sources import Source
from crabrt.tui.themes import DARK, LIGHT

_SHOWN_S = 15.0  # how long it is shown that something went wrong
_ALSO = ("Theme", "Quit")  # of Textual's own commands: the others are about widgets


class CrabApp(App[None]):
    """``crab tui``.

    Attributes:
        source: what the screens read from.
    """

    TITLE = "crab"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "keys", "Keys"),
        Binding("D", "other_theme", "Dark or light", show=False, tooltip="Dark or light"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(
        self,
        home: Path,
        run: str | None = None,
        at: int | None = None,
        *,
        is_default: bool = False,
        in_tmux: bool = False,
    ) -> None:
        """Make the application.

        Args:
            home: the store's directory.
            run: the id of the run to begin with; None: begin with the list.
            at: its turn.
            is_default: whether commands find this store without being told.
            in_tmux: whether the terminal is one of tmux.
        """
        super().__init__()
        self.source = Source(home, is_default=is_default, in_tmux=in_tmux)
        self._run = run
        self._at = at
        for theme in (DARK, LIGHT):
            self.register_theme(theme)
        if self.theme == "textual-dark":  # else TEXTUAL_THEME names the one that somebody likes
            self.theme = DARK.name

    @property
    def failure(self) -> Exception | None:
        """What ended the interface, if a mistake of its own did."""
        return self._exception

    def on_mount(self) -> None:
        """Show what was asked for: nothing else is made, or read, before that is on the screen."""
        if self._run is None:
            self._show_runs()
            return
        from crabrt.tui.timeline_screen import TimelineScreen  # noqa: PLC0415 - not for the list

        self.push_screen(TimelineScreen(self.source, self._run, self._at), self._show_runs)

    def _show_runs(self, result: None = None) -> None:
        """The list of runs, below everything else."""
        from crabrt.tui.runs_screen import RunsScreen  # noqa: PLC0415 - not for a run by its name

        del result
        self.push_screen(RunsScreen(self.source))

    @on(WentWrong)
    def went_wrong(self, message: WentWrong) -> None:
        """Say so, and go on."""
        self.notify(
            safe_text(message.text),
            title="something went wrong",
            severity="error",
            timeout=_SHOWN_S,
            markup=False,
        )

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Everything a key can do here, by name, and the few of Textual's that are of use."""
        told = set()
        for key, active in screen.active_bindings.items():
            binding = active.binding
            title = binding.description
            told_here = binding.show or binding.tooltip
            if not (title and told_here and active.enabled) or _is_textuals(binding):
                continue
            if title in told:
                continue
            told.add(title)
            shown = self.get_key_display(binding)
            about = f"{binding.tooltip or title}   {shown or key}"
            act = functools.partial(self.run_action, binding.action, active.node)
            yield SystemCommand(title, about, act)
        for command in super().get_system_commands(screen):
            if command.title in _ALSO and command.title not in told:
                yield command

    def action_keys(self) -> None:
        """What the keys of this screen do."""
        from crabrt.tui.help_screen import HelpScreen  # noqa: PLC0415 - first paint needs it not

        shown: dict[str, tuple[str, str]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.description and not _is_textuals(binding):
                key = self.get_key_display(binding)
                before = shown.get(binding.action)
                both = key if before is None else f"{before[0]} {key}"
                shown[binding.action] = (both, binding.tooltip or binding.description)
        self.push_screen(HelpScreen(list(shown.values())))

    def action_other_theme(self) -> None:
        """From dark to light, and back."""
        self.theme = LIGHT.name if self.current_theme.dark else DARK.name

    def on_unmount(self) -> None:
        """Let go of the store."""
        self.source.close()

    def _fatal_error(self) -> None:
        """End without Textual's picture of the stack: who started the app reports `failure`."""
        self._close_messages_no_wait()


def _is_textuals(binding: Binding) -> bool:
    """Whether Textual has given a key its meaning, for any application."""
    return binding.system or "." in binding.action
