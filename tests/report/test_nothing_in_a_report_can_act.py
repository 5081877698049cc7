"""Whatever tools and models said, a browser shows it and does nothing else."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket

import pytest

from crabrt.report.embedding import json_bytes, policy, script_text, style_text
from crabrt.report.markup import Markup, tag

SCRIPTS = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(3)>",
    "<svg onload=alert(4)>",
    "\"><iframe src='javascript:alert(5)'></iframe>",
    "</style><style>body{display:none}",
    "</noscript><img src=http://127.0.0.1:9/leak>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css>",
    "&lt;b&gt; &amp; ' \" ` ${7*7} {{7*7}}",
    "\u2028alert(6)\u2029",
)
CONTROLS = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m\x00\x9b5n\u202etxt.exe\u2066"
WIDE = "مرحبا بالعالم שלום 日本語の全角 👩\u200d💻 e\u0301"


@pytest.fixture
def hostile(run, failing_turn):
    """Hostile text wherever a run can hold text."""
    bad = "\n".join([*SCRIPTS, CONTROLS, WIDE])
    for name in (b"<img src=x onerror=alert(9)>.txt", b"esc\x1b[31m.txt", b"\xff\xfe.bin",
                 "שלום.txt".encode(), b"</script><script>alert(8)<"):  # fmt: skip
        (run.path / os.fsdecode(name.replace(b"/", b"_"))).write_bytes(b"x\n")
    run.say("system", bad)
    run.turn(
        lambda: (run.path / "page.html").write_text(bad + "\n"),
        tool="<b onclick=alert(7)>sh</b>",
        argument=bad,
        result=bad,
    )
    failing_turn(message=bad, tool="x" + SCRIPTS[0])
    run.unprotected_turn(bad)
    run.end()
    return run


@pytest.fixture
def listening():
    """A socket to which nobody may connect."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_hostile_text_is_shown_and_nothing_of_it_runs_or_loads(hostile, opened):
    seen = opened(redact=False)
    for number in (1, 2, 3):
        seen.page.goto(f"{seen.url}#turn-{number}")
        seen.page.locator(f"#turn-{number}").wait_for()
    text = seen.page.locator("body").inner_text()
    for script in SCRIPTS[:-1]:
        assert script in text
    assert "\\u2028alert(6)\\u2029" in text
    assert "\\x1b]0;owned\\x07\\x1b[2J\\x1b[31mred\\x1b[0m\\x00\\x9b5n\\u202etxt.exe\\u2066" in text
    assert WIDE in text
    elements = seen.page.locator("img, iframe, object, embed, link[rel=stylesheet], base")
    assert elements.count() == 0
    assert seen.page.locator("body [onclick], body [onload], body [onerror]").count() == 0
    seen.assert_quiet()


def test_the_same_holds_without_javascript(hostile, opened):
    seen = opened(redact=False, java_script_enabled=False)
    text = seen.page.locator("body").inner_text()
    assert "<b onclick=alert(7)>sh</b>" in text
    assert "<script>alert(1)</script>" in text
    assert seen.page.locator("img, iframe, object, [onclick]").count() == 0
    seen.assert_quiet()


def test_no_byte_of_a_run_stands_outside_of_text(hostile, report, read):
    content = report(redact=False)
    assert b"\x1b" not in content
    assert b"\0" not in content
    assert "\u202e".encode() not in content
    assert "\u2028".encode() not in content
    page = read(content)
    scripts = [(a, t) for a, t in page.of("script") if a.get("type") != "application/json"]
    assert [text for _, text in scripts] == [script_text()]
    assert len(page.of("style")) == 1
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    named = {a.get("src") or a.get("href", "") for _, a in page.elements}
    assert {
        one for one in named if one and not one.startswith(("#", "data:image/svg+xml,"))
    } == set()
    assert page.turns[1]["calls"][1]["out"].count("alert") >= 6


def test_the_policy_names_the_one_script_and_the_one_style_and_forbids_the_rest(shop, report, read):
    page = read(report())
    (said,) = [a["content"] for a, _ in page.of("meta") if "http-equiv" in a]
    rules = dict(rule.split(" ", 1) for rule in said.split("; "))
    ((_, script),) = [(a, t) for a, t in page.of("script") if "type" not in a]
    ((_, style),) = page.of("style")
    for text, rule in ((script, "script-src"), (style, "style-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in said
    tags = [name for name, _ in page.elements]
    assert tags.index("meta") < tags.index("style") < tags.index("script")
    order = [a for a, _ in page.of("meta")]
    assert "http-equiv" in order[1]  # behind the charset, before anything that it is about


def test_what_gets_into_the_page_after_all_is_stopped_by_the_policy(
    shop, opened, report, listening
):
    port = b"%d" % listening.getsockname()[1]
    trap = (
        b"<body><script>document.title='ran'</script><img src=http://127.0.0.1:" + port + b"/x>"
        b"<p onclick=\"document.title='ran'\" style='color:red' id=trap>trap</p>"
    )
    broken = report().replace(b"<body>", trap, 1)
    seen = opened(broken)
    seen.page.locator("#trap").click()
    assert seen.page.title() == "fixer · crab report"
    assert seen.page.locator("#trap").evaluate("e => getComputedStyle(e).color") != "rgb(255, 0, 0)"
    assert len([one for one in seen.errors if "Content Security Policy" in one]) >= 3
    markup = seen.page.evaluate(
        "() => { try { document.body.innerHTML = '<i>x</i>'; return 'made' }"
        " catch (error) { return error.name } }"
    )
    assert markup == "TypeError"
    with pytest.raises(BlockingIOError):
        listening.accept()


def test_the_script_makes_no_markup_and_runs_no_text():
    script = script_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                 "Function(", "fetch(", "XMLHttpRequest", "WebSocket", "import(", "localStorage",
                 'setTimeout("', "http:", "https:"):  # fmt: skip
        assert word not in script.replace('"http://www.w3.org/2000/svg"', ""), word
    assert "</" not in script
    assert "url(" not in style_text()
    assert "@import" not in style_text()
    assert policy("a", "b") != policy("a", "c")


def test_text_becomes_markup_nowhere():
    bad = "</p><script>alert(1)</script>\"' &"
    made = tag("p", bad, title=bad, data_x=bad)
    assert made.count("<") == 2
    assert made.count('"') == 4
    assert isinstance(made, Markup)
    assert re.search(r"[<>&]", json_bytes({bad: bad}).decode()) is None
    assert json_bytes("\u2028\u2029") == b'"\\u2028\\u2029"'
