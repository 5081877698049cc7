"""A recorded state of processes comes back for a fork, while the original's processes go on.

Where nobody has their ports, they are in the network of the machine, and reached as ever; else in a
network of their own. In either case numbers and paths are theirs alone. What they would share with
the original all the same (a name of a Unix socket, a file outside of the workspace that they write)
is refused, or told.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from crabrt.core.processes import KeptShell, LastingProcess, ProcessState, ProcessTree
from crabrt.errors import CrabError
from crabrt.process import criu, sockets, table
from crabrt.process.beside.network import Network, taken
from crabrt.process.beside.room import Room
from crabrt.process.criu import Bind, Criu, growing
from crabrt.process.family import Identity
from crabrt.process.revivals import Missing, Revival, not_imaged
from crabrt.process.shell import ShellState, ShellUnavailable, prepare_channels
from crabrt.process.shells import record_of
from crabrt.process.unpacking import Images

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_state: Final = msgspec.msgpack.Decoder(ShellState).decode
_MARK_LETTERS: Final = 8
_UNIX: Final = "unix /"


@dataclass(frozen=True)
class _Place:
    """Where they come back.

    Attributes:
        by: who restores them.
        network: what they are in.
        binds: what they see elsewhere; the first is the workspace.
    """

    by: Criu
    network: Network
    binds: tuple[Bind, ...]


def revive_beside(
    state: ProcessState, images: Images, by: Criu | str, *, workspace: bytes
) -> Revival:
    """Bring trees back from images that were taken in another workspace. Never raises.

    Args:
        state: in which they are recorded.
        images: of that state.
        by: who brings them back, or why nobody can.
        workspace: the absolute path of the directory that is theirs from now on.
    """
    shells: dict[int, tuple[KeptShell, Bind]] = {}
    if isinstance(by, str):
        revival = _nobody(state, by)
    else:
        shells = dict(_with_channels(state.shells, workspace))
        binds = (Bind(workspace, state.workspace), *(bind for _, bind in shells.values()))
        ports = taken(state.trees)
        try:
            with Network.apart() if ports else Network() as network:
                place = _Place(by, network, binds)
                revival = _Coming(state, images, place).revival(ports)
        except OSError as error:
            revival = _nobody(state, error.strerror or str(error))
    back = {was for was, _ in revival.numbers}
    kept = [
        shells[one.top][0]
        if one.top in back and one.top in shells
        else _stranded(one, state.workspace, workspace)
        for one in state.shells
    ]
    return replace(revival, shells=tuple(kept))


def _nobody(state: ProcessState, why: str) -> Revival:
    return Revival(missing=tuple(_missing(tree, why) for tree in state.trees))


class _Coming:
    """One call of `revive_beside`."""

    def __init__(self, state: ProcessState, images: Images, place: _Place) -> None:
        self._state, self._images, self._place = state, images, place
        self._room: Room | None = None
        self._shared: dict[str, None] = {}

    def revival(self, ports: Sequence[str]) -> Revival:
        back: list[tuple[LastingProcess, int]] = []
        missing: list[Missing] = []
        for tree in self._state.trees:
            why = not_imaged(tree) or self._in_the_way(tree)
            if why:
                missing.append(_missing(tree, why))
                continue
            try:
                back.append((tree.top, self._revived(tree)))
            except (CrabError, OSError) as error:
                why = error.message if isinstance(error, CrabError) else str(error)
                missing.append(_missing(tree, why))
        numbers = tuple((top.pid, now) for top, now in back)
        notes = [how_to_reach(ports, numbers[0][1])] if back and ports else []
        if self._shared:
            notes.append(
                f"the original's processes and the fork's both write to {', '.join(self._shared)}, "
                "which is not in the workspace"
            )
        if not back and self._room is not None:
            self._room.end()
            self._room = None
        return Revival(
            revived=tuple(top for top, _ in back),
            processes=tuple(self._everybody(numbers)),
            missing=tuple(missing),
            numbers=numbers,
            notes=tuple(notes),
        )

    def _revived(self, tree: ProcessTree) -> int:
        images = self._images.of(tree)
        logs = [path for path in growing.written(images) if not self._is_inside(path)]
        if tree.namespace:
            top = criu.restore(
                self._place.by,
                images,
                own_namespace=True,
                grown=logs,
                within=self._place.network.within,
                binds=self._place.binds,
            )
        else:
            self._room = self._room or Room(self._place.network, self._place.binds)
            top = self._room.restore(self._place.by, images, logs)
        self._shared |= dict.fromkeys(path for path in logs if not path.startswith("/dev/"))
        return top

    def _is_inside(self, path: str) -> bool:
        return (os.fsencode(path) + b"/").startswith(self._state.workspace.rstrip(b"/") + b"/")

    def _in_the_way(self, tree: ProcessTree) -> str:
        """What the tree would take from somebody by coming back; empty if nothing."""
        live = set(sockets.listening_sockets(os.getpid()).values())
        for one in tree.processes:
            for where in one.listens:
                path = where.removeprefix("unix ")
                if where.startswith(_UNIX) and where in live and not self._is_inside(path):
                    return (
                        f"it would take {path}, which is outside of the workspace, from the process"
                        " that listens there"
                    )
        return ""

    def _everybody(self, numbers: Sequence[tuple[int, int]]) -> Iterator[Identity]:
        tops = [self._room.keeper.pid] if self._room is not None else []
        tops += [now for _, now in numbers]
        seen: set[int] = set()
        for top in tops:
            with contextlib.suppress(OSError):
                for one in (table.look(top), *table.descendants(top)):
                    if one is not None and one.pid not in seen:
                        seen.add(one.pid)
                        yield one.identity


def _missing(tree: ProcessTree, why: str) -> Missing:
    return Missing(tree.top, why)  # started again, it would be where the original is


def _with_channels(
    shells: Sequence[KeptShell], workspace: bytes
) -> Iterator[tuple[int, tuple[KeptShell, Bind]]]:
    for shell in shells:
        with contextlib.suppress(ShellUnavailable):  # its tree says that it is not back
            yield shell.top, _moved(shell, workspace)


def _stranded(shell: KeptShell, old: bytes, new: bytes) -> KeptShell:
    """A shell that is not back: nobody attaches to the original's, and it is rebuilt in `new`."""
    try:
        record = msgspec.structs.replace(record_of(shell), init_pid=0, init_started=0, boot="")
        state = _decode_state(shell.state) if shell.state else None
    except (ShellUnavailable, msgspec.DecodeError, msgspec.ValidationError):
        return msgspec.structs.replace(shell, name="", record=b"", state=b"")  # nobody's
    encoded = b""
    if state is not None:
        stack = tuple(_within(path, old, new) for path in state.directory_stack)
        there = _within(state.directory, old, new)
        moved = msgspec.structs.replace(state, directory=there, directory_stack=stack)
        encoded = _encode(moved)
    return msgspec.structs.replace(shell, record=_encode(record), state=encoded)


