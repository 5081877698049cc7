"""The classifier: (calls, observation) -> verdict with evidence. Pure.

Net change counts, not activity: what is compared is the state at the last checkpoint and the state
now. A prior never narrows what was observed: what is seen of files, processes and connections is in
the verdict or told beside it, whatever was declared or guessed. It can only widen the verdict (a
call that was declared external is external, whatever the files say).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from crabrt.core.trees import Kind
from crabrt.core.verdicts import (
    UNWATCHED,
    Consistency,
    Effect,
    Guess,
    Likely,
    Prior,
    Verdict,
)
from crabrt.inspector.lasting import Lasting
from crabrt.inspector.network.values import Connection, Network
from crabrt.workspace import Change

SAMPLE_PATHS = 20
_NAMED = 3
"""How many paths a line of evidence names before it counts directories instead; and how many
destinations before it counts the others."""


class CallFact(msgspec.Struct, frozen=True):
    """What the classifier needs to know of a tool call of the turn.

    Attributes:
        name: the tool's.
        prior: what it is declared to do.
        guess: what it was taken for, where nothing is declared.
    """

    name: str
    prior: Prior = Prior.AUTO
    guess: Guess | None = None


class Observation(msgspec.Struct, frozen=True):
    """What was seen of the world when the turn had closed.

    Attributes:
        changes: the difference of the workspace to the last checkpoint.
        consistency: how well the copies belong together.
        unobserved: what could not be looked at.
        caches: paths of those changes that tools make again by themselves.
        skipped: whether such changes count as none.
        network: what the processes of the run reached out to.
        lasting: what outlived the turn; None: nobody looked.
        blind: the state that the turn began on is not known, so nothing can be said of changes.
        beside: other runs that acted in the same workspace meanwhile.
        foreign: process ids, by path, of processes that did something there and are not the run's.
    """

    changes: tuple[Change, ...] = ()
    consistency: Consistency = Consistency.EXACT
    unobserved: tuple[str, ...] = ()
    caches: frozenset[bytes] = frozenset()
    skipped: bool = False
    network: Network = Network()
    lasting: Lasting | None = None
    blind: bool = False
    beside: tuple[str, ...] = ()
    foreign: dict[bytes, frozenset[int]] = {}


def classify(calls: Sequence[CallFact], seen: Observation) -> Verdict:
    """The verdict over a turn in which `calls` ran and after which `seen` was observed."""
    effects: list[Effect] = []
    evidence: list[str] = []
    caches = [change for change in seen.changes if change.path in seen.caches]
    files = [change for change in seen.changes if change.path not in seen.caches]
    counted = files if seen.skipped else [*files, *caches]
    if counted or seen.blind:
        effects.append(Effect.FILES)
    if seen.blind:
        evidence.append("files: unknown, as the state before was not captured")
    if files:
        more = f"; caches: {describe(caches)}" if caches else ""
        evidence.append(f"files: {describe(files)}{more}")
    elif caches:
        evidence.append(f"{'' if seen.skipped else 'files: '}caches only: {describe(caches)}")
    if counted and seen.beside:
        evidence.append(f"files: some may be the doing of {', '.join(seen.beside)}")
    evidence += _by_others(counted, seen.foreign)
    lasting = seen.lasting
    if lasting is not None and lasting.changed:
        effects.append(Effect.PROCESSES)
    evidence += _alive(calls, lasting)
    is_external, outside = _outside(calls, seen.network)
    if is_external:
        effects.append(Effect.EXTERNAL)
    evidence += outside
    if seen.consistency is Consistency.TORN:
        evidence.append("torn: a file kept changing while it was read")
    plain = [change for change in counted if not _is_directory(change)]
    return Verdict(
        effects=tuple(effects),
        evidence=tuple(evidence),
        files_added=sum("added" in change.how for change in plain),
        files_removed=sum("removed" in change.how for change in plain),
        files_changed=sum(not {"added", "removed"} & set(change.how) for change in plain),
        sample=tuple(change.path for change in counted[:SAMPLE_PATHS]),
        unobserved=(*seen.unobserved, *_unheard(calls, seen.network)),
    )


def _by_others(changes: Sequence[Change], foreign: Mapping[bytes, frozenset[int]]) -> list[str]:
    """Which of `changes` may be the doing of whom: one line, that takes nothing from the verdict.

    The run may have written there as well, and whoever ended before it was asked for is not told.
    """
    paths = [change.path for change in changes if change.path in foreign]
    if not paths:
        return []
    pids = sorted({pid for path in paths for pid in foreign[path]})
    whose = "process {}, which is not" if len(pids) == 1 else "processes {}, which are not"
    by = whose.format(_some(list(map(str, pids))))
    return [f"{_some(list(map(_show, paths)))}: may be written by {by} the run's"]


def _some(names: Sequence[str], more: int = 0) -> str:
    """The first few, and how many others there are."""
    rest = max(0, len(names) - _NAMED) + more
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _alive(calls: Sequence[CallFact], lasting: Lasting | None) -> list[str]:
    """What is to be told of what outlived the turn: that nothing did, if something was to."""
    if lasting is None:
        return []
    was_to = any(
        call.prior is Prior.PROCESSES
        or (call.guess is not None and call.guess.effect is Likely.PROCESSES)
        for call in calls
    )
    return [lasting.evidence] if lasting.any or was_to else []


def _outside(calls: Sequence[CallFact], network: Network) -> tuple[bool, list[str]]:
    """Whether the turn is external, and the evidence: declared, taken for such, or seen."""
    declared = sorted({call.name for call in calls if call.prior is Prior.EXTERNAL})
    lines = [f"external: {', '.join(declared)} (declared)"] if declared else []
    guessed = dict.fromkeys(
        f"{call.name}, {call.guess.reason}"
        for call in calls
        if call.guess is not None and call.guess.effect is Likely.EXTERNAL
    )
    if network.silent:
        lines += [f"{reason} (guess), but nothing was sent" for reason in guessed]
        return bool(declared), lines
    lines += [f"external: {reason} (guess)" for reason in guessed]
    is_external = bool(lines)
    if network.world:
        seen = f"connected to {_destinations(network.world, network.more)}"
        if not is_external and _unexplained(calls):
            is_external, seen = True, f"external: {seen} (seen)"
        lines.append(seen)
    if network.kept:
        lines.append(f"still connected to {_destinations(network.kept)}")
    return is_external, lines


def _unexplained(calls: Sequence[CallFact]) -> bool:
    """Whether a connection to the world is more than the calls of the turn are known for.

    Who writes files or starts something may download for it (`pip install`), which is no effect
    elsewhere. Of the others nothing is known, or that they do nothing: such a call has nothing to
    ask of the world, whoever said so.
    """
    kinds = {_kind(call) for call in calls}
    if Likely.UNKNOWN in kinds:
        return True
    return Likely.NONE in kinds and not kinds & {Likely.FILES, Likely.PROCESSES}


def _kind(call: CallFact) -> Likely:
    """What is known of it: declared, or else guessed."""
    if call.prior is not Prior.AUTO:
        return Likely(call.prior)
    return call.guess.effect if call.guess is not None else Likely.UNKNOWN


def _destinations(connections: Sequence[Connection], more: int = 0) -> str:
    """``203.0.113.9:443 (curl), ... and 2 more``; TCP, which says most, is named first."""
    in_order = sorted(connections, key=lambda one: one.protocol != "tcp")
    names = list(
        dict.fromkeys(
            f"{one.target} ({one.command})" if one.command else one.target for one in in_order
        )
    )
    return _some(names, more)


def _unheard(calls: Sequence[CallFact], network: Network) -> tuple[str, ...]:
    """That some of the network was missed, or all of it where a call may have used it."""
    if network.lost is not None:
        return (f"network: {network.lost}",)
    if network.watched or not any(call.prior in {Prior.AUTO, Prior.EXTERNAL} for call in calls):
        return ()
    return (f"{UNWATCHED}: {network.why_not}" if network.why_not else UNWATCHED,)


def describe(changes: Iterable[Change]) -> str:
    """One line on what changed: ``src/a.py content, build/ 14 new, 2 directories new``.

    As in the verdict's counts, directories are not among the files: they are told apart.
    """
    files: dict[str, list[Change]] = {}
    directories: dict[str, list[Change]] = {}
    for change in changes:
        groups = directories if _is_directory(change) else files
        groups.setdefault(_word(change), []).append(change)
    if set(files) == {"times"} and not directories:
        return f"times only, {len(files['times'])} {_plural('file', len(files['times']))}"
    parts = [part for word, members in files.items() for part in _files(word, members)]
    for word, members in directories.items():
        if not files and len(members) <= _NAMED:
            parts += [f"{_show(change.path)}/ {word}" for change in members]
        else:
            noun = "directory" if len(members) == 1 else "directories"
            parts.append(f"{len(members)} {noun} {word}")
    return ", ".join(parts)


def _files(word: str, members: list[Change]) -> list[str]:
    if len(members) <= _NAMED:
        return [f"{_show(change.path)} {word}" for change in members]
    parts = []
    tops = Counter(change.path.partition(b"/")[0] for change in members)
    for top, count in tops.most_common(_NAMED):
        inside = any(change.path.startswith(top + b"/") for change in members)
        parts.append(f"{_show(top)}{'/' if inside else ''} {count} {word}")
    if len(tops) > _NAMED:
        rest = sum(count for _, count in tops.most_common()[_NAMED:])
        parts.append(f"{rest} more {word}")
    return parts


def _word(change: Change) -> str:
    if "added" in change.how:
        return "new"
    if "removed" in change.how:
        return "gone"
    return "+".join(how for how in change.how if how != "times" or len(change.how) == 1)


def _is_directory(change: Change) -> bool:
    entry = change.after if change.after is not None else change.before
    return entry is not None and entry.kind == Kind.DIR


def _show(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace") or "."


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
