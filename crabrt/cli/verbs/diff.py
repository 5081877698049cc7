"""``crab diff``: what changed between two turns, or between a turn and the workspace as it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import click

from crabrt.cli.app import App
from crabrt.cli.cut_off_lines import cut_off_json, cut_off_line
from crabrt.cli.exits import Exit
from crabrt.cli.params import TARGET
from crabrt.cli.reports import skipped_text
from crabrt.cli.screen import Screen
from crabrt.cli.tones import LINE_STYLES
from crabrt.cli.verb import Outcome, verb
from crabrt.core.content import Content
from crabrt.core.targets import LAST, Target, parse_target
from crabrt.core.trees import Entry, Kind
from crabrt.errors import Ambiguous, CrabError, UsageError
from crabrt.operations.comparing import Comparison, compare_states, compare_with_workspace
from crabrt.operations.cut_off import cut_off
from crabrt.operations.restoring import scoped_paths
from crabrt.operations.targets import resolve
from crabrt.store.contents import read_bytes
from crabrt.timeline import amounts
from crabrt.timeline.patches import FileStat, describe, file_patch, file_stat, patch_bytes
from crabrt.timeline.reader import patch_lines
from crabrt.timeline.safe_text import path_fields, safe_path, safe_text
from crabrt.workspace import Change

_BAR = 40


@verb(
    "diff",
    examples=(
        "crab diff                             # what changed here since the last turn",
        "crab diff last@3 last@7",
        "crab diff last@3                      # against the workspace as it is now",
        "crab diff last@0 last@-1 --stat -- src/",
        "crab diff last@3 last@4 | git apply   # piped, it is an exact patch",
    ),
    exits=(Exit.INCOMPLETE, Exit.NOT_FOUND, Exit.BUSY, Exit.DAMAGED),
    about_last=True,
)
@click.argument("before", type=TARGET, metavar="[RUN@A]", default=LAST)
@click.argument("words", nargs=-1, metavar="[RUN@B] [-- PATH...]", type=click.Path())
@click.option("--stat", is_flag=True, help="How much changed in each file.")
@click.option("--name-only", is_flag=True, help="Only the names of what changed.")
def command(
    app: App, *, before: Target, words: tuple[str, ...], stat: bool, name_only: bool
) -> Outcome:
    """Show what changed from RUN@A to RUN@B, or to the workspace as it is.

    A run without a turn stands for its last state. A word that names a run, and no file here, is
    RUN@B; everything behind it is PATHs. The patch is as git writes it; what a patch cannot say
    (owners, times, links) stands in lines that begin with #.
    """
    if stat and name_only:
        raise UsageError("--stat and --name-only exclude each other")
    first = resolve(app.index, before)
    second, given = _split(app, words)
    paths = scoped_paths(
        app.store, first, first.run.workspace, [os.fsencode(p) for p in given], app.cwd
    )
    states = [first] if second is None else [first, resolve(app.index, second)]
    passed = [state for state in states if state.skipped]
    app.keep(stack := contextlib.ExitStack())
    killed = None
    if len(states) > 1:
        other = states[1]
        comparison, name = compare_states(app.store, first, other), other.name
    else:
        workspace = app.workspace(first.run.workspace, first.run.view.exclude)
        with app.progress("looking at the workspace"):
            comparison = stack.enter_context(
                compare_with_workspace(app.store, first, workspace, app.config)
            )
        name = "workspace"
        killed = cut_off(app.home, app.index, workspace.id, workspace.path, workspace.state_dir)
    exit_code = Exit.INCOMPLETE if comparison.not_captured or killed else Exit.DONE
    here = first.run.workspace
    if app.json:
        data = {
            **_data(comparison, paths, first.name, name),
            "restore_interrupted": killed is not None,
            "killed_restore": cut_off_json(app, killed, here),
        }
        return Outcome(data, lambda _: None, exit_code)

    def text(out: Screen) -> None:
        if killed is not None:
            app.err.line(app.err.style(cut_off_line(app, killed, here), "red"))
        for state in passed:
            app.err.line(f"{state.name}: {skipped_text(state)}")
        if name_only:
            out.lines(safe_path(change.path) for change in comparison.changes(paths))
        elif stat:
            _show_stat(out, comparison, paths)
        else:
            _show_patch(out, comparison, paths)
        for path, why in comparison.not_captured:
            app.err.line(f"not looked at: {safe_path(path)}: {safe_text(why)}")

    return Outcome(None, text, exit_code)


def _split(app: App, words: tuple[str, ...]) -> tuple[Target | None, tuple[str, ...]]:
    """The second target, if the first word is one, and the paths."""
    if not words or os.path.lexists(words[0]):
        return None, words
    try:
        target = app.meant(parse_target(words[0]))
        if target.at is None:
            app.index.find(target.run)
    except Ambiguous:
        raise
    except CrabError:
        return None, words
    return target, words[1:]


def _reader(comparison: Comparison) -> Any:
    def read(content: Content) -> bytes:
        return read_bytes(content, comparison.reader)

    return read


def _show_patch(out: Screen, comparison: Comparison, paths: tuple[bytes, ...]) -> None:
    read = _reader(comparison)
    for change in comparison.changes(paths):
        lines = file_patch(change, read)
        if out.terminal:
            shown = patch_lines(lines)
            out.lines(out.style(line.text, *LINE_STYLES[line.kind]) for line in shown)
        else:
            for data in patch_bytes(lines):
                out.raw(data)


def _show_stat(out: Screen, comparison: Comparison, paths: tuple[bytes, ...]) -> None:
    read = _reader(comparison)
    files = added = removed = 0
    for change in comparison.changes(paths):
        counted = file_stat(change, read)
        files += 1
        added += counted.added
        removed += counted.removed
        out.line(f" {safe_path(change.path)} | {_stat_text(out, change, counted)}")
    out.line(
        f" {amounts.count(files, 'path')} changed, {amounts.count(added, 'line')} added, "
        f"{amounts.count(removed, 'line')} removed"
    )


def _stat_text(out: Screen, change: Change, counted: FileStat) -> str:
    there = change.before is not None and change.after is not None
    same_bytes = there and not {"content", "kind"} & set(change.how)
    if counted.binary and not same_bytes:
        return f"binary {counted.before_bytes:,} -> {counted.after_bytes:,} bytes"
    if not counted.added and not counted.removed:
        return describe(change)
    total = counted.added + counted.removed
    scale = min(1.0, _BAR / total)
    plus = out.style("+" * round(counted.added * scale), "green")
    minus = out.style("-" * round(counted.removed * scale), "red")
    return f"{total} {plus}{minus}"


def _data(
    comparison: Comparison, paths: tuple[bytes, ...], before: str, after: str
) -> dict[str, Any]:
    read = _reader(comparison)
    return {
        "before": before,
        "after": after,
        "changes": list(_changes(comparison, paths, read)),
        "not_captured": [{**path_fields(p), "why": why} for p, why in comparison.not_captured],
    }


def _changes(
    comparison: Comparison, paths: tuple[bytes, ...], read: Any
) -> Iterator[dict[str, Any]]:
    for change in comparison.changes(paths):
        counted = file_stat(change, read)
        yield {
            **path_fields(change.path),
            "how": list(change.how),
            "before": _entry(change.before),
            "after": _entry(change.after),
            "binary": counted.binary,
            "lines_added": counted.added,
            "lines_removed": counted.removed,
        }


def _entry(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {
        "kind": Kind(entry.kind).name.lower(),
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size_bytes": None if entry.content is None else entry.content.size,
        "modified_at": amounts.iso(entry.mtime_ns) if entry.mtime_ns else None,
    }
