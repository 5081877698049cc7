"""The main thread ends while an agent goes on in another: executors take no work any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_every_turn_is_durable_all_the_same(ws: Path, home: Path, store) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ws)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"CRAB_HOME": str(home)},
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
    assert [turn.protection for turn in store.turns()] == ["durable"] * 6
    assert store.run().status == "done"
