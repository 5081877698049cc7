"""By keyboard, by ear, in the dark, on a phone, on paper, without a script: it is all there."""

from __future__ import annotations

import itertools
import re
import time

import pytest

from crabrt.core.entries import TurnOpened
from crabrt.report.filedata import CHANGES_MOST

CONTRAST = """() => {
  const parse = (text) => (text.match(/[0-9.]+/g) ?? []).map(Number);
  const over = (top, under) => {
    const alpha = top[3] ?? 1;
    return [0, 1, 2].map((at) => top[at] * alpha + under[at] * (1 - alpha));
  };
  const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length && (colour[3] ?? 1) > 0) layers.push(colour);
      if (colour.length && (colour[3] ?? 1) === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const poor = [];
  let looked = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest("script, style, noscript")) continue;
    looked += 1;
    const back = behind(element), front = over(parse(getComputedStyle(element).color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push([node.textContent.trim().slice(0, 40), element.className, ratio]);
  }
  return { looked, poor };
}"""
"""WCAG 2.2, 1.4.3: text that does not stand out from what is behind it by 4.5 to 1."""

NAMES = """() => {
  const wanted = "button, input, a[href], summary, dialog, svg[role=img], [role=region], "
    + "[role=group], section, [tabindex]";
  const name = (one) => one.getAttribute("aria-label")
    ?? document.getElementById(one.getAttribute("aria-labelledby"))?.textContent
    ?? one.labels?.[0]?.textContent ?? one.textContent;
  const every = [...document.querySelectorAll(wanted)].filter((one) => one.checkVisibility());
  return every.map((one) => [one.outerHTML.slice(0, 80), name(one).trim()]);
}"""


@pytest.fixture
def seen(shop, opened):
    return opened(redact=False)


def focused(seen):
    return seen.page.evaluate("document.activeElement.textContent")


def wait_until(holds, what, limit_s=20.0):
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, what


def open_turn(seen, number):
    seen.page.goto(f"{seen.url}#turn-{number}")
    box = seen.page.locator(f"#turn-{number}")
    box.wait_for()
    return box


def test_the_timeline_is_walked_and_opened_by_keys_alone(seen):
    keys = seen.page.keyboard
    keys.press("j")
    assert focused(seen) == "0"
    keys.press("j")
    keys.press("j")
    keys.press("k")
    assert focused(seen) == "1"
    keys.press("Enter")
    box = seen.page.locator("#turn-1")
    box.wait_for()
    button = seen.page.locator("button[aria-controls=turn-1]")
    assert button.get_attribute("aria-expanded") == "true"
    assert "app.py" in box.inner_text()
    assert seen.page.url.endswith("#turn-1")
    keys.press("Enter")
    assert button.get_attribute("aria-expanded") == "false"
    assert box.count() == 0
    keys.press("G")
    assert focused(seen) == "5"
    keys.press("g")
    assert focused(seen) == "0"
    keys.press("n")
    assert focused(seen) == "3"
    keys.press("ArrowDown")
    assert focused(seen) == "4"
    seen.assert_quiet()


def test_the_first_tab_skips_to_the_timeline(seen):
    seen.page.keyboard.press("Tab")
    assert focused(seen) == "Skip to the timeline"
    assert seen.page.locator(".skip").bounding_box()["y"] >= 0
    seen.page.keyboard.press("Enter")
    assert seen.page.evaluate("document.activeElement.id") == "timeline"
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.id") == "filter"


def test_one_row_is_in_the_order_of_tabs(seen):
    assert seen.page.locator(".row button[tabindex='0']").count() == 1
    seen.page.keyboard.press("G")
    assert seen.page.locator(".row button[tabindex='0']").inner_text() == "5"


