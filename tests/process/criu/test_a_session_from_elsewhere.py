"""A session that was begun outside of a PID namespace is named before CRIU is called."""

import subprocess
import sys
import textwrap

import pytest

from crabrt.process.criu import NEXT_STEP

pytestmark = pytest.mark.root

INSIDE = textwrap.dedent("""
    import os, subprocess, sys
    from pathlib import Path
    from crabrt.operations.facts import criu_fact
    from crabrt.process.criu import Cause, Criu, NotImaged, dump
    criu, images = Criu(Path(sys.argv[1]), (4, 2, 0)), Path(sys.argv[2])
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    ready, told = os.pipe()
    program = f"import os, time; os.write({told}, b'.'); time.sleep(1000)"
    child = subprocess.Popen([sys.executable, "-c", program], pass_fds=[told], **quiet)
    os.read(ready, 1)
    try:
        dump(criu, child.pid, images)
        print("imaged", end=" ")
    except NotImaged as error:
        print(error.cause, child.pid, error.message, sep="|", end=" ")
    assert child.poll() is None
    child.kill()
    print(criu_fact(criu).standing, criu_fact(criu).hint, sep="|")
""")


def inside(criu, tmp_path, *before):
    """What INSIDE says as the first process of PID and mount namespaces, or below it."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", *before, sys.executable, "-c", INSIDE]
    done = subprocess.run(
        [*command, str(criu), str(tmp_path / "images")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_it_is_named_with_what_helps_and_criu_is_not_called(criu, tmp_path):
    called = tmp_path / "called"
    program = tmp_path / "criu"
    program.write_text(f"#!/bin/sh\ntouch {called}\nexit 1\n")
    program.chmod(0o755)
    said = inside(program, tmp_path)
    cause, pid, message = said.split(" ok")[0].split("|")[:3]
    assert cause == "session"
    assert f"the session of process {pid} was begun outside of its PID namespace" in message
    assert NEXT_STEP in message
    assert not called.exists()
    assert not list((tmp_path / "images").glob("*"))


def test_doctor_says_that_it_is_true_of_itself(criu, tmp_path):
    assert inside(criu.program, tmp_path).rstrip().endswith(f"limited|{NEXT_STEP}")


def test_in_a_session_of_its_own_there_is_an_image(criu, tmp_path):
    assert inside(criu.program, tmp_path, "setsid", "--wait") == "imaged ok|None\n"
