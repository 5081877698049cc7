"""An agent that knows no absolute path: with a server that counts, and a shell that does.

usage: forkable.py TURNS [WAIT_AT]       run in the workspace

In the model call of turn WAIT_AT it says so in ``../waiting`` and stays, unless that is there
already. Turns from the third on ask both of them, through the shell. With SOCKET in the environment
the server listens at that path as well.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import crabrt

SERVER = """
import os, socket
server = socket.create_server(("127.0.0.1", 0))
log = open("log", "a")
if "SOCKET" in os.environ:
    named = socket.socket(socket.AF_UNIX)
    named.bind(os.environ["SOCKET"])
    named.listen()
count = 0
with open("address.new", "w") as file:
    file.write(f"{os.getpid()} {server.getsockname()[1]}")
os.rename("address.new", "address")
while True:
    client, _ = server.accept()
    with client:
        count += int(client.recv(100) or b"0")
        print(count, file=log, flush=True)
        client.sendall(b"%d %s" % (count, open("name", "rb").read()))
"""
ASK = "exec 9<>/dev/tcp/127.0.0.1/$(cut -d' ' -f2 address); echo -n {number} >&9; cat <&9"

turns = int(sys.argv[1])
wait_at = int(sys.argv[2]) if len(sys.argv) > 2 else None
shell = crabrt.Shell(isolation=os.environ.get("ISOLATION", "auto"))


@crabrt.tool
def start() -> None:
    Path("name").write_text("original")
    subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ).returncode = 0  # nobody waits for it
    end = time.monotonic() + 20
    while not Path("address").exists():
        assert time.monotonic() < end
        time.sleep(0.005)


@crabrt.tool
def bash(command: str) -> str:
    return shell.run(command, timeout=20).output


@crabrt.model
def think(turn: int) -> int:
    if turn == wait_at and not Path("../waiting").exists():
        Path("../waiting").write_text(str(os.getpid()))
        time.sleep(100)
    return turn


@crabrt.agent(workspace=".", name="forkable")
def loop() -> list[str]:
    said = []
    for turn in range(turns):
        think(turn)
        if turn == 0:
            start()
        elif turn == 1:
            bash("count=1; add() { count=$((count + $1)); echo $count; }; cd .")
        else:
            asked = ASK.replace("{number}", str(turn))
            said.append(bash(f"add {turn}; ({asked}); echo; echo $count > counted"))
    return said


if __name__ == "__main__":
    sys.stdout.write(f"{loop()}\n")
