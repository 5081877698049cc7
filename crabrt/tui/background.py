"""Work in threads: what goes wrong there is told on the screen, and the screen goes on."""

from __future__ import annotations

from collections.abc import Callable

from textual.message import Message
from textual.widget import Widget

from crabrt.timeline.troubles import in_words

__all__ = ["WentWrong", "in_thread", "in_words"]


class WentWrong(Message):
    """Something in a thread raised what nobody there expected; `text` says what."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


def in_thread(
    node: Widget, work: Callable[[], None], *, group: str, exclusive: bool = False
) -> None:
    """Do `work` in a thread, for a widget.

    Args:
        node: ends the work when it goes; `WentWrong` goes up from it.
        work: asks `textual.worker.get_current_worker` whether it is still wanted.
        group: of works that replace each other.
        exclusive: the other works of the group are no longer wanted.
    """

    def guarded() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a mistake in a thread must not end the screen
            node.post_message(WentWrong(in_words(error)))

    node.run_worker(guarded, thread=True, exclusive=exclusive, group=group, exit_on_error=False)
