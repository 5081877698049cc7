"""Process trees come back from their images: the second half of a restore."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.errors import CrabError
from crabrt.process import criu, table
from crabrt.process.beside.network import Network
from crabrt.process.criu import Cause, Criu, NotRevived, growing
from crabrt.process.family import Identity
from crabrt.process.obstacles import listeners
from crabrt.process.parking import collect
from crabrt.process.revivals import Missing, Revival, not_imaged
from crabrt.process.shell import prepare_channels
from crabrt.process.shells import record_of
from crabrt.process.unpacking import Images

_GONE_LIMIT_S: Final = 5.0
_POLL_S: Final = 0.005


def revive(state: ProcessState, images: Images, by: Criu | str) -> Revival:
    """Bring trees back from their images, as children of this process. Never raises.

    Args:
        state: in which they are recorded.
        images: of that state.
        by: who brings them back, or why nobody can.
    """
    revived: list[LastingProcess] = []
    processes: list[Identity] = []
    missing: list[Missing] = []
    numbers: list[tuple[int, int]] = []
    for shell in state.shells:
        with contextlib.suppress(CrabError):  # its tree will say that it is not back
            prepare_channels(record_of(shell))
    networks = _Networks()
    for tree in state.trees:
        if not tree.imaged:
            missing.append(Missing(tree.top, not_imaged(tree), tree.startable))
        elif isinstance(by, str):
            missing.append(Missing(tree.top, by))
        else:
            try:
                top = _revived(tree, images.of(tree), by, networks.of(tree))
                processes += who_is_back(tree, top)
                numbers.append((tree.top.pid, top))
                revived.append(tree.top)
            except (CrabError, OSError) as error:
                missing.append(Missing(tree.top, _why(tree, error)))
    networks.close()
    return Revival(
        revived=tuple(revived),
        processes=tuple(processes),
        missing=tuple(missing),
        numbers=tuple(numbers),
    )


def _why(tree: ProcessTree, error: CrabError | OSError) -> str:
    if isinstance(error, NotRevived) and error.cause is Cause.PORT_IN_USE:
        return "; ".join(listeners(tree)) or error.message
    return error.message if isinstance(error, CrabError) else str(error)


class _Networks:
    """The networks that trees come back to: ours, or one for all that had their own."""

    def __init__(self) -> None:
        self._ours = Network()
        self._own: Network | None = None

    def of(self, tree: ProcessTree) -> Network:
        """Where `tree` belongs.

        Raises:
            OSError: it cannot be made.
        """
        if not tree.network:
            return self._ours
        self._own = self._own or Network.apart()
        return self._own

    def close(self) -> None:
        if self._own is not None:
            self._own.close()


def _await_free(tree: ProcessTree) -> None:
    """Wait until the numbers of a tree are not those of processes that have ended; not for ever.

    Whoever has to collect them may take its time.
    """
    until = time.monotonic() + _GONE_LIMIT_S
    while time.monotonic() < until:
        taken = [table.look(one.pid) for one in tree.processes]
        if not any(one is not None and one.ended for one in taken):
            return
        time.sleep(_POLL_S)


def _revived(tree: ProcessTree, images: Path, by: Criu, network: Network) -> int:
    if not tree.namespace:
        _await_free(tree)
    logs = growing.written(images)  # nobody puts back what lies outside of the workspace
    own, within = tree.namespace, network.within
    return criu.restore(by, images, own_namespace=own, grown=logs, within=within)


def who_is_back(tree: ProcessTree, top: int) -> list[Identity]:
    """Those of `tree` that live after it was restored.

    Its topmost process may have ended as soon as it went on: what it left are then our children.

    Args:
        tree: as it was recorded.
        top: the number that its topmost process has now.

    Raises:
        NotRevived: nobody of it does.
    """
    tops = [top] if tree.namespace else [top, *(one.pid for one in tree.processes)]
    found: dict[Identity, None] = {}
    for pid in tops:  # outside of a namespace of their own they have the numbers they had
        if pid not in {number for number, _ in found}:
            for one in (table.look(pid), *table.descendants(pid)):
                if one is not None and not one.ended:
                    found[one.identity] = None
    collect(top)  # if it has ended
    if not found:
        raise NotRevived("it ended at once", Cause.GONE, where=f"process {tree.top.pid}")
    return list(found)
