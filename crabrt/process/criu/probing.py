"""Which CRIU there is, and whether it can do here what it is asked for: found out by doing it.

A version promises little: 3.17.1 does not start on new kernels (their vDSO has areas it does not
know), 4.1.1 fails on TCP sockets where the kernel is 6.16 or newer (SO_PASSCRED), a container may
forbid any of it. So a small process that listens on a TCP port is imaged, ended and brought back,
which takes about a quarter of a second. Once in a process's life for each program, and not again in
the next process where the first could note that it worked (`remembering`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from crabrt.errors import CrabError
from crabrt.process import claims
from crabrt.process.criu import calling
from crabrt.process.criu.causes import Cause, NotImaged, NotRevived
from crabrt.process.criu.dumping import dump
from crabrt.process.criu.programs import INSTALL_HINT, Criu, Lack, NoCriu
from crabrt.process.criu.remembering import Memory, doubts
from crabrt.process.criu.restoring import restore
from crabrt.workspace.procfs import read

WRAPPER: Final = Path("criu", "criu")
"""The program that `installing` unpacked, below the directory of crabrt's own programs."""

RECOMMENDED: Final = (4, 2, 0)
_OLDEST: Final = (3, 19, 0)  # knows `--network-lock skip`
_LIMIT_S: Final = 10.0
_ATTEMPTS: Final = 3
_VERSION: Final = re.compile(r"^Version:\s*(\d+)\.(\d+)(?:\.(\d+))?", re.MULTILINE)
_SYS_PTRACE, _SYS_ADMIN = 19, 21  # linux/capability.h
_LISTENER: Final = (
    "import signal, socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
    "print(end='.', flush=True); signal.pause()"
)


def find(
    configured: Path | None = None,
    programs: Path | None = None,
    *,
    search: str = claims.ENVIRONMENT["PATH"],
    memory: Path | None = None,
    anew: bool = False,
) -> Criu | NoCriu:
    """The first CRIU that works here.

    Args:
        configured: the only one to try, if it is given.
        programs: the directory of crabrt's own programs, tried last.
        search: directories to look in, as in ``PATH``.
        memory: the directory of the store, where it is noted which one works; None: nowhere.
        anew: try it, whatever is noted there, and note what comes of it.
    """
    if not _privileged():
        return NoCriu(
            Lack.PRIVILEGE, "imaging processes takes root (CAP_SYS_ADMIN, CAP_SYS_PTRACE)", None
        )
    first: NoCriu | None = None
    for program in _candidates(configured, programs, search):
        found = _recalled_or_tried(program, None if memory is None else Memory(memory), anew=anew)
        if isinstance(found, Criu):
            return found
        first = first or found
    if first is not None:
        return first
    if configured is not None:
        return NoCriu(Lack.MISSING, f"there is no program {configured}", "look at CRAB_CRIU")
    return NoCriu(Lack.MISSING, "CRIU is not installed", INSTALL_HINT)


def _candidates(configured: Path | None, programs: Path | None, search: str) -> Iterator[Path]:
    if configured is not None:
        if configured.is_file():
            yield configured.absolute()
        return
    found = shutil.which("criu", path=search)
    if found is not None:
        yield Path(found).absolute()
    if programs is not None and (programs / WRAPPER).is_file():
        yield (programs / WRAPPER).absolute()


def _recalled_or_tried(program: Path, memory: Memory | None, *, anew: bool) -> Criu | NoCriu:
    if memory is None:
        return probe(program)
    if anew:
        _asked.cache_clear()
        _tried.cache_clear()
    told = _told(program)
    if isinstance(told, NoCriu):
        return told
    if not anew and (recalled := memory.recalled(told)) is not None:
        return recalled
    found = probe(program)
    if isinstance(found, Criu):
        return memory.remember(found)
    memory.forget(told)
    return found


def probe(program: Path) -> Criu | NoCriu:
    """Try a CRIU; the answer is remembered until the program changes."""
    told = _told(program)
    return told if isinstance(told, NoCriu) else _tried(told, _this(program), doubts())


