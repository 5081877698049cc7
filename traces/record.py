#!/usr/bin/env python3
"""Makes the traces of this directory: workspace, run, export. See README.md.

    traces/record.py traces/repair.toml --work /tmp/crab-traces         # makes repair.jsonl anew
    traces/record.py traces/repair.toml --work /tmp/again --setup-only  # only the workspace

The loop is an ordinary one on crabrt's decorators. Its model is a script: what it says and wants
done stands in the scenario; how long it thinks is drawn from a log-normal distribution (median 5 s,
sigma 0.5, between 1.5 s and 25 s), seeded with the scenario's name. Nothing here was said or done
by a language model.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import crabrt
from crabrt.traces.actions import EditFile, ReadFile, Replacement, Shell, WriteFile
from crabrt.traces.hands import Hands, Outcome
from crabrt.traces.places import Places

HERE = Path(__file__).resolve().parent
MEDIAN_S, SIGMA, SHORTEST_S, LONGEST_S = 5.0, 0.5, 1.5, 25.0
PATH = "/usr/local/bin:/usr/bin:/bin"


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scenario", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="a directory for all of it")
    parser.add_argument("--setup-only", action="store_true", help="make the workspace, and stop")
    parser.add_argument("--speed", type=float, default=1.0, help="divide the waits, to try it out")
    given = parser.parse_args()
    name = given.scenario.stem
    scenario = tomllib.loads(given.scenario.read_text("utf-8"))
    workspace = given.work.absolute() / name
    workspace.mkdir(parents=True)
    environ = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": str(given.work.absolute())}
    subprocess.run(  # noqa: S603 - the scenario's own script
        ["/bin/bash", "-euc", scenario["setup"]], cwd=workspace, env=environ, check=True
    )
    if given.setup_only:
        sys.stdout.write(f"{workspace}\n")
        return
    store = given.work.absolute() / f"{name}.store"
    home = given.work.absolute() / f"{name}.home"
    home.mkdir()
    hands = Hands(Places("", str(workspace)), environ, str(home), timeout_s=120)
    run = perform(name, scenario, workspace, store, hands, speed=given.speed)
    export(run, store, HERE / f"{name}.jsonl", f"traces/record.py traces/{name}.toml")


def perform(
    name: str, scenario: dict[str, Any], workspace: Path, store: Path, hands: Hands, *, speed: float
) -> str:
    """Run the scenario's agent; the run's id."""
    waits = random.Random(name)  # noqa: S311 - it must repeat
    script = iter(scenario["turn"])

    @crabrt.model
    def think(messages: list[dict[str, Any]]) -> dict[str, Any]:
        """The scripted model: the next turn of the scenario, after a wait."""
        del messages
        drawn_s = waits.lognormvariate(math.log(MEDIAN_S), SIGMA)
        time.sleep(min(max(drawn_s, SHORTEST_S), LONGEST_S) / speed)
        turn = next(script, {"say": "Done.", "call": []})
        return {"role": "assistant", "content": turn["say"], "calls": turn.get("call", [])}

    @crabrt.tool
    def shell(command: str) -> dict[str, Any]:
        """Run a command in the workspace, its output into a file, as `crab replay` does."""
        return as_result(hands.do(Shell(command)))

    @crabrt.tool
    def write_file(path: str, content: str) -> dict[str, Any]:
        return as_result(hands.do(WriteFile(path, content.encode())))

    @crabrt.tool
    def edit_file(path: str, old: str, new: str) -> dict[str, Any]:
        return as_result(hands.do(EditFile(path, (Replacement(old, new),))))

    @crabrt.tool
    def read_file(path: str) -> dict[str, Any]:
        return as_result(hands.do(ReadFile(path)))

    tools = {tool.__name__: tool for tool in (shell, write_file, edit_file, read_file)}

    @crabrt.agent(workspace=workspace, name=name, home=store)
    def agent(task: str) -> str:
        messages: list[dict[str, Any]] = [{"role": "user", "content": task}]
        hands.environ["CRAB_RUN"] = crabrt.current_run().id
        while True:
            reply = think(messages)
            messages.append(reply)
            if not reply["calls"]:
                return crabrt.current_run().id
            for call in reply["calls"]:
                arguments = {key: value for key, value in call.items() if key != "tool"}
                result = tools[call["tool"]](**arguments)
                messages.append({"role": "tool", "content": result["output"]})

    return agent(scenario["task"])


def as_result(outcome: Outcome) -> dict[str, Any]:
    """What a tool gives its model."""
    return {"exit_code": outcome.exit_code, "output": outcome.output or outcome.skipped}


def export(run: str, store: Path, output: Path, made_by: str) -> None:
    """Write the trace with `crab export`."""
    words = ["export", run, "--home", str(store), "--output", str(output)]
    words += ["--timing", "synthetic", "--made-by", made_by, "--text-chars", "2000"]
    environ = dict(os.environ) | {"PYTHONPATH": str(HERE.parent)}
    subprocess.run([sys.executable, "-m", "crabrt", *words], env=environ, check=True)  # noqa: S603 - ours


if __name__ == "__main__":
    main()
