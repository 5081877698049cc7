"""The runs of a store, as a list and as families: who came from whom, how each one is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from crabrt.core.entries import INTERRUPTIONS
from crabrt.core.secrets import redact_text
from crabrt.errors import InDoubt
from crabrt.journal.lookup import RunRow
from crabrt.journal.rows import Problem
from crabrt.journal.views import CRASHED, FAILED, FORKED, RUNNING, RunView, TurnView
from crabrt.journal.views import ENDED as LOST_END
from crabrt.timeline.rows import OpenCall, open_calls
from crabrt.timeline.safe_text import safe_text
from crabrt.timeline.signs import Sign, checkpoint_sign, run_sign

WAITING = "waiting"
"""The state of a run that a person has to decide about."""

IN_DOUBT = f"{InDoubt.__module__}.{InDoubt.__qualname__}"
"""The tag of what ends a resume that only a person can decide about: again, it would end so."""


@dataclass(frozen=True, slots=True)
class RunItem:
    """One run, to be listed.

    Attributes:
        row: the run (see `RunRow` for what there is: workspace, turns, times, problem, labels).
        latest: its latest turn; None where that could not be read.
    """

    row: RunRow
    latest: TurnView | None = None

    @property
    def run(self) -> str:
        """Its id."""
        return self.row.run

    @property
    def live(self) -> bool:
        """Whether a process works on it."""
        return self.row.status == RUNNING

    @property
    def state(self) -> str:
        """The status of its row; ``waiting`` where only a person can decide how it goes on."""
        return state_of(self.row)

    @property
    def sign(self) -> Sign:
        """The same as shape, word and tone."""
        return run_sign(self.state)

    @property
    def protection(self) -> Sign | None:
        """How safe its latest turn is; None where that is not known."""
        return None if self.latest is None else checkpoint_sign(self.latest, live=self.live)

    @property
    def open_calls(self) -> tuple[OpenCall, ...]:
        """What it does right now: calls that go on. Empty if it is not live, or between calls."""
        return open_calls(self.latest) if self.live and self.latest is not None else ()


@dataclass(frozen=True, slots=True)
class RunNode:
    """A run and what came from it.

    Attributes:
        item: the run.
        children: forks of it and the runs of its sub-agents, oldest first.
    """

    item: RunItem
    children: tuple[RunNode, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """A run in the list of a tree.

    Attributes:
        item: the run.
        depth: 0 for one that came from nobody (whose parent is gone, too).
        last: it is the last child of its parent.
        above: for each level above it, from the top: whether more children follow there.
    """

    item: RunItem
    depth: int
    last: bool
    above: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of a store at one moment.

    Attributes:
        items: newest first.
        problem: why they cannot be listed (no store, a newer format, ...), or None. What was known
            before stays in `items`.
        revision: grows with every change.
    """

    items: tuple[RunItem, ...] = ()
    problem: Problem | None = None
    revision: int = 0

    def find(self, run: str) -> RunItem | None:
        """The run with that id."""
        return next((item for item in self.items if item.run == run), None)

    def families(self) -> tuple[RunNode, ...]:
        """The runs as trees: the one in which something happened last comes first."""
        return families(self.items)

    def listed(self) -> tuple[Placed, ...]:
        """The trees, from top to bottom, as a list shows them."""
        return tuple(_walk(self.families(), ()))


def state_of(row: RunRow) -> str:
    """How a run is, in a word: its status, or ``waiting`` (for a person's decision)."""
    return state_of_view(row.status, row.view)


def state_of_view(status: str, view: RunView) -> str:
    """The same, of a status and what the journal says of the run."""
    failure = view.failure
    undecided = status == FAILED and failure is not None and failure.tag == IN_DOUBT
    return WAITING if undecided else status


def how_it_ended(status: str, view: RunView) -> str | None:
    """The exception that ended a run, if one did, on one safe line; or that its end is missing."""
    failure = view.failure
    if status == LOST_END:
        return "It ended, but its end could not be written: the store was full or gone"
    if status != FAILED or failure is None:
        return None
    if failure.tag in INTERRUPTIONS:
        return f"It was interrupted ({failure.tag.rpartition('.')[2]})"
    text = f"{failure.tag}: {failure.message}" if failure.message else failure.tag
    first, *more = redact_text(text).strip().split("\n")
    return f"It ended with {safe_text(first)}{' …' if more else ''}"


def how_to_go_on(
    run: str, status: str, view: RunView, resume: str = "crab resume"
) -> tuple[str, ...]:
    """How a run is taken up again, by the command `resume`: lines to be shown as they are.

    The last one ends in the command. Without lines there is nothing to take up.
    """
    if state_of_view(status, view) == WAITING:
        return (
            "Find out whether that call happened, and say so where its tool is declared:",
            '  it did:      in_doubt="skip", or a check= that gives its result',
            '  it did not:  in_doubt="retry"',
            f"Then take it up again: {resume} {run}",
        )
    if status in {CRASHED, LOST_END, FAILED}:
        return (f"Take it up again: {resume} {run}",)
    return (f"Go on in it: {resume} {run}",) if status == FORKED else ()


def families(items: Sequence[RunItem]) -> tuple[RunNode, ...]:
    """`items` as trees, the family in which something happened last first.

    A run whose parent is not there is a top of its own. So are runs that say they descend from each
    other, which no honest store has.
    """
    present = {item.run for item in items}
    below: dict[str, list[RunItem]] = {}
    tops: list[RunItem] = []
    for item in items:
        parent = item.row.parent
        if parent is None or parent not in present or parent == item.run:
            tops.append(item)
        else:
            below.setdefault(parent, []).append(item)
    done: set[str] = set()
    trees = [_tree(item, below, done) for item in tops]
    trees += [_tree(item, below, done) for item in items if item.run not in done]
    return tuple(sorted(trees, key=lambda node: (-_latest_ns(node), node.item.run)))


def _tree(top: RunItem, below: dict[str, list[RunItem]], done: set[str]) -> RunNode:
    """The tree under `top`; bottom up, as a chain of forks may be longer than the stack is deep."""
    order: list[RunItem] = []
    ahead = [top]
    done.add(top.run)
    while ahead:
        item = ahead.pop()
        order.append(item)
        for child in below.get(item.run, ()):
            if child.run not in done:
                done.add(child.run)
                ahead.append(child)
    made: dict[str, RunNode] = {}
    for item in reversed(order):
        children = [made[c.run] for c in below.get(item.run, ()) if c.run in made]
        children.sort(key=lambda node: (node.item.row.started_ns, node.item.run))
        made[item.run] = RunNode(item, tuple(children))
    return made[top.run]


def _latest_ns(top: RunNode) -> int:
    latest, ahead = 0, [top]
    while ahead:
        node = ahead.pop()
        latest = max(latest, node.item.row.updated_ns)
        ahead.extend(node.children)
    return latest


def _walk(trees: Iterable[RunNode], above: tuple[bool, ...]) -> Iterator[Placed]:
    ahead = [(node, above, last) for node, last in _with_last(trees)][::-1]
    while ahead:
        node, over, last = ahead.pop()
        depth = len(over)
        yield Placed(node.item, depth, last, over)
        under = (*over, not last)
        ahead.extend([(child, under, end) for child, end in _with_last(node.children)][::-1])


def _with_last(nodes: Iterable[RunNode]) -> list[tuple[RunNode, bool]]:
    every = list(nodes)
    return [(node, at + 1 == len(every)) for at, node in enumerate(every)]
