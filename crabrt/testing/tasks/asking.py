"""The program that tasks put into their workspaces to talk to their servers, and to be them."""

from __future__ import annotations

from typing import Final

CTL: Final = '''\
"""Ask a server of this directory: ctl.py ADDRESS WORD...  (a port, or the path of a socket)."""

import os
import selectors
import socket
import sys
import time

LIMIT_S = 8


def connect(where):
    if where.isdigit():
        return socket.create_connection(("127.0.0.1", int(where)), timeout=LIMIT_S)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(LIMIT_S)
    client.connect(where)
    return client


def listen(where):
    if where.isdigit():
        return socket.create_server(("127.0.0.1", int(where)))
    if os.path.exists(where):
        os.unlink(where)
    server = socket.socket(socket.AF_UNIX)
    server.bind(where)
    server.listen()
    return server


def serve(where, answer, others=(), idle=None):
    """Answer each line with a line, for ever.

    others: (file, what to call when it can be read); idle: called all the time.
    """
    server = listen(where)
    chosen = selectors.DefaultSelector()
    chosen.register(server, selectors.EVENT_READ, None)
    for file, call in others:
        chosen.register(file, selectors.EVENT_READ, call)
    while True:
        for key, _ in chosen.select(None if idle is None else 0):
            if key.data is not None:
                key.data()
                continue
            client, _ = server.accept()
            with client, client.makefile("rw") as stream:
                words = stream.readline().split()
                if words:  # else somebody only looked whether we are up
                    stream.write(str(answer(*words)))
        if idle is not None:
            idle()


def ask(where, *words):
    with connect(where) as client, client.makefile("rw") as stream:
        stream.write(" ".join(words) + "\\n")
        stream.flush()
        return stream.read()


def main(where, *words):
    """`up`: wait until somebody listens. Else say what the server says, or `absent`."""
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            if words == ("up",):
                connect(where).close()
                return "up"
            return ask(where, *words)
        except OSError:
            if words != ("up",) or time.monotonic() > end:
                return "absent"
            time.sleep(0.02)


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
'''
