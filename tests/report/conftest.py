"""What the report's tests share: runs made by hand, the page as it is parsed, a real browser."""

from __future__ import annotations

import functools
import html.parser
import importlib.util
import json
import shutil
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import sync_playwright

from crabrt.core.entries import (
    CallId,
    Checkpoint,
    Failure,
    Gated,
    Intent,
    Noted,
    Observed,
    Payload,
    Request,
    Response,
    Result,
    TurnOpened,
)
from crabrt.core.ids import object_id
from crabrt.core.verdicts import Effect, Protection, Verdict
from crabrt.report import ReportOptions, make_report
from crabrt.store import Store

encode = msgspec.msgpack.encode


@pytest.fixture(scope="session")
def builder():
    path = Path(__file__).parents[1] / "operations" / "builder.py"
    spec = importlib.util.spec_from_file_location("crab_test_builder", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(builder, tmp_path):
    """A run with nothing but a baseline; still open."""

    class Run(builder.RunBuilder):
        closed = False

        def close(self):
            if not self.closed:
                self.closed = True
                super().close()

    workspace = tmp_path / "secret-client" / "shop"
    workspace.mkdir(parents=True)
    made = Run(tmp_path / "store", workspace)
    yield made
    made.close()


@pytest.fixture
def shop(run):
    """A file appears and changes; a call fails; a turn has no protection; files go."""
    app = run.path / "app.py"
    run.turn(lambda: app.write_text("one = 1\ntwo = 2\nthree = 3\n"), argument="write app.py")
    run.turn(lambda: app.write_text("one = 1\ntwo = 22\nthree = 3\n"), argument="change app.py")
    fail_a_turn(run)
    run.unprotected_turn("the disk was full")
    run.turn(app.unlink, argument="rm app.py", result="removed\n" * 3)
    run.end()
    return run


def fail_a_turn(run, message="no such file", tool="look"):
    """A turn whose tool raises."""
    run.turns += 1
    number = run.turns
    run.journal.append(TurnOpened(number, number - 1), turn=number)
    call = CallId("0", tool, 1000 + number)
    arguments = Payload(encode([["app.txt"], {}]))
    run.journal.append(Intent(call, object_id(b"a"), arguments), turn=number)
    failure = Failure("builtins.OSError", message, Payload(encode([])))
    run.journal.append(Result(call, 1.0, Payload(), failure), turn=number)
    run.checkpoint(number)
    return number


def go_on(run, turns):
    """Many turns, each a request, a reply, a call, a verdict and a checkpoint."""
    say = run.journal.append
    for number in range(run.turns + 1, run.turns + turns + 1):
        say(TurnOpened(number, number - 1), turn=number)
        asked, called = CallId("0", "think", number), CallId("0", "sh", number)
        request = Payload(encode([[f"turn {number}: what next?"], {}]))
        say(Request(asked, object_id(b"q"), request, None, "scripted"), turn=number)
        reply = Payload(encode(f"make target-{number}"))
        say(Response(asked, 900.0 + number % 700, reply, tokens_in=900, tokens_out=40), turn=number)
        arguments = Payload(encode([[f"make -j2 target-{number} && ./check --all {number}"], {}]))
        say(Intent(called, object_id(b"a"), arguments), turn=number)
        output = Payload(encode(f"built target-{number}\n" + "ok\n" * (number % 40)))
        say(Result(called, 30.0 + number % 200, output), turn=number)
        verdict = Verdict((Effect.FILES,), (f"files: target-{number} new",), files_added=1)
        say(Observed(number, verdict if number % 3 else Verdict()), turn=number)
        kind = Protection.DURABLE if number % 3 else Protection.INHERITED
        say(Checkpoint(number, 0, run.root, run.journal.seq, kind, bytes_stored=1500), turn=number)
        say(Gated(number, 0.2), turn=number)
        if number % 500 == 0:
            say(Noted("clock", "it stepped"), turn=number)
    run.turns += turns
    run.journal.sync()


@pytest.fixture
def failing_turn(run):
    """Add a turn whose tool raises: ``failing_turn(message=..., tool=...)``."""
    return functools.partial(fail_a_turn, run)


@pytest.fixture
def long_run(run):
    """Make the run longer by many turns: ``long_run(10_000)``."""
    return functools.partial(go_on, run)


@pytest.fixture
def report(run):
    """The bytes of the report of the run."""

    def make(**options):
        with Store.open(run.home) as store:
            made = make_report(store, run.run, ReportOptions(**options))
            return b"".join(made.pieces)

    return make


class Page(html.parser.HTMLParser):
    """A page as a parser sees it: elements with their attributes, the text of data elements."""

    def __init__(self, content):
        super().__init__()
        self.elements = []
        self.texts = {}
        self._open = None
        self.feed(content.decode())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style", "title"):
            self._open = len(self.elements) - 1
            self.texts[self._open] = ""

    def handle_data(self, data):
        if self._open is not None:
            self.texts[self._open] += data

    def handle_endtag(self, tag):
        if tag in ("script", "style", "title"):
            self._open = None

    def of(self, tag):
        """(attributes, text) of each element of that name."""
        return [(a, self.texts.get(at, "")) for at, (t, a) in enumerate(self.elements) if t == tag]

    @property
    def data(self):
        """The rows and what goes with them."""
        return next(json.loads(t) for a, t in self.of("script") if a.get("id") == "rows")

    @property
    def turns(self):
        """Turns in full, by number."""
        blocks = [json.loads(t) for a, t in self.of("script") if a.get("class") == "turns"]
        return {turn["n"]: turn for block in blocks for turn in block}


@pytest.fixture
def read():
    return Page


@pytest.fixture(scope="module")
def chromium():
    """A real Chromium without a window; for a module, as its event loop would be in others' way."""
    program = shutil.which("chromium")
    assert program is not None, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


class Opened:
    """A report in a browser, and all that it must not do, as far as it did it."""

    def __init__(self, browser, path, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.dialogs, self.errors, self.requests = [], [], []
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(f"{said.type}: {said.text}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = path.as_uri()
        self.page.goto(self.url)

    def assert_quiet(self):
        """Nothing was asked for but the file, nothing was said, nothing went wrong."""
        assert self.dialogs == []
        assert self.errors == []
        assert {url for url in self.requests if not url.startswith("data:")} == {self.url}


@pytest.fixture
def opened(chromium, tmp_path, report):
    """Open a report of the run: ``opened(redact=False, color_scheme="dark")``."""
    made = []

    def open_(content=None, *, address="", redact=True, **options):
        path = tmp_path / f"report-{len(made)}.html"
        path.write_bytes(report(redact=redact) if content is None else content)
        made.append(Opened(chromium, path, **options))
        if address:
            made[-1].page.goto(made[-1].url + address)
        return made[-1]

    yield open_
    for one in made:
        one.context.close()
