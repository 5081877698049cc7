"""What a restore did, for people and programs: the same for restore, undo and fork."""

from __future__ import annotations

from typing import Any

from crabrt.cli.exits import Exit
from crabrt.cli.safe_text import path_fields, safe_path, safe_text
from crabrt.cli.screen import Screen
from crabrt.operations.effects import OutsideEffect
from crabrt.operations.restoring import Restored
from crabrt.operations.targets import State
from crabrt.workspace import Change
from crabrt.workspace.restoring import RestoreReport

_SHOWN = 30

KILLED_RESTORE = "A restore here was killed; the next restore, undo or run finishes it."
"""What a command says that looks only."""


def restored_json(done: Restored, what: str | None, undo: str | None) -> dict[str, Any]:
    """A restore for programs; `what` was restored, `undo` is how to take it back."""
    report = done.report
    return {
        "restored": what,
        **path_fields(done.directory, "directory"),
        "dry_run": report.dry_run,
        "created": report.created,
        "replaced": report.replaced,
        "deleted": report.deleted,
        "unchanged": report.unchanged,
        "processes": 0,
        "undo": undo,
        "verified": report.verified,
        "changes": [
            {**path_fields(change.path), "how": list(change.how)} for change in report.changes
        ],
        "conflicts": [path_fields(path) for path in report.conflicts],
        "not_restored": [{**path_fields(path), "why": why} for path, why in report.not_restored],
        "held_open": [path_fields(path) for path in report.held_open],
        "own_code": [path_fields(path) for path in report.own_code],
        "links_broken": [path_fields(path) for path in report.links_broken],
        "finished_killed_restore": done.finished is not None,
        "external_effects_since": [_effect_json(effect) for effect in done.effects],
    }


def show_restored(out: Screen, done: Restored, what: str, *, force: bool = False) -> None:
    """A restore for people: what changed, and everything that did not work or cannot."""
    report = done.report
    if done.finished is not None:
        out.line("A restore that was killed has been finished first.")
    if report.dry_run:
        _show_plan(out, report)
    refused = report.dry_run and not force
    verb = "Would restore" if report.dry_run else "Restored"
    counts = [
        f"{number} {word}"
        for number, word in (
            (report.created, "created"),
            (report.replaced, "replaced"),
            (report.deleted, "deleted"),
        )
        if number
    ]
    changed = ", ".join(counts) or ("metadata only" if report.changes else "nothing to change")
    out.line(f"{verb} {what} in {safe_path(done.directory)}: {changed}, "
             f"{report.unchanged} unchanged.")  # fmt: skip
    title = "overwritten though changed by somebody else"
    if refused:
        title = "Refused without --force, as somebody else changed these"
    _show_paths(out, title, report.conflicts)
    _show_paths(
        out, "held open by other processes, which go on with the old file", report.held_open
    )
    _show_paths(out, "part of the program that is running", report.own_code)
    _show_paths(out, "no longer linked with a file outside the restored paths", report.links_broken)
    if report.not_restored:
        out.line(out.style("not restored:", "red"))
        for path, why in report.not_restored[:_SHOWN]:
            out.line(f"  {safe_path(path)}: {safe_text(why)}")
        show_more(out, len(report.not_restored))
    if done.effects:
        out.line(out.style("What happened outside since then is not undone:", "yellow"))
        for effect in done.effects[:_SHOWN]:
            state = {True: "done", False: "failed", None: "in doubt"}[effect.ok]
            out.line(f"  {effect.run}@{effect.turn}: {safe_text(effect.tool)} ({state})")
        show_more(out, len(done.effects))


def restored_exit(report: RestoreReport, *, force: bool = False) -> Exit:
    """0, or 3 when something is not as it was, or somebody goes on with an old file."""
    if report.dry_run:
        return Exit.REFUSED if report.conflicts and not force else Exit.DONE
    return Exit.DONE if report.complete else Exit.INCOMPLETE


def change_sign(change: Change) -> str:
    """What a restore does to a path: ``+`` brings it back, ``-`` takes it away, ``~`` else."""
    return "+" if change.before is None else "-" if change.after is None else "~"


def skipped_text(state: State) -> str | None:
    """Which turns were passed over where `state` was counted from the end; None if none were."""
    if not state.skipped:
        return None
    turns = ", ".join(str(turn) for turn in state.skipped[-_SHOWN:])
    some = "turns" if len(state.skipped) > 1 else "turn"
    return f"That is turn {state.turn}: {some} {turns} cannot be restored and did not count."


def show_more(out: Screen, total: int, shown: int = _SHOWN) -> None:
    """That a list is longer than what is shown of it."""
    if total > shown:
        out.line(f"  ... and {total - shown} more (--json lists all)")


def _effect_json(effect: OutsideEffect) -> dict[str, Any]:
    return {"run": effect.run, "turn": effect.turn, "tool": effect.tool, "ok": effect.ok}


def _show_plan(out: Screen, report: RestoreReport) -> None:
    for change in report.changes[:_SHOWN]:
        out.line(f"  {change_sign(change)} {safe_path(change.path)}  {', '.join(change.how)}")
    show_more(out, len(report.changes))


def _show_paths(out: Screen, title: str, paths: tuple[bytes, ...]) -> None:
    if paths:
        out.line(out.style(f"{title}:", "yellow"))
        out.lines(f"  {safe_path(path)}" for path in paths[:_SHOWN])
        show_more(out, len(paths))
