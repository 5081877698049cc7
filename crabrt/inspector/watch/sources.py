"""Two ways to be fed: by a group of this process, or by another process that owns one."""

from __future__ import annotations

import os
import socket
from typing import Protocol

from crabrt.inspector.watch.dirty import Dirty
from crabrt.inspector.watch.errors import Refused, SourceLost
from crabrt.inspector.watch.feed import Feed
from crabrt.inspector.watch.kin import Kin
from crabrt.inspector.watch.owner import Owner
from crabrt.inspector.watch.wire import VERSION, Answer, Ask, Join, ProtocolError, encode, receive


class Source(Protocol):
    """Where a watch learns what happened. Used by one thread at a time."""

    def drain(self) -> Dirty:
        """See `Watch.drain`.

        Raises:
            SourceLost: it is gone.
        """
        ...

    def peek(self) -> Dirty:
        """See `Watch.peek`.

        Raises:
            SourceLost: it is gone.
        """
        ...

    def close(self) -> None:
        """Ask no more."""
        ...

    def abandon(self) -> None:
        """In a forked child: let go of what came along."""
        ...


class Near:
    """A feed of a group that this process owns."""

    def __init__(self, owner: Owner, workspace: int, mark: bytes) -> None:
        self.owner = owner
        self._feed: Feed = owner.hub.add(workspace, Kin(os.getpid(), mark))

    def drain(self) -> Dirty:
        """See `Source.drain`."""
        return self.owner.hub.drain(self._feed)

    def peek(self) -> Dirty:
        """See `Source.peek`."""
        return self.owner.hub.peek(self._feed)

    def close(self) -> None:
        """See `Source.close`."""
        self.owner.hub.remove(self._feed)

    def abandon(self) -> None:
        """The owner's descriptors are closed once, by `sharing`."""


class Far:
    """A feed of a group that another process owns.

    Args:
        connection: taken over, whatever happens.
        workspace: a descriptor of the directory.
        mark: see `Kin`.

    Raises:
        Refused: the owner cannot see the workspace.
        SourceLost: the owner is gone, or does not answer.
    """

    def __init__(self, connection: socket.socket, workspace: int, mark: bytes) -> None:
        self._connection = connection
        try:
            refused = self._say(Join(VERSION, mark), [workspace]).refused
        except SourceLost:
            connection.close()
            raise
        if refused is not None:
            connection.close()
            raise Refused(refused)

    def drain(self) -> Dirty:
        """See `Source.drain`."""
        return self._say(Ask()).dirty

    def peek(self) -> Dirty:
        """See `Source.peek`."""
        return self._say(Ask(peek=True)).dirty

    def close(self) -> None:
        """See `Source.close`."""
        self._connection.close()

    def abandon(self) -> None:
        """See `Source.abandon`."""
        self._connection.close()

    def _say(self, message: Join | Ask, fds: list[int] | None = None) -> Answer:
        try:
            if fds:
                socket.send_fds(self._connection, [encode(message)], fds)
            else:
                self._connection.send(encode(message))
            answer = receive(self._connection)
        except TimeoutError as error:
            raise SourceLost("the process that watched does not answer") from error
        except (OSError, EOFError) as error:
            raise SourceLost("the process that watched is gone") from error
        except ProtocolError as error:
            raise SourceLost("the process that watched is not understood") from error
        if answer.lost is not None:
            raise SourceLost(answer.lost)
        return answer
