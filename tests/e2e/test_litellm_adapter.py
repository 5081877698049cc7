"""litellm's calls are recorded without a change to the loop, and come back as litellm's objects."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("litellm_loops.py")

CHECKS = [
    "a_reply_comes_back_equal_and_is_not_asked_for_again",
    "an_async_reply_comes_back_equal",
    "a_stream_comes_back_piece_by_piece",
    "an_async_stream_comes_back_piece_by_piece",
    "an_exception_comes_back_as_litellms_own",
    "outside_of_a_run_nothing_has_changed",
    "instrumenting_twice_is_once_and_undoing_restores",
    "modules_that_took_the_function_before_get_the_wrapped_one",
    "tokens_and_cost_are_read_off_replies_and_streams",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each check of the child program found: nothing, or a traceback."""
    folder = tmp_path_factory.mktemp("litellm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRAB_HOME", str(folder / "store"))
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import asks the network
        done = subprocess.run([sys.executable, CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("found "))
    return json.loads(line.removeprefix("found "))


def test_every_check_of_the_child_is_listed_here(found):
    assert list(found) == CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_litellm(name, found):
    assert found[name] == "", found[name]


def test_importing_the_package_imports_no_litellm():
    code = "import sys, crabrt_litellm; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
