"""An agent with a shell, run as a program and killed by tests: it keeps a count in bash.

usage: shelling.py WORKSPACE TURNS [DIE_AT [HOW]]

Dies in the model call of turn DIE_AT, with SIGKILL: alone (``loop``), or with its shell (``all``).
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import crabrt

workspace, turns = Path(sys.argv[1]), int(sys.argv[2])
die_at = int(sys.argv[3]) if len(sys.argv) > 3 else None
how = sys.argv[4] if len(sys.argv) > 4 else "loop"

shell = crabrt.Shell(cwd=workspace, isolation=os.environ.get("ISOLATION", "auto"))


@crabrt.tool
def bash(command: str) -> str:
    result = shell.run(command, timeout=20)
    if shell.record is not None:
        workspace.with_name("init").write_text(str(shell.record.init_pid))
    return result.output


@crabrt.model
def think(turn: int) -> int:
    if turn == die_at and "CRAB_RESUME" not in os.environ:
        time.sleep(0.3)
        victims = f"{os.getpid()}"
        if how == "all":
            victims += " " + workspace.with_name("init").read_text()
        subprocess.Popen(["sh", "-c", f"for pid in {victims}; do kill -9 $pid; done"])
        time.sleep(60)
    return turn


COMMANDS = [
    "count=1; add() { count=$((count + $1)); echo $count; }; cd /; trap 'echo usr' USR1",
    "add 10; (sleep 1000 &) ; echo started > '{ws}/started'",
    "add 100; pwd",
    "echo $count > '{ws}/count'",
    "add 1000; kill -USR1 $$",
    "add 10000; jobs",
]


@crabrt.agent(workspace=workspace, name="shelling")
def loop() -> list[str]:
    said = []
    for turn in range(turns):
        think(turn)
        said.append(bash(COMMANDS[turn].replace("{ws}", str(workspace))))
    return said


if __name__ == "__main__":
    sys.stdout.write(f"{loop()}\n")