def _within(path: bytes, old: bytes, new: bytes) -> bytes:
    inside = (path + b"/").startswith(old.rstrip(b"/") + b"/")
    return new + path[len(old.rstrip(b"/")) :] if inside else path


def _moved(shell: KeptShell, workspace: bytes) -> tuple[KeptShell, Bind]:
    """A shell with channels of its own: those of the original's are in use.

    Raises:
        ShellUnavailable: there is no place for them, or the record is malformed.
    """
    record = record_of(shell)
    mark = hashlib.blake2s(workspace).hexdigest()[:_MARK_LETTERS].encode()
    inside = record.inside
    there = msgspec.structs.replace(record, directory=inside + b"-" + mark, seen_as=inside)
    prepare_channels(there)
    moved = msgspec.structs.replace(shell, record=_encode(there))
    return moved, Bind(there.directory, inside)


def how_to_reach(ports: Sequence[str], pid: int, *, are_taken: bool = True) -> str:
    """What people have to know of processes in a network of their own.

    Args:
        ports: where they listen there.
        pid: of one of them.
        are_taken: whether that is because somebody else listens there.
    """
    named = ", ".join(ports)
    why = f"somebody else has {named}: the fork's processes" if are_taken else "these processes"
    there = "those addresses" if are_taken else named
    return (
        f"{why} are in a network of their own, and what is asked at {there} from elsewhere is not"
        " answered by them. Reach them from a crabrt.Shell of the fork, or:"
        f" nsenter --target {pid} --net -- COMMAND"
    )
