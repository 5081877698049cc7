"""``crab demo``: the promise kept before your eyes; scratch directory, no key, no network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from crabrt.cli import demo_agent
from crabrt.cli.app import App
from crabrt.cli.exits import Exit
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.errors import CrabError
from crabrt.testing import oracle
from crabrt.timeline.safe_text import safe_text

_EARLY_TURN = 2
_INDENT = 2  # columns before what a command of the demo prints
_LIMIT_S = 60


@dataclass(frozen=True)
class Proof:
    """One claim and the two digests that decide it."""

    claim: str
    expected: str
    found: str

    @property
    def holds(self) -> bool:
        """Whether they are equal."""
        return self.expected == self.found


@dataclass
class _Scene:
    """The scratch directories, and what the demo knows so far."""

    base: Path
    out: Screen
    told: bool
    proofs: list[Proof] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        return self.base / "workspace"

    @property
    def home(self) -> Path:
        return self.base / "store"

    def say(self, text: str, *styles: str) -> None:
        if self.told:
            self.out.line(self.out.style(text, *styles))
            self.out.flush()

    def environment(self, home: Path) -> dict[str, str]:
        # what a user's own settings say must not change what the demo shows
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CRAB_")}
        here = str(Path(__file__).parents[3])
        path = [here, *filter(None, [kept.get("PYTHONPATH")])]
        kept |= {"XDG_CONFIG_HOME": str(self.base / "config")}
        return kept | {"CRAB_HOME": str(home), "PYTHONPATH": os.pathsep.join(path)}

    def crab(self, *words: str) -> str:
        """Run one command line as a user would; its output.

        Raises:
            CrabError: it failed.
        """
        self.say(f"$ crab {' '.join(words)}", "bold")
        done = subprocess.run(
            [sys.executable, "-m", "crabrt", *words],
            cwd=self.workspace,
            env=self.environment(self.home) | {"COLUMNS": str(self.out.width - _INDENT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LIMIT_S,
            check=False,
        )
        text = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0:
            raise CrabError(
                f"`crab {words[0]}` exited with {done.returncode}: {text.strip()}",
                where=str(self.base),
                hint="run `crab doctor`; with --keep the scratch directory stays to look at",
            )
        return text

    def show(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            self.say("  " + safe_text(line), "dim")

    def prove(self, claim: str, expected: str, found: str) -> None:
        proof = Proof(claim, expected, found)
        self.proofs.append(proof)
        mark = self.out.style("ok", "green") if proof.holds else self.out.style("FAILED", "red")
        self.say(f"  {claim}: {mark}")
        self.say(f"    {expected[:32]}  expected", "dim")
        self.say(f"    {found[:32]}  found", "dim")


@verb(
    "demo",
    examples=("crab demo", "crab demo --keep       # and look round in its store afterwards"),
)
@click.option("--keep", is_flag=True, help="Leave the scratch directory for you to look at.")
def command(app: App, *, keep: bool) -> Outcome:
    """Run an agent on a scratch workspace, kill it with SIGKILL, resume it, go back in time.

    No key, no network; nothing of yours is touched: workspace and store are in a temporary
    directory. What it claims it proves with digests of whole directories, taken by code that
    shares nothing with crabrt's own. Exits with 1 if any of them differs.
    """
    started = time.monotonic()
    base = Path(tempfile.mkdtemp(prefix="crab-demo-"))
    scene = _Scene(base, app.out, told=not app.json)
    try:
        scene.workspace.mkdir()
        (scene.workspace / "notes.txt").write_text("a file that was there before\n")
        run = _perform(scene)
    finally:
        if not keep:
            shutil.rmtree(base, ignore_errors=True)
    seconds = time.monotonic() - started
    failed = [proof for proof in scene.proofs if not proof.holds]
    data = {
        "run": run,
        "directory": str(base) if keep else None,
        "seconds": round(seconds, 2),
        "proofs": [
            {"claim": p.claim, "expected": p.expected, "found": p.found, "holds": p.holds}
            for p in scene.proofs
        ],
    }

    def text(out: Screen) -> None:
        out.line()
        if failed:
            out.line(out.style(f"{len(failed)} of {len(scene.proofs)} proofs failed.", "red"))
        else:
            out.line(f"{len(scene.proofs)} of {len(scene.proofs)} proofs hold ({seconds:.1f} s).")
        if keep:
            out.line(
                f"Look round: cd {scene.workspace}; export CRAB_HOME={scene.home}; crab log last"
            )
        else:
            out.line("The scratch directory is gone again; `crab demo --keep` leaves it.")

    return Outcome(data, text, Exit.FAILED if failed else Exit.DONE)


def _perform(scene: _Scene) -> str:
    """The acts, in order; the run's id."""
    scene.say(f"Scratch workspace and store in {scene.base}")
    twin = _uninterrupted_twin(scene)
    scene.say("An agent works, its model scripted, its loop ordinary:")
    states = _killed_agent(scene)
    whole_turn = max(states)
    at_kill = oracle.digest(scene.workspace)
    scene.say(f"  SIGKILL in the middle of turn {whole_turn + 1}, half a file written.", "red")
    scene.say(f"    {at_kill[:32]}  the directory as the kill left it: the state of no turn", "dim")

    beside = scene.base / "beside"
    scene.crab("restore", f"last@{whole_turn}", "--to", str(beside))
    scene.prove(
        f"turn {whole_turn}, the last whole one, restored beside",
        states[whole_turn],
        oracle.digest(beside),
    )
    resumed = scene.crab("resume", "last", "--yes").splitlines()
    scene.show("\n".join(line for line in resumed if not line.startswith("turn ")))
    replayed = sum(line.startswith("turn ") for line in resumed)
    scene.say(f"  The loop ran from its beginning, {replayed} turns; what was sealed was answered.")
    final = oracle.digest(scene.workspace)
    scene.prove(
        "the resumed run ended where an uninterrupted one does (but for times)",
        twin,
        _without_times(scene.workspace),
    )
    scene.show(scene.crab("log", "last"))
    scene.crab("restore", f"last@{_EARLY_TURN}")
    scene.prove(
        f"turn {_EARLY_TURN} put back in place",
        states[_EARLY_TURN],
        oracle.digest(scene.workspace),
    )
    scene.crab("undo")
    scene.prove("and the restore undone", final, oracle.digest(scene.workspace))
    return _run_id(scene)


