"""Recorded runs and the workspaces they began on, made anew: ours by script, others' from sdists.

A directory of ours holds ``NAME.jsonl`` with ``NAME.toml``, whose ``setup`` makes the workspace.
One of others' holds ``trajectories.jsonl``, which names the package that each trajectory worked on:
it is downloaded as a source distribution and becomes a repository, with an environment beside it.
What cannot be made here is absent, with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crabrt.errors import CrabError, NotFound

_CATALOGUE = "trajectories.jsonl"
_TAIL = 300
_SDIST = """
python3 -m venv ../packages
pip() { ../packages/bin/python -m pip --quiet --disable-pip-version-check "$@"; }
pip install $CRABBENCH_EXTRA "$CRABBENCH_SPEC"
pip uninstall --yes "$CRABBENCH_PACKAGE"
pip download --no-deps --no-binary :all: --dest .. "$CRABBENCH_SPEC"
tar -xzf ../*.tar.gz --strip-components=1
git init --quiet && git add --all --force
git -c user.name=agent -c user.email=agent@localhost commit --quiet -m "$CRABBENCH_SPEC"
"""


class CannotMake(CrabError):
    """The workspace of a recorded run cannot be made here."""

    kind = "cannot-make"


@dataclass(frozen=True)
class Recorded:
    """A recorded run.

    Attributes:
        name: of it, unique among all.
        file: where its trace is.
        trajectory: which one in the file, where it holds several.
        ground: name of what it runs on; runs of one ground begin on the same workspace.
        setup: the script that makes the workspace, in its directory.
        variables: what the script sees beside.
        ours: this project recorded it.
    """

    name: str
    file: Path
    trajectory: str | None
    ground: str
    setup: str
    variables: tuple[tuple[str, str], ...] = ()
    ours: bool = True


def own_directory() -> Path | None:
    """This project's recorded runs, where crabrt runs from a checkout."""
    directory = Path(__file__).resolve().parents[2] / "traces"
    return directory if directory.is_dir() else None


def find_recorded(
    directories: Sequence[Path], only: Sequence[str] = ()
) -> tuple[list[Recorded], dict[str, str]]:
    """The recorded runs in directories (of either kind), and why others cannot be run again.

    Args:
        directories: where.
        only: texts, one of which must be in a run's name; none: all runs.

    Raises:
        NotFound: a directory has no recorded runs.
    """
    found: list[Recorded] = []
    absent: dict[str, str] = {}
    for directory in directories:
        if (directory / _CATALOGUE).is_file():
            here = list(_others(directory, absent))
        else:
            here = list(_ours(directory))
        if not here and not absent:
            raise NotFound("no recorded runs are there", where=str(directory))
        found += here
    wanted = [run for run in found if not only or any(text in run.name for text in only)]
    if only and not wanted:
        raise NotFound(f"no recorded run is called {' or '.join(only)}")
    return wanted, absent


def _ours(directory: Path) -> Iterator[Recorded]:
    for script in sorted(directory.glob("*.toml")):
        trace = script.with_suffix(".jsonl")
        if trace.is_file():
            setup = tomllib.loads(script.read_text("utf-8")).get("setup", "")
            yield Recorded(script.stem, trace, None, script.stem, setup)


def _others(directory: Path, absent: dict[str, str]) -> Iterator[Recorded]:
    with open(directory / _CATALOGUE, encoding="utf-8") as lines:
        for line in lines:
            fields: dict[str, Any] = json.loads(line)
            name, workspace = fields["traj"], fields.get("workspace") or {}
            spec = workspace.get("spec")
            if workspace.get("kind") != "sdist" or not spec:
                absent[name] = f"its workspace is {workspace.get('kind') or 'not known'}"
                continue
            variables = {
                "CRABBENCH_SPEC": spec,
                "CRABBENCH_PACKAGE": spec.partition("==")[0],
                "CRABBENCH_EXTRA": " ".join(workspace.get("pip_extra") or ()),
            }
            file = directory / fields["file"]
            yield Recorded(name, file, name, spec, _SDIST, tuple(variables.items()), ours=False)


class Grounds:
    """Where recorded runs run: each workspace is made once, and put back before every run.

    Args:
        directory: an existing one; what is in it already is used again.
        environ: what the scripts see of the outside.
        live: where the runs find them; None: in `directory`. It may be empty each time.
    """

    def __init__(
        self, directory: Path, environ: Mapping[str, str], live: Path | None = None
    ) -> None:
        self._directory = directory
        self._live = directory if live is None else live
        self._environ = dict(environ)
        self._locks: dict[str, threading.Lock] = {}
        self._failures: dict[str, CannotMake] = {}

    @contextmanager
    def workspace(self, run: Recorded) -> Iterator[tuple[Path, dict[str, str]]]:
        """A fresh workspace, for this caller alone; and what commands see there.

        Raises:
            CannotMake: its script failed.
        """
        with self._locks.setdefault(run.ground, threading.Lock()):
            pristine = self._directory / run.ground / "pristine"
            live = self._live / run.ground / "live"
            for path in (pristine, live):
                path.parent.mkdir(parents=True, exist_ok=True)
            if not pristine.exists():
                self._make(run, live, pristine)
            shutil.rmtree(live, ignore_errors=True)
            _copy(pristine, live)
            yield live / "workspace", self._seen(live, ours=run.ours)

    def _make(self, run: Recorded, live: Path, pristine: Path) -> None:
        if run.ground in self._failures:
            raise self._failures[run.ground]
        shutil.rmtree(live, ignore_errors=True)
        (live / "workspace").mkdir(parents=True)
        environ = self._seen(live, ours=True) | dict(run.variables)
        done = subprocess.run(
            ["/bin/bash", "-euc", run.setup],
            cwd=live / "workspace",
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode != 0:
            tail = done.stdout.decode("utf-8", "replace").strip()[-_TAIL:]
            failure = CannotMake(f"its script ended with {done.returncode}: {tail}")
            self._failures[run.ground] = failure
            raise failure
        half = pristine.with_name("half")
        shutil.rmtree(half, ignore_errors=True)
        _copy(live, half)
        half.rename(pristine)

    def _seen(self, live: Path, *, ours: bool) -> dict[str, str]:
        seen = self._environ | {"HOME": str(live), "LANG": "C.UTF-8"}
        if not ours:
            seen["PATH"] = f"{live / 'packages' / 'bin'}{os.pathsep}{seen.get('PATH', os.defpath)}"
            seen["PYTHONPATH"] = f"{live / 'workspace'}{os.pathsep}{live / 'workspace' / 'src'}"
        return seen


def _copy(source: Path, target: Path) -> None:
    """All of it, shared blocks where they can be, written back."""
    command = ["cp", "-a", "--reflink=auto", str(source), str(target)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
