"""The steps that `latency` times in place: of crabrt, and of a peer."""

from __future__ import annotations

from crabrt.bench import floor, trees
from crabrt.bench.harness import Case, settle, timed
from crabrt.bench.peers import Git, Peer
from crabrt.bench.report import FLOOR, OURS, Times
from crabrt.bench.subject import Subject
from crabrt.core.ids import ObjectId
from crabrt.workspace import diff_roots


def first_checkpoint(subject: Subject) -> Case:
    """Of a workspace that the store has nothing of."""

    def work() -> Times:
        made = subject.checkpoint()
        captured = made.scan_ms + made.captured_ms
        return {
            "scan": made.scan_ms,
            "captured": captured,
            "baseline": captured + made.durable_ms,
        }

    return work


def checkpoint_times(subject: Subject) -> Times:
    """A checkpoint, by its parts."""
    made = subject.checkpoint()
    known = made.captured_ms + made.durable_ms
    return {
        "scan": made.scan_ms,
        "captured": made.captured_ms,
        "durable": made.durable_ms,
        "known dirty set": known,
        "with its scan": made.scan_ms + known,
    }


def first_backup(peer: Peer) -> Case:
    """A peer's, into its empty repository."""
    return lambda: {"snapshot": timed(peer.snapshot)[0]}


def next_backup(peer: Peer) -> Case:
    """A peer's, after a change; for git also its look."""

    def work() -> Times:
        peer.make_ready()
        times = {}
        if isinstance(peer, Git):
            times["status"] = timed(peer.status)[0]
        return {**times, "snapshot": timed(peer.snapshot)[0]}

    return work


def edited(edit: trees.Edit, work: Case) -> Case:
    """The case, on files that were just edited and written back."""

    def prepared() -> Times:
        edit.apply()
        settle(edit.path)
        return work()

    return prepared


def restore_cases(subject: Subject, git: Git | None, edit: trees.Edit) -> dict[str, Case]:
    """Taking `edit` back, by everybody who can. It is made here, and both states are kept."""
    before, git_before = _kept(subject, git)
    edit.apply()
    after, git_after = _kept(subject, git)

    def ours() -> Times:
        diff_ms, _ = timed(lambda: list(diff_roots(subject.writer, before, after)))
        plan_ms, apply_ms, _ = subject.restore(before)
        return {
            "diff": diff_ms,
            "restore": plan_ms + apply_ms,
            "restore: scan and plan": plan_ms,
            "restore after its plan": apply_ms,
        }

    def plain() -> Times:
        return {"replace": floor.replace_ms(edit.path, edit.before)}

    cases: dict[str, Case] = {OURS: edited(edit, ours), FLOOR: edited(edit, plain)}
    if git is not None:
        cases[git.name] = edited(
            edit,
            lambda: {
                "diff": timed(lambda: git.diff(git_before, git_after))[0],
                "restore": timed(lambda: git.checkout(git_before))[0],
            },
        )
    return cases


def _kept(subject: Subject, git: Git | None) -> tuple[ObjectId, str]:
    """The workspace as it is, by crabrt and by git."""
    subject.checkpoint()
    return subject.root, git.write_tree() if git else ""