def _uninterrupted_twin(scene: _Scene) -> str:
    """The final tree of the same agent, left alone, elsewhere; without times."""
    workspace = scene.base / "twin"
    shutil.copytree(scene.workspace, workspace, symlinks=True)
    _start_agent(scene, workspace, scene.base / "twin-store", wait=True)
    return _without_times(workspace)


def _killed_agent(scene: _Scene) -> dict[int, str]:
    """Run the agent until half of its fatal command is done, and kill it and all it started.

    Returns:
        The digest of the workspace after each whole turn, as the agent noted them.

    Raises:
        CrabError: it ended before it could be killed.
    """
    agent = _start_agent(scene, scene.workspace, scene.home)
    assert agent.stderr is not None
    assert agent.stdout is not None
    said = b""
    for line in agent.stderr:
        said += line
        if line.strip() == demo_agent.HALFWAY.encode():
            os.killpg(agent.pid, signal.SIGKILL)
            break
    code = agent.wait(_LIMIT_S)
    with agent.stdout, agent.stderr:
        noted = agent.stdout.read().decode()
    if code != -signal.SIGKILL:
        raise CrabError(
            f"the agent was to be killed, but exited with {code}: {said.decode(errors='replace')}",
            where=str(scene.base),
        )
    states: dict[int, str] = {}
    for note in noted.splitlines():
        _, turn, digest = note.split()
        states[int(turn)] = digest
        scene.say(f"  turn {turn}: {digest[:32]}", "dim")
    return states


def _start_agent(
    scene: _Scene, workspace: Path, home: Path, *, wait: bool = False
) -> subprocess.Popen[bytes]:
    command: Sequence[str] = [sys.executable, demo_agent.__file__]
    agent = subprocess.Popen(
        command,
        cwd=workspace,
        env=scene.environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    if wait:
        _, errors = agent.communicate(timeout=_LIMIT_S)
        if agent.returncode != 0:
            raise CrabError(
                f"the agent failed: {errors.decode(errors='replace').strip()}", where=str(workspace)
            )
    return agent


def _without_times(directory: Path) -> str:
    return oracle.digest_of(oracle.manifest(directory, times=False))


def _run_id(scene: _Scene) -> str:
    import json  # noqa: PLC0415 - only here

    told, scene.told = scene.told, False
    try:
        rows: list[dict[str, Any]] = json.loads(scene.crab("runs", "--json"))["data"]
    finally:
        scene.told = told
    return str(rows[0]["run"])
