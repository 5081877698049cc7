"""A CRIU that works, beside the system's packages: from Debian, into a directory of one's own.

What a distribution has is often too old for the running kernel. apt fetches CRIU and the libraries
it needs from Debian unstable, with lists, caches and sources of its own, and checks Debian's
signatures; dpkg-deb unpacks them. Nothing is installed: no package is registered, no script of one
runs. CRIU is started through the loader and the C library that came with it, so it does not matter
how old the system's are.
"""

from __future__ import annotations

import glob
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from crabrt.errors import CrabError
from crabrt.process import claims
from crabrt.process.criu import calling
from crabrt.process.criu.probing import WRAPPER, probe
from crabrt.process.criu.programs import Criu

MIRROR: Final = "http://deb.debian.org/debian"
SUITE: Final = "unstable"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_SAID_MAX: Final = 1 << 16
_BY_HAND: Final = "or install CRIU 4.2 or newer yourself and name it in CRAB_CRIU"

_CONFIGURATION: Final = """\
Dir "{top}";
Dir::State "{top}/state";
Dir::State::status "{top}/state/status";
Dir::Cache "{top}/cache";
Dir::Etc "{top}/etc";
Dir::Etc::main "-";
Dir::Etc::parts "-";
Dir::Etc::sourcelist "{top}/etc/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
Dir::Log "{top}/log";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::PDiffs "false";
APT::Update::Error-Mode "any";
"""

_WRAPPER: Final = """\
#!/bin/sh
# CRIU {version}, with the loader and the libraries that came with it.
top=${{0%/*}}
CRIU_LIBS_DIR="$top/usr/lib/criu" exec "$top/{loader}" \\
    --library-path "$top/{libraries}" "$top/{program}" "$@"
"""


class CannotInstall(CrabError):
    """CRIU could not be unpacked; the message says at which step, and why."""

    kind = "cannot-install"


def install(
    programs: Path,
    *,
    limit_s: float = 900.0,
    mirror: str = MIRROR,
    keyring: Path = KEYRING,
    progress: Callable[[str], None] = lambda _: None,
) -> Criu:
    """Fetch and unpack CRIU into `programs`; replaces what was unpacked there before.

    It appears there whole and tried, or not at all.

    Args:
        programs: the directory of crabrt's own programs; made if it is absent.
        limit_s: for everything together.
        mirror: of Debian's archive.
        keyring: the keys that may have signed it.
        progress: is told each step before it begins.

    Raises:
        CannotInstall: a program or the keys are missing, a step failed or took too long, or what
            was fetched does not work here.
    """
    _check(keyring)
    until = time.monotonic() + limit_s
    try:
        os.makedirs(programs, mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".criu-", dir=programs) as scratch:
            top = Path(scratch)
            _fetch(top, mirror, keyring, until, progress)
            progress("unpacking")
            tree = _unpack(top, until)
            progress("trying it")
            _try(tree)
            _put(tree, programs / WRAPPER.parent, top / "before")
    except OSError as error:
        raise CannotInstall(
            f"{error.filename or programs}: {error.strerror or error}",
            where=str(programs),
            hint="set XDG_DATA_HOME to a directory that can be written, on a disk with 200 MB free",
        ) from error
    found = probe(programs / WRAPPER)
    assert isinstance(found, Criu)
    return found


def _check(keyring: Path) -> None:
    search = claims.ENVIRONMENT["PATH"]
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name, path=search) is None]
    if missing:
        raise CannotInstall(
            f"it takes {' and '.join(missing)}, which this machine does not have",
            hint=f"run it on Debian or Ubuntu, {_BY_HAND}",
        )
    if not keyring.is_file():
        raise CannotInstall(
            "Debian's keys are not here, so that nothing from Debian could be trusted",
            where=str(keyring),
            hint=f"apt-get install debian-archive-keyring, {_BY_HAND}",
        )


def _fetch(
    top: Path, mirror: str, keyring: Path, until: float, progress: Callable[[str], None]
) -> None:
    for name in ("etc", "log", "state/lists/partial", "cache/archives/partial"):
        os.makedirs(top / name)
    (top / "state" / "status").touch()  # of no installed package: every library comes along
    (top / "etc" / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror} {SUITE} main\n")
    settings = _run(["apt-config", "dump", "Acquire"], top, until, "reading apt's settings")
    configuration = top / "apt.conf"
    # The machine's own proxies first, then what must be so here. A mirror that lags behind serves
    # a Release file past its date: signed all the same, and the version is tried afterwards.
    configuration.write_text(
        settings + _CONFIGURATION.format(top=top) + 'Acquire::Check-Valid-Until "false";\n'
    )
    # APT_CONFIG is read before the system's own files, which are left out by it.
    apt = ["env", f"APT_CONFIG={configuration}", "apt-get", "-qq"]
    progress(f"reading what {mirror} has")
    _run([*apt, "update"], top, until, "reading the list of packages")
    progress("fetching CRIU and its libraries")
    _run([*apt, "--yes", "--download-only", "install", "criu"], top, until, "fetching the packages")


def _unpack(top: Path, until: float) -> Path:
    tree = top / "tree"
    tree.mkdir(mode=0o755)
    packages = sorted((top / "cache" / "archives").glob("*.deb"))
    for package in packages:
        _run(["dpkg-deb", "--extract", str(package), str(tree)], top, until, package.name)
    version = next((one.name.split("_")[1] for one in packages if one.name.startswith("criu_")), "")
    shutil.rmtree(tree / "usr" / "share", ignore_errors=True)
    os.makedirs(tree / "usr" / "lib" / "criu", exist_ok=True)  # for plugins; it has to be there
    script = _WRAPPER.format(
        version=version,
        loader=_one(tree, "usr/lib*/ld-linux*.so.*"),
        libraries=os.path.dirname(_one(tree, "usr/lib/*/libc.so.6")),
        program=_one(tree, "usr/sbin/criu", "usr/bin/criu"),
    )
    wrapper = tree / WRAPPER.name
    wrapper.write_text(script)
    wrapper.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    return tree


def _one(tree: Path, *patterns: str) -> str:
    """The path in `tree` that fits a pattern: where a file lies depends on the machine's kind."""
    for pattern in patterns:
        found = sorted(glob.glob(pattern, root_dir=tree))
        if found:
            return found[0]
    raise CannotInstall(f"the packages contain no {patterns[0]}", hint=_BY_HAND)


def _try(tree: Path) -> None:
    found = probe(tree / WRAPPER.name)
    if not isinstance(found, Criu):
        raise CannotInstall(f"what was fetched does not work: {found.reason}", hint=found.hint)


def _put(tree: Path, place: Path, before: Path) -> None:
    """Give it its name; what had it goes away with the scratch directory."""
    if place.exists():
        os.rename(place, before)
    os.rename(tree, place)


def _run(argv: list[str], top: Path, until: float, step: str) -> str:
    """Run one step; what it printed.

    Raises:
        CannotInstall: it failed, or time is up.
    """
    output = top / "output"
    status = calling.run(argv, output, max(0.0, until - time.monotonic()))
    with open(output, "rb") as file:
        said = file.read(_SAID_MAX).decode("utf-8", "backslashreplace")
    if status is None:
        raise CannotInstall(f"{step}: not done in time", hint="try again, or use a nearer mirror")
    if status:
        lines = [line for line in said.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("E:")] or lines[-1:]
        raise CannotInstall(
            f"{step} failed: {' '.join(errors[:3]) or f'status {status}'}",
            hint=f"look at the network and the mirror, {_BY_HAND}",
        )
    return said
