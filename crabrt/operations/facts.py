"""What this machine can and cannot protect: probed facts in plain words, for ``crab doctor``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from crabrt.core.config import Config
from crabrt.errors import Damaged, FormatTooNew, NotFound, StoreUnavailable
from crabrt.inspector.watch import probe
from crabrt.operations import probes
from crabrt.operations.fact import Fact, Standing
from crabrt.operations.facts_observers import fanotify_fact, network_fact, observer_fact
from crabrt.process import tracing
from crabrt.process.criu import NEXT_STEP, Criu, NoCriu, is_ours_outside
from crabrt.store.format import read_format
from crabrt.workspace.mapped import first_stores_show

_NOTHING: Mapping[str, str | None] = MappingProxyType({})
_LOW_SPACE_BYTES = 1 << 30
_NETWORK_KINDS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "virtiofs", "afs"})
_KERNEL_KINDS = frozenset({
    "autofs", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts",
    "devtmpfs", "efivarfs", "fusectl", "functionfs", "hugetlbfs", "mqueue", "nfsd", "proc",
    "pstore", "resctrl", "rpc_pipefs", "securityfs", "selinuxfs", "smackfs", "sysfs", "tracefs",
})  # fmt: skip
"""What looks like files and is the kernel itself: nothing there can be put back."""

_PUT_RIGHT_ELSEWHERE = (
    "processes can be imaged, but for those that hold locks on files that they have mapped (SQLite "
    "in WAL mode), and who waits in poll is told that it was interrupted: x86-64 alone is put right"
)


@dataclass(frozen=True)
class Machine:
    """All facts, and the two lists a person wants first."""

    facts: tuple[Fact, ...]
    protected: tuple[str, ...]
    unprotected: tuple[str, ...]


def examine(
    config: Config,
    workspace: Path,
    *,
    store_bytes: int,
    criu: Criu | NoCriu,
    unknown_variables: Mapping[str, str | None] = _NOTHING,
) -> Machine:
    """Probe the machine for an agent that works in `workspace`.

    Args:
        config: what is in force there; its store need not exist yet.
        workspace: the directory to protect.
        store_bytes: what the store takes now.
        criu: as ``process.criu.find`` found it.
        unknown_variables: what is set and named like a setting, each with the one perhaps meant.
    """
    home = config.home
    landlock, network = _landlock(), network_fact(config)
    watching, images = probe(workspace), criu_fact(criu)
    facts = (
        _kernel(),
        _privileges(),
        *_places(home, workspace, store_bytes),
        *_unusable(home),
        _settings(config),
        *_variables(unknown_variables),
        _times(home),
        observer_fact(config, watching),
        fanotify_fact(watching),
        network,
        images,
        _namespaces(),
        landlock,
    )
    return Machine(facts, _protected(images), _unprotected(landlock, network, images))


def _protected(images: Fact) -> tuple[str, ...]:
    processes = "processes that tools leave behind: imaged with the files, brought back with them"
    return (
        "files of the workspace at every turn: bytes, names, modes, links, xattrs, times"
        + (" and owners" if "CAP_CHOWN" in probes.capabilities() else ""),
        *((processes,) if images.standing is Standing.OK else ()),
        "the conversation: every model reply and tool result, sealed as it arrives",
        'external effects declared with effect="external": never run twice on resume',
        "against SIGKILL once a gate has passed; against power loss once the log says durable",
    )


def _unprotected(landlock: Fact, network: Fact, criu: Fact) -> tuple[str, ...]:
    seen = "seen, but not undone" if network.standing is Standing.OK else "neither seen nor undone"
    is_imaged = criu.standing is Standing.OK or criu.meaning == _PUT_RIGHT_ELSEWHERE
    lines = [
        "background processes that have no image (each turn names them, and why)"
        if is_imaged
        else "what background processes have in memory: they are started again, if you allow it",
        f"effects outside this machine that no tool declared: they are {seen}",
        "files outside the workspace, and paths excluded from it",
        "the loss of this disk: the store is on this machine only",
    ]
    if "CAP_CHOWN" not in probes.capabilities():
        lines.append("owners of files: giving a file to another user needs privilege")
    lines.append(
        "the store itself against a determined process of the same user"
        + ("" if landlock.standing is Standing.OK else " (this kernel could not confine one)")
    )
    return tuple(lines)


def _kernel() -> Fact:
    name = os.uname()
    seen = f"{name.sysname} {name.release} {name.machine}"
    if name.sysname == "Linux":
        return Fact("kernel", Standing.OK, seen, "files and conversation can be protected")
    return Fact("kernel", Standing.BAD, seen, "only Linux is supported", "run the agent on Linux")


def _privileges() -> Fact:
    held = sorted(probes.capabilities())
    who = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    seen = f"{who}, {', '.join(held) if held else 'no special capabilities'}"
    if "CAP_CHOWN" in held:
        return Fact("privileges", Standing.OK, seen, "owners of files can be restored")
    return Fact(
        "privileges",
        Standing.LIMITED,
        seen,
        "files and conversation need none; owners of others' files are recorded, not restored",
    )


def _places(home: Path, workspace: Path, store_bytes: int) -> list[Fact]:
    standing_at = home
    while not standing_at.exists() and standing_at != standing_at.parent:
        standing_at = standing_at.parent
    facts = [_file_system("workspace", workspace)]
    facts.append(_file_system("store", standing_at))
    try:
        free = probes.file_system(standing_at).free_bytes
    except OSError:
        free = 0
    written = probes.writable(standing_at)
    facts.append(
        Fact("store-writable", Standing.OK, str(home), "checkpoints can be written")
        if written.works
        else Fact(
            "store-writable",
            Standing.BAD,
            f"{home}: {written.seen}",
            "nothing can be protected: turns would be marked unprotected",
            "make it writable, or set CRAB_HOME to a directory that is",
        )
    )
    seen = f"store {_mib(store_bytes)}, free {_mib(free)}"
    if free < _LOW_SPACE_BYTES:
        facts.append(
            Fact(
                "store-space",
                Standing.LIMITED,
                seen,
                "a full disk leaves turns unprotected",
                "free some space, `crab prune`, or set CRAB_HOME to a larger disk",
            )
        )
    else:
        facts.append(Fact("store-space", Standing.OK, seen, "there is room"))
    return facts


def _unusable(home: Path) -> list[Fact]:
    """Why a store that is there cannot be opened, if it cannot."""
    try:
        read_format(home)
    except NotFound:  # the first run makes it
        return []
    except (Damaged, FormatTooNew, StoreUnavailable) as error:
        meaning = "nothing can be protected: no run can begin"
        return [Fact("store-format", Standing.BAD, error.message, meaning, error.hint)]
    return []


def _settings(config: Config) -> Fact:
    """What is in force, as far as somebody set it."""
    default = Config(config.home)
    names = (name for name in Config.__struct_fields__ if name != "home")
    changed = {name: getattr(config, name) for name in names}
    told = [f"{name}={value}" for name, value in changed.items() if value != getattr(default, name)]
    limit_s = config.gate_limit_ms / 1e3
    return Fact(
        "settings",
        Standing.LIMITED if config.disable else Standing.OK,
        ", ".join(told) or "all as by default",
        "every decorator is the plain function: nothing is protected"
        if config.disable
        else f"the store may take {_mib(config.size_cap_bytes)}; a gate may hold the loop "
        f"{limit_s:g} s",
    )


def _variables(unknown: Mapping[str, str | None]) -> list[Fact]:
    """What somebody meant to set, and did not."""
    if not unknown:
        return []
    meant = [f"{near} instead of {name}?" for name, near in unknown.items() if near]
    return [
        Fact(
            "variables",
            Standing.LIMITED,
            f"{', '.join(unknown)} set in the environment",
            "there is no such setting: it does nothing",
            ", ".join(meant) or None,
        )
    ]


def _mib(size_bytes: int) -> str:
    """In MiB, or in GiB from one of them on."""
    mib = size_bytes / (1 << 20)
    if mib >= 1024:
        return f"{mib / 1024:,.1f} GiB"
    return f"{mib:.1f} MiB" if mib >= 1 or not mib else "less than 1 MiB"


def _file_system(name: str, path: Path) -> Fact:
    try:
        found = probes.file_system(path)
    except OSError as error:
        return Fact(name, Standing.BAD, f"{path}: {error.strerror}", "it cannot be looked at")
    if found.kind in _KERNEL_KINDS:
        return Fact(
            name,
            Standing.BAD,
            f"{found.kind} at {found.mounted_at}",
            "what the kernel shows of itself, no stored files: nothing there can be put back",
            "set CRAB_HOME to a directory on a disk"
            if name == "store"
            else "work in a directory on a disk",
        )
    shares = probes.reflink(path)
    seen = f"{found.kind} at {found.mounted_at}; reflinks: {'yes' if shares.works else shares.seen}"
    if found.kind in _NETWORK_KINDS:
        return Fact(
            name,
            Standing.LIMITED,
            seen,
            "on a network file system another machine's changes show late, and locks may not hold",
            "keep the store on a local disk" if name == "store" else None,
        )
    if found.kind.startswith("fuse"):
        return Fact(
            name,
            Standing.LIMITED,
            seen,
            "a program's file system: what is changed behind it may show late, nothing can be "
            "watched, and every look lists all directories",
        )
    if name == "store" and found.kind in {"tmpfs", "ramfs"}:
        return Fact(
            name,
            Standing.LIMITED,
            seen,
            "in memory: nothing survives a reboot or power loss",
            "set CRAB_HOME to a directory on a disk",
        )
    if name == "workspace" and not _stores_show(path):
        return Fact(
            name,
            Standing.LIMITED,
            seen,
            "a program may change a file there and leave no trace in its times: every look reads "
            "every file (watched, those that are reported): exact, slower on large trees",
            "keep large workspaces on a disk",
        )
    return Fact(name, Standing.OK, seen, "a local file system")


def _stores_show(directory: Path) -> bool:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True  # what it cannot be opened for is told elsewhere
    try:
        return first_stores_show(fd)
    finally:
        os.close(fd)


def _times(home: Path) -> Fact:
    place = home if home.is_dir() else Path("/tmp")  # noqa: S108 - an unnamed file, to time writes
    step = probes.time_step_ns(place)
    if step is None:
        return Fact(
            "clock", Standing.LIMITED, "no step seen", "young files are read again at every scan"
        )
    seen = f"file times move in steps of {step / 1e6:.3g} ms"
    coarse = step >= 1_000_000_000
    return Fact(
        "clock",
        Standing.LIMITED if coarse else Standing.OK,
        seen,
        "files younger than a step are read again: exact in either case",
    )


def criu_fact(found: Criu | NoCriu) -> Fact:
    """What a CRIU, or the lack of one, means for a user."""
    if isinstance(found, Criu):
        seen = f"{found.shown}, tried: it imaged a process and brought it back"
        if is_ours_outside():
            where = "but this session was begun outside of this PID namespace"
            what = "processes that stay in this session cannot be imaged"
            return Fact("criu", Standing.LIMITED, f"{seen}; {where}", what, NEXT_STEP)
        if not tracing.SUPPORTED:
            seen += f"; this is {os.uname().machine}"
            return Fact("criu", Standing.LIMITED, seen, _PUT_RIGHT_ELSEWHERE)
        return Fact("criu", Standing.OK, seen, "processes can be imaged")
    return Fact("criu", Standing.LIMITED, found.reason, "processes cannot be imaged", found.hint)


def _namespaces() -> Fact:
    probe = probes.user_namespaces()
    if probe.works:
        return Fact(
            "namespaces", Standing.OK, probe.seen, "a fork could see its own files at the old path"
        )
    return Fact(
        "namespaces",
        Standing.LIMITED,
        probe.seen,
        "a fork whose conversation names the old path cannot be given a view of its own",
    )


def _landlock() -> Fact:
    probe = probes.landlock()
    if probe.works:
        return Fact("landlock", Standing.OK, probe.seen, "tools could be kept away from the store")
    return Fact(
        "landlock",
        Standing.LIMITED,
        probe.seen,
        "the store cannot be kept from tools that run as the same user",
    )
