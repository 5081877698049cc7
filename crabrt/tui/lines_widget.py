"""A few lines of pieces as a widget: the head of a screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.strip import Strip
from textual.widget import Widget

from crabrt.tui.looks import TONE_CLASSES, TONES_CSS, Looks
from crabrt.tui.pieces import Line


class Lines(Widget):
    """Draws what a function of the width gives; `refresh` asks it again."""

    DEFAULT_CSS = "Lines { height: auto; " + TONES_CSS + "}"
    COMPONENT_CLASSES: ClassVar[set[str]] = TONE_CLASSES

    def __init__(
        self,
        draw: Callable[[int], Sequence[Line]],
        *,
        height: int,
        id: str | None = None,  # noqa: A002 - as Textual calls it
    ) -> None:
        """Args: draw: from cells to lines; height: how many lines there are."""
        super().__init__(id=id)
        self._draw = draw
        self.styles.height = height
        self._looks: Looks | None = None
        self._drawn: tuple[int, Sequence[Line]] | None = None

    def again(self) -> None:
        """What it draws has changed."""
        self._drawn = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """A line of it."""
        width = self.size.width
        if self._drawn is None or self._drawn[0] != width:
            self._drawn = width, self._draw(width)
        if self._looks is None:
            self._looks = Looks.of(self)
        lines = self._drawn[1]
        return self._looks.strip(lines[y] if y < len(lines) else (), self.rich_style, width)

    def notify_style_update(self) -> None:
        """Another theme: other colours."""
        self._looks = None
        super().notify_style_update()
