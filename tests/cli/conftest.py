import importlib.util
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from crabrt.cli.program import execute


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

    def __init__(self, code, out, err, *, binary):
        self.code = code
        self.out = out if binary else out.decode()
        self.err = err if binary else err.decode()

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


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Processes started by a test find the package under test, wherever they run."""
    root = str(Path(__file__).parents[2])
    path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


NOBODY = 65534
_ONLY_READS = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)  # fmt: skip


@pytest.fixture
def as_nobody(home, workspace, tmp_path):
    """Run a command line as somebody who may only read; store and workspace are theirs.

    Reading takes a capability, since the interpreter may stand in somebody's home.
    """
    for path in (tmp_path, workspace, home):
        path.mkdir(exist_ok=True)
        os.chown(path, NOBODY, NOBODY)
    for above in tmp_path.parents[:-2]:  # access(2) heeds no capability
        above.chmod(above.stat().st_mode | 0o055)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRAB_")}
    kept |= {"CRAB_HOME": str(home), "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def run(*words, env=None):
        done = subprocess.run(
            [*_ONLY_READS, sys.executable, "-m", "crabrt", *map(str, words)],
            cwd=workspace,
            env=kept | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)} | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr, binary=False)

    return run


@pytest.fixture
def crab(home, workspace, tmp_path, monkeypatch):
    """Run a command line in the workspace: here, or with ``process=True`` in a process of its own.

    Only a process of its own meets this one's locks, and can become another program.
    """
    workspace.mkdir(exist_ok=True)
    for name in [name for name in os.environ if name.startswith("CRAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRAB_HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*words, cwd=None, env=None, process=False, binary=False, stdin=subprocess.DEVNULL):
        argv = [str(word) for word in words]
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            if process:
                done = subprocess.run(
                    [sys.executable, "-m", "crabrt", *argv],
                    cwd=cwd or workspace,
                    stdin=stdin,
                    capture_output=True,
                    check=False,
                )
                return Done(done.returncode, done.stdout, done.stderr, binary=binary)
            patch.chdir(cwd or workspace)
            return here(patch, argv, binary=binary)

    def here(patch, argv, *, binary):
        with (
            open(tmp_path / "out", "w+b") as out,
            open(tmp_path / "err", "w+b") as err,
            open(os.devnull) as nothing,
        ):
            patch.setattr(sys, "stdin", nothing)
            patch.setattr(sys, "stdout", io.TextIOWrapper(out, "utf-8", write_through=True))
            patch.setattr(sys, "stderr", io.TextIOWrapper(err, "utf-8", write_through=True))
            code = execute(argv)
            out.seek(0)
            err.seek(0)
            return Done(code, out.read(), err.read(), binary=binary)

    return run


@pytest.fixture
def on_a_terminal(crab, workspace):
    """Run a command line in a terminal of its own; what it writes there."""
    del crab  # it has set the surroundings

    def run(*words):
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "crabrt", *map(str, words)],
            cwd=workspace, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        said = b""
        try:
            while True:
                try:
                    said += os.read(master, 1 << 16)
                except OSError:  # its end of the terminal is closed
                    break
            assert process.wait(60) == 0, said
        finally:
            process.kill()
            process.wait()
            os.close(master)
        return said.decode()

    return run
