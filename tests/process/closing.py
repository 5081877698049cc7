"""An agent that holds its shell by `with`, starts a server in it, and is stopped by what it meets.

usage: closing.py TURNS [STOP_AT [HOW]]       run in the workspace

The server counts: each turn sends it its number, and bash counts, too. In the model call of turn
STOP_AT it does what HOW says, unless ``../mended`` is there: ``raise``, or ``wait`` for a signal
(it says so in ``../waiting``). What bash and the server said in the last turn is written to
``said``. With ASYNC in the environment the loop is a coroutine, with NESTED a child run, with BUSY
there is somebody in the shell who never sleeps for long, and with OTHERWISE its requests are other
ones.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import crabrt

SERVER = """
import os, socket
server = socket.create_server(("127.0.0.1", 0))
with open("address.new", "w") as file:
    file.write(f"{os.getpid()} {server.getsockname()[1]}")
os.rename("address.new", "address")
count = 0
while True:
    client, _ = server.accept()
    with client:
        count += int(client.recv(100) or b"0")
        client.sendall(b"%d" % count)
"""
BEGIN = (
    "cat >server.py <<'END'\n" + SERVER + "END\n"
    "add() { count=$((count + $1)); }; cd .\n"
    '[ -z "$BUSY" ] || (while :; do sleep 0.05; done) & '
    '"$PYTHON" server.py & while ! [ -e address ]; do sleep 0.01; done'
)
ADD = (
    "add {turn}; exec 9<>/dev/tcp/127.0.0.1/$(cut -d' ' -f2 address); echo -n {turn} >&9; "
    'echo "$count $(cat <&9)" > said'
)

turns = int(sys.argv[1])
stop_at = int(sys.argv[2]) if len(sys.argv) > 2 else None
how = sys.argv[3] if len(sys.argv) > 3 else "raise"
os.environ["PYTHON"] = sys.executable


def waits() -> bool:
    if Path("../mended").exists():
        return False
    if how == "raise":
        raise ConnectionError("the API is down")
    Path("../waiting").write_text(str(os.getpid()))
    return True


def shell() -> crabrt.Shell:
    return crabrt.Shell(isolation=os.environ.get("ISOLATION", "auto"))


def command(turn: int) -> str:
    return ADD.replace("{turn}", str(turn)) if turn else BEGIN


def said() -> str:
    return Path("said").read_text()


def loop() -> str:
    @crabrt.model
    def think(turn: int) -> int:
        if turn == stop_at and waits():
            time.sleep(100)
        return turn

    @crabrt.tool
    def bash(command: str) -> str:
        return sh.run(command, timeout=20).output

    with shell() as sh:
        for turn in range(turns):
            think(turn + len(os.environ.get("OTHERWISE", "")))
            bash(command(turn))
        think(turns)
    return said()


async def aloop() -> str:
    @crabrt.model
    async def think(turn: int) -> int:
        if turn == stop_at and waits():
            await asyncio.sleep(100)
        return turn

    @crabrt.tool
    async def bash(command: str) -> str:
        return (await sh.arun(command, timeout=20)).output

    async with shell() as sh:
        for turn in range(turns):
            await think(turn)
            await bash(command(turn))
        await think(turns)
    return said()


def outer() -> str:
    return crabrt.agent(name="inner")(loop)()


protected = crabrt.agent(workspace=".", name="closing")

if __name__ == "__main__":
    if "ASYNC" in os.environ:
        sys.stdout.write(asyncio.run(protected(aloop)()))
    elif "NESTED" in os.environ:
        sys.stdout.write(protected(outer)())
    else:
        sys.stdout.write(protected(loop)())
