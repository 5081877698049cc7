"""Jobs in the background: they watch, build, follow, write, and talk to one another."""

from __future__ import annotations

from typing import Final

from crabrt.testing.tasks.asking import CTL
from crabrt.testing.tasks.task import Task, sh

_WATCH: Final = """\
import ctypes, os, struct, sys
from ctl import serve

libc = ctypes.CDLL(None, use_errno=True)
events = libc.inotify_init1(os.O_NONBLOCK)
libc.inotify_add_watch(events, b"src", 0x8 | 0x100 | 0x200)  # closed after writing, made, deleted
made, written, deleted = set(), {}, set()


def drain():
    while True:
        try:
            data = os.read(events, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16 : at + 16 + length].rstrip(b"\\0").decode()
            at += 16 + length
            if mask & 0x8:
                written[name] = written.get(name, 0) + 1
            elif mask & 0x100:
                made.add(name)
            elif mask & 0x200:
                deleted.add(name)


def answer(*words):
    drain()
    return sorted(made), sorted(written.items()), sorted(deleted)


serve(sys.argv[1], answer, [(events, drain)])
"""

FILE_WATCHER = Task(
    "file-watcher",
    "a program that watches a directory through inotify and counts what happens in it",
    files={"ctl.py": CTL, "watch.py": _WATCH, "src/main.c": "int main(void) { return 0; }\n"},
    apart=("__pycache__",),
    turns=(
        (sh("setsid $PY watch.py $PORT > log 2>&1 < /dev/null & $PY ctl.py $PORT up"),),
        (sh("echo one > src/one.c"),),
        (sh("echo two > src/two.c; $PY ctl.py $PORT look"),),
        (sh("cat src/*.c"),),
        (sh("echo more >> src/one.c"),),
        (sh("rm src/two.c; $PY ctl.py $PORT look"),),
        (sh("echo notes > notes"),),
        (sh("echo three > src/three.c; echo last >> src/one.c"),),
    ),
    questions=(sh("$PY ctl.py $PORT look"),),
)

_BUILD: Final = """\
import hashlib, multiprocessing, os, sys
from ctl import serve


def compile_one(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def main():
    known, counts = {}, {"built": 0, "known": 0}
    with multiprocessing.get_context("fork").Pool(2) as workers:

        def answer(verb, *names):
            if verb == "build":
                texts = {name: open(name).read() for name in names}
                fresh = [name for name in names if known.get(name, ("",))[0] != texts[name]]
                for name, made in zip(fresh, workers.map(compile_one, [texts[n] for n in fresh])):
                    known[name] = texts[name], made
                    with open(name + ".o", "w") as out:
                        out.write(made)
                counts["built"] += len(fresh)
                counts["known"] += len(names) - len(fresh)
            return f"{counts['built']} built, {counts['known']} known: {','.join(sorted(known))}"

        serve(sys.argv[1], answer)


if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        main()
    os._exit(0)
os.wait()
"""

BUILD_DAEMON = Task(
    "build-daemon",
    "a daemon (forked twice) with workers, on a Unix socket; it remembers what it has built",
    files={"ctl.py": CTL, "build.py": _BUILD, "a.c": "int a;\n", "b.c": "int b;\n"},
    apart=("__pycache__",),
    turns=(
        (sh("$PY build.py build.sock > log 2>&1 < /dev/null; $PY ctl.py build.sock up"),),
        (sh("$PY ctl.py build.sock build a.c b.c"),),
        (sh("cat a.c.o b.c.o"),),
        (sh("echo 'int c;' > c.c; $PY ctl.py build.sock build a.c b.c c.c"),),
        (sh("echo 'int more;' >> a.c"),),
        (sh("$PY ctl.py build.sock build a.c b.c c.c"),),
        (sh("cat a.c.o"),),
        (sh("rm b.c b.c.o; $PY ctl.py build.sock build a.c c.c"),),
    ),
    questions=(sh("$PY ctl.py build.sock look"),),
)

_SUM: Final = """\
import os, select, sys
from ctl import serve

sums, lines, rest = {}, 0, b""


def take():
    global lines, rest
    *whole, rest = (rest + os.read(0, 1 << 16)).split(b"\\n")
    for line in whole:
        name, _, value = line.decode().partition(" ")
        sums[name] = sums.get(name, 0) + int(value)
        lines += 1


def answer(wanted):
    while lines < int(wanted) and select.select([0], [], [], 5)[0]:
        take()
    return f"{lines} lines: {sorted(sums.items())}"


serve(sys.argv[1], answer, [(0, take)])
"""

_LINES = "$PY ctl.py sum.sock $(wc -l < log)"

TAIL_PIPELINE = Task(
    "tail-pipeline",
    "tail -f of a log, through pipes, into a program that adds up what it has read",
    files={"ctl.py": CTL, "sum.py": _SUM, "log": "a 1\nb 2\n"},
    apart=("__pycache__",),
    turns=(
        (
            sh(
                "setsid sh -c 'tail -n +1 -f log |"
                " grep --line-buffered -v skip | $PY sum.py sum.sock'"
                " > /dev/null 2>&1 < /dev/null & $PY ctl.py sum.sock up"
            ),
        ),
        (sh("echo 'a 10' >> log"),),
        (sh("echo 'c 100' >> log; " + _LINES),),
        (sh("cat log"),),
        (sh("echo 'b 1000' >> log"),),
        (sh(_LINES),),
        (sh("echo noted > notes; echo 'a 5' >> log"),),
        (sh("wc -l < log"),),
    ),
    questions=(sh(_LINES),),
)

