"""A CRIU that worked is not tried again by the next process, until something changes."""

import json
import os
import stat
import subprocess
import sys
import time

import pytest

from crabrt.core import clock
from crabrt.process.criu import Cause, Criu, Lack, NoCriu, NotImaged, dump, find, restore
from crabrt.process.criu import remembering as memory

pytestmark = pytest.mark.root

SLEEPER = "import signal; ready(); signal.pause()"


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


class Program:
    """A CRIU that writes down what it is asked for, and fails as it is told to."""

    def __init__(self, directory, criu):
        self.path, self.log, self.fails = directory / "criu", directory / "log", directory / "fails"
        self._real = criu.program
        self.write("")

    def write(self, comment):
        self.path.write_text(
            f"#!/bin/sh\n# {comment}\necho $1 >> {self.log}\n"
            f'[ "$1" != --version ] && [ -e {self.fails} ] && exit 1\nexec {self._real} "$@"\n'
        )
        self.path.chmod(0o755)

    def trials(self):
        """How often it imaged something since this was asked last."""
        said = self.log.read_text().split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return said.count("dump")


@pytest.fixture
def program(tmp_path, criu):
    return Program(tmp_path, criu)


def found_by_another(program, home, *, anew=False):
    """What a new process finds: that it is one, or what is lacking."""
    code = (
        "import sys; from pathlib import Path; from crabrt.process.criu import Criu, find\n"
        "found = find(Path(sys.argv[1]), memory=Path(sys.argv[2]), anew=sys.argv[3] == 'anew')\n"
        "print('works' if isinstance(found, Criu) else found.lack)"
    )
    words = [str(program.path), str(home), "anew" if anew else "as ever"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def works(home):
    return json.loads((home / memory.NAME).read_text())["works"]


def test_the_next_process_does_not_try_it_again(program, home):
    assert found_by_another(program, home) == "works"
    assert program.trials() == 1
    assert found_by_another(program, home) == "works"
    assert program.log.read_text() == "--version\n"
    assert stat.S_IMODE((home / memory.NAME).stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == [memory.NAME]


def test_whoever_asks_for_it_anew_has_it_tried(program, home):
    found_by_another(program, home)
    program.trials()
    assert found_by_another(program, home, anew=True) == "works"
    assert program.trials() == 1
    program.fails.touch()
    assert found_by_another(program, home) == "works"  # nobody has tried it since
    assert found_by_another(program, home, anew=True) != "works"
    assert works(home) == []
    assert found_by_another(program, home) != "works"


def test_another_program_is_tried(program, home):
    found_by_another(program, home)
    program.trials()
    program.write("of the same version")
    assert found_by_another(program, home) == "works"
    assert program.trials() == 1


def test_one_that_fails_is_tried_by_every_process(program, home):
    program.fails.touch()
    for _ in range(2):
        assert found_by_another(program, home) in {Lack.KERNEL, Lack.TOO_OLD}
        assert program.trials() == 1
    assert not (home / memory.NAME).exists()
    program.fails.unlink()
    assert found_by_another(program, home) == "works"


def of_nobody(path):
    os.chown(path, 65534, 65534)


def open_to_all(path):
    path.chmod(0o666)


def cut_off(path):
    os.truncate(path, path.stat().st_size - 3)


def endless(path):
    path.write_bytes(path.read_bytes() + b" " * (1 << 20))


def of_another_form(path):
    path.write_text('{"works": [1], "more": true}')


def a_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_pipe(path):
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    "harm", [of_nobody, open_to_all, cut_off, endless, of_another_form, a_link, a_pipe]
)
def test_what_is_not_surely_ours_counts_as_nothing(program, home, harm):
    found = find(program.path, memory=home)
    assert memory.Memory(home).recalled(found) == found
    harm(home / memory.NAME)
    assert memory.Memory(home).recalled(found) is None
    program.trials()
    assert found_by_another(program, home) == "works"
    assert program.trials() == 1
    assert memory.Memory(home).recalled(found) == found  # and noted well


def test_nothing_is_noted_where_others_may_write(program, home):
    home.chmod(0o777)
    assert isinstance(find(program.path, memory=home), Criu)
    assert list(home.iterdir()) == []
    assert isinstance(find(program.path, memory=home / "absent"), Criu)
    assert not (home / "absent").exists()


def test_another_boot_counts_as_another_machine(program, home, monkeypatch):
    found = find(program.path, memory=home)
    assert memory.Memory(home).recalled(found) is not None
    for boot in ("another", "unknown"):
        monkeypatch.setattr(memory, "boot_id", lambda boot=boot: boot)
        assert memory.Memory(home).recalled(found) is None
    monkeypatch.setattr(memory, "boot_id", clock.boot_id)
    assert memory.Memory(home).recalled(found) is not None


def test_another_namespace_and_less_privilege_count_as_another_machine(program, home):
    found_by_another(program, home)
    code = (
        "import sys; from pathlib import Path; from crabrt.process.criu import Criu\n"
        "from crabrt.process.criu.remembering import Memory\n"
        "criu = Criu(Path(sys.argv[1]), tuple(map(int, sys.argv[3].split('.'))))\n"
        "print(Memory(Path(sys.argv[2])).recalled(criu) is not None)"
    )
    version = ".".join(map(str, find(program.path).version))
    words = [sys.executable, "-c", code, str(program.path), str(home), version]
    said = {}
    for apart in ((), ("unshare", "--net"), ("unshare", "--mount"), ("setpriv", "--no-new-privs")):
        done = subprocess.run([*apart, *words], stdout=subprocess.PIPE, text=True, check=True)
        said[apart] = done.stdout.strip()
    assert said.pop(()) == "True"
    assert set(said.values()) == {"False"}


def test_no_more_than_some_are_kept(program, home):
    notes = memory.Memory(home)
    for minor in range(40):
        notes.remember(Criu(program.path, (9, minor, 0)))
    assert len(works(home)) < 40
    assert notes.recalled(Criu(program.path, (9, 39, 0))) is not None
    assert notes.recalled(Criu(program.path, (9, 0, 0))) is None


def test_an_image_that_fails_as_a_trial_would_makes_it_be_tried_again(
    program, home, trees, tmp_path
):
    found = find(program.path, memory=home)
    child = trees.start(SLEEPER)
    program.fails.touch()
    with pytest.raises(NotImaged) as caught:
        dump(found, child.pid, tmp_path / "images")
    assert caught.value.cause is Cause.OTHER
    assert works(home) == []
    assert isinstance(find(program.path, memory=home), NoCriu)  # in this process, too
    program.fails.unlink()


def test_somebody_who_cannot_wait_for_an_image_proves_nothing(program, home, trees, tmp_path):
    found = find(program.path, memory=home)
    child = trees.start(SLEEPER)
    with pytest.raises(NotImaged) as caught:
        dump(found, child.pid, tmp_path / "images", until=time.monotonic)
    assert caught.value.cause is Cause.TIME_LIMIT
    assert len(works(home)) == 1


def test_a_restore_that_fails_as_a_trial_would_makes_it_be_tried_again(
    program, home, trees, tmp_path
):
    found = find(program.path, memory=home)
    child = trees.start(SLEEPER)
    dump(found, child.pid, tmp_path / "images")
    with pytest.raises(Exception, match="is taken") as caught:  # it lives: no trial would tell
        restore(found, tmp_path / "images")
    assert caught.value.cause is Cause.PID_TAKEN
    assert len(works(home)) == 1
    trees.end(child.pid)
    program.fails.touch()
    with pytest.raises(Exception, match="criu says") as caught:
        restore(found, tmp_path / "images")
    assert caught.value.cause is Cause.OTHER
    assert works(home) == []
    assert isinstance(find(program.path, memory=home), NoCriu)
