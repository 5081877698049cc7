"""Runs with real files and a scripted clock: what a loop would have left, the same every time."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import msgspec

from crabrt.core.clock import Moment
from crabrt.core.content import build
from crabrt.core.entries import (
    CallId,
    Checkpoint,
    Ended,
    Exposed,
    External,
    Failure,
    Gated,
    Intent,
    Labelled,
    Lineage,
    Observed,
    Payload,
    Request,
    Response,
    Result,
    Started,
    TurnOpened,
)
from crabrt.core.ids import RunId
from crabrt.core.verdicts import Effect, Prior, Protection, Verdict
from crabrt.journal import Journal, Lease, run_dir
from crabrt.store import Store
from crabrt.workspace import Tracker, Workspace

encode = msgspec.msgpack.encode
BEGINNING_NS = 1_767_348_000_000_000_000  # 2026-01-02 10:00 UTC
_TIMES_NS = 1_767_348_000_000_000_000


class Scripted:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now_ns = BEGINNING_NS

    def pass_ms(self, ms):
        self.now_ns += int(ms * 1e6)

    def now(self):
        self.now_ns += 1000
        return Moment(self.now_ns, self.now_ns)


class Staged:
    """A run on a workspace, turn by turn."""

    def __init__(self, home, workspace, run="fixer-1", *, parent=None, workspace_path=None):
        workspace.mkdir(exist_ok=True)
        self.home, self.path, self.run = home, workspace, run
        self.clock = Scripted()
        self.store = Store.open(home, create=True)
        self.writer = self.store.writer()
        self.workspace = Workspace.open(workspace, home)
        self.tracker = Tracker(self.workspace, huge_files=10**6, huge_bytes=1 << 40)
        self.directory = run_dir(home, RunId(run))
        self.lease = Lease.acquire(self.directory)
        self.journal = Journal.open(self.directory, self.lease, create=True, clock=self.clock)
        self.messages, self.turns, self.root = [], 0, None
        self.say(
            Started(
                run, "fixer", workspace_path or self.workspace.path, self.workspace.id,
                Lineage(parent or run, parent), argv=("agent.py",), cwd=self.workspace.path,
            ),
            0,
        )  # fmt: skip
        self.checkpoint(0)

    def say(self, body, turn=None):
        return self.journal.append(body, turn=self.turns if turn is None else turn)

    def write(self, path, text):
        """A file with times that do not differ from run to run."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        for one in (file, file.parent):
            os.utime(one, ns=(_TIMES_NS, _TIMES_NS))
        file.chmod(0o644)

    def begin(self, asked="go on"):
        """A turn opens and asks a model."""
        self.turns += 1
        self.say(TurnOpened(self.turns, self.turns - 1))
        self.messages.append({"role": "user", "content": asked})
        call = CallId("0", "think", self.turns)
        ids = [self.writer.put(encode(message)) for message in self.messages]
        listed = build(len(ids), ids, self.writer.put)
        self.say(Request(call, b"d", Payload(encode([[], {}])), listed, "claude-x"))
        return call

    def answer(self, call, reply="Let me look.", wait_ms=2_000.0):
        self.clock.pass_ms(wait_ms)
        message = {"role": "assistant", "content": reply}
        self.say(Response(call, wait_ms, Payload(encode(message)), tokens_in=1_200, tokens_out=80,
                          cost_usd=0.012))  # fmt: skip
        self.messages.append(message)

    def act(self, tool, arguments, prior=Prior.AUTO, at=0):
        call = CallId("0", tool, self.turns * 10 + at)
        external = External(target="tracker") if prior is Prior.EXTERNAL else None
        self.say(Intent(call, b"d", Payload(encode([[], arguments])), prior, external))
        return call

    def done(self, call, result="ok", took_ms=300.0, failure=None):
        self.clock.pass_ms(took_ms)
        content = None if isinstance(result, str) and len(result) < 4096 else result
        payload = Payload(encode(result)) if content is None else self.large(result)
        self.say(Result(call, took_ms, payload, failure))

    def large(self, text):
        """A value in the store rather than in the journal."""
        from crabrt.store.contents import put_bytes  # noqa: PLC0415 - only some tests need it

        return Payload(content=put_bytes(encode(text), self.writer))

    def turn(self, change=None, *, tool="sh", arguments=None, result="ok", wait_ms=2_000.0,
             took_ms=300.0, prior=Prior.AUTO, failure=None, evidence=("as staged",)):  # fmt: skip
        """All of a turn; `change` is done to the workspace."""
        self.answer(self.begin(f"turn {self.turns + 1}?"), f"reply {self.turns}", wait_ms)
        call = self.act(tool, {"command": "make"} if arguments is None else arguments, prior)
        if change is not None:
            change()
        self.done(call, result, took_ms, failure)
        self.checkpoint(self.turns, evidence, external=prior is Prior.EXTERNAL)
        return self.turns

    def checkpoint(self, number, evidence=(), *, external=False):
        """Scan, capture, commit, as the engine does."""
        snapshot = self.tracker.capture(self.tracker.scan(), self.writer)
        self.writer.sync()
        self.tracker.save()
        same = snapshot.root == self.root
        counts = [0, 0, 0]
        for change in snapshot.changes:
            if b"." in change.path:  # files, as the tests name them
                counts[0 if change.before is None else 2 if change.after is None else 1] += 1
        effects = (Effect.EXTERNAL,) * external + (Effect.FILES,) * (not same and bool(number))
        if number:
            self.say(Observed(number, Verdict(effects, tuple(evidence), *counts)))
        self.say(
            Checkpoint(
                turn=number, inner=0, root=snapshot.root, position=self.journal.seq,
                protection=Protection.INHERITED if same else Protection.DURABLE,
                bytes_stored=0 if same else 1_000 + 100 * number,
            ),
            number,
        )  # fmt: skip
        self.say(Gated(number, 4.0 if number == 2 else 0.01), number)
        self.journal.sync()
        self.root = snapshot.root

    def label(self, name, turn=None):
        self.say(Labelled(self.turns if turn is None else turn, name))

    def unprotected(self, reason):
        self.say(Exposed(self.turns, reason))
        self.journal.sync()

    def end(self, status="done"):
        self.say(Ended(status, 1.0, Payload(encode("done"))))
        self.close()

    def close(self):
        """As if the process were gone."""
        if self.journal is not None:
            self.journal.sync()
            self.journal.close()
            self.lease.release()
            self.store.close()
            self.journal = None