_WRITER: Final = '''\
import sys, time
from ctl import serve

journal = open("journal", "w+")
count, kept = 0, []


def write():
    """A line, then a moment: all the time."""
    global count
    count += 1
    journal.write(f"{count}\\n")
    journal.flush()
    time.sleep(0.002)


def answer(verb, *words):
    """Whether what is in the file is what this process has written, no more and no less."""
    if verb == "keep":
        kept.append(words[0])
    lines = open("journal").read().splitlines()
    is_whole = lines == [str(number) for number in range(1, count + 1)]
    return f"{'whole' if is_whole else f'torn: {len(lines)} lines, {count} written'} {kept}"


serve(sys.argv[1], answer, idle=write)
'''

BACKGROUND_WRITER = Task(
    "background-writer",
    "a job that writes lines to a file all the time, and knows how many it has written",
    files={"ctl.py": CTL, "writer.py": _WRITER},
    apart=("__pycache__", "journal"),
    turns=(
        (sh("setsid $PY writer.py $PORT > /dev/null 2>&1 < /dev/null & $PY ctl.py $PORT up"),),
        (sh("$PY ctl.py $PORT keep one"),),
        (sh("echo something > beside"),),
        (sh("cat beside"),),
        (sh("$PY ctl.py $PORT keep two; cp beside copy"),),
        (sh("$PY ctl.py $PORT look"),),
        (sh("rm copy"),),
        (sh("$PY ctl.py $PORT keep three"),),
    ),
    questions=(sh("$PY ctl.py $PORT look"),),
)

_PAIR: Final = """\
import os, socket, sys
from ctl import serve

mine, theirs = socket.socketpair()
if os.fork() == 0:
    mine.close()
    memory, unread = [], theirs.makefile("r")
    while line := unread.readline():
        word = line.strip()
        if word == "tell":
            theirs.sendall((",".join(memory) + "\\n").encode())
        else:
            memory.append(word[::-1])
    os._exit(0)
theirs.close()
answers = mine.makefile("r")
asked = 0


def answer(verb, *words):
    global asked
    if verb == "send":
        asked += 1
        mine.sendall((words[0] + "\\n").encode())
        return asked
    mine.sendall(b"tell\\n")
    return f"{asked} sent: {answers.readline().strip()}"


serve(sys.argv[1], answer)
"""

SOCKET_PAIR = Task(
    "socket-pair",
    "two processes joined by a pair of Unix sockets, each with a memory of its own",
    files={"ctl.py": CTL, "pair.py": _PAIR},
    apart=("__pycache__",),
    turns=(
        (sh("$PY pair.py pair.sock > /dev/null 2>&1 < /dev/null & $PY ctl.py pair.sock up"),),
        (sh("$PY ctl.py pair.sock send hello"),),
        (sh("echo one > sent; $PY ctl.py pair.sock send crab"),),
        (sh("cat sent"),),
        (sh("$PY ctl.py pair.sock tell"),),
        (sh("echo two >> sent"),),
        (sh("$PY ctl.py pair.sock send again"),),
        (sh("cat sent; rm sent"),),
    ),
    questions=(sh("$PY ctl.py pair.sock tell"),),
)

_CACHE: Final = """\
import mmap, os, sys, tempfile, threading
from ctl import serve

hidden = tempfile.TemporaryFile(dir=".")  # open, and deleted
shared = mmap.mmap(-1, 4096)
blob = bytearray(4 << 20)
lock, done = threading.Lock(), []


def work(number):
    with lock:
        done.append(number * number)


def answer(verb, *words):
    if verb == "put":
        hidden.write(words[0].encode() + b";")
        hidden.flush()
        shared[: len(words[0])] = words[0].encode()
        blob[len(done) * 4096] = 1
        thread = threading.Thread(target=work, args=(len(words[0]),))
        thread.start()
        thread.join()
    hidden.seek(0)
    text = hidden.read().decode()
    return f"{text} {bytes(shared[:16]).rstrip(bytes(1)).decode()} {sum(blob)} {done}"


serve(sys.argv[1], answer)
"""

SCRATCH_FILE = Task(
    "scratch-file",
    "a program with a deleted file open, shared memory, and threads that come and go",
    files={"ctl.py": CTL, "cache.py": _CACHE},
    apart=("__pycache__",),
    turns=(
        (sh("$PY cache.py $PORT > /dev/null 2>&1 < /dev/null & $PY ctl.py $PORT up"),),
        (sh("$PY ctl.py $PORT put one"),),
        (sh("echo 1 > n"),),
        (sh("$PY ctl.py $PORT put three; echo 2 > n"),),
        (sh("cat n"),),
        (sh("$PY ctl.py $PORT put eleven"),),
        (sh("rm n"),),
        (sh("$PY ctl.py $PORT look"),),
    ),
    questions=(sh("$PY ctl.py $PORT look"),),
)
