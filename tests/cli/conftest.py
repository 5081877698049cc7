import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def load_builder():
    path = Path(__file__).parents[1] / "operations" / "builder.py"
    spec = importlib.util.spec_from_file_location("crab_test_builder", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def builder():
    return load_builder()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def workspace(tmp_path):
    return tmp_path / "workspace"


class Done:
    """One command line that ran: exit code, output, and the envelope if there is one."""

    def __init__(self, process):
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    @property
    def envelope(self):
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def data(self):
        assert self.envelope["error"] is None
        return self.envelope["data"]

    @property
    def error(self):
        assert self.envelope["data"] is None
        assert self.envelope["error"]["exit"] == self.code
        return self.envelope["error"]


@pytest.fixture
def crab(home, workspace, tmp_path):
    """Run ``crab`` as a process of its own, as a user would, in the workspace."""
    workspace.mkdir(exist_ok=True)

    def run(*words, cwd=None, env=None, stdin=subprocess.DEVNULL, binary=False):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CRAB_")}
        environment |= {"CRAB_HOME": str(home), "XDG_CONFIG_HOME": str(tmp_path / "config")}
        return Done(
            subprocess.run(
                [sys.executable, "-m", "crabrt", *map(str, words)],
                cwd=cwd or workspace,
                env=environment | (env or {}),
                stdin=stdin,
                capture_output=True,
                text=not binary,
                check=False,
            )
        )

    return run
