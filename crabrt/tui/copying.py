"""Copying: to the clipboard of the terminal, and to tmux where the screen is in it.

What reaches the clipboard nobody can tell: a program sends an escape sequence (OSC 52), and the
terminal obeys it or does not. tmux drops it by default (``set-clipboard external``) and has a
command for it instead, which also keeps the text in a buffer of its own. So it is said what was
done, and no more.
"""

from __future__ import annotations

import functools
import subprocess
from typing import TYPE_CHECKING, Any

from crabrt.timeline.safe_text import safe_text
from crabrt.tui.background import in_thread
from crabrt.tui.sources import Source

if TYPE_CHECKING:
    from textual.screen import Screen

    _Base = Screen[Any]
else:
    _Base = object

_LIMIT_S = 2.0
_SENT = "sent to the terminal's clipboard"
_KEPT = "in tmux's buffer"


class Copying(_Base):
    """A screen from which something can be copied; mixed into a `Screen`.

    Attributes:
        source: says whether the screen is in tmux.
    """

    source: Source

    def copy(self, text: str) -> None:
        """Copy a text, and say where to."""
        text = safe_text(text)
        self.app.copy_to_clipboard(text)
        if self.source.in_tmux:
            in_thread(self, functools.partial(self._to_tmux, text), group="copy")
        else:
            self._copied(text, _SENT)

    def _to_tmux(self, text: str) -> None:
        self.app.call_from_thread(self._copied, text, to_tmux(text))

    def _copied(self, text: str, where: str) -> None:
        self.app.notify(text, title=where, markup=False)


def to_tmux(text: str) -> str:
    """Give a text to tmux, for its buffer and the clipboard; what came of it, for people."""
    why = ""
    for options, done in ((("-w",), f"{_KEPT}, and {_SENT}"), ((), _KEPT)):  # -w: tmux 3.2
        try:
            subprocess.run(
                ["tmux", "load-buffer", *options, "-"],
                input=text.encode(),
                capture_output=True,
                timeout=_LIMIT_S,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            why = why or error.stderr.decode(errors="replace").strip().partition("\n")[0]
        except (OSError, subprocess.TimeoutExpired) as error:
            why = why or str(error)
        else:
            return done
    return f"{_SENT}; not in tmux: {safe_text(why)}"
