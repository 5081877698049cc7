"""The mechanisms benchmark: what it restores is compared, and who cannot take part is named."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
from pathlib import Path

import pytest

from crabrt.bench import MechanismsOptions, Report, measure_mechanisms, mechanisms, mechanisms_peers
from crabrt.bench.mechanisms_bars import image_bars
from crabrt.bench.mechanisms_content import (
    LARGE_BYTES,
    SMALL,
    Held,
    change_files,
    extents,
    write_files,
)
from crabrt.bench.mechanisms_criu import Alone, room_in_memory
from crabrt.bench.mechanisms_found import Found
from crabrt.bench.mechanisms_loop import start_holder
from crabrt.bench.mechanisms_peers import Commit, FullCopy
from crabrt.bench.report import OURS
from crabrt.errors import UsageError
from crabrt.process import table
from crabrt.process.criu import Criu, find, install

MIB = 1 << 20


@pytest.fixture(scope="session")
def criu(request):
    configured = os.environ.get("CRAB_CRIU")
    found = find(Path(configured)) if configured else find()
    if not isinstance(found, Criu):
        programs = request.config.cache.mkdir("programs")
        with open(programs / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = find(programs=programs)
            if not isinstance(found, Criu):
                found = install(programs)
    assert isinstance(found, Criu), found
    return found


@pytest.fixture
def clean(tmp_path):
    """An environment without settings of crabrt's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRAB_")}
    return kept | {"XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def with_criu(clean, criu):
    return clean | {"CRAB_CRIU": str(criu.program)}


def nothing(_: str) -> None:
    """Progress that nobody looks at."""


def figures(report):
    return {(row.scenario, row.who, row.what, row.unit): row.series.values for row in report.rows}


def mounts(below: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split()[1].startswith(f"{below}/")]


def below_us() -> set[int]:
    return {one.pid for one in table.descendants(os.getpid())}


@pytest.mark.root
def test_files_are_kept_and_put_back_by_everybody(scratch, clean):
    options = MechanismsOptions(
        scratch, disk=(0, 3 * MIB), rows=("files",), repetitions=2, observer="scan"
    )
    report = measure_mechanisms(options, clean, nothing)
    assert report.wrong == []
    found = figures(report)
    for who in (OURS, "replay", "commit", "cp", "git"):
        for what in ("first snapshot", "second snapshot"):
            for scenario in ("0 MiB of files", "3 MiB of files"):
                assert len(found[scenario, who, what, "ms"]) == 2
                assert len(found[scenario, who, f"{what}, durable", "ms"]) == 2
                assert len(found[scenario, who, what, "bytes"]) == 2
    assert max(found["3 MiB of files", "cp", "second snapshot", "bytes"]) > 3 * MIB
    assert max(found["3 MiB of files", OURS, "second snapshot", "bytes"]) < 1.5 * MIB
    goals = {bar.goal for bar in report.bars}
    assert goals == {f"faster than {who}" for who in ("replay", "commit", "cp", "git")}
    assert not any("snapshot" in bar.what for bar in report.bars if bar.goal.endswith("replay"))
    assert "criu: rows of files" in report.absent
    assert [path.name for path in scratch.iterdir() if path.name not in ("config", "tmp")] == []
    assert mounts(scratch) == []


def test_who_puts_other_files_back_is_noticed(scratch, clean, monkeypatch):
    right = FullCopy.restore

    def restore(self, directory):
        right(self, directory)
        (directory / "small" / "7.txt").write_text("other")

    monkeypatch.setattr(FullCopy, "restore", restore)
    monkeypatch.setattr(mechanisms, "MECHANISMS", (FullCopy,))
    options = MechanismsOptions(scratch, disk=(0,), rows=("files",), repetitions=1)
    report = measure_mechanisms(options, clean, nothing)
    assert report.wrong == [
        f"0 MiB of files: cp, {which} restore: other files" for which in ("first", "second")
    ]


def test_what_is_done_is_taken_from_the_file(scratch, clean, tmp_path, monkeypatch):
    monkeypatch.setattr(mechanisms, "MECHANISMS", (FullCopy,))
    keep = tmp_path / "kept"
    options = MechanismsOptions(scratch, disk=(0,), rows=("files",), repetitions=2, keep=keep)
    report = measure_mechanisms(options, clean, nothing)
    monkeypatch.setattr(mechanisms, "Files", None)
    again = measure_mechanisms(options, clean, nothing)
    assert again.data()["rows"] == report.data()["rows"]
    assert len(keep.read_text().splitlines()) == 1 + 2


def test_without_overlays_commits_are_absent_with_the_reason(scratch, clean, monkeypatch):
    def mount(self):
        raise subprocess.CalledProcessError(32, "mount", stderr=b"mount: only root can do that\n")

    monkeypatch.setattr(mechanisms_peers.Overlay, "mount", mount)
    monkeypatch.setattr(mechanisms, "MECHANISMS", (Commit,))
    options = MechanismsOptions(scratch, disk=(0,), rows=("files",), repetitions=1)
    report = measure_mechanisms(options, clean, nothing)
    assert report.absent["commit"] == "no overlay here: mount: only root can do that"
    assert {row.who for row in report.rows} == {OURS}
    assert Commit.absence(scratch, {"PATH": str(scratch)}) == "tar is not installed"


@pytest.mark.root
def test_memory_is_imaged_and_comes_back(scratch, with_criu):
    before = below_us()
    options = MechanismsOptions(scratch, memory=(0, 4 * MIB), rows=("memory",), repetitions=2)
    report = measure_mechanisms(options, with_criu, nothing)
    assert report.wrong == []
    found = figures(report)
    for scenario in ("0 MiB of memory", "4 MiB of memory"):
        for which in ("first", "second"):
            assert len(found[scenario, OURS, f"{which} snapshot, frozen", "ms"]) == 2
            for who in (OURS, "criu", "replay"):
                assert len(found[scenario, who, f"{which} snapshot", "ms"]) == 2
                assert len(found[scenario, who, f"{which} restore", "ms"]) == 2
            assert min(found[scenario, "criu", f"{which} snapshot", "bytes"]) > MIB
        assert len(found[scenario, OURS, "asleep", "images"]) == 2
    first, second, _ = (
        max(found["4 MiB of memory", OURS, f"{which} snapshot", "bytes"])
        for which in ("first", "second", "scattered")
    )
    assert second < first
    assert "commit, cp, git: rows of memory" in report.absent
    assert below_us() <= before, "whoever was begun has ended, and is collected"


@pytest.mark.root
def test_another_memory_than_was_imaged_is_noticed(scratch, with_criu, monkeypatch):
    def other(self, images):
        start_holder(images.parent / "other", MIB, 99, images.parent)
        address = scratch / "mechanisms" / "address"
        address.write_text((images.parent / "other").read_text())
        return 1.0

    monkeypatch.setattr(Alone, "restore_ms", other)
    options = MechanismsOptions(scratch, memory=(MIB,), rows=("memory",), repetitions=1)
    report = measure_mechanisms(options, with_criu, nothing)
    told = [text.split(": ")[1] for text in report.wrong]
    assert told == ["criu, first restore", "criu, second restore"]


@pytest.mark.root
def test_a_shell_and_a_server_come_back(scratch, with_criu):
    before = below_us()
    options = MechanismsOptions(scratch, rows=("shell",), repetitions=1)
    report = measure_mechanisms(options, with_criu, nothing)
    assert report.wrong == []
    whats = {row.what for row in report.rows if row.who == OURS}
    assert {"restore, where both are alive", "restore, where nobody is"} <= whats
    assert len(report.bars) == 4
    assert below_us() <= before


def test_without_criu_files_are_measured_all_the_same(scratch, clean, tmp_path, monkeypatch):
    monkeypatch.setattr(mechanisms, "MECHANISMS", (FullCopy,))
    seen = clean | {"CRAB_CRIU": str(tmp_path / "none")}
    report = measure_mechanisms(MechanismsOptions(scratch, disk=(0,), repetitions=1), seen, nothing)
    assert "criu, and all rows of processes" in report.absent
    assert {row.scenario for row in report.rows} == {"0 MiB of files"}
    only = MechanismsOptions(scratch, rows=("memory", "shell"))
    with pytest.raises(UsageError, match="nothing can be measured here: criu, and all rows"):
        measure_mechanisms(only, seen, nothing)


@pytest.mark.root
def test_what_would_not_fit_in_memory_is_absent(scratch, with_criu):
    options = MechanismsOptions(scratch, memory=(1 << 50,), rows=("memory",))
    with pytest.raises(UsageError, match=r"MiB of memory: it takes [\d,]+ MiB of memory"):
        measure_mechanisms(options, with_criu, nothing)
    assert room_in_memory(1) is None


def test_the_same_seed_gives_the_same_and_a_change_is_small(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.mkdir()
        write_files(path, 5 * LARGE_BYTES, 7)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 5 + SMALL
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in files)
    change_files(other, 5 * LARGE_BYTES, 8)
    changed = [name for name in files if (one / name).read_bytes() != (other / name).read_bytes()]
    assert len([name for name in changed if name.parts[0] == "large"]) == 1
    assert len([name for name in changed if name.parts[0] == "small"]) == SMALL


def test_one_page_in_a_hundred_changes_in_so_many_places():
    size_bytes = 500 * MIB
    for count in (20, size_bytes // 4096 // 100):
        found = list(extents(size_bytes, random.Random(1), count))
        assert len(found) == count
        assert sum(length for _, length in found) == 1_280 * 4096
        assert all(at % 4096 == 0 and at + length <= size_bytes for at, length in found)


def test_memory_that_changed_says_so():
    held, same = Held(2 * MIB, 3), Held(2 * MIB, 3)
    assert held.said() == same.said()
    held.change(5, scattered=True)
    assert held.said() != same.said()
    same.change(5, scattered=True)
    assert held.said() == same.said()


def test_an_image_of_who_sleeps_misses_its_bar():
    found = Found()
    for who in (OURS, "criu"):
        whats = ("first snapshot", "first snapshot, frozen", "second snapshot, durable")
        found.times.add(who, dict.fromkeys(whats, 100.0))
        found.stored.add(who, {"second snapshot": 5_000_000})
    found.images.add(OURS, {"asleep": 1})
    report = Report("mechanisms", {}, {})
    image_bars(report, "it", 500 * MIB, found)
    met = {bar.what: bar.met for bar in report.bars}
    assert met == {
        "first snapshot, frozen": True,
        "second snapshot, durable": True,
        "second snapshot, stored": True,
        "asleep, images": False,
    }
