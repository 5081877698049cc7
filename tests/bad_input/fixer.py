"""A small agent: ``fixer.py WORKSPACE TURNS [--wait FILE] [--strict] [--bytes N] [--die-at N]``.

With ``--wait`` its last tool tells that it runs (a line on stdout) and then waits for FILE to go.
"""

import argparse
import os
import random
import signal
import sys
import threading
from pathlib import Path

import crabrt

parser = argparse.ArgumentParser()
parser.add_argument("workspace", type=Path)
parser.add_argument("turns", type=int)
parser.add_argument("--wait", type=Path)
parser.add_argument("--strict", action="store_true")
parser.add_argument("--bytes", type=int, default=2_000)
parser.add_argument("--die-at", type=Path)
given = parser.parse_args()


@crabrt.model
def think(messages: list[dict]) -> str:
    return f"turn {len(messages)}"


@crabrt.tool
def write(number: int) -> str:
    noise = random.Random(number).randbytes(given.bytes)
    (given.workspace / f"file{number % 3}").write_bytes(noise)
    (given.workspace / "log").open("a").write(f"{number}\n")
    if number == given.turns:
        if given.die_at is not None and not given.die_at.exists():
            given.die_at.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if given.wait is not None:
            sys.stdout.write("waiting\n")
            sys.stdout.flush()
            while given.wait.exists():
                threading.Event().wait(0.02)
    return f"wrote {number}"


@crabrt.agent(workspace=given.workspace, name="fixer", strict=given.strict)
def fix(turns: int) -> str:
    messages = []
    for number in range(1, turns + 1):
        messages.append({"role": "assistant", "content": think(messages)})
        messages.append({"role": "tool", "content": write(number)})
    return "done"


sys.stdout.write(f"{fix(given.turns)}\n")
