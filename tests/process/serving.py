"""An agent with two servers and a shell; run as a program, killed by tests.

usage: serving.py WORKSPACE PORT COUNTER_PORT [DIE_AT]

A web server that a tool starts in a subshell, and one that counts, started in the background of a
`crabrt.Shell`, which keeps its count in a file. In the model call of turn DIE_AT the loop dies by
SIGKILL, and then all that it had started. A resumed one does not.
"""

import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import crabrt
from crabrt.process import table

COUNTER = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    client, _ = server.accept()
    with client:
        count = int(open("count").read() or 0) + 1
        open("count", "w").write(str(count))
        client.sendall(b"%d %s" % (count, os.environ["MY_API_KEY"].encode()))
"""

workspace, port, counter_port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
die_at = int(sys.argv[4]) if len(sys.argv) > 4 else None
bash = crabrt.Shell(cwd=workspace)


def answer(at: int, request: bytes) -> str:
    end = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", at), timeout=20) as client:
                client.sendall(request)
                return b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.01)


@crabrt.tool
def write(name: str, text: str) -> None:
    (workspace / name).parent.mkdir(exist_ok=True)
    (workspace / name).write_text(text)


@crabrt.tool
def sh(command: str) -> None:
    subprocess.run(command, shell=True, check=True, cwd=workspace)


@crabrt.tool
def run(command: str) -> str:
    return bash.run(command).output


@crabrt.tool
def get(path: str) -> str:
    return answer(port, f"GET /{path} HTTP/1.0\r\n\r\n".encode()).split("\r\n\r\n")[1]


@crabrt.tool
def count() -> str:
    return answer(counter_port, b"")


def wait_until_durable(turn: int) -> None:
    end = time.monotonic() + 60
    while crabrt.current_run().history()[turn].protection not in {"durable", "inherited"}:
        assert time.monotonic() < end
        time.sleep(0.02)


@crabrt.model
def think(turn: int) -> int:
    if turn == die_at and "RESUMED" not in os.environ:
        wait_until_durable(turn)
        victims = [os.getpid(), *(one.pid for one in table.descendants(os.getpid()))]
        killing = f"for pid in {' '.join(map(str, victims))}; do kill -9 $pid; done"
        subprocess.Popen(["sh", "-c", killing], stderr=subprocess.DEVNULL)
        time.sleep(60)
    return turn


@crabrt.agent(workspace=workspace, name="serving")
def loop() -> list[str]:
    python = shlex.quote(sys.executable)
    server = f"{python} -m http.server --bind 127.0.0.1 {port} > ../log 2>&1"
    said = []
    think(0)
    write("site/page", "one")
    think(1)
    sh(f"(cd site && {server}) &")
    think(2)
    said.append(get("page"))
    think(3)
    run("v=1; plus() { v=$((v + $1)); echo $v; }; export MY_API_KEY=sekrit; touch count")
    run(f"{python} -c {shlex.quote(COUNTER)} {counter_port} &")
    said.append(count())
    think(4)
    said += [run("plus 10"), count()]
    think(5)
    write("site/page", "two")
    said += [run("plus 100"), count(), get("page")]
    think(6)
    return said


if __name__ == "__main__":
    sys.stdout.write(f"{loop()}\n")
    if "KEEP" not in os.environ:
        bash.close()
        crabrt_left = [one.pid for one in table.descendants(os.getpid())]
        for pid in crabrt_left:
            os.kill(pid, 9)
