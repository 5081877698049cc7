"""An unmodified mini-swe-agent on a real project, killed and resumed, ends where it would have.

The client is the package from PyPI, talking HTTP to a scripted server; the project is the source
distribution of ``packaging``. The commands end by setting all times and git's index to fixed
values, so the trees of two runs are equal to the last bit of state, times included. On the way they
append to files and count, so that a command that ran twice, or not at all, or on the wrong files,
shows.
"""

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from crabrt.testing import oracle
from crabrt.testing.crash import Child
from crabrt.testing.llm_server import ScriptedServer
from crabrt.testing.model import Reply, ToolCall, replies_so_far

# Each child imports litellm, which alone takes five seconds where nothing else runs.
pytestmark = pytest.mark.timeout(600)

PROJECT = "packaging==24.1"
CHILD = Path(__file__).with_name("miniswe_agent.py")

COUNT = "n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) > count"
SUMS = (
    "find . -path ./.git -prune -o -type f ! -name sums -print0 | LC_ALL=C sort -z"
    " | xargs -0 sha256sum >> sums"
)
NEW_MODULE = """cat > src/packaging/extra.py <<'EOF'
from .version import Version


def newest(*versions: str) -> str:
    return str(max(map(Version, versions)))
EOF"""
USE_IT = "from src.packaging.extra import newest; print(newest('1.10', '1.9'))"
# Half done until the file outside appears: a kill in between leaves the half and an orphan.
HALF = (
    'echo half >> journal.txt; while [ ! -e "$RELEASE" ]; do sleep 0.02; done;'
    f" echo whole >> journal.txt; {COUNT}"
)
# git's index keeps inode numbers and times; read-tree writes one without.
FIX_TIMES = "rm .git/index && git read-tree HEAD && find . -exec touch -h -d @1700000000 {} +"
COMMANDS = [
    ["ls -la src/packaging | wc -l; cat pyproject.toml | head -20"],
    ["git init -q --template= -b main . && git add -A && git commit -q -m 'as released'"],
    [f"sed -i 's/24\\.1/24.2.dev0/' src/packaging/__init__.py && {COUNT}"],
    [NEW_MODULE],
    [f'python3 -B -c "{USE_IT}" >> out'],
    ["grep -rn 'def ' src | wc -l"],
    [f"mkdir -p notes/deep && git mv CHANGELOG.rst notes/ && {COUNT}", "echo 'moved' >> notes/log"],
    ["rm -r docs/development && ln -s ../README.rst notes/readme && chmod 750 notes"],
    [HALF],
    ["false", "echo 'after a failure' >> notes/log"],
    [SUMS],
    ["git add -A && git commit -q -m 'tidied' && git log --oneline"],
    [f"python3 -B -c \"open('blob', 'ab').write(bytes(range(256)) * 4096)\"; {COUNT}"],
    ["ln count notes/count-too; cp -a src/packaging/tags.py notes/; rm -f tests/test_tags.py"],
    [f"{SUMS}; {COUNT}"],
    ["git add -A && git commit -q -m 'done' && git status --short"],
    [FIX_TIMES],
    ["echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; cat count out journal.txt"],
]
SCRIPT = [
    Reply(f"Step {i}.", tuple(ToolCall("bash", {"command": text}) for text in texts))
    for i, texts in enumerate(COMMANDS)
]
HALF_DONE = 8  # the reply whose command waits


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp("project")
    name = PROJECT.partition("==")[0]
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*download, "--no-binary", name, "--dest", folder, PROJECT], check=True)
    (archive,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


class Setting:
    """A workspace with the project in it, a server, and a store."""

    def __init__(self, folder, project, monkeypatch):
        self.workspace = folder / "workspace"
        self.release = folder / "release"
        # The same path for everybody would be best; state knows no path, and neither do commands.
        subprocess.run(["cp", "-a", project, self.workspace], check=True)
        monkeypatch.setenv("CRAB_HOME", str(folder / "store"))
        monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        monkeypatch.setenv("MSWEA_SILENT_STARTUP", "1")
        monkeypatch.setenv("MSWEA_GLOBAL_CONFIG_DIR", str(folder / "config"))
        monkeypatch.setenv("MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT", "1")

    def start(self, server, *options):
        return Child(CHILD, [self.workspace, server.url, self.release, *options])

    def finish(self, server, *options):
        """Run to the end; what the agent returned."""
        self.release.touch()
        with self.start(server, *options) as child:
            died = child.wait()
        assert died.returncode == 0, died.stderr
        (line,) = (line for line in died.stdout.splitlines() if line.startswith("result "))
        return json.loads(line.removeprefix("result "))

    def resume(self, server):
        return self.finish(server, "--resume", "last")

    def wait_for_line(self, name, text):
        """Wait until a file of the workspace contains `text`."""
        path, tick = self.workspace / name, threading.Event()
        while not path.exists() or text not in path.read_text():
            tick.wait(0.01)


@pytest.fixture
def setting(tmp_path, project, monkeypatch):
    return Setting(tmp_path, project, monkeypatch)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, project):
    """What a run without crabrt and without a kill comes to: (result, facts about the tree)."""
    with pytest.MonkeyPatch.context() as patch, ScriptedServer(SCRIPT) as server:
        setting = Setting(tmp_path_factory.mktemp("undisturbed"), project, patch)
        result = setting.finish(server, "--plain")
        return result, oracle.manifest(setting.workspace)


