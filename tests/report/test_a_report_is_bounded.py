"""However much is in a run: a file of bounded size, the same twice, which says what it cut."""

from __future__ import annotations

import json
import os

import msgspec
import pytest

from crabrt.core.entries import CallId, Intent, Payload, Result, TurnOpened
from crabrt.core.ids import object_id
from crabrt.core.verdicts import Guess, Likely, Prior
from crabrt.errors import NotFound
from crabrt.report import ReportOptions, make_report, texts
from crabrt.report.calls import CallTeller
from crabrt.report.lanes import COLUMNS_MOST
from crabrt.report.page import BLOCK_BYTES
from crabrt.report.plain import TURNS_MOST
from crabrt.report.scales import round_step, scale_of
from crabrt.store import Store
from crabrt.store.contents import put_bytes


def test_the_same_run_gives_the_same_bytes(shop, report):
    assert report() == report()
    assert report(redact=False) == report(redact=False)
    assert report() != report(redact=False)


def test_a_long_output_and_a_long_patch_are_cut_and_say_so(run, report, read):
    lines = "".join(f"line {number}\n" for number in range(5_000))
    run.turn(lambda: (run.path / "long.txt").write_text(lines), result=lines)
    run.end()
    page = read(report(redact=False, text_bytes=1_000, patch_bytes=2_000))
    out = page.turns[1]["calls"][1]["out"]
    assert out["x"] == lines[: len(out["x"])]
    assert len(out["x"]) <= 1_000
    assert out["more"] == len(lines) - len(out["x"])
    (file,) = page.turns[1]["files"]["items"]
    assert len(file["patch"]["x"]) <= 2_000
    assert file["patch"]["more"] > 0