def _told(program: Path) -> Criu | NoCriu:
    """A CRIU by the version that it tells, not tried; asked for once, as `probe` tries it once."""
    return _asked(program, _this(program))


def _this(program: Path) -> tuple[int, int, int]:
    """What an answer is remembered by. A forked child has other children, so it asks itself."""
    try:
        status = os.stat(program)
    except OSError:  # gone: whoever runs it says so
        return 0, 0, os.getpid()
    return status.st_ino, status.st_mtime_ns, os.getpid()


@functools.lru_cache(maxsize=16)
def _asked(program: Path, this: tuple[int, int, int]) -> Criu | NoCriu:
    del this
    with tempfile.TemporaryDirectory(prefix="crab-criu-") as scratch:
        version = _version(program, Path(scratch))
    if isinstance(version, NoCriu):
        return version
    criu = Criu(program, version)
    if version < _OLDEST:
        return NoCriu(Lack.TOO_OLD, f"{criu.shown} is too old", INSTALL_HINT)
    return criu


@functools.lru_cache(maxsize=16)
def _tried(criu: Criu, this: tuple[int, int, int], doubts: int) -> Criu | NoCriu:
    del this, doubts
    problem: CrabError | None = None
    with tempfile.TemporaryDirectory(prefix="crab-criu-") as scratch:
        for attempt in range(_ATTEMPTS):  # its process number may be given away meanwhile
            try:
                _try(criu, Path(scratch) / str(attempt))
            except (NotImaged, NotRevived) as error:
                problem = error
                if error.cause is not Cause.PID_TAKEN:
                    break
            except OSError as error:
                return NoCriu(Lack.BROKEN, f"it could not be tried: {error}", None)
            else:
                return criu
    assert problem is not None
    is_old = criu.version < RECOMMENDED
    return NoCriu(
        Lack.TOO_OLD if is_old else Lack.KERNEL,
        f"{criu.shown} was tried and failed: {problem.message}",
        INSTALL_HINT if is_old else None,
    )


def _version(program: Path, scratch: Path) -> tuple[int, int, int] | NoCriu:
    output = scratch / "version"
    try:
        status = calling.run([str(program), "--version"], output, _LIMIT_S)
    except OSError as error:
        return NoCriu(Lack.BROKEN, f"{program}: {error.strerror}", INSTALL_HINT)
    if status is None:
        reason = f"{program} did not tell its version within {_LIMIT_S:g} s"
        return NoCriu(Lack.BROKEN, reason, INSTALL_HINT)
    with open(output, "rb") as file:
        text = file.read(1 << 16).decode("utf-8", "backslashreplace")
    found = _VERSION.search(text)
    if found is None:
        lines = text.strip().splitlines()
        said = lines[-1] if lines else f"nothing, and ended with {status}"
        return NoCriu(Lack.BROKEN, f"{program} tells no version, it says: {said}", INSTALL_HINT)
    major, minor, patch = (int(number or 0) for number in found.groups())
    return major, minor, patch


def _try(criu: Criu, images: Path) -> None:
    """Image a process, end it, bring it back, end it.

    Raises:
        NotImaged, NotRevived: it failed.
        OSError: there is no process to try it with.
    """
    child = claims.helper(
        lambda: subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LISTENER],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    )
    try:
        assert child.stdout is not None
        with child.stdout:
            if child.stdout.read(1) != b".":
                raise OSError("a process to try it with did not start")
        dump(criu, child.pid, images, limit_s=_LIMIT_S)
    finally:
        child.kill()
        child.wait()
    root = restore(criu, images, limit_s=_LIMIT_S)
    with contextlib.suppress(ProcessLookupError):
        os.kill(root, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(root, 0)


def _privileged() -> bool:
    """Whether this process may trace others and use what CRIU uses of the kernel."""
    for line in read(b"/proc/self/status").splitlines():
        if line.startswith(b"CapEff:"):
            held = int(line.split()[1], 16)
            return bool(held >> _SYS_ADMIN & 1 and held >> _SYS_PTRACE & 1)
    return False
