import os
from pathlib import Path

import pytest

from crabrt.core.config import Config
from crabrt.inspector.watch import Facts, Reason
from crabrt.operations import excludes, probes
from crabrt.operations.excludes import survey
from crabrt.operations.fact import Standing
from crabrt.operations.facts import examine
from crabrt.operations.facts_observers import observer_fact
from crabrt.process.criu import Lack, NoCriu
from crabrt.testing.filesystems import file_system

NO_CRIU = NoCriu(Lack.MISSING, "CRIU is not installed", "install it")


def test_every_fact_is_probed_and_says_what_it_means(tmp_path):
    home = tmp_path / "store"
    machine = examine(Config(home), tmp_path, store_bytes=0, criu=NO_CRIU)
    names = {fact.name for fact in machine.facts}
    assert names >= {
        "kernel", "privileges", "workspace", "store", "store-writable", "store-space", "clock",
        "observer", "fanotify", "criu", "namespaces", "landlock", "settings",
    }  # fmt: skip
    assert all(fact.seen and fact.meaning for fact in machine.facts)
    assert machine.protected
    assert machine.unprotected
    assert not home.exists()  # looking changes nothing


def test_probes_leave_nothing_behind(tmp_path):
    probes.reflink(tmp_path)
    probes.time_step_ns(tmp_path)
    assert probes.writable(tmp_path).works
    assert os.listdir(tmp_path) == []


def test_a_store_that_cannot_be_opened_is_bad(tmp_path):
    (tmp_path / "format.json").write_text('{"version": 99}')
    machine = examine(Config(tmp_path), tmp_path, store_bytes=0, criu=NO_CRIU)
    fact = next(fact for fact in machine.facts if fact.name == "store-format")
    assert fact.standing is Standing.BAD
    assert "format 99" in fact.seen
    assert "upgrade" in fact.hint


def test_settings_that_are_not_the_default_are_told(tmp_path):
    for config, told in (
        (Config(tmp_path), "all as by default"),
        (Config(tmp_path, strict=True, exclude=("a/",)), "strict=True, exclude=('a/',)"),
    ):
        machine = examine(config, tmp_path, store_bytes=0, criu=NO_CRIU)
        fact = next(fact for fact in machine.facts if fact.name == "settings")
        assert fact.seen == told


def test_a_store_on_a_read_only_place_is_bad(tmp_path):
    machine = examine(Config(Path("/proc/store")), tmp_path, store_bytes=0, criu=NO_CRIU)
    fact = next(fact for fact in machine.facts if fact.name == "store-writable")
    assert fact.standing is Standing.BAD
    assert fact.hint


def test_a_criu_that_fails_is_reported_by_what_it_says(tmp_path):
    criu = NoCriu(Lack.BROKEN, "it says: Looks bad", "get another")
    machine = examine(Config(tmp_path), tmp_path, store_bytes=0, criu=criu)
    fact = next(fact for fact in machine.facts if fact.name == "criu")
    assert (fact.standing, fact.seen) == (Standing.LIMITED, "it says: Looks bad")
    assert fact.hint == "get another"


def test_the_file_system_of_a_mount_is_that_mounts(tmp_path):
    assert probes.file_system(Path("/proc")).kind == "proc"
    with pytest.raises(FileNotFoundError):
        probes.file_system(tmp_path / "absent")


def test_heavy_derived_directories_of_a_large_workspace_are_proposed_with_sizes(
    tmp_path, monkeypatch
):
    modules = tmp_path / "web [x]" / "node_modules"
    modules.mkdir(parents=True)
    monkeypatch.setattr(excludes, "LARGE_ENTRIES", 1_200)
    for file in range(1_200):
        os.close(os.open(modules / f"{file}.js", os.O_CREAT | os.O_WRONLY))
    (modules / "0.js").write_bytes(b"x" * 10)
    (tmp_path / "src").mkdir()
    found = survey(os.fsencode(tmp_path))
    assert found.large
    (proposal,) = found.proposals
    assert proposal.path == b"web [x]/node_modules"
    assert proposal.pattern == "/web \\[x]/node_modules/"
    assert (proposal.entries, proposal.size_bytes) == (1_200, 10)


def test_a_small_workspace_gets_no_proposals(tmp_path):
    (tmp_path / "node_modules" / "p").mkdir(parents=True)
    found = survey(os.fsencode(tmp_path))
    assert not found.large
    assert found.proposals == ()


def test_the_observer_that_a_run_would_have_is_told_and_why(tmp_path):
    can = Facts(True, "", None, "ext2/3/4", "6.1", 128, 16384)
    cannot = Facts(False, "fanotify takes root", Reason.PRIVILEGE, "ext2/3/4", "6.1", 128, 16384)
    for asked, watching, standing, told in (
        ("auto", can, Standing.OK, "auto: scan; fanotify as soon as"),
        ("auto", cannot, Standing.OK, "auto: scan, as nothing can be watched here (fanotify takes"),
        ("scan", can, Standing.OK, "scan, as observer=scan asks"),
        ("fanotify", can, Standing.OK, "fanotify, as observer=fanotify asks"),
        ("fanotify", cannot, Standing.BAD, "observer=fanotify is asked for and refused: fanotify"),
    ):
        fact = observer_fact(Config(tmp_path, observer=asked), watching)
        assert fact.standing is standing
        assert fact.seen.startswith(told)
        assert (fact.hint is not None) == (standing is Standing.BAD)


@pytest.mark.parametrize(("place", "kind"), [("/proc", "proc"), ("/sys", "sysfs")])
def test_a_workspace_of_the_kernels_own_is_bad(tmp_path, place, kind):
    machine = examine(Config(tmp_path), Path(place), store_bytes=0, criu=NO_CRIU)
    facts = {fact.name: fact for fact in machine.facts}
    assert facts["workspace"].standing is Standing.BAD
    assert facts["workspace"].seen == f"{kind} at {place}"
    assert "no stored files" in facts["workspace"].meaning
    assert facts["workspace"].hint
    assert facts["store"].standing is not Standing.BAD


@pytest.mark.root
def test_a_workspace_in_memory_is_limited_as_stores_leave_no_trace_there(tmp_path):
    with file_system("tmpfs") as place:
        machine = examine(Config(tmp_path), place, store_bytes=0, criu=NO_CRIU)
    fact = next(fact for fact in machine.facts if fact.name == "workspace")
    assert fact.standing is Standing.LIMITED
    assert "reads every file" in fact.meaning
