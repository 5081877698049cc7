"""Before something is done: what it will do; then a question; then what it has done.

Nothing is changed by a key that means something elsewhere: `d`, which answers the question, does
nothing on any other screen, and what would lose somebody's changes has to be typed out. What is
done is what was shown: if that is not what it would do any more, it is shown anew.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from crabrt.timeline import amounts
from crabrt.timeline.safe_text import safe_text
from crabrt.timeline.signs import Tone
from crabrt.tui.background import in_thread, in_words
from crabrt.tui.deeds import INCOMPLETE, REFUSED, Deed, Done, Hand, Progress
from crabrt.tui.key_bar import KeyBar
from crabrt.tui.looks import BAR_CSS
from crabrt.tui.pieces import Line, Piece
from crabrt.tui.plots import filled
from crabrt.tui.text_view import TextView

_TICK_S = 0.2
_BAR_CELLS = 24
_FORCE = "overwrite"
_QUESTION = "Do it? d: do it   esc: leave it"
_CHANGED = "It would do something else by now, and nothing was done: look again. "
_LOOKING = "looking what would change ..."
_WORKING = "working ..."


class DeedScreen(ModalScreen[str]):
    """See the module. Gives the command that was done; empty if none was."""

    DEFAULT_CSS = (
        """
    DeedScreen { align: center middle; }
    DeedScreen Vertical {
        width: 100; max-width: 96%; height: 80%; max-height: 40; border: round $primary;
        background: $surface; padding: 0 1;
    }
    DeedScreen Label { width: 100%; }
    DeedScreen #title { text-style: bold; }
    DeedScreen #command { color: $text-accent; }
    DeedScreen TextView { height: 1fr; margin: 1 0; }
    DeedScreen.-low Vertical { height: 100%; }
    DeedScreen.-low TextView { margin: 0; }
    DeedScreen #ask { color: $text-warning; }
    DeedScreen Input { display: none; height: 1; border: none; padding: 0; background: $panel; }
    DeedScreen Input.-shown { display: block; }
    DeedScreen VerticalScroll { height: auto; max-height: 30%; """
        + BAR_CSS
        + "}"
    )
    VERTICAL_BREAKPOINTS = [(0, "-low"), (25, "-high")]  # noqa: RUF012 - so Textual has it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "confirm", "Do it"),
        Binding("escape,n", "leave", "Leave it"),
    ]

    class Ended(Message):
        """A command ended."""

        def __init__(self, done: Done, *, dry: bool) -> None:
            super().__init__()
            self.done = done
            self.dry = dry

    def __init__(self, hand: Hand, deed: Deed) -> None:
        """Args: who does it; what."""
        super().__init__()
        self._hand = hand
        self._deed = self._doing = deed
        self._preview = ""  # the id of what was shown
        self._changed = ""
        self._stage = "asking"  # asking what it would do, ready, typing, doing, done
        self._done = ""
        self._since_s = time.monotonic()
        self._said = ""

    def compose(self) -> ComposeResult:
        """The widgets."""
        with Vertical():
            yield Label(self._deed.title, id="title", markup=False)
            with VerticalScroll():
                yield Label(self._hand.command(self._deed), id="command", markup=False)
            yield TextView(id="said")
            yield Label("", id="ask", markup=False)
            yield Input(id="typed", compact=True)
        yield KeyBar()

    def on_mount(self) -> None:
        """Ask what it would do."""
        self.query_one(TextView).focus()
        self.set_interval(_TICK_S, self._tick)
        self._look()

    def on_unmount(self) -> None:
        """What only looks is not wanted any more."""
        self._hand.look_no_longer()

    # -- stages ------------------------------------------------------------------------------

    @on(Ended)
    def ended(self, message: Ended) -> None:
        """Show what was said, and go on from there."""
        done = message.done
        if done.code == REFUSED and self._preview and not message.dry:
            self._changed = _CHANGED
            self._look()
            return
        self.query_one(TextView).show(_lines(done))
        if not message.dry:
            self._stage = "done"
            took = f"   took {amounts.duration(1e3 * (time.monotonic() - self._since_s))}"
            self._done = self._hand.command(self._doing) if done.ok else ""
            self._ask(_ending(done) + took)
            self.refresh_bindings()
            return
        self._preview = done.preview
        if done.ok:
            self._ready()
        elif done.code == REFUSED and self._deed.forces:
            self._stage = "typing"
            self._show_command(self._deed.forced)
            self._ask(f"{self._changed}It would lose changes. To overwrite them, type: {_FORCE}")
            typed = self.query_one(Input).add_class("-shown")
            typed.clear()
            typed.focus()
        else:
            self._stage = "done"
            self._ask(f"{_why_not(done)}   esc: back")
        self.refresh_bindings()

    @on(Input.Submitted)
    def typed(self, event: Input.Submitted) -> None:
        """The word, or another one."""
        event.stop()
        if self._stage != "typing":
            return
        if event.value.strip() != _FORCE:
            self._ask(f"Nothing is overwritten unless you type: {_FORCE}   (esc: leave it)")
            return
        self.query_one(Input).remove_class("-shown")
        self.query_one(TextView).focus()
        self._begin(self._deed.forced)

    def action_confirm(self) -> None:
        """Yes."""
        if self._stage == "ready":
            self._begin(self._deed)

    def action_leave(self) -> None:
        """No, or it is over. What has begun is not left alone: it ends by itself."""
        if self._stage != "doing":
            self.dismiss(self._done)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys mean something now."""
        del parameters
        if action == "confirm":
            return self._stage == "ready"
        return action != "leave" or self._stage != "doing"

    # -- doing -------------------------------------------------------------------------------

    def _look(self) -> None:
        self._stage = "asking"
        self._since_s = time.monotonic()
        self._ask(_LOOKING)
        self.refresh_bindings()
        self._run(self._deed, dry=True)

    def _begin(self, deed: Deed) -> None:
        self._stage = "doing"
        self._doing = deed
        self._since_s = time.monotonic()
        self._ask(_WORKING)
        self._show_command(deed)
        self.refresh_bindings()
        self._run(deed.expecting(self._preview), dry=False)

    def _show_command(self, deed: Deed) -> None:
        """Name what is run, or would be."""
        command = self._hand.command(deed.expecting(self._preview))
        self.query_one("#command", Label).update(command)

    def _run(self, deed: Deed, *, dry: bool) -> None:
        columns = min(92, max(40, self.size.width - 12))
        do = self._hand.look if dry else self._hand.do

        def work() -> None:
            try:
                done = do(deed, columns)
            except Exception as error:  # noqa: BLE001 - shown where the command's words would be
                done = Done(1, safe_text(in_words(error)))
            self.post_message(self.Ended(done, dry=dry))

        in_thread(self, work, group="deed")

    def _tick(self) -> None:
        """What takes longer says how far it is, and how long it has taken already."""
        if self._said not in {_LOOKING, _WORKING}:
            return
        took_s = time.monotonic() - self._since_s
        far = self._hand.progress if self._stage == "doing" else None
        if far is not None or took_s >= 1:
            said = self._said if far is None else progress_text(far)
            self.query_one("#ask", Label).update(f"{said}   {amounts.duration(1e3 * took_s)}")

    def _ready(self) -> None:
        self._stage = "ready"
        self._show_command(self._deed)
        self._ask(self._changed + _QUESTION)
        self.refresh_bindings()

    def _ask(self, text: str) -> None:
        self._said = text
        self.query_one("#ask", Label).update(text)


def progress_text(far: Progress) -> str:
    """How far a command is, for one line: a bar, and steps done of all."""
    if not far.total:
        return f"{_WORKING} {far.done:,} steps"
    done, rest = filled(far.done / far.total, _BAR_CELLS)
    if far.done >= far.total:
        return f"{done}{rest}  all {far.total:,} steps: checking what was written"
    return f"{done}{rest}  {far.done:,} of {far.total:,} steps"


def _lines(done: Done) -> Iterator[Line]:
    for line in done.text.splitlines():
        yield (Piece(line, Tone.PLAIN if done.ok else Tone.WARNING),)


def _ending(done: Done) -> str:
    if done.code == 0:
        return "Done.   esc: back"
    if done.code == INCOMPLETE:
        return "Done, but not all of it: see above.   esc: back"
    if done.code < 0:
        return f"The command was ended by {_signal(done)}: it may be half done.   esc: back"
    return f"Not done (exit code {done.code}): see above.   esc: back"


def _why_not(done: Done) -> str:
    if done.code < 0:
        return f"The command was ended by {_signal(done)}: nothing was changed."
    return f"It cannot be done (exit code {done.code}): see above."


def _signal(done: Done) -> str:
    try:
        return signal.Signals(-done.code).name
    except ValueError:  # a real-time signal has no name
        return f"signal {-done.code}"
