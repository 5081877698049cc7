"""Servers: of web pages, in Python and in Node; Redis."""

from __future__ import annotations

from typing import Final

from crabrt.testing.tasks.task import Task, sh

_PAGES: Final = """\
import http.server, json, sys

items, hits = {}, 0


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global hits
        if self.path == "/peek":  # looks without being counted
            self.say({"items": items, "hits": hits})
        else:
            hits += 1
            self.say(len(items))

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        name, _, value = text.partition("=")
        items[name] = items.get(name, 0) + int(value)
        self.say(items[name])

    def say(self, what):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(what).encode())

    def log_message(self, form, *words):
        if self.path != "/peek":
            print(self.command, self.path, flush=True)


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Pages).serve_forever()
"""

_GET: Final = """\
import sys, time, urllib.request

port, path, *body = sys.argv[1:]
data = body[0].encode() if body else None
end = time.monotonic() + (8 if path == "/up" else 0)
while True:
    try:
        where = f"http://127.0.0.1:{port}{'/peek' if path == '/up' else path}"
        text = urllib.request.urlopen(where, data, timeout=8).read().decode()
        print("up" if path == "/up" else text)
        break
    except OSError:
        if time.monotonic() > end:
            print("absent")
            break
        time.sleep(0.02)
"""

DEV_SERVER = Task(
    "dev-server",
    "a web server in Python, started with nohup; what was posted to it is in its memory",
    files={"server.py": _PAGES, "get.py": _GET},
    turns=(
        (sh("ls"),),
        (sh("nohup $PY server.py $PORT > server.log 2>&1 & $PY get.py $PORT /up"),),
        (sh("$PY get.py $PORT /items apples=3"), sh("$PY get.py $PORT /items pears=4")),
        (sh("echo 'apples and pears' > notes; $PY get.py $PORT /items apples=10"),),
        (sh("$PY get.py $PORT /"),),
        (sh("cat notes"),),
        (sh("$PY get.py $PORT /; cp server.log server.log.1"),),
        (sh("$PY get.py $PORT /items plums=100; rm notes"),),
        (sh("cat server.log"),),
    ),
    questions=(sh("$PY get.py $PORT /peek"),),
)

_NODE: Final = """\
const http = require("http");
const seen = new Map();
let ticks = 0, total = 0;
setInterval(() => { ticks++; }, 50);
http.createServer((request, response) => {
  const [, verb, name, value] = request.url.split("/");
  if (verb === "add") {
    total += Number(value);
    seen.set(name, (seen.get(name) || 0) + Number(value));
  }
  response.end(JSON.stringify({ total, seen: [...seen], ticking: ticks >= 0 }));
}).listen(Number(process.argv[2]), "127.0.0.1");
"""

NODE_SERVER = Task(
    "node-server",
    "a web server in Node, with a timer; a map in its memory",
    files={"server.js": _NODE, "get.py": _GET},
    programs=("node",),
    turns=(
        (sh("setsid node server.js $PORT > node.log 2>&1 < /dev/null & $PY get.py $PORT /up"),),
        (sh("$PY get.py $PORT /add/a/1"),),
        (sh("$PY get.py $PORT /add/b/20; echo b >> order"),),
        (sh("wc -l < order"),),
        (sh("$PY get.py $PORT /add/a/300"),),
        (sh("echo a >> order"),),
        (sh("$PY get.py $PORT /add/c/4000; mkdir -p public; echo c > public/index.html"),),
        (sh("cat public/index.html order"),),
    ),
    questions=(sh("$PY get.py $PORT /look"),),
)

_CLI = "redis-cli -p $PORT"

REDIS = Task(
    "redis",
    "Redis that saves nothing: keys, a list and a counter in its memory alone",
    programs=("redis-server", "redis-cli"),
    turns=(
        (
            sh(
                "redis-server --port $PORT --bind 127.0.0.1 --save '' --appendonly no"
                " --logfile /dev/null > /dev/null 2>&1 < /dev/null &"
                f" for i in $(seq 400); do {_CLI} ping > /dev/null 2>&1 && break; sleep 0.02; done;"
                f" {_CLI} ping"
            ),
        ),
        (sh(f"{_CLI} set greeting hello"), sh(f"{_CLI} incrby count 5")),
        (sh(f"{_CLI} rpush jobs one two three; echo queued > state"),),
        (sh("cat state"),),
        (sh(f"{_CLI} lpop jobs > done; {_CLI} incr count"),),
        (sh(f"{_CLI} get count"),),
        (sh(f"{_CLI} hset user name crab legs 10; echo more >> done"),),
        (sh(f"{_CLI} incrby count 100"),),
        (sh("cat done"),),
    ),
    questions=(
        sh(f"{_CLI} get greeting 2> /dev/null || echo absent"),
        sh(f"{_CLI} get count 2> /dev/null || echo absent"),
        sh(f"{_CLI} lrange jobs 0 -1 2> /dev/null || echo absent"),
        sh(f"{_CLI} hget user legs 2> /dev/null || echo absent"),
    ),
)
