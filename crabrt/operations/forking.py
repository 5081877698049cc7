"""A new run whose history is a prefix of another's: in a directory of its own, or in place.

The files are made first, then the journal, by one rename: a fork that was killed leaves a directory
and no run. A conversation that names the old workspace by its absolute path would send the forked
agent back there to edit the original, so it is refused unless ``paths="keep"``.

What was alive comes back when the fork is resumed or restored, beside the original's
(``process.beside``). Its processes see the fork's files at the old path; the loop does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from crabrt.core.content import Content, split_node
from crabrt.core.entries import (
    CallId,
    Captured,
    Checkpoint,
    Ended,
    Forked,
    Intent,
    Lineage,
    Payload,
    Recorded,
    Request,
    Response,
    Result,
    Started,
    TurnOpened,
)
from crabrt.core.ids import ObjectId, ObjectKind, RunId, new_run_id
from crabrt.core.processes import ProcessState
from crabrt.errors import DamagedJournal, NotFound, UsageError
from crabrt.journal import (
    Position,
    PositionLost,
    Record,
    RunIndex,
    fork_journal,
    read_journal,
    run_dir,
)
from crabrt.operations.targets import State, resolve
from crabrt.process.state import read_state
from crabrt.store import Store
from crabrt.store.contents import read_bytes
from crabrt.workspace import Workspace
from crabrt.workspace.restoring import RestoreReport, restore_to

Progress = Callable[[int, int], None]
PathRule = Literal["refuse", "keep"]


@dataclass(frozen=True)
class Fork:
    """A fork that was made.

    Attributes:
        run: the new one.
        directory: where it works.
        state: from which.
        report: what was put there.
        alive: what was alive then.
    """

    run: RunId
    directory: Path
    state: State
    report: RestoreReport
    alive: ProcessState


@dataclass(frozen=True)
class _Cut:
    """Where a parent's history ends: what is shared, what of it counts, and the chain hash there.

    The checkpoint of a turn is written after the next one began, so the shared part may hold
    entries behind `position`; the `Forked` entry says that they do not count.

    Attributes:
        place: behind the last shared entry.
        position: the last one of them that counts.
        chain: the chain hash after that; empty if it was not met.
        cut_off: the calls that the parent ended with, if it made none after that.
    """

    place: Position
    position: int
    chain: bytes
    cut_off: tuple[CallId, ...] = ()


def fork_to(
    store: Store,
    state: State,
    directory: Path,
    *,
    paths: PathRule = "refuse",
    progress: Progress | None = None,
) -> Fork:
    """Fork `state` into the new workspace `directory` (absent or empty).

    Args:
        store: opened.
        state: where to fork.
        directory: the new workspace.
        paths: ``"keep"`` allows a conversation that names the old workspace.
        progress: called with steps done and steps in all.

    Raises:
        UsageError: the conversation names the old path; or the directory is not empty.
        CrabError: as ``workspace.restore_to`` and ``journal.fork_journal``.
    """
    cut, alive = _prepared(store, state, directory, paths)
    report = restore_to(store, state.root, directory, progress=progress)
    workspace = Workspace.open(directory, store.home)
    run = _fork_journal(store.home, state, cut, workspace.path, workspace.id)
    return Fork(run, directory, state, report, alive)


def fork_preview(
    store: Store, state: State, directory: Path, *, paths: PathRule = "refuse"
) -> tuple[RestoreReport, ProcessState]:
    """What `fork_to` would put into `directory`, and what would be alive there; makes nothing.

    Raises:
        CrabError: as `fork_to`, where that can be told without trying.
    """
    _, alive = _prepared(store, state, directory, paths)
    return restore_to(store, state.root, directory, dry_run=True), alive


def _prepared(
    store: Store, state: State, directory: Path, paths: PathRule
) -> tuple[_Cut, ProcessState]:
    """Where the history is cut, and what was alive; or why there is no fork."""
    parent = run_dir(store.home, RunId(state.run.run))
    if paths == "refuse":
        _refuse_named_path(store, parent, state)
    cut = _find_cut(parent, state)
    _refuse_occupied(directory)
    alive = read_state(ObjectId(state.processes), store) if state.processes else ProcessState()
    return cut, alive


def fork_in_place(store: Store, target: str) -> RunId:
    """A new run on the same workspace, from `target`: what going on differently from there needs.

    Files are not touched: whoever resumes the new run puts them to its last checkpoint.

    Raises:
        NotFound, Ambiguous, UsageError: as `resolve`.
        CrabError: as ``journal.fork_journal``.
    """
    with RunIndex.open(store.home) as index:
        index.refresh()
        state = resolve(index, target)
    cut = _find_cut(run_dir(store.home, RunId(state.run.run)), state)
    return _fork_journal(store.home, state, cut, state.run.workspace, state.run.workspace_id)


def named_paths(store: Store, parent: Path, state: State) -> Iterator[str]:
    """The calls of `state`'s history whose arguments, messages or results name its workspace.

    Raises:
        DamagedObject, DamagedJournal: part of it cannot be read.
    """
    needle = state.run.workspace
    seen: set[ObjectId] = set()
    for record in read_journal(parent):
        if record.entry.seq > state.position:
            return
        if any(needle in text for text in _texts(store, record, seen)):
            call = getattr(record.body, "call", None)
            yield f"{record.entry.kind} {call}" if call is not None else record.entry.kind


def _refuse_occupied(directory: Path) -> None:
    """A fork is a workspace of its own: there is no merging into another."""
    with contextlib.suppress(OSError):  # the restore says what is wrong with it
        if next(directory.iterdir(), None) is not None:
            raise UsageError(
                "the directory is not empty", where=str(directory), hint="name a new one"
            )


def _refuse_named_path(store: Store, parent: Path, state: State) -> None:
    first = next(named_paths(store, parent, state), None)
    if first is not None:
        raise UsageError(
            "the conversation names the old workspace by its absolute path: the forked agent "
            f"would go on editing there (first in: {first})",
            where=state.workspace_path,
            hint="fork anyway with --paths=keep if the agent will not use that path",
        )


def _texts(store: Store, record: Record, seen: set[ObjectId]) -> Iterator[bytes]:
    body = record.body
    payloads: list[Payload] = []
    match body:
        case Started(arguments=payload) | Intent(arguments=payload):
            payloads.append(payload)
        case Request(arguments=payload, messages=messages):
            payloads.append(payload)
            if messages is not None:
                yield from _new_messages(store, messages, seen)
        case Response(result=payload) | Result(result=payload) | Recorded(value=payload):
            payloads.append(payload)
        case _:
            return
    for one in payloads:
        if one.inline is not None:
            yield one.inline
        elif one.content is not None:
            yield read_bytes(one.content, store)


def _new_messages(store: Store, messages: Content, seen: set[ObjectId]) -> Iterator[bytes]:
    """A conversation is sent whole at every turn; each message, and each list, is read once."""
    stack = [(messages.level, iter(messages.ids))]
    while stack:
        level, items = stack[-1]
        item = next((one for one in items if one not in seen), None)
        if item is None:
            stack.pop()
            continue
        seen.add(item)
        if level == 0:
            yield store.get(item)
        else:
            below = split_node(store.get(item, ObjectKind.LIST), item)
            stack.append((level - 1, iter(below)))


def _find_cut(parent: Path, state: State) -> _Cut:
    """The place of `state`'s checkpoint in its run's journal.

    Raises:
        NotFound: the journal has no such checkpoint (it changed since the index was read).
        DamagedJournal: it is broken, or the checkpoint belongs to no entry.
    """
    cut: _Cut | None = None
    if state.after is not None:
        with contextlib.suppress(PositionLost):
            cut = _find_cut_behind(parent, state, state.after)
    if cut is None:
        cut = _find_cut_behind(parent, state, None)
    if cut is None:
        raise NotFound("its checkpoint is no longer in the journal", where=state.name)
    if not cut.chain:
        raise DamagedJournal("a checkpoint is about entries behind it", where=state.name)
    return cut


def _find_cut_behind(parent: Path, state: State, after: Position | None) -> _Cut | None:
    """The same, looked for behind `after` only."""
    chain = after.chain if after is not None and after.seq == state.position else b""
    captured: _Cut | None = None
    records = read_journal(parent, after=after)
    for record in records:
        if record.entry.seq == state.position:
            chain = record.chain
        body = record.body
        if not isinstance(body, Captured | Checkpoint):
            continue
        if (body.turn, body.inner, body.root) != (state.turn, state.inner, state.root):
            continue
        if body.position != state.position:  # a turn that went on after a resume has two
            continue
        if not chain and after is not None:
            return None  # what it belongs to is further back
        captured = _Cut(record.position, state.position, chain)
        if isinstance(body, Checkpoint):
            return replace(captured, cut_off=_cut_off(records))
    return captured


def _cut_off(records: Iterable[Record]) -> tuple[CallId, ...]:
    """Which calls a run ended with that made none in `records`."""
    for body in (record.body for record in records):
        if isinstance(body, Request | Intent | Recorded | TurnOpened):
            break
        if isinstance(body, Ended):
            return body.cut_off
    return ()


def _fork_journal(
    home: Path, state: State, cut: _Cut, workspace_path: bytes, workspace_id: str
) -> RunId:
    run = new_run_id(state.run.name)
    forked = Forked(
        run=run,
        name=state.run.name,
        workspace_path=workspace_path,
        workspace_id=workspace_id,
        lineage=Lineage(
            family=state.run.family, parent=state.run.run, seq=cut.position, chain=cut.chain
        ),
        turn=state.turn,
        cut_off=cut.cut_off,
    )
    parent = run_dir(home, RunId(state.run.run))
    child = run_dir(home, run)
    fork_journal(parent, child, upto=cut.place.seq, forked=forked, place=cut.place)
    return run
