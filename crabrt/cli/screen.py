"""Where text for people goes: colour only on a terminal that wants it, and a quiet end of a pipe.

A `Screen` is told the environment's wishes once; nothing else asks whether output is a terminal.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import TextIO

_CODES = {
    "bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34",
    "magenta": "35", "cyan": "36",
}  # fmt: skip

PIPED_WIDTH = 1_000_000
"""Columns of an output that is not a terminal: nothing is ever cut for a program or a file."""

_NARROWEST = 20

_COMMAND = re.compile(r"`[^`]*`")
_JOINED = "\0"  # for a space, which no text that is shown has


class Screen:
    """A stream and what may be done with it.

    Attributes:
        colour: whether styles are written; else `style` returns its text as it is.
        width: columns of the terminal, or what ``COLUMNS`` says, or `PIPED_WIDTH`.
        terminal: whether a person looks at it.
    """

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self.terminal = stream.isatty()
        dumb = environ.get("TERM") == "dumb"
        # https://no-color.org: present and not empty, whatever its value
        self.colour = self.terminal and not dumb and not environ.get("NO_COLOR")
        asked = self.terminal or environ.get("COLUMNS", "").isdecimal()
        self.width = shutil.get_terminal_size().columns if asked else PIPED_WIDTH

    def style(self, text: str, *styles: str) -> str:
        """`text` in the given styles (names of `_CODES`), if colour is wanted."""
        if not self.colour or not styles or not text:
            return text
        codes = ";".join(_CODES[name] for name in styles)
        return f"\x1b[{codes}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """Write one line. `text` is ours or went through `safe_text`."""
        self._stream.write(text + "\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Write lines."""
        for text in texts:
            self._stream.write(text + "\n")

    def paragraph(self, text: str, *styles: str, lead: str = "", indent: int = 0) -> None:
        """Write `text` behind `lead`, broken between words where the terminal ends.

        A command between backquotes stays in one piece: half of one, pasted, does something else.

        Args:
            text: without styles of its own.
            styles: of the whole text.
            lead: what stands before it; may be styled, and takes `indent` columns.
            indent: what further lines are indented by.
        """
        width = max(_NARROWEST, self.width - indent)
        whole = _COMMAND.sub(lambda found: found[0].replace(" ", _JOINED), text)
        lines = [whole] if len(text) <= width else textwrap.wrap(
            whole, width, break_long_words=False, break_on_hyphens=False
        )  # fmt: skip
        shown = [line.replace(_JOINED, " ") for line in lines or [""]]
        first, *more = [self.style(line, *styles) for line in shown]
        self.line(f"{lead}{first}")
        self.lines(" " * indent + line for line in more)

    def raw(self, data: bytes) -> None:
        """Write bytes as they are: a file's content on its way into a pipe."""
        self._stream.flush()
        self._stream.buffer.write(data)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._stream.flush()


def environment_screens() -> tuple[Screen, Screen]:
    """Standard output and standard error."""
    return Screen(sys.stdout, os.environ), Screen(sys.stderr, os.environ)


def silence_stdout() -> None:
    """Nobody reads any more: let what is still buffered go nowhere, without a complaint."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
