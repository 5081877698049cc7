"""A report says of each process that outlived a turn what it holds, as ``crab show`` does."""

from __future__ import annotations

import json

import pytest

from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.report import ReportOptions
from crabrt.report.redaction import Redaction
from crabrt.report.turndata import TurnTeller
from crabrt.store import Store
from crabrt.timeline.feed import RunFeed
from crabrt.timeline.reader import RunReader

TOKEN = "sk-live-0123456789abcdefghijABCDEFGHIJ"


@pytest.fixture
def serving(run):
    """After turn 1 a server with a worker lives, and a job that has an image."""
    place = bytes(run.path)
    server = LastingProcess(
        71, 1, 5, (b"/usr/bin/serve", b"--token=" + TOKEN.encode()), place,
        ("tcp 127.0.0.1:8000", "unix " + str(run.path / "door")),
        (b"data.db", b"<b>&amp;"), (), 2,
    )  # fmt: skip
    worker = LastingProcess(
        72, 71, 6, (b"worker",), place, (), (b"logs/\x1b[2Jout",), ("tcp 192.0.2.7:443",)
    )
    grandchild = LastingProcess(73, 72, 7, (b"below",), place)
    job = LastingProcess(80, 1, 8, (b"job",), place, files=tuple(b"f%d" % n for n in range(40)))
    trees = (
        ProcessTree((server, worker, grandchild), why_not="it is traced", lost=("its output",)),
        ProcessTree((job,), imaged=True),
    )
    run.turn(lambda: (run.path / "data.db").write_text("x"), alive=ProcessState("boot", trees))
    run.end()
    return run


def test_each_process_is_told_with_what_it_holds(serving, report, read):
    server, job = read(report()).turns[1]["alive"]
    assert server["held"] == [
        ["listens at", ["tcp 127.0.0.1:8000", "unix /workspace/door"]],
        ["holds", ["data.db", "<b>&amp;"]],
    ]
    assert server["left"] == 2
    worker, grandchild = server["below"]
    assert worker["held"][0][0] == "holds"
    assert worker["held"][1] == ["talks to", ["tcp 192.0.2.7:443"]]
    assert (worker["pid"], worker["parent"], worker["depth"]) == (72, 71, 1)
    assert (grandchild["parent"], grandchild["depth"]) == (72, 2)
    assert server["why"] == ["it is traced", "its output"]
    assert job["image"] == "● imaged"
    assert job["held"][0][1][-1] == "28 more"


def test_no_secret_and_no_place_is_told_with_it(serving, report):
    content = report(home=str(serving.path.parents[1])).decode()
    assert TOKEN not in content
    assert "secret-client" not in content
    assert "\x1b" not in content


def test_a_reader_sees_it_in_a_table_with_names_for_its_columns(serving, opened):
    seen = opened(address="#turn-1", redact=False)
    table = seen.page.locator("#turn-1 table.alive")
    table.wait_for()
    assert table.locator("th[scope=col]").all_inner_texts() == ["pid", "command", "holds", "image"]
    rows = [" ".join(text.split()) for text in table.locator("tbody tr").all_inner_texts()]
    assert len(rows) == 4
    assert "listens at tcp 127.0.0.1:8000" in rows[0]
    assert "holds data.db, <b>&amp;" in rows[0]
    assert "2 more files and connections are not listed" in rows[0]
    assert rows[1].startswith("72 └ below 71: worker holds")
    assert "talks to tcp 192.0.2.7:443" in rows[1]
    assert rows[2] == "73 └ below 72: below"
    assert "● imaged" in rows[3]
    seen.assert_quiet()


@pytest.mark.parametrize("width", [320, 1280])
def test_the_table_does_not_hang_over_the_edge(serving, opened, width):
    seen = opened(address="#turn-1", viewport={"width": width, "height": 800})
    seen.page.locator("#turn-1 table.alive").wait_for()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_turn_that_is_cut_short_counts_who_was_alive(serving):
    options = ReportOptions()
    with Store.open(serving.home) as store, RunFeed(serving.home, serving.run) as feed:
        rows = feed.read_all().rows
        teller = TurnTeller(RunReader(store, serving.run), Redaction(options, b"/"), options)
        _, whole = teller.tell(rows, rows.at(1), 1 << 20)
        _, cut = teller.tell(rows, rows.at(1), len(whole) - 300)
    server, job = json.loads(cut)["alive"]
    assert server["more"] == 2
    assert (server["pid"], job["pid"]) == (71, 80)
    assert "held" not in server
