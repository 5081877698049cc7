"""Processes that outlive the turn they were started in, as values: what a checkpoint says of them.

They are in the store beside the files: a root of their own (see ``process.state``) whose tree holds
one encoded `ProcessState` and the images of those that could be imaged.
"""

from __future__ import annotations

import msgspec

from crabrt.core.content import Content


class LastingProcess(msgspec.Struct, frozen=True, array_like=True):
    """One process.

    Attributes:
        pid, parent: as the loop's own PID namespace numbers them.
        started: when it began, in clock ticks since the machine booted; with `pid`, its identity.
        command: its argument vector, raw bytes.
        directory: where it works, raw bytes; empty if that could not be read.
        listens: where it waits for connections: ``tcp 127.0.0.1:8000``, ``unix /run/x.sock``.
        files: of the workspace that it has open or mapped, relative to it, raw bytes: a bounded
            number; those that are open first.
        connections: the other ends of its connections, but for those within its tree:
            ``tcp 10.0.0.7:5432``. A bounded number.
        unlisted: how many files and connections there are beside these.
    """

    pid: int
    parent: int
    started: int
    command: tuple[bytes, ...] = ()
    directory: bytes = b""
    listens: tuple[str, ...] = ()
    files: tuple[bytes, ...] = ()
    connections: tuple[str, ...] = ()
    unlisted: int = 0

    @property
    def identity(self) -> tuple[int, int]:
        """What tells it from every other process of this boot."""
        return self.pid, self.started


class Stream(msgspec.Struct, frozen=True, array_like=True):
    """Where standard input, output or error of a process led.

    Attributes:
        path: of a regular file, raw bytes; empty: nowhere, or to `lost`.
        flags: as open(2) takes them: how it is accessed, and whether at its end.
        position: where in the file, in bytes.
        lost: what it led to that is not there again ("a pipe"), for people; empty if nothing.
    """

    path: bytes = b""
    flags: int = 0
    position: int = 0
    lost: str = ""


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """A resource limit: its number of ``setrlimit(2)``, and the two values; -1 is none."""

    resource: int
    soft: int
    hard: int


class Service(msgspec.Struct, frozen=True, array_like=True):
    """What it takes to start a process again that has no image.

    Its command, its directory and where it listens are those of the `LastingProcess`.

    Attributes:
        pid: which process of the tree.
        program: the absolute path of what it executes.
        environment: as it was started with, ``NAME=value``; may hold secrets, so nobody shows it.
        streams: standard input, output, error.
        umask: its file mode creation mask.
        nice: its priority, from -20 to 19.
        limits: of its resources.
        user, group: its real ones.
        groups: the supplementary ones.
        leads: ``session`` or ``group`` if it is the first of one, else empty.
        stopped: whether it was (SIGSTOP, Ctrl-Z).
    """

    pid: int
    program: bytes
    environment: tuple[bytes, ...]
    streams: tuple[Stream, ...]
    umask: int
    nice: int
    limits: tuple[Limit, ...]
    user: int
    group: int
    groups: tuple[int, ...] = ()
    leads: str = ""
    stopped: bool = False

    def __repr__(self) -> str:
        """Without the environment: tracebacks are shown to others."""
        return f"Service(pid={self.pid}, program={self.program!r})"


class FileHeld(msgspec.Struct, frozen=True, array_like=True):
    """A regular file that a tree had open or mapped when its image was taken.

    Attributes:
        path: its absolute path, raw bytes.
        size: in bytes.
        modified_ns: when it was last modified (ns since the epoch).
        is_written_only: nobody of the tree could read it: what it held is in no memory.
    """

    path: bytes
    size: int
    modified_ns: int
    is_written_only: bool = False


class ProcessTree(msgspec.Struct, frozen=True, array_like=True):
    """A process whose parent is none of the run's, and what descends from it.

    Attributes:
        processes: the topmost first.
        imaged: whether its image lies beside this.
        why_not: if it has none, why; else empty.
        lost: what of it does not come back, for people ("its output goes to the loop").
        namespace: whether the topmost one is the first of a PID namespace of its own.
        services: if it has no image, what of it can be started again.
        network: whether the topmost one is in a network namespace of its own.
        held: if it has an image, the files that have to be as they were when it comes back: what it
            held in the workspace, and elsewhere what it may write. States of before have none.
    """

    processes: tuple[LastingProcess, ...]
    imaged: bool = False
    why_not: str = ""
    lost: tuple[str, ...] = ()
    namespace: bool = False
    services: tuple[Service, ...] = ()
    network: bool = False
    held: tuple[FileHeld, ...] = ()

    @property
    def top(self) -> LastingProcess:
        """The one that the others descend from."""
        return self.processes[0]

    @property
    def startable(self) -> tuple[LastingProcess, ...]:
        """Those that `services` are of."""
        numbers = {service.pid for service in self.services}
        return tuple(one for one in self.processes if one.pid in numbers)

    def below(self, pid: int) -> tuple[LastingProcess, ...]:
        """The process `pid` of the tree, and what descends from it."""
        numbers = {pid}
        for one in self.processes:  # parents before children
            if one.parent in numbers:
                numbers.add(one.pid)
        return tuple(one for one in self.processes if one.pid in numbers)


class KeptShell(msgspec.Struct, frozen=True, array_like=True):
    """A shell of the loop's (``process.shell``).

    Attributes:
        name, ordinal: which: the how-manieth of that name the program made, from 0.
        top: the number of its first process, as the loop's namespace has it.
        record: encoded, what somebody must know to attach to it.
        state: encoded, what it could be rebuilt from without an image; empty if it was busy.
    """

    name: str
    ordinal: int
    top: int
    record: bytes
    state: bytes = b""

    @property
    def identity(self) -> tuple[str, int]:
        """What tells it from the loop's other shells, also in the process that resumes it."""
        return self.name, self.ordinal


class ProcessState(msgspec.Struct, frozen=True, array_like=True):
    """All that outlived a turn.

    Attributes:
        boot: the boot it was seen in: process numbers mean nothing in another.
        trees: by the number of their topmost process.
        shells: the loop's own among them.
        workspace: the absolute path of the directory that the run worked in; empty: not recorded.
    """

    boot: str = ""
    trees: tuple[ProcessTree, ...] = ()
    shells: tuple[KeptShell, ...] = ()
    workspace: bytes = b""


class ImageFile(msgspec.Struct, frozen=True, array_like=True):
    """One of the files that an image of a process tree consists of.

    Attributes:
        name: as the program that wrote it named it: no slash.
        content: where its bytes are.
    """

    name: str
    content: Content


class ImageSet(msgspec.Struct, frozen=True, array_like=True):
    """An image of a process tree, as ``process.criu`` stores it.

    It refers to objects through the contents of its files, and to nothing else.
    """

    files: tuple[ImageFile, ...]

    @property
    def size_bytes(self) -> int:
        """Of all its files together, as they were written."""
        return sum(file.content.size for file in self.files)
