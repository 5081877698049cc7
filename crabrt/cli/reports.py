"""What a restore did, for people and programs: the same for restore, undo and fork."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
import msgspec

from crabrt.cli.alive_lines import command_json
from crabrt.cli.exits import Exit
from crabrt.cli.screen import Screen
from crabrt.cli.starting_again import command_line, show_startable
from crabrt.core.processes import LastingProcess
from crabrt.inspector.lasting import shown
from crabrt.journal.outside import DECLARED
from crabrt.operations.effects import OutsideEffect
from crabrt.operations.restoring import Restored
from crabrt.operations.targets import State
from crabrt.process.revivals import Missing, Revival
from crabrt.timeline.safe_text import path_fields, safe_path, safe_text
from crabrt.workspace import Change
from crabrt.workspace.restoring import RestoreReport

_SHOWN = 30

dry_run_option: Callable[[Any], Any] = click.option(
    "--dry-run", is_flag=True, help="Say what would change; touch nothing."
)
every_option: Callable[[Any], Any] = click.option(
    "--all", "every", is_flag=True, help="Cut no list, however long."
)
expect_option: Callable[[Any], Any] = click.option(
    "--expect",
    metavar="ID",
    help="Do what --dry-run listed under this ID, or nothing (exit 5).",
)


def restored_json(done: Restored, what: str | None, undo: str | None) -> dict[str, Any]:
    """A restore for programs; `what` was restored, `undo` is the command that takes it back."""
    report = done.report
    return {
        "restored": what,
        **path_fields(done.directory, "directory"),
        "dry_run": report.dry_run,
        "preview": report.preview if report.dry_run and report.preview else None,
        "created": report.created,
        "replaced": report.replaced,
        "deleted": report.deleted,
        "unchanged": report.unchanged,
        "processes": len(done.processes.revived) + len(done.processes.started),
        "processes_started": [
            {
                **_process_json(one.was),
                "pid": one.pid,
                "pid_before": one.was.pid,
                "listens": list(one.listens),
                "not_listening": list(one.silent),
                "lost": list(one.lost),
            }
            for one in done.processes.started
        ],
        "processes_severed": [
            {
                **_process_json(one.top),
                "connections_closed": list(one.closed),
                "lost": list(one.lost),
            }
            for one in done.processes.severed
        ],
        "processes_notes": list(done.processes.notes),
        "shells_rebuilt_on_resume": [_process_json(one) for one in done.processes.rebuilt],
        "processes_ended": [_process_json(one) for one in done.processes.ended],
        "processes_not_restored": [
            {
                **_process_json(one.top),
                "why": one.why,
                "can_be_started": [
                    {**_process_json(other), **path_fields(other.directory, "directory")}
                    for other in one.startable
                ],
            }
            for one in (*done.processes.missing, *done.processes.lost)
        ],
        "finished_processes_not_restored": [
            {**_process_json(one.top), "why": one.why} for one in _unfinished(done)
        ],
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
        "finished_killed_restore": _has_finished(done) or report.finishes,
        "external_effects_since": [_effect_json(effect) for effect in done.effects],
    }


def show_restored(
    out: Screen,
    done: Restored,
    what: str,
    *,
    again: str = "",
    undo: str = "crab undo",
    force: bool = False,
    every: bool = False,
) -> None:
    """A restore for people: what changed, and everything that did not work or cannot.

    What would be done to each path comes last: it may be long, and the rest has to be seen.

    Args:
        out: where to.
        done: the restore.
        what: was restored.
        again: says which command starts processes again that have no image.
        undo: the command that takes it back.
        force: it overwrites what somebody else changed.
        every: lists are not cut.
    """
    report = done.report
    lists = _Lists(out, sys.maxsize if every else _SHOWN)
    if _has_finished(done):
        out.line("A restore that was killed has been finished first.")
        lists.gone("processes of that one that are not back", _unfinished(done))
        notes = () if done.finished_processes is None else done.finished_processes.notes
        out.lines(f"  {safe_text(note)}" for note in notes)
    if report.finishes:
        out.line("A restore that was killed will be finished first; this is what comes then.")
    refused = report.dry_run and not force
    verb = "Would restore" if report.dry_run else "Restored"
    out.line(f"{verb} {what} in {safe_path(done.directory)}: {_changed(report)}, "
             f"{report.unchanged} unchanged.")  # fmt: skip
    if report.dry_run and report.preview:
        out.line(f"To do this and nothing else: --expect {report.preview}")
    if report.verified and report.changes:
        out.line("What was written was read back, and is right.")
    title = "overwritten though changed by somebody else"
    if refused:
        title = "Refused without --force, as somebody else changed these"
    lists.paths(title, report.conflicts)
    if report.conflicts and done.processes.ended:
        out.line("  (a process of the run that was alive, see below, may have changed them)")
    lists.paths("held open by other processes, which go on with the old file", report.held_open)
    lists.paths("part of the program that is running", report.own_code)
    lists.paths("no longer linked with a file outside the restored paths", report.links_broken)
    if report.not_restored:
        out.line(out.style("not restored:", "red"))
        lists.show(f"  {safe_path(path)}: {safe_text(why)}" for path, why in report.not_restored)
    _show_processes(lists, done.processes, again, undo, dry_run=report.dry_run)
    if done.effects:
        out.line(out.style("What happened outside since then is not undone:", "yellow"))
        lists.show(_effect_line(effect) for effect in done.effects)
    if report.dry_run and report.changes:
        out.line("What would change:")
        lists.show(
            f"  {change_sign(change)} {safe_path(change.path)}  {', '.join(change.how)}"
            for change in report.changes
        )


def _has_finished(done: Restored) -> bool:
    return done.finished is not None or done.finished_processes is not None


def _unfinished(done: Restored) -> tuple[Missing, ...]:
    """Who did not come back of a killed restore that was finished first."""
    return () if done.finished_processes is None else done.finished_processes.missing


def _changed(report: RestoreReport) -> str:
    counts = [
        f"{number} {word}"
        for number, word in (
            (report.created, "created"),
            (report.replaced, "replaced"),
            (report.deleted, "deleted"),
        )
        if number
    ]
    return ", ".join(counts) or ("metadata only" if report.changes else "nothing to change")


class _Lists:
    """Lists for people, of at most so many lines each."""

    def __init__(self, out: Screen, most: int) -> None:
        self.out = out
        self.most = most

    def show(self, lines: Iterable[str]) -> None:
        """Lines, as many as may be; then how many more there are."""
        rest = iter(lines)
        self.out.lines(itertools.islice(rest, self.most))
        if more := sum(1 for _ in rest):
            self.out.line(f"  ... and {more} more (--all lists all)")

    def paths(self, title: str, paths: Sequence[bytes]) -> None:
        """Paths under a title, if there are any."""
        if paths:
            self.out.line(self.out.style(f"{title}:", "yellow"))
            self.show(f"  {safe_path(path)}" for path in paths)

    def gone(self, title: str, trees: Sequence[Missing]) -> None:
        """Processes under a title, if there are any, and why."""
        if trees:
            self.out.line(self.out.style(f"{title}:", "red"))
            self.show(f"  {safe_text(shown(one.top))}: {safe_text(one.why)}" for one in trees)


def _show_processes(
    lists: _Lists, processes: Revival, again: str, undo: str, *, dry_run: bool
) -> None:
    out = lists.out
    would = "would be " if dry_run else ""
    for verb, tops in (("ended", processes.ended), ("brought back", processes.revived)):
        lists.show(f"{would}{verb}: {safe_text(shown(top))}" for top in tops)
    if processes.severed:
        out.line(out.style("what led out of these is cut off:", "yellow"))
        cut = ((one.top, line) for one in processes.severed for line in one.told)
        lists.show(f"  {safe_text(shown(top))}: {safe_text(line)}" for top, line in cut)
    out.lines(f"  {safe_text(note)}" for note in processes.notes)
    _show_started(out, processes)
    missing = processes.missing
    if dry_run and processes.may_start:
        for one in missing:
            out.lines(f"would be started again: {command_line(each)}" for each in one.startable)
        missing = tuple(one for one in missing if not one.startable)
    lost = [one for one in processes.lost if not (processes.may_start and one.startable)]
    are_not = "would not come back, as things stand" if dry_run else "are not back"
    lists.gone(f"processes that {are_not}", missing)
    if processes.may_start:
        again = "Once that is put right, the same command starts these again"
    startable = (each for one in missing for each in one.startable)
    show_startable(out, startable, again, most=lists.most)
    lists.gone(f"processes that were ended, and of which `{undo}` has no image", lost)
    if any(one.startable for one in lost):
        out.line(f"  `{undo} --respawn` starts them again, without what they had in memory.")


def _show_started(out: Screen, processes: Revival) -> None:
    for one in processes.started:
        now = msgspec.structs.replace(one.was, pid=one.pid, listens=one.listens)
        out.line(f"started again: {safe_text(shown(now))}, without what it had in memory")
        for address in one.silent:
            text = f"it does not listen on {safe_text(address)}"
            out.line(f"  {out.style(text, 'red')}, as it did")
        out.lines(f"  {safe_text(lost)}" for lost in one.lost)
    for top in processes.rebuilt:
        out.line(f"rebuilt when its loop goes on: {safe_text(shown(top))}")


def _process_json(process: LastingProcess) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "command": command_json(process),
        "listens": list(process.listens),
    }


def restored_exit(done: Restored, *, force: bool = False) -> Exit:
    """0, or 3 when something is not as it was, or somebody goes on with an old file."""
    report = done.report
    if report.dry_run:
        return Exit.REFUSED if report.conflicts and not force else Exit.DONE
    return Exit.DONE if done.complete else Exit.INCOMPLETE


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


def show_more(out: Screen, total: int, shown: int) -> None:
    """That a list is longer than what is shown of it."""
    if total > shown:
        out.line(f"  ... and {total - shown} more (--json lists all)")


def _effect_json(effect: OutsideEffect) -> dict[str, Any]:
    return {
        "run": effect.run,
        "turn": effect.turn,
        "tool": effect.tool,
        "ok": effect.ok,
        "known": effect.known,
        "why": effect.why,
    }


def _effect_line(effect: OutsideEffect) -> str:
    """``RUN@3: sh (done, guess): git push: leaves the machine``."""
    state = {True: "done", False: "failed", None: "in doubt"}[effect.ok]
    known = "" if effect.known == DECLARED else f", {effect.known}"
    why = f": {safe_text(effect.why)}" if effect.why else ""
    return f"  {effect.run}@{effect.turn}: {safe_text(effect.tool)} ({state}{known}){why}"
