"""Builds runs with the store, the tracker and the journal alone: no agent, no runtime."""

import sys

import msgspec

from crabrt.core.content import build
from crabrt.core.entries import (
    CallId,
    Checkpoint,
    Ended,
    Exposed,
    External,
    Intent,
    Lineage,
    Observed,
    Payload,
    Request,
    Response,
    Result,
    Started,
    TurnOpened,
)
from crabrt.core.ids import RunId, new_run_id, object_id
from crabrt.core.verdicts import Effect, Prior, Protection, Verdict
from crabrt.journal import Journal, Lease, run_dir
from crabrt.process.state import put_state
from crabrt.store import Store
from crabrt.workspace import Tracker, Workspace

encode = msgspec.msgpack.encode


class RunBuilder:
    """One run on a workspace; every turn is durable when its method returns."""

    def __init__(
        self,
        home,
        workspace,
        name="fixer",
        *,
        argv=(),
        cwd=b"",
        family=None,
        parent=None,
        exclude=(),
    ):
        self.run = new_run_id(name)
        self.home, self.path = home, workspace
        self.store = Store.open(home, create=True)
        self.writer = self.store.writer()
        self.workspace = Workspace.open(workspace, home, exclude=exclude)
        self.tracker = Tracker(self.workspace, huge_files=10**6, huge_bytes=1 << 40)
        self.directory = run_dir(home, RunId(self.run))
        self.lease = Lease.acquire(self.directory)
        self.journal = Journal.open(self.directory, self.lease, create=True)
        self.messages = []
        self.turns = 0
        self.root = None
        started = Started(
            run=self.run,
            name=name,
            workspace_path=self.workspace.path,
            workspace_id=self.workspace.id,
            lineage=Lineage(family or self.run, parent),
            argv=argv,
            cwd=cwd or self.workspace.path,
            agent=name,
        )
        self.journal.append(started, turn=0)
        self.checkpoint(0)

    def say(self, role, content):
        """One message of the conversation."""
        self.messages.append({"role": role, "content": content})

    def turn(
        self,
        change=None,
        *,
        tool="sh",
        argument="make",
        result="ok",
        prior=Prior.AUTO,
        guess=None,
        evidence=(),
        alive=None,
    ):
        """A model call and a tool call that does `change`; the number of the turn.

        With `evidence`, the verdict says that it acted outside; with `alive` (a `ProcessState`),
        that was alive after it.
        """
        self.turns += 1
        number = self.turns
        self.journal.append(TurnOpened(number, number - 1), turn=number)
        self.say("user", f"turn {number}?")
        asked = CallId("0", "think", number - 1)
        ids = [self.writer.put(encode(message)) for message in self.messages]
        listed = build(len(ids), ids, self.writer.put)
        request = Request(asked, object_id(b"q"), Payload(encode([[], {}])), listed, "scripted")
        self.journal.append(request, turn=number)
        reply = {"role": "assistant", "content": f"reply {number}"}
        sealed = Response(asked, 12.5, Payload(encode(reply)), tokens_in=100, tokens_out=7)
        self.journal.append(sealed, turn=number)
        self.messages.append(reply)
        call = CallId("0", tool, number - 1)
        external = External(target="bank") if prior is Prior.EXTERNAL else None
        arguments = Payload(encode([[argument], {}]))
        intent = Intent(call, object_id(b"a"), arguments, prior, external, guess)
        self.journal.append(intent, turn=number)
        if change is not None:
            change()
        self.journal.append(Result(call, 3.0, Payload(encode(result))), turn=number)
        self.checkpoint(number, evidence, alive)
        return number

    def checkpoint(self, number, outside=(), alive=None):
        """Scan, capture, commit, as the engine does; `outside` is what was seen of the world."""
        processes = b"" if alive is None else put_state(alive, {}, self.writer)
        before = self.writer.bytes_stored
        snapshot = self.tracker.capture(self.tracker.scan(), self.writer)
        self.writer.sync()
        self.tracker.save()
        same = snapshot.root == self.root
        effects = () if same or number == 0 else (Effect.FILES,)
        added = sum(change.before is None for change in snapshot.changes)
        if outside:
            effects = (*effects, Effect.EXTERNAL)
        verdict = Verdict(effects, ("as staged", *outside), files_added=added)
        if number:
            self.journal.append(Observed(number, verdict), turn=number)
        self.journal.append(
            Checkpoint(
                turn=number,
                inner=0,
                root=snapshot.root,
                position=self.journal.seq,
                protection=Protection.INHERITED if same else Protection.DURABLE,
                bytes_stored=self.writer.bytes_stored - before,
                processes=processes,
            ),
            turn=number,
        )
        self.journal.sync()
        self.root = snapshot.root

    def unprotected_turn(self, reason):
        """A turn that never got a checkpoint."""
        self.turns += 1
        self.journal.append(TurnOpened(self.turns, self.turns - 1), turn=self.turns)
        self.journal.append(Exposed(self.turns, reason), turn=self.turns)
        self.journal.sync()
        return self.turns

    def end(self, status="done"):
        """The agent returned (or raised); the run is closed."""
        self.journal.append(Ended(status, 1.0, Payload(encode("done"))), turn=self.turns)
        self.close()

    def close(self):
        """As if the process were gone: nothing is said, everything is let go."""
        self.journal.sync()
        self.journal.close()
        self.lease.release()
        self.store.close()


def small_run(home, workspace, **options):
    """Three turns: a file appears; it changes; nothing. The run has no end."""
    workspace.mkdir(exist_ok=True)
    (workspace / "kept.txt").write_text("kept\n")
    options.setdefault("argv", (sys.executable, "-c", "print('resumed')"))
    run = RunBuilder(home, workspace, **options)
    run.turn(lambda: (workspace / "app.py").write_text("one\ntwo\nthree\n"))
    run.turn(lambda: (workspace / "app.py").write_text("one\n2\nthree\n"))
    run.turn(None, tool="look", argument="app.py")
    return run
