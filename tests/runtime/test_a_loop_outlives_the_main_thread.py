"""The main thread ends while an agent goes on in another: executors take no work any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, threading
import crabrt

main_ended = threading.main_thread().join

@crabrt.model
def think(messages):
    if len(messages) == 2:
        main_ended()
    return "ok"

@crabrt.tool
def write(number):
    with open(f"{sys.argv[1]}/{number}", "w") as file:
        file.write(str(number))

@crabrt.agent(workspace=sys.argv[1], name="longer")
def run():
    for number in range(5):
        think([{"role": "user", "content": str(n)} for n in range(number + 1)])
        write(number)
    return "done"

threading.Thread(target=lambda: print(run())).start()
"""


IN_THE_MIDDLE = """
import concurrent.futures.thread, sys, threading, time
import crabrt
from crabrt.core.failpoints import ALL

def main_has_ended():
    while not concurrent.futures.thread._shutdown:
        time.sleep(0.001)

captures = []
main_may_end = threading.Event()

def hold_the_second():
    captures.append(1)
    if len(captures) == 2:
        main_may_end.set()
        main_has_ended()
        time.sleep(0.5)  # its gate gives up, and the loop asks for the third

@crabrt.model
def think(messages):
    if len(messages) == 2:
        main_has_ended()
    return "ok"

@crabrt.agent(workspace=sys.argv[1], name="longer", gate_limit_ms=100)
def run():
    for number in range(5):
        think([{"role": "user", "content": str(n)} for n in range(number + 1)])
        with open(f"{sys.argv[1]}/{number}", "w") as file:
            file.write(str(number))
    return "done"

ALL["checkpoint.scanned"].action = hold_the_second
threading.Thread(target=lambda: print(run())).start()
main_may_end.wait()
"""


@pytest.mark.parametrize(("script", "late"), [(SCRIPT, 0), (IN_THE_MIDDLE, 4)])
def test_every_turn_is_durable_all_the_same(
    ws: Path, home: Path, store, script: str, late: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script, str(ws)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"CRAB_HOME": str(home)},
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
    protection = [turn.protection for turn in store.turns()]
    unprotected = protection[1:-1].count("unprotected")
    assert unprotected <= late
    assert protection.count("durable") == 6 - unprotected
    assert protection[0] == protection[-1] == "durable"
    assert store.run().status == "done"
