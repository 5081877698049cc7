"""Feeds on threads of their own, and their latest states as messages to a widget."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from textual.message import Message
from textual.message_pump import MessagePump

from crabrt.tui.background import WentWrong, in_words

State_co = TypeVar("State_co", covariant=True)

_KEPT = 8  # of the states that a screen which is busy has not taken yet


class Feed(Protocol[State_co]):
    """What is followed: `timeline.feed.RunFeed`, `timeline.runs_feed.RunsFeed`."""

    def follow(self) -> Iterator[State_co]:
        """Every new state, until `stop`."""

    def stop(self) -> None:
        """End `follow`; from any thread."""

    def close(self) -> None:
        """Let go of everything, in the thread that followed."""


class Arrived(Message):
    """There are new states: `Follower.take` gives them."""

    def can_replace(self, message: Message) -> bool:
        """One of them is enough."""
        return isinstance(message, Arrived)


class Follower(Generic[State_co]):
    """Follows a feed and posts `Arrived` to `target` until it is stopped."""

    def __init__(self, feed: Feed[State_co], target: MessagePump, name: str) -> None:
        self._feed = feed
        self._target = target
        self._lock = threading.Lock()
        self._ahead: list[State_co] = []
        self._thread = threading.Thread(target=self._go, name=name, daemon=True)
        self._thread.start()

    def take(self) -> list[State_co]:
        """The states since the last call, the latest one last; of too many only the latest ones."""
        with self._lock:
            states, self._ahead = self._ahead, []
        return states

    def stop(self) -> None:
        """No more states; does not wait."""
        self._feed.stop()

    def _go(self) -> None:
        try:
            for state in self._feed.follow():
                with self._lock:
                    self._ahead = [*self._ahead[-_KEPT:], state]
                if not self._target.post_message(Arrived()):
                    return
        except Exception as error:  # noqa: BLE001 - what was shown stays, and one can go on
            self._target.post_message(WentWrong(f"nothing new is shown: {in_words(error)}"))
        finally:
            self._feed.close()