def test_an_output_that_no_memory_should_hold_is_read_by_its_beginning(run, report, read):
    data = b"\xc6" + (9 << 20).to_bytes(4, "big") + b"endless\n" * ((9 << 20) // 8)
    payload = Payload(None, put_bytes(data, run.writer))
    assert payload.content.size > 8 << 20
    run.turn(None, result="x")
    add_result(run, payload)
    run.end()
    out = read(report(redact=False)).turns[2]["calls"][0]["out"]
    assert out["x"].startswith("endless\nendless\n")
    assert out["unit"] == "bytes"
    assert out["more"] > 8 << 20
    assert read(report()).turns[2]["calls"][0]["out"]["out"] > 8 << 20


def add_result(run, payload):
    run.turns += 1
    call = CallId("0", "cat", 77)
    run.journal.append(TurnOpened(run.turns, run.turns - 1), turn=run.turns)
    arguments = Payload(msgspec.msgpack.encode([["big"], {}]))
    run.journal.append(Intent(call, object_id(b"a"), arguments), turn=run.turns)
    run.journal.append(Result(call, 1.0, payload), turn=run.turns)
    run.checkpoint(run.turns)


def test_turns_share_a_small_file_and_the_longest_is_cut_first(run, report, read):
    for number in range(40):
        text = os.urandom(200_000).hex() if number == 7 else f"short {number}"
        run.turn(None, result=text)
    run.end()
    whole = report(redact=False, text_bytes=1 << 20)
    small = report(redact=False, text_bytes=1 << 20, max_bytes=300_000)
    assert len(small) <= 300_000 < len(whole)
    page = read(small)
    assert [number for number, turn in page.turns.items() if turn.get("cut")] == [8]
    assert page.turns[8]["calls"][1]["out"]["more"] > 0
    assert page.turns[40]["calls"][1]["out"] == "short 39"
    assert b"1 turn told shorter" in small


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_turns_are_a_bounded_file_and_all_are_in_it(long_run, run, report, read):
    long_run(10_000)
    run.end()
    content = report(max_bytes=13 << 20)
    assert len(content) <= 13 << 20
    page = read(content)
    rows = page.data["rows"]
    assert [row["n"] for row in rows] == list(range(10_001))
    assert set(page.turns) == set(range(10_001))
    assert rows[1234]["w"][1] == "make -j2 target-1234 && ./check --all 1234"
    blocks = [a for a, _ in page.of("script") if a.get("class") == "turns"]
    sizes = [len(text) for a, text in page.of("script") if a.get("class") == "turns"]
    assert max(sizes) < 2 * BLOCK_BYTES
    assert int(blocks[0]["data-first"]) == 0
    assert int(blocks[-1]["data-last"]) == 10_000
    assert len(page.data["columns"]["first"]) <= COLUMNS_MOST
    plain = sum(str(a.get("id", "")).startswith("turn-") for a, _ in page.of("tr"))
    assert plain == TURNS_MOST


def test_a_run_too_long_for_its_limit_keeps_the_newest_turns_and_says_so(long_run, run, read):
    long_run(3_000)
    run.end()
    with Store.open(run.home) as store:
        made = make_report(store, run.run, ReportOptions(max_bytes=1 << 20))
        content = b"".join(made.pieces)
    assert made.omitted > 1_000
    assert made.turns + made.omitted == 3_001
    rows = read(content).data["rows"]
    assert rows[-1]["n"] == 3_000
    assert rows[0]["n"] == made.omitted
    assert b"are not in this file" in content
    assert len(content) < 1 << 20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_long_run_is_scrolled_opened_and_searched_with_few_elements(
    long_run, run, opened, record_property
):
    long_run(4_000)
    run.end()
    seen = opened(redact=False)
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    record_property("first_paint_ms", seen.page.evaluate(paint))  # measured, never judged
    count = "document.querySelectorAll('*').length"
    assert seen.page.evaluate(count) < 8_000
    seen.page.keyboard.press("G")
    seen.page.locator("button:focus", has_text="4000").wait_for()
    seen.page.keyboard.press("Enter")
    assert "target-4000" in seen.page.locator("#turn-4000").inner_text()
    seen.page.goto(f"{seen.url}#turn-2000")
    seen.page.locator("#turn-2000").wait_for()
    assert seen.page.locator("#turn-2000").bounding_box()["y"] < 800
    seen.page.locator("#filter").fill('"built target-3333"')  # in an output only
    seen.page.locator("#filter-said", has_text="1 turn of 4,001").wait_for()
    assert seen.page.locator(".row button").all_inner_texts() == ["3333"]
    seen.page.locator("#filter").fill("")
    seen.page.locator(".row").nth(50).wait_for()
    for share in range(1, 20):
        seen.page.evaluate(f"scrollTo(0, document.body.scrollHeight * {share / 20})")
        seen.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    assert seen.page.evaluate(count) < 30_000
    seen.assert_quiet()


def test_what_cannot_be_read_is_told_and_the_rest_is_there(shop, read):
    for pack in (shop.home / "packs").rglob("*.pack"):
        pack.unlink()
    (shop.home / "chunks.sqlite").unlink(missing_ok=True)
    with Store.open(shop.home) as store:
        made = make_report(store, shop.run, ReportOptions(redact=False))
        content = b"".join(made.pieces)
    assert made.problems
    page = read(content)
    assert [row["n"] for row in page.data["rows"]] == [0, 1, 2, 3, 4, 5]
    assert "cannot be read" in page.turns[1]["files"]["why"]
    assert page.turns[3]["calls"][0]["raised"] == "builtins.OSError"
    assert b"Cannot be read: turn 1" in content


def test_one_odd_call_costs_the_reader_no_other(shop, read, monkeypatch):
    whole = CallTeller.data

    def fails(teller, call):
        if call.call.callable == "look":
            raise TypeError("nobody thought of that")
        return whole(teller, call)

    monkeypatch.setattr(CallTeller, "data", fails)
    with Store.open(shop.home) as store:
        made = make_report(store, shop.run, ReportOptions(redact=False))
        content = b"".join(made.pieces)
    assert made.problems == (
        "turn 3: unexpected TypeError: nobody thought of that (a bug in crabrt)",
    )
    turns = read(content).turns
    assert turns[3]["calls"][0]["k"] == "unreadable"
    assert "TypeError" in turns[3]["calls"][0]["out"]["bad"]
    assert [call["k"] for call in turns[2]["calls"]] == ["model", "tool"]


@pytest.mark.parametrize(
    ("arguments", "title"),
    [({"args": {"a": 1}}, 'args={"a": 1}'), ({"args": 5}, "args=5"), ({"args": "make"}, "make"),
     ({"kwargs": [1]}, "kwargs=[1]")],
)  # fmt: skip
def test_a_call_is_told_whatever_its_parameters_are_called(run, report, read, arguments, title):
    run.turns += 1
    call = CallId("0", "odd", 77)
    run.journal.append(TurnOpened(run.turns, run.turns - 1), turn=run.turns)
    given = Payload(msgspec.msgpack.encode(arguments))
    run.journal.append(Intent(call, object_id(b"a"), given), turn=run.turns)
    run.checkpoint(run.turns)
    run.end()
    (told,) = read(report()).turns[1]["calls"]
    assert told.get("title") == title


def test_a_value_nested_deep_is_cut_and_its_secrets_are_not_told(run, report, read):
    value = {"password": "correct-horse-battery", "note": "sk-abcdefghijklmnop1234"}
    for _ in range(600):
        value = [value]
    run.turn(None, result=value)
    run.turn(None, result=[{"password": "correct-horse-battery"}])
    run.end()
    content = report(redact=False)
    assert b"correct-horse" not in content
    assert b"sk-abc" not in content
    out = read(content).turns[1]["calls"][1]["out"]
    assert out.startswith("[[[[")
    assert "…" in out


def test_a_run_without_a_turn_has_no_report(run):
    with pytest.raises(NotFound):
        make_report(run.store, "nobody-0000", ReportOptions())


def test_marks_stand_where_they_happened(shop, report, read):
    (end,) = read(report()).data["marks"]
    assert (end["after"], end["sign"][1], end["text"]) == (5, "ended", "done")


def test_what_acted_outside_and_what_may_have_are_told_apart(run, report, read):
    run.turn(tool="charge", prior=Prior.EXTERNAL)
    run.turn(tool="push", guess=Guess(Likely.EXTERNAL), evidence=("external: push, (guess)",))
    run.turn(tool="sh", evidence=("external: 10.0.0.1:443 (seen)",))
    run.turn(tool="look", guess=Guess(Likely.EXTERNAL))  # it was seen not to
    run.end()
    page = report()
    rows = {row["n"]: row for row in read(page).data["rows"]}
    assert [rows[turn].get("e") for turn in range(1, 5)] == [["charge"], ["push?"], ["sh?"], None]
    for said in ("charge", "push (taken for external)",
                 "sh (maybe what was seen to reach the world)"):  # fmt: skip
        assert said.encode() in page


def test_texts_are_cut_at_the_end_of_a_line_and_count_what_is_gone():
    assert texts.shown("short", 10) == "short"
    cut = texts.shown("one\ntwo\nthree\n", 9)
    assert cut == {"x": "one\ntwo\n", "more": 6, "unit": "characters"}
    assert texts.shorter(cut, 4) == {"x": "one\n", "more": 10, "unit": "characters"}
    assert texts.shorter({"out": 7, "unit": "bytes"}, 1) == {"out": 7, "unit": "bytes"}
    assert texts.left_out(0) == ""
    assert json.dumps(texts.unreadable("why")) == '{"bad": "why"}'


def test_one_giant_does_not_flatten_the_rest():
    assert scale_of([]) == 1.0
    assert scale_of([3.0, 0.0]) == 3.0
    assert scale_of([1.0] * 50 + [1_000.0]) == 2.0
    assert scale_of([1.0, 1.5, 2.0]) == 2.0
    assert round_step(9.0) == pytest.approx(5.0)
    assert round_step(0.003) == pytest.approx(0.001)