def test_a_filter_finds_by_text_kind_and_path(seen):
    said = seen.page.locator("#filter-said")
    for text, numbers in (
        ("verdict:files", ["1", "2", "5"]),
        ("unprotected", ["4"]),
        ("failed", ["3"]),
        ("path:app.py", ["1", "2"]),
        ("tool:look", ["3"]),
        ("22", ["2"]),  # in the patch only
        ('"the disk was full"', ["4"]),
        ("nothing like that", []),
    ):
        seen.page.keyboard.press("/")
        seen.page.locator("#filter").fill(text)
        wait_until(lambda n=numbers: seen.page.locator(".row button").all_inner_texts() == n, text)
        count = f"{len(numbers)} turn{'s' * (len(numbers) != 1)} of 6"
        if text.startswith("path:"):  # 4 has no checkpoint, so nobody knows what it and 5 changed
            count += "; 2 turns may have changed paths that are not in this file"
        seen.page.locator("#filter-said", has_text=re.compile(f"^{count}$")).wait_for()
        assert seen.page.locator("#said").inner_text() == said.inner_text()
        seen.page.keyboard.press("Escape")
    seen.page.locator("#filter").fill("")
    seen.page.locator(".row").nth(5).wait_for()
    seen.page.locator("#chips button", has_text="files").click()
    assert seen.page.locator(".row").count() == 3
    assert seen.page.locator("#chips button[aria-pressed=true]").count() == 1
    seen.assert_quiet()


def test_a_filter_says_of_how_many_turns_it_cannot_tell_the_paths(run, opened):
    names = [f"{number:03}.txt" for number in range(CHANGES_MOST + 10)]
    run.turn(lambda: [(run.path / name).write_text(name) for name in names] and None)
    run.turn(lambda: (run.path / names[-1]).write_text("again"))
    run.turn(lambda: (run.path / names[0]).write_text("again"))
    run.end()
    seen = opened()
    beside = "1 turn may have changed paths that are not in this file"
    for text, numbers, said in (
        (f"path:{names[-1]}", ["2"], f"1 turn of 4; {beside}"),
        (f"path:{names[0]}", ["1", "3"], "2 turns of 4"),
        (f"path:{names[-1]} tool:nothing", [], "0 turns of 4"),
        (f'path:{names[-1]} "nobody said that"', [], "0 turns of 4"),
    ):
        seen.page.locator("#filter").fill(text)
        wait_until(lambda n=numbers: seen.page.locator(".row button").all_inner_texts() == n, text)
        seen.page.locator("#filter-said", has_text=re.compile(f"^{said}$")).wait_for()
    seen.assert_quiet()


def test_the_rest_of_a_patch_is_told_against_the_state_the_turn_began_on(run, opened, report):
    before = "".join(f"line {number}\n" for number in range(400))
    run.turn(lambda: (run.path / "long.txt").write_text(before))
    run.turn(lambda: (run.path / "other.txt").write_text("x"))
    run.turns += 1
    run.journal.append(TurnOpened(3, 1), turn=3)
    (run.path / "other.txt").unlink()
    (run.path / "long.txt").write_text(before.upper())
    run.checkpoint(3)
    run.turn(lambda: (run.path / "long.txt").write_text(before))
    run.end()
    seen = opened(report(redact=False, patch_bytes=200))
    for number, base in ((3, 1), (4, 3)):
        rest = open_turn(seen, number).locator(".file .rest code")
        assert rest.inner_text() == f"crab diff {run.run}@{base} {run.run}@{number}"


def test_a_link_to_a_turn_opens_it_even_if_the_filter_hides_it(seen):
    seen.page.locator("#filter").fill("failed")
    seen.page.locator("#filter-said", has_text="1 turn of").wait_for()
    seen.page.locator(".losses a", has_text="turn 4").click()
    seen.page.locator("#turn-4").wait_for()
    assert seen.page.locator("#filter").input_value() == ""
    assert seen.page.url.endswith("#turn-4")


def test_help_opens_closes_and_gives_the_focus_back(seen):
    seen.page.locator("#help-open").focus()
    seen.page.keyboard.press("?")
    assert seen.page.locator("dialog[open]").count() == 1
    seen.page.keyboard.press("j")  # goes nowhere while the dialog is open
    seen.page.keyboard.press("Escape")
    assert seen.page.locator("dialog[open]").count() == 0
    assert seen.page.evaluate("document.activeElement.id") == "help-open"


def test_single_keys_can_be_turned_off(seen):
    seen.page.keyboard.press("?")
    seen.page.locator("#keys-on").uncheck()
    seen.page.keyboard.press("Escape")
    seen.page.keyboard.press("j")
    assert seen.page.locator(".row button:focus").count() == 0
    seen.page.locator(".row button").first.focus()
    seen.page.keyboard.press("ArrowDown")
    assert focused(seen) == "1"


