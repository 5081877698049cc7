"""A plan as values: steps, each list of them in the order it is carried out."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum

from crabrt.core.trees import Entry
from crabrt.workspace.changes import Change
from crabrt.workspace.restoring.scope import Scope


class Action(Enum):
    """What one step does."""

    DELETE = "delete"
    RMDIR = "rmdir"
    MKDIR = "mkdir"
    WRITE = "write"
    METADATA = "metadata"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Step:
    """One action on one path; `source` is the name a LINK is made from."""

    action: Action
    path: bytes
    before: Entry | None
    after: Entry | None
    source: bytes = b""


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, each list in the order it is carried out.

    Attributes:
        changes: all changes in scope, directories right before what is below them.
        removals: DELETE and RMDIR, deepest first.
        makings: MKDIR and WRITE, parents first.
        metadata: METADATA of files.
        links: LINK, after all they link to is there.
        settle: directories and what they shall be, deepest first.
        links_broken: names that share a file with a name outside the scope, in either tree.
    """

    changes: tuple[Change, ...]
    removals: tuple[Step, ...]
    makings: tuple[Step, ...]
    metadata: tuple[Step, ...]
    links: tuple[Step, ...]
    settle: tuple[tuple[bytes, Entry], ...]
    links_broken: tuple[bytes, ...]

    @property
    def nothing(self) -> Plan:
        """The same without a step, for cleaning up after one that was taken back."""
        return Plan((), (), (), (), (), (), ())

    @property
    def steps(self) -> Iterator[Step]:
        """All steps but the settling of directories."""
        yield from self.removals
        yield from self.makings
        yield from self.metadata
        yield from self.links


def without_mounts(plan: Plan, mounts: frozenset[bytes]) -> tuple[Plan, dict[bytes, str]]:
    """The plan without what lies at or below a mount point; and those paths, with the reason."""
    if not mounts:
        return plan, {}
    below = Scope(mounts)
    left = {change.path: "a mount point" for change in plan.changes if change.path in below}
    return without(plan, left.keys()), left


def without(plan: Plan, left: AbstractSet[bytes]) -> Plan:
    """The plan without the paths `left`."""
    if not left:
        return plan

    def kept(steps: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(step for step in steps if step.path not in left and step.source not in left)

    return Plan(
        changes=tuple(change for change in plan.changes if change.path not in left),
        removals=kept(plan.removals),
        makings=kept(plan.makings),
        metadata=kept(plan.metadata),
        links=kept(plan.links),
        settle=tuple(item for item in plan.settle if item[0] not in left),
        links_broken=plan.links_broken,
    )
