"""Which CRIU is found, why one is not used, and how one is unpacked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crabrt.process.criu import CannotInstall, Criu, Lack, NoCriu, find, install, probing
from crabrt.process.criu.installing import KEYRING

pytestmark = pytest.mark.root


def fake(directory, script):
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "criu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def lack(found):
    assert isinstance(found, NoCriu), found
    return found.lack


def test_a_machine_without_one_is_told_how_to_get_it(tmp_path):
    found = find(None, tmp_path, search=str(tmp_path))
    assert lack(found) is Lack.MISSING
    assert "crab doctor --install-criu" in found.hint


def test_one_that_is_configured_and_not_there_is_not_replaced_by_another(criu, tmp_path):
    os.symlink(criu.program, tmp_path / "criu")
    found = find(tmp_path / "absent", tmp_path, search=str(tmp_path))
    assert lack(found) is Lack.MISSING
    assert "absent" in found.reason


def test_one_that_works_was_tried(criu):
    assert find(criu.program) == criu
    assert criu.version >= (4, 0, 0)


@pytest.mark.parametrize(
    ("script", "lacks", "told"),
    [
        ("echo Version: 3.17.1", Lack.TOO_OLD, "3.17.1"),
        ("[ $1 = --version ] && echo Version: 4.1.1 && exit\nexit 1", Lack.TOO_OLD, "4.1.1"),
        (
            "[ $1 = --version ] && echo Version: 9.0 && exit\nexit 1",
            Lack.KERNEL,
            "tried and failed",
        ),
        ("echo 'no loader'; exit 127", Lack.BROKEN, "no loader"),
        ("exit 3", Lack.BROKEN, "ended with 3"),
        ("kill -SEGV $$", Lack.BROKEN, "ended with -11"),
    ],
)
def test_one_that_does_not_work_is_told_by_what_it_does(tmp_path, script, lacks, told):
    found = find(fake(tmp_path, script))
    assert lack(found) is lacks
    assert told in found.reason


def test_one_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "_LIMIT_S", 0.2)
    found = find(fake(tmp_path, "exec sleep 1000"))
    assert lack(found) is Lack.BROKEN
    assert "within 0.2 s" in found.reason


def test_one_that_is_no_program_is_told(tmp_path):
    (tmp_path / "criu").write_bytes(b"\x7fELF and nothing else")
    (tmp_path / "criu").chmod(0o755)
    assert lack(find(tmp_path / "criu")) is Lack.BROKEN


def test_the_first_that_works_is_taken(criu, tmp_path):
    old = fake(tmp_path / "bin", "echo Version: 3.17.1")
    fake(tmp_path / "programs" / "criu", f'exec {criu.program} "$@"')
    found = find(None, tmp_path / "programs", search=str(old.parent))
    assert isinstance(found, Criu)
    assert found.program == tmp_path / "programs" / "criu" / "criu"
    assert lack(find(None, None, search=str(old.parent))) is Lack.TOO_OLD


def test_an_answer_is_remembered_until_the_program_changes(tmp_path):
    program = fake(tmp_path, f"echo asked >> {tmp_path}/log; echo Version: 3.17.1")
    log = tmp_path / "log"
    find(program)
    find(program)
    assert log.read_text() == "asked\n"
    fake(tmp_path, f"echo again >> {log}; echo Version: 3.18")
    os.utime(program, ns=(1, 1))
    assert "3.18" in find(program).reason
    assert log.read_text() == "asked\nagain\n"


def test_without_root_it_says_that_it_takes_root(criu, tmp_path):
    code = "import sys; from pathlib import Path; from crabrt.process.criu import find; "
    code += "print(find(Path(sys.argv[1])).lack)"
    setpriv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--securebits=+noroot"]
    done = subprocess.run(
        [*setpriv, sys.executable, "-c", code, criu.program],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "privilege\n"


def test_without_debians_keys_nothing_is_fetched(tmp_path):
    with pytest.raises(CannotInstall) as caught:
        install(tmp_path / "programs", keyring=tmp_path / "absent.gpg")
    assert "debian-archive-keyring" in caught.value.hint
    assert not (tmp_path / "programs").exists()


@pytest.fixture
def keyring():
    if not KEYRING.is_file():  # on Ubuntu; CI runs on Debian
        pytest.skip("file system: Debian's keys are not on this machine")
    return KEYRING


def test_a_mirror_that_is_none_is_told_and_leaves_nothing(tmp_path, keyring):
    programs = tmp_path / "programs"
    for mirror in ("file:///absent", "http://127.0.0.1:1/debian"):
        with pytest.raises(CannotInstall, match="reading the list of packages failed"):
            install(programs, mirror=mirror, keyring=keyring)
        assert list(programs.iterdir()) == []


def test_an_archive_that_nobody_signed_is_refused(tmp_path, keyring):
    release = tmp_path / "mirror" / "dists" / "unstable"
    release.mkdir(parents=True)
    (release / "Release").write_text("Origin: Debian\nSuite: unstable\nCodename: sid\n")
    programs = tmp_path / "programs"
    with pytest.raises(CannotInstall, match="not signed"):
        install(programs, mirror=f"file://{tmp_path}/mirror", keyring=keyring)
    assert list(programs.iterdir()) == []


def test_an_installation_that_takes_too_long_is_ended(tmp_path, keyring):
    with pytest.raises(CannotInstall, match="not done in time"):
        install(tmp_path / "programs", limit_s=0.0, keyring=keyring)
    assert list(Path(tmp_path / "programs").iterdir()) == []
