"""Reports that were kept are shown and drawn again."""

import json
import xml.etree.ElementTree as ET

import pytest

from crabrt.bench.plots import chart_of, svg
from crabrt.bench.report import OURS, Bar, Report, Samples, Series
from crabrt.cli.program import execute
from crabrt.errors import UsageError

SVG = "{http://www.w3.org/2000/svg}"


def latency(entries, median):
    report = Report("latency", {"cores": "2"}, {"entries": [entries]}, command="crab bench latency")
    for count in (1, 20):
        samples = Samples()
        for factor in (0.5, 1, 2):
            samples.add(OURS, {"known dirty set": median * factor * count})
            samples.add("git", {"snapshot": 100.0 * factor, "status": 5.0})
        report.add(f"{entries:,} entries, {count} changed", samples)
    report.bars.append(Bar("1", "scan", "1 ms", Series((0.5, 1.5))))
    report.absent["borg"] = "not installed"
    return report


def traffic():
    report = Report("traffic", {}, {}, command="crab bench traffic")
    samples = Samples()
    for ours in (1000.0, 3000.0, 0.0):
        samples.add(OURS, {"stored": ours, "journal": 400.0})
        samples.add("full <copy>", {"stored": 5e9})
    report.add("all recorded turns", samples, "bytes")
    return report


def keep(path, *reports):
    path.write_text(json.dumps({"data": {"reports": [one.data() for one in reports]}}))
    return str(path)


def texts(picture):
    return [one.text for one in ET.fromstring(picture).iter(f"{SVG}text")]


def bars(picture):
    found = ET.fromstring(picture).iter(f"{SVG}rect")
    kinds = ("ours", "floor", "peer")
    return [
        (one.get("class"), float(one.get("width"))) for one in found if one.get("class") in kinds
    ]


def test_a_report_survives_being_written_and_read():
    report = latency(1000, 2.0)
    assert Report.of(json.loads(json.dumps(report.data()))).data() == report.data()


def test_several_reports_make_one_picture_and_longer_is_slower():
    picture = svg(chart_of([latency(1000, 0.1), latency(60_000, 1.0)]))
    shown = texts(picture)
    assert [one for one in shown if "entries" in one] == ["1,000 entries", "60,000 entries"]
    assert "2 ms" in shown, "the median of 20 changed files, not of one"
    (whose, first), *_ = found = bars(picture)
    assert [one for one, _ in found] == ["ours", "peer", "peer"] * 2
    assert whose == "ours"
    assert first < found[3][1] < found[5][1]


def test_what_is_stored_is_drawn_as_the_mean_of_turns():
    shown = texts(svg(chart_of([traffic()])))
    assert "recorded turns (3)" in shown
    assert "1.33 kB" in shown
    assert "full <copy>" in shown


def test_what_has_no_picture_is_refused():
    with pytest.raises(UsageError, match="no picture of density"):
        chart_of([Report("density", {}, {})])
    with pytest.raises(UsageError, match="latency and traffic"):
        chart_of([latency(10, 1.0), traffic()])
    with pytest.raises(UsageError, match="nothing to draw"):
        svg(chart_of([Report("traffic", {}, {})]))


def test_kept_reports_are_shown_and_drawn_without_measuring(tmp_path, capsys):
    source, picture = keep(tmp_path / "kept.json", latency(1000, 2.0)), tmp_path / "latency.svg"
    assert execute(["bench", "--from", source, "--plot", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "known dirty set" in shown
    assert "absent: borg" in shown
    assert "1,000 entries" in texts(picture.read_text())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (("--from", "KEPT", "--turns", "3"), "only --plot goes with it"),
        (("traffic", "--from", "KEPT"), "only --plot goes with it"),
        (("--from", "OTHER"), "no report of a benchmark"),
        (("density", "--plot", "x.svg"), "--plot draws latency or traffic"),
        (("--plot", "x.svg"), "--plot draws latency or traffic"),
        (("traffic", "--plot", "nowhere/x.svg"), "no such directory"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_measured(
    tmp_path, capsys, monkeypatch, line, told
):
    monkeypatch.chdir(tmp_path)
    keep(tmp_path / "KEPT", traffic())
    (tmp_path / "OTHER").write_text('{"data": {"reports": [{"name": "traffic"}]}}')
    assert execute(["bench", *line, "--json"]) == 2
    assert told in json.loads(capsys.readouterr().out)["error"]["message"]
