"""Progress for what takes longer than a person likes to wait in silence.

Nothing is drawn, and rich is not even imported, before `_PATIENCE_S` passed; a command that ends
sooner leaves no trace. It is drawn on standard error and erased at the end. A program that started
the command (the interface is one) may be told through a descriptor instead: a line ``DONE TOTAL``
now and then, and the last one always, unless nobody reads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_PATIENCE_S = 0.5
_PACE_S = 0.05  # between two lines for a program


class Teller:
    """Tells a program how far a command is; it is never waited for. One thread at a time."""

    def __init__(self, fd: int) -> None:
        """Args: fd: open for writing, and the command's own."""
        self._fd: int | None = fd
        self._told_s = -_PACE_S
        try:
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)  # what the command starts may live for long
        except OSError:  # it is none: there is nobody to be told
            self._fd = None

    def tell(self, done: int, total: int) -> None:
        """A line, if the last one was a while ago or this is the end of it."""
        now_s = time.monotonic()
        if self._fd is None or (done != total and now_s < self._told_s + _PACE_S):
            return
        self._told_s = now_s
        try:
            os.write(self._fd, b"%d %d\n" % (done, total))
        except BlockingIOError:
            return  # whoever does not read hears less
        except OSError:
            self._fd = None  # nobody listens any more


class Progress:
    """A display that may be called as ``progress(done, total)`` from any thread.

    Without a call it shows that something goes on; with a total it shows how far.
    """

    def __init__(
        self,
        title: str,
        *,
        shown: bool,
        teller: Teller | None = None,
        aside: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Args: title: for people; shown: to them; teller: tells a program; aside: see `say`."""
        self._title = title
        self._aside = aside
        self._teller = teller
        self._lock = threading.Lock()
        self._display: RichProgress | None = None
        self._task: TaskID | None = None
        self._last = (0, 0)
        self._ended = False
        self._timer = threading.Timer(_PATIENCE_S, self._begin) if shown else None

    def __enter__(self) -> Self:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._display is not None:
                self._display.stop()

    def __call__(self, done: int, total: int | None = None) -> None:
        """Say how far it is: `done` of `total` (0 or None: unknown)."""
        with self._lock:
            self._last = (done, total or 0)
            if self._teller is not None:
                self._teller.tell(*self._last)
            self._update()

    def say(self, text: str) -> None:
        """Say what it waits for: in place of the title, or to `aside` where nothing is drawn."""
        if self._timer is None:
            self._aside(text)
            return
        with self._lock:
            self._title = text
            if self._display is not None and self._task is not None:
                self._display.update(self._task, description=text)

    def _begin(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only slow commands pay for it
        from rich.progress import BarColumn, SpinnerColumn, TextColumn  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        with self._lock:
            if self._ended:
                return
            self._display = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[amount]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._display.add_task(self._title, total=None, amount="")
            self._display.start()
            self._update()

    def _update(self) -> None:
        if self._display is None or self._task is None:
            return
        done, total = self._last
        amount = f"{done:,} of {total:,}" if total else f"{done:,}" if done else ""
        self._display.update(self._task, completed=done, total=total or None, amount=amount)
