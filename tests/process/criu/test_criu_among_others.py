"""Many programs run beside CRIU: none is taken for its own, and it bears what they do to it."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from crabrt.process import table
from crabrt.process.criu import Cause, Criu, NotImaged, NotRevived, dump, probing, restore

pytestmark = pytest.mark.root

STUMBLES = """\
#!/bin/sh
# Does not start, as often as there are files to count it with; then it is the CRIU it stands for.
[ "$1" = --version ] && exec {real} "$@"
for left in {top}/stumble-*; do
    [ -e "$left" ] || break
    rm "$left"
    echo "Error (criu/vdso.c:310): vdso: Can't open 24493/maps on procfs: No such process"
    exit 1
done
exec {real} "$@"
"""

WAITS = """\
#!/bin/sh
touch {top}/began
while [ ! -e {top}/go ]; do sleep 0.01; done
echo "Error (criu/other.c:1): it fails"
exit 1
"""

SPAWNS = """\
import os, sys, time
wanted = int(sys.argv[1])
for _ in range(2000):
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(wanted - 1))
    child = os.fork()
    if not child:
        if os.getpid() != wanted:
            os._exit(0)
        os.setsid()
        print("there", flush=True)
        time.sleep(1000)
    if child == wanted:
        os.wait()
    os.waitpid(child, 0)
"""

COUNTS = """\
#!/bin/sh
{real} "$@" && exit 0
grep -q "vdso: Can't open" {top}/crab-criu-*/log && echo failed >> {top}/failed
exit 1
"""

ANEW = """\
import os, subprocess, sys, tempfile, time
from pathlib import Path
from crabrt.process.criu import Criu, dump
criu, top = Criu(Path(sys.argv[1]), (4, 2, 0)), Path(sys.argv[2])
tempfile.tempdir = str(top)
quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
child = subprocess.Popen(["sleep", "1000"], **quiet)
anew = '''
import time
last = open("/proc/sys/kernel/ns_last_pid").read()
while True:
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(last)
    time.sleep(0.005)
'''
anew = subprocess.Popen([sys.executable, "-c", anew], **quiet)
end, number = time.monotonic() + 60, 0
while not (top / "failed").exists():
    assert time.monotonic() < end, "it never happened"
    dump(criu, child.pid, top / str(number))
    number += 1
anew.kill()
child.kill()
print("imaged")
"""

SLEEPER = "import signal; ready(); signal.pause()"


def program(tmp_path, text, **words):
    path = tmp_path / "criu"
    path.write_text(text.format(top=tmp_path, **words))
    path.chmod(0o755)
    return Criu(path, (4, 2, 0))


def stumble(tmp_path, count):
    for number in range(count):
        (tmp_path / f"stumble-{number}").touch()
    return lambda: len(list(tmp_path.glob("stumble-*")))


def test_a_criu_that_did_not_start_is_started_again(criu, trees, images, tmp_path):
    stumbling = program(tmp_path, STUMBLES, real=criu.program)
    child = trees.start(SLEEPER)
    left = stumble(tmp_path, 2)
    dump(stumbling, child.pid, images)
    assert not left()
    trees.end(child.pid)
    left = stumble(tmp_path, 2)
    assert trees.restore(stumbling, images) == child.pid
    assert not left()


def test_one_that_never_starts_is_given_up(criu, trees, images, tmp_path):
    stumbling = program(tmp_path, STUMBLES, real=criu.program)
    child = trees.start(SLEEPER)
    left = stumble(tmp_path, 100)
    with pytest.raises(NotImaged) as caught:
        dump(stumbling, child.pid, images)
    assert caught.value.cause is Cause.STARTING
    assert 0 < left() < 100
    assert not list(images.iterdir())


def test_it_is_not_called_broken_for_that(criu, tmp_path):
    left = stumble(tmp_path, 2)
    found = probing.probe(program(tmp_path, STUMBLES, real=criu.program).program)
    assert isinstance(found, Criu)
    assert not left()


def test_numbers_that_are_given_out_anew_do_no_harm(criu, tmp_path):
    """In a PID namespace of their own: others would be given those numbers as well."""
    counting = program(tmp_path, COUNTS, real=criu.program)
    apart = ["unshare", "--pid", "--fork", "--mount-proc", "setsid", "--wait", sys.executable]
    done = subprocess.run(
        [*apart, "-c", ANEW, str(counting.program), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "imaged\n", done.stderr


def test_who_was_given_a_number_of_the_image_meanwhile_is_spared(
    criu, trees, images, tmp_path, until
):
    child = trees.start(SLEEPER)
    dump(criu, child.pid, images)
    trees.end(child.pid)
    failed = []

    def attempt():
        with pytest.raises(NotRevived) as caught:
            restore(program(tmp_path, WAITS), images)
        failed.append(caught.value.cause)

    restoring = threading.Thread(target=attempt)
    restoring.start()
    until((tmp_path / "began").exists)
    spawner = subprocess.Popen(
        [sys.executable, "-c", SPAWNS, str(child.pid)], stdout=subprocess.PIPE, text=True
    )
    with spawner, spawner.stdout:
        assert spawner.stdout.readline() == "there\n"
        other = table.look(child.pid)
        (tmp_path / "go").touch()
        restoring.join()
        assert failed == [Cause.OTHER]
        now = table.look(child.pid)
        assert now is not None
        assert now.identity == other.identity
        assert not now.ended
        os.kill(child.pid, signal.SIGKILL)
        spawner.kill()
