"""The process that owns a group: a thread that empties the kernel's queue and serves the others.

Why a thread. The queue of a privileged group is bounded by memory alone, and a tool may run for
minutes: somebody has to empty it meanwhile. It does so every `PAUSE_S` while anything happens, so
that the kernel can fold equal events until then and a burst costs few wake-ups; while nothing
happens it sleeps in ``poll``. Drains do not wait for it: they read the queue themselves.

Clients may be slow, stopped or hostile to time: what is sent to them waits in a bounded backlog
outside the lock, never in a blocking call.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from crabrt.inspector.watch.errors import Refused, SourceLost
from crabrt.inspector.watch.feed import Feed
from crabrt.inspector.watch.hub import Hub
from crabrt.inspector.watch.kin import Kin
from crabrt.inspector.watch.meeting import Meeting, peer_of
from crabrt.inspector.watch.view import View
from crabrt.inspector.watch.wire import (
    PACKET_BYTES,
    VERSION,
    Answer,
    Ask,
    Join,
    ProtocolError,
    packets,
    request,
)

PAUSE_S: Final = 0.05
_IDLE_S: Final = 1.0
_CLIENTS_MOST: Final = 1024


class _Client:
    """One connection of another process."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.connection = connection
        self.pid = pid
        self.feed: Feed | None = None
        self.backlog: deque[bytes] = deque()


class Owner:
    """A group with its hub, its thread and its clients.

    Args:
        group: the marked group; taken over.
        view: taken over.
        meeting: where others come; None: this group is not shared.
        lock: the descriptor that keeps the meeting's lock; taken over.
        retire: called by the thread when nobody is fed any more, or can be; whether it freed this
            owner.

    Raises:
        OSError: the socket or the hub cannot be set up; what was to be taken over is the caller's.
    """

    def __init__(
        self,
        group: int,
        view: View,
        *,
        retire: Callable[[Owner], bool],
        meeting: Meeting | None = None,
        lock: int | None = None,
    ) -> None:
        self.hub = Hub(group, view.fd)
        self._group, self._view, self._meeting, self._lock = group, view, meeting, lock
        self._retire = retire
        self._clients: dict[int, _Client] = {}
        self._poll = select.poll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._listener: socket.socket | None = None
        if meeting is not None:
            try:
                self._listener = meeting.listen()
            except OSError:
                os.close(self._wake)
                raise
            self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="crabrt-watch", daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Nobody is fed."""
        return self.hub.feeds == 0

    def close(self) -> None:
        """Stop, and free everything; clients find that out by themselves."""
        self.hub.fail("the process that watched has stopped watching")
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self.free()

    def free(self) -> None:
        """Let go of everything; the thread has ended, or is the caller."""
        if self._meeting is not None:
            self._meeting.leave()
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptors and nothing else: all that a forked child may do.

        A child that kept them would keep the group alive, and the clients from seeing their owner
        die.
        """
        for client in self._clients.values():
            client.connection.close()
        if self._listener is not None:
            self._listener.close()
        for fd in (self._wake, self._group, self._view.fd, self._lock):
            if fd is not None:
                os.close(fd)
        if self._meeting is not None:
            self._meeting.close()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may go on believing
            self.hub.fail(f"the watching thread failed: {error}")
            self._bow_out()

    def _bow_out(self) -> None:
        """Free everything, so that clients see their owner gone and one of them can take over."""
        wake = select.poll()
        wake.register(self._wake, select.POLLIN)
        while not self._retire(self) and not wake.poll(PAUSE_S * 1e3):
            pass

    def _serve(self) -> None:
        resume_at = time.monotonic()
        listening = False
        while True:
            now = time.monotonic()
            if not listening and now >= resume_at:
                self._poll.register(self._group, select.POLLIN)
                listening = True
            wait_s = _IDLE_S if self.idle else None
            if not listening:
                wait_s = resume_at - now
            for fd, what in self._poll.poll(None if wait_s is None else wait_s * 1e3):
                if fd == self._wake:
                    return
                if fd == self._group:
                    self.hub.round()
                    self._poll.unregister(self._group)
                    listening, resume_at = False, time.monotonic() + PAUSE_S
                elif self._listener is not None and fd == self._listener.fileno():
                    self._accept(self._listener)
                else:
                    self._attend(self._clients[fd], what)
            if self.hub.dead is not None:
                self._bow_out()
                return
            if self.idle and self._retire(self):
                return

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # it went away again
        try:
            peer = peer_of(connection)
        except OSError:
            connection.close()
            return
        if peer.uid != os.geteuid() or len(self._clients) >= _CLIENTS_MOST:
            connection.close()
            return
        connection.setblocking(False)
        self._clients[connection.fileno()] = _Client(connection, peer.pid)
        self._poll.register(connection, select.POLLIN)

    def _attend(self, client: _Client, what: int) -> None:
        try:
            if what & select.POLLIN:
                self._read(client)
            self._send(client)
        except (OSError, EOFError, ProtocolError):
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client.feed is not None:
            self.hub.remove(client.feed)
        del self._clients[client.connection.fileno()]
        self._poll.unregister(client.connection)
        client.connection.close()

    def _read(self, client: _Client) -> None:
        packet, fds, _, _ = socket.recv_fds(
            client.connection, PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC
        )
        try:
            if not packet:
                raise EOFError
            if client.backlog:
                raise ProtocolError("asked before it was answered")
            client.backlog.extend(packets(self._answer(client, request(packet), fds)))
        finally:
            for fd in fds:
                os.close(fd)

    def _answer(self, client: _Client, message: Join | Ask, fds: list[int]) -> Answer:
        try:
            if isinstance(message, Ask):
                if client.feed is None:
                    raise ProtocolError("asked before it joined")
                told = self.hub.peek if message.peek else self.hub.drain
                return Answer(told(client.feed))
            if client.feed is not None or len(fds) != 1:
                raise ProtocolError("joined twice, or without a directory")
            if message.version != VERSION:
                return Answer(refused="another version of crabrt watches")
            client.feed = self.hub.add(fds[0], Kin(client.pid, message.mark))
        except SourceLost as lost:
            return Answer(lost=str(lost))
        except Refused as refused:
            return Answer(refused=str(refused))
        return Answer()

    def _send(self, client: _Client) -> None:
        backlog = client.backlog
        while backlog:
            try:
                client.connection.send(backlog[0])
            except BlockingIOError:
                break
            backlog.popleft()
        # While an answer waits, nothing more is asked: poll would only spin on it.
        self._poll.modify(client.connection, select.POLLOUT if backlog else select.POLLIN)