def _assert_same(setting, result, undisturbed):
    expected, facts = undisturbed
    assert oracle.describe_difference(facts, oracle.manifest(setting.workspace)) == ""
    assert result == expected


def _asked(server):
    """How often each reply was asked for."""
    numbers = [replies_so_far(body["messages"]) for body in server.requests]
    return [numbers.count(number) for number in range(len(SCRIPT))]


def test_the_session_is_what_it_should_be(undisturbed, setting):
    result, facts = undisturbed
    assert result["exit_status"] == "Submitted"
    assert result["calls"] == len(COMMANDS)
    assert result["submission"] == "5\n1.10\nhalf\nwhole\n"
    assert {b"notes/log", b".git/HEAD", b"src/packaging/extra.py"} <= facts.keys()
    with ScriptedServer(SCRIPT) as server:  # and it repeats, or nothing below would mean anything
        again = setting.finish(server, "--plain")
    _assert_same(setting, again, undisturbed)


def test_an_undisturbed_run_under_crabrt_is_the_same(setting, undisturbed):
    with ScriptedServer(SCRIPT) as server:
        result = setting.finish(server)
        assert _asked(server) == [1] * len(SCRIPT)
    _assert_same(setting, result, undisturbed)


@pytest.mark.parametrize("number", [0, 1, 6, len(SCRIPT) - 1])
def test_killed_while_the_model_thinks_it_resumes_to_the_same_end(number, setting, undisturbed):
    with ScriptedServer(SCRIPT) as server:
        setting.release.touch()
        server.hold(number)
        with setting.start(server) as child:
            server.wait_for_request(number)
            assert child.kill().killed
        server.release()
        result = setting.resume(server)
        # What was answered before is not asked again; what was being asked is.
        assert _asked(server) == [2 if n == number else 1 for n in range(len(SCRIPT))]
    _assert_same(setting, result, undisturbed)


def test_killed_in_the_middle_of_a_command_it_resumes_to_the_same_end(setting, undisturbed):
    with ScriptedServer(SCRIPT) as server:
        with setting.start(server) as child:
            setting.wait_for_line("journal.txt", "half")
            assert child.kill().killed
        # The shell that ran the command is still there, and goes on as soon as it may.
        assert _waiting_shells(setting.release)
        result = setting.resume(server)
        assert _asked(server) == [1] * len(SCRIPT)
    assert not _waiting_shells(setting.release)
    _assert_same(setting, result, undisturbed)


def _waiting_shells(release):
    """Processes that wait for this test's file, by what their environment says."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if f"RELEASE={release}".encode() in file.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_killed_again_and_again_it_still_comes_to_the_same_end(setting, undisturbed):
    with ScriptedServer(SCRIPT) as server:
        setting.release.touch()
        options = []
        for number in (3, 7, 12, 16):
            server.hold(number)
            with setting.start(server, *options) as child:
                server.wait_for_request(number)
                assert child.kill().killed
            server.release()
            options = ["--resume", "last"]
        result = setting.resume(server)
        assert _asked(server) == [2 if n in {3, 7, 12, 16} else 1 for n in range(len(SCRIPT))]
    _assert_same(setting, result, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_a_random_moment_it_resumes_to_the_same_end(seed, setting, undisturbed):
    rng = random.Random(seed)
    with ScriptedServer(SCRIPT) as server:
        setting.release.touch()
        with setting.start(server) as child:
            server.wait_for_request(rng.randrange(len(SCRIPT)))
            died = child.kill_within(0.3, rng)
        assert died is not None, "it ended before it was killed: the moments are drawn too late"
        result = setting.resume(server)
    _assert_same(setting, result, undisturbed)