APP = 'import os\n\n\ndef size(value):\n    """Bytes, for people."""\n    return f"{value} B"\n'


def a_run(home: Path, workspace: Path, **options) -> Staged:
    """Eight turns: files of a few kinds, an effect, an exception, a label; still open."""
    run = Staged(home, workspace, **options)
    arguments, evidence = {"path": "src/app.py", "text": APP}, ("src/app.py added",)
    change = functools.partial(run.write, "src/app.py", APP)
    run.turn(change, tool="edit", arguments=arguments, evidence=evidence)
    run.turn(lambda: run.write("README.md", "# An app\n"), wait_ms=4_000.0)
    run.turn(None, result="3 passed\n", took_ms=2_500.0)
    run.turn(lambda: run.write("src/app.py", APP.replace(" B", " bytes")), tool="edit")
    run.label("good")
    run.turn(None, tool="post", arguments={"text": "done?"}, prior=Prior.EXTERNAL)
    failure = Failure("ValueError", "no such thing \x1b[31mred\x1b[0m", Payload())
    run.turn(None, tool="bad", arguments={"x": 1}, failure=failure)
    run.turn(lambda: (run.write("src/util.py", "X = 1\n"), run.write("notes.txt", "n\n")))
    run.turn(lambda: (run.path / "notes.txt").unlink(), result="gone\n", wait_ms=9_000.0)
    return run
