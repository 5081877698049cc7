"""What lives in the agent's shell: functions and traps, an interpreter, a server and its client."""

from __future__ import annotations

from typing import Final

from crabrt.testing.tasks.asking import CTL
from crabrt.testing.tasks.task import Task, bash, sh

SHELL = Task(
    "shell",
    "a shell with functions, arrays, a trap, another directory, and a job in the background",
    turns=(
        (bash("count=1; declare -A seen; add() { count=$((count + $1)); echo $count; }"),),
        (bash("mkdir -p build && cd build; add 10"),),
        (bash("trap 'echo interrupted >> signals' USR1; seen[first]=yes; umask 027"),),
        (bash("(while :; do sleep 0.05; done) & add 100"),),
        (sh("ls"),),
        (bash("kill -USR1 $$; pwd | sed 's,.*/,,'; echo built > out; stat -c %a out"),),
        (bash("words=(one 'two three' four); alias ll='ls -l'; add 1000"),),
        (bash("echo $count > count; jobs -p | wc -l"),),
        (bash("set -o noclobber; cd ..; add 10000"),),
    ),
    questions=(
        bash("echo ${count-unset} ${seen[first]-unset} ${#words[@]} ${words[1]-unset}"),
        bash("type -t add ll; trap -p USR1; umask; set -o | grep noclobber | tr -s ' \\t' ' '"),
        bash("jobs -rp | wc -l"),
    ),
)

_SAY = 'py() { echo "$1" >&${PY_IN}; local line; read -r -t 10 line <&${PY_OUT}; echo "$line"; }'

PYTHON_REPL = Task(
    "python-repl",
    "python -i fed through pipes, with live objects: a generator half-way, a class, a closure",
    turns=(
        (
            bash(
                "coproc REPL { $PY -iqu -c 'import sys; sys.ps1 = sys.ps2 = str()' 2> /dev/null; };"
                f" exec {{PY_IN}}>&${{REPL[1]}} {{PY_OUT}}<&${{REPL[0]}}; {_SAY}; echo ready"
            ),
        ),
        (bash("py 'x = 41; print(x)'"),),
        (bash("py 'squares = (n * n for n in range(100)); print(next(squares), next(squares))'"),),
        (sh("echo noted > notes"),),
        (bash('py \'crab = type("Crab", (), {"legs": 10})(); crab.legs -= 2; print(crab.legs)\''),),
        (bash("py 'print(next(squares))'"),),
        (sh("cat notes"),),
        (bash('py \'x += 1; _ = open("x", "w").write(str(x)); print(x)\''),),
        (bash("py 'later = (lambda kept: lambda: kept + x)(100); print(later())'"),),
    ),
    questions=(
        bash("type -t py > /dev/null && py 'print(globals().get(\"x\"))' || echo absent"),
        bash(
            'type -t py > /dev/null && py \'print("squares" in globals()'
            ' and squares.gi_frame.f_locals.get("n"))\' || echo absent'
        ),
        bash(
            'type -t py > /dev/null && py \'print("later" in globals() and later(),'
            ' "crab" in globals() and crab.legs)\' || echo absent'
        ),
    ),
)

_CHAT: Final = """\
import socket, sys, threading
from ctl import serve

far = socket.create_server(("127.0.0.1", 0))
said = []


def listen():
    client, _ = far.accept()
    with client.makefile("rw") as stream:
        for line in stream:
            said.append(line.strip())
            stream.write(f"{len(said)}\\n")
            stream.flush()


threading.Thread(target=listen, daemon=True).start()
near = socket.create_connection(far.getsockname())  # kept, from the first word to the last
stream = near.makefile("rw")


def answer(verb, *words):
    if verb == "say":
        stream.write(words[0] + "\\n")
        stream.flush()
        return stream.readline().strip()
    return said


serve(sys.argv[1], answer)
"""

KEPT_CONNECTION = Task(
    "kept-connection",
    "a client and its server in the agent's shell, with a TCP connection that stays open",
    files={"ctl.py": CTL, "chat.py": _CHAT},
    apart=("__pycache__",),
    turns=(
        (bash("$PY chat.py $PORT > chat.log 2>&1 & $PY ctl.py $PORT up"),),
        (bash("$PY ctl.py $PORT say hello; talk() { $PY ctl.py $PORT say $1; }"),),
        (sh("echo 1 > n"),),
        (bash("talk crab"),),
        (sh("$PY ctl.py $PORT say outside; echo 2 > n"),),
        (bash("cat n chat.log"),),
        (bash("talk again; cp n m"),),
        (sh("rm n"),),
    ),
    questions=(sh("$PY ctl.py $PORT look"), bash("type -t talk || echo absent")),
)

TWO_KINDS = Task(
    "shell-and-server",
    "a shell with variables beside a server that was started without it",
    files={"ctl.py": CTL, "keep.py": (
        "import sys\nfrom ctl import serve\nkept = {}\n\n\n"
        "def answer(verb, *words):\n"
        "    if verb == 'put':\n        kept[words[0]] = words[1]\n"
        "    return sorted(kept.items())\n\n\nserve(sys.argv[1], answer)\n"
    )},
    apart=("__pycache__",),
    turns=(
        (sh("setsid $PY keep.py $PORT > /dev/null 2>&1 < /dev/null & $PY ctl.py $PORT up"),),
        (bash("put() { $PY ctl.py $PORT put $1 $2; last=$1; }; put a 1"),),
        (sh("$PY ctl.py $PORT put b 2; echo b > last"),),
        (bash("cat last; put c 3"),),
        (sh("cat last"),),
        (bash("export NAME=crab; put $NAME 4"),),
        (sh("echo d > last"),),
        (bash("echo $last"),),
    ),
    questions=(sh("$PY ctl.py $PORT look"), bash("echo ${last-unset} ${NAME-unset}")),
)  # fmt: skip
