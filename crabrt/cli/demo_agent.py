"""The agent of ``crab demo``: an ordinary loop, a scripted model, a shell; public names only.

It works in the current directory and says on standard output, before each model call, which turn it
is in and what the oracle's digest of the directory is, so that the demo can compare later.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import crabrt
from crabrt.testing import oracle

MODEL_WAIT_S = 0.15
HALFWAY = "halfway"
"""What the command of the fatal turn says on standard error when it has done half of its work."""

REPLIES: tuple[tuple[str, str], ...] = (
    (
        "A package first.",
        (
            "mkdir -p shop tests && printf 'def total(prices):\\n    return 0\\n' > shop/cart.py"
            " && : > shop/__init__.py && chmod 640 shop/cart.py"
        ),
    ),
    (
        "A test that says what is wanted.",
        (
            "printf 'from shop.cart import total\\nassert total([2, 3]) == 5\\n' > tests/check.py"
            " && ln -s ../shop/cart.py tests/subject.py"
        ),
    ),
    ("Does it pass? Looking changes nothing.", "grep -c total shop/cart.py tests/check.py"),
    (
        "Now the right sum.",
        "printf 'def total(prices):\\n    return sum(prices)\\n' > shop/cart.py",
    ),
    (
        "A price list, written in two parts.",
        "seq 1 500 > prices.txt && echo " + HALFWAY + " >&2 && sleep 0.6"
        " && seq 501 1000 >> prices.txt && rm -f notes.txt",
    ),
    ("Read it back.", "wc -l < prices.txt"),
    ("A release note, and the test is no longer needed.", "echo '1.0' > RELEASE && rm -r tests"),
)
"""What the model says, and the command it wants, turn by turn."""


@crabrt.model
def think(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The scripted model: the next line of `REPLIES`, after a wait like a (quick) real one's."""
    time.sleep(MODEL_WAIT_S)
    place = sum(message["role"] == "tool" for message in messages)
    if place == len(REPLIES):
        return {"role": "assistant", "content": "Done."}
    text, command = REPLIES[place]
    return {"role": "assistant", "content": text, "command": command}


@crabrt.tool
def shell(command: str) -> str:
    """Run a command in the workspace; what it printed, or how it failed."""
    done = subprocess.run(
        ["/bin/sh", "-c", command], stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else f"exit {done.returncode}\n{done.stdout}"


@crabrt.agent(workspace=".", name="demo")
def build(task: str) -> str:
    """The loop itself: nothing in it knows of checkpoints."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": task}]
    while True:
        note_state()
        reply = think(messages)
        messages.append(reply)
        if "command" not in reply:
            return str(reply["content"])
        messages.append({"role": "tool", "content": shell(reply["command"])})


def note_state() -> None:
    """Tell the demo which turn is over, and the digest of the directory at this moment."""
    sys.stdout.write(f"turn {crabrt.current_run().turn} {oracle.digest('.')}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    build("Make a small shop.")
