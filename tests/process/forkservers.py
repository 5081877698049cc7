"""An agent that starts servers as people do: Redis, and an http.server that counts in memory.

usage: forkservers.py REDIS_PORT HTTP_PORT [WAIT]       run in the workspace

Turn 1 starts them, turns 2 and 3 ask each. With WAIT it says so in ``../waiting`` then, and stays.
"""

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import crabrt

HTTP = """
import http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    count = 0
    def do_GET(self):
        Handler.count += 1
        body = b"%d %s" % (Handler.count, open("name", "rb").read())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
redis_port, http_port = int(sys.argv[1]), int(sys.argv[2])


def ready(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=20).close()
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return


@crabrt.tool
def start() -> None:
    Path("name").write_text("original")
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    redis = ["redis-server", "--port", str(redis_port), "--save", "", "--appendonly", "no"]
    redis += ["--unixsocket", "./redis.sock"]
    for command in (redis, [sys.executable, "-c", HTTP, str(http_port)]):
        subprocess.Popen(command, start_new_session=True, **quiet).returncode = 0
    ready(redis_port)
    ready(http_port)


@crabrt.tool
def ask() -> list[str]:
    with socket.create_connection(("127.0.0.1", redis_port), timeout=20) as redis:
        redis.sendall(b"INCR asked\r\n")
        said = redis.recv(100).decode()
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/") as answer:
        return [said, answer.read().decode()]


@crabrt.model
def think(turn: int) -> int:
    if turn == 3 and len(sys.argv) > 3:
        Path("../waiting").write_text("")
        time.sleep(100)
    return turn


@crabrt.agent(workspace=".", name="forkservers")
def loop() -> list[list[str]]:
    said = []
    for turn in range(3):
        think(turn)
        if turn == 0:
            start()
        else:
            said.append(ask())
    think(3)
    return said


if __name__ == "__main__":
    loop()