def test_every_control_has_a_name_and_every_name_is_said_once(seen):
    open_turn(seen, 2)
    names = seen.page.evaluate(NAMES)
    assert len(names) > 20
    assert [one for one in names if not one[1]] == []
    ids = seen.page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_headings_landmarks_and_the_table_are_in_order(seen):
    open_turn(seen, 2)
    heads = seen.page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].filter(h => h.checkVisibility())"
        ".map(h => Number(h.tagName[1]))"
    )
    assert heads[0] == 1
    assert heads.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(heads))
    for landmark in ("body > header", "main", "body > footer", "[role=search]"):
        assert seen.page.locator(landmark).count() == 1, landmark
    table = seen.page.locator("[role=table]")
    assert table.get_attribute("aria-rowcount") == "7"
    columns = table.locator("[role=columnheader]").count()
    assert columns == 10
    assert table.locator(".row").first.locator("[role=cell]").count() == columns
    indexes = [row.get_attribute("aria-rowindex") for row in table.locator(".row").all()]
    assert indexes == [str(number) for number in range(2, 8)]
    assert seen.page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(shop, opened, theme):
    seen = opened(redact=False, color_scheme=theme)
    for number in (1, 3, 4):
        seen.page.goto(f"{seen.url}#turn-{number}")
    found = seen.page.evaluate(CONTRAST)
    assert found["looked"] > 150
    assert found["poor"] == []
    seen.page.keyboard.press("?")
    assert seen.page.evaluate(CONTRAST)["poor"] == []


def test_light_and_dark_follow_the_reader_and_can_be_chosen(shop, opened):
    back = "getComputedStyle(document.body).backgroundColor"
    papers = {}
    for theme in ("light", "dark"):
        seen = opened(color_scheme=theme)
        papers[theme] = seen.page.evaluate(back)
        chosen = []
        for _ in range(3):
            seen.page.keyboard.press("t")
            name = seen.page.locator("#theme").inner_text().removeprefix("Theme: ")
            chosen.append((name, seen.page.evaluate(back)))
        assert [name for name, _ in chosen] == ["light", "dark", "system"]
        assert chosen[2][1] == papers[theme]
    assert papers["light"] == chosen[0][1] != chosen[1][1] == papers["dark"]


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2200])
def test_nothing_hangs_over_the_edge(shop, opened, width):
    seen = opened(redact=False, viewport={"width": width, "height": 800})
    open_turn(seen, 2)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.page.locator(".row").first.bounding_box()["width"] > 250


def test_without_a_script_the_table_is_there_and_no_dead_control(shop, opened):
    seen = opened(java_script_enabled=False)
    rows = seen.page.locator("table.plain tbody tr")
    assert rows.count() == 7  # six states, and the mark of the end
    text = seen.page.locator("table.plain").inner_text()
    for word in ("write app.py", "unprotected", "files", "durable", "ended"):
        assert word in text
    assert seen.page.locator("button:visible, input:visible").count() == 0
    assert seen.page.locator("h1").inner_text().startswith("fixer")
    assert seen.page.locator(".lanes svg").count() == 6
    seen.page.locator(".losses a", has_text="turn 4").click()
    assert seen.page.locator("tr:target").inner_text().startswith("4")


def test_paper_shows_what_is_open_and_no_controls(seen):
    open_turn(seen, 2)
    seen.page.emulate_media(media="print", color_scheme="dark")
    assert seen.page.locator("#turn-2").is_visible()
    assert not seen.page.locator("#filter").is_visible()
    assert not seen.page.locator("#tools").is_visible()
    assert seen.page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"


def test_colour_is_never_the_only_sign(seen):
    cells = seen.page.locator(".row").nth(1).locator(".c-verdict, .c-check").all_inner_texts()
    assert [" ".join(cell.split()) for cell in cells] == ["F files", "● durable"]
    row = seen.page.locator(".row").nth(4)
    assert "✗" in row.locator(".c-check").inner_text()
    assert "✗ failed" in seen.page.locator(".row").nth(3).inner_text()
    labels = seen.page.locator(".lanes svg").evaluate_all(
        "all => all.map(one => one.getAttribute('aria-label'))"
    )
    assert labels[0].startswith("What turns did. 1 nothing, 3 files, 1 unknown, 1 without")
    assert re.match(r"Waiting for the model\. .* ms\. most .* ms, turn \d", labels[1])


def test_a_command_is_copied(shop, opened):
    seen = opened(permissions=["clipboard-read", "clipboard-write"])
    open_turn(seen, 2).locator("button", has_text="--dry-run").click()
    seen.page.locator(".copied").wait_for()
    text = seen.page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"crab restore fixer-\w+@2 --dry-run", text)
