"""A process that stands still, made to do a system call, or to begin one anew (ptrace(2)).

Some things only a process itself can do: a POSIX lock belongs to whose descriptors were used. CRIU
has its own code for that, which is gone once it lets go. What is done here leaves no trace: the
registers, and the bytes below the stack that an argument is put into, are as before, and no code is
written. The instruction that enters the kernel is one that the process has: the kernel maps it
(vdso(7)).

For x86-64, where `SUPPORTED`. The register layout is ``struct user_regs_struct``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import sys
import time
from types import TracebackType
from typing import Final, NamedTuple, Self

from crabrt.workspace.procfs import read

SUPPORTED: Final = platform.machine() == "x86_64" and sys.maxsize > 1 << 32

_GETREGS, _SETREGS, _DETACH, _SYSCALL = 12, 13, 17, 24
_SEIZE, _INTERRUPT, _PEEKSIGINFO = 0x4206, 0x4207, 0x4209
_GETSIGMASK, _SETSIGMASK = 0x420A, 0x420B
_TRACE_SYSGOOD: Final = 1  # PTRACE_O_TRACESYSGOOD
_STOPPED_IN_CALL: Final = signal.SIGTRAP | 0x80
_EVENT_STOP: Final = 128  # PTRACE_EVENT_STOP
_LIMIT_S: Final = 5.0
_POLL_S: Final = 0.0005

_REGISTERS: Final = struct.Struct("=27Q")
_R10, _R9, _R8, _AX, _DX, _SI, _DI, _ORIG_AX, _IP, _CS, _SP = (
    7,
    8,
    9,
    10,
    12,
    13,
    14,
    15,
    16,
    17,
    19,
)
_ARGUMENTS: Final = (_DI, _SI, _DX, _R10, _R8, _R9)
_NATIVE: Final = 0x33  # __USER_CS
_NO_CALL: Final = (1 << 64) - 1
_INTERRUPTED: Final = frozenset({(1 << 64) - errno.EINTR, (1 << 64) - 516})
"""What an interrupted call gave: -EINTR, or -ERESTART_RESTARTBLOCK."""

_EVERY_SIGNAL: Final = b"\xff" * 8
_ENTERS: Final = b"\x0f\x05"  # syscall
_SIGNAL_BYTES: Final = 128
_SIGNALS_MOST: Final = 64
_SHARED_SIGNALS: Final = struct.Struct("=QIi")  # struct ptrace_peeksiginfo_args
_SHARED: Final = 1  # PTRACE_PEEKSIGINFO_SHARED
_BELOW_STACK: Final = 1024
"""Farther below the stack pointer than the red zone of 128 bytes that a function may use."""


class Inside(NamedTuple):
    """An argument of a system call: where a byte of the memory is that goes with it."""

    offset: int


class Interrupted(NamedTuple):
    """A system call: its number, and its six arguments."""

    number: int
    words: tuple[int, ...]


class Traced:
    """A thread that stands still for us, which is in a stopped process. A context manager.

    Leaving it leaves the process stopped, as it was. All of it by one thread of ours.

    Args:
        thread: its number.

    Raises:
        OSError: it ended, may not be traced, or does not stop.
    """

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [
            ctypes.c_long,
            ctypes.c_long,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self._libc.ptrace.restype = ctypes.c_long

    def __enter__(self) -> Self:
        self._ask(_SEIZE, _TRACE_SYSGOOD)
        try:
            self._wait()
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._let_go()

    def call(self, number: int, *words: int | Inside, memory: bytes = b"") -> int:
        """Have it do a system call that does not sleep; what that gives, negative for an error.

        Args:
            number: of the call.
            words: its arguments, at most six.
            memory: what those are addresses in that say so. The call may change it.

        Raises:
            OSError: it cannot be made to: it is no native program, it ended, or it was woken.
        """
        before = self._registers()
        if before[_CS] != _NATIVE:
            raise OSError("it runs code for 32 bits")
        at = before[_SP] - _BELOW_STACK & ~0xF
        arguments = [at + one.offset if isinstance(one, Inside) else one for one in words]
        arguments += [0] * (6 - len(words))
        kept, blocked = b"", self._blocked()
        if memory:
            kept = self._peek(at, len(memory))
            self._poke(at, memory)
        try:
            self._block(_EVERY_SIGNAL)
            return self._call(before, number, arguments)
        except TimeoutError:
            self._interrupt()
            raise
        finally:
            self._set_registers(before)
            self._block(blocked)
            if memory:
                self._poke(at, kept)

    def waiting(self) -> list[bytes]:
        """The signals that wait for its process, as ``siginfo_t``.

        Raises:
            OSError: it ended.
        """
        asked = _SHARED_SIGNALS.pack(0, _SHARED, _SIGNALS_MOST)
        held = ctypes.create_string_buffer(asked, len(asked))
        found = ctypes.create_string_buffer(_SIGNALS_MOST * _SIGNAL_BYTES)
        count = self._ask(_PEEKSIGINFO, found, ctypes.addressof(held))
        return [found.raw[n * _SIGNAL_BYTES :][:_SIGNAL_BYTES] for n in range(count)]

    def interrupted(self) -> Interrupted | None:
        """The system call that it is about to be told was interrupted, if it is.

        Raises:
            OSError: it ended.
        """
        registers = self._registers()
        if registers[_AX] not in _INTERRUPTED or registers[_CS] != _NATIVE:
            return None
        words = tuple(registers[place] for place in _ARGUMENTS)
        return Interrupted(registers[_ORIG_AX], words)

    def begin_anew(self) -> None:
        """Have the call that was `interrupted` begin anew.

        Raises:
            OSError: it ended.
        """
        registers = list(self._registers())
        registers[_AX], registers[_ORIG_AX] = registers[_ORIG_AX], _NO_CALL
        registers[_IP] -= len(_ENTERS)
        self._set_registers(registers)

    def _call(self, before: tuple[int, ...], number: int, arguments: list[int]) -> int:
        registers = list(before)
        registers[_IP], registers[_AX], registers[_ORIG_AX] = self._entrance(), number, _NO_CALL
        for place, word in zip(_ARGUMENTS, arguments, strict=True):
            registers[place] = word
        self._set_registers(registers)
        for _ in ("enters", "leaves"):
            self._ask(_SYSCALL)
            while (why := self._wait()) != _STOPPED_IN_CALL:
                if why >> 8 != _EVENT_STOP and why != signal.SIGSTOP:
                    raise OSError("it was woken while it was to do a system call")
                self._ask(_SYSCALL)  # it stopped once more, or its stop is over
        result = self._registers()[_AX]
        return result - (1 << 64) if result >> 63 else result

    def _entrance(self) -> int:
        """Where there is an instruction that enters the kernel."""
        for line in read(b"/proc/%d/maps" % self._thread).splitlines():
            if line.endswith(b"[vdso]"):
                begin, _, end = line.split()[0].partition(b"-")
                at = self._peek(int(begin, 16), int(end, 16) - int(begin, 16)).find(_ENTERS)
                if at >= 0:
                    return int(begin, 16) + at
        raise OSError("the kernel has mapped no code into it")

    def _ask(
        self, request: int, data: int | ctypes.Array[ctypes.c_char] = 0, address: int = 0
    ) -> int:
        held = ctypes.cast(data, ctypes.c_void_p) if isinstance(data, ctypes.Array) else data
        result: int = self._libc.ptrace(request, self._thread, address, held)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def _registers(self) -> tuple[int, ...]:
        buffer = ctypes.create_string_buffer(_REGISTERS.size)
        self._ask(_GETREGS, buffer)
        return _REGISTERS.unpack(buffer.raw)

    def _set_registers(self, registers: tuple[int, ...] | list[int]) -> None:
        packed = _REGISTERS.pack(*registers)
        self._ask(_SETREGS, ctypes.create_string_buffer(packed, len(packed)))

    def _blocked(self) -> bytes:
        """The signals that are blocked in it, as a set of bits."""
        mask = ctypes.create_string_buffer(len(_EVERY_SIGNAL))
        self._ask(_GETSIGMASK, mask, len(mask))
        return mask.raw

    def _block(self, signals: bytes) -> None:
        mask = ctypes.create_string_buffer(signals, len(signals))
        self._ask(_SETSIGMASK, mask, len(mask))

    def _peek(self, at: int, size: int) -> bytes:
        with open(f"/proc/{self._thread}/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), size, at)

    def _poke(self, at: int, data: bytes) -> None:
        with open(f"/proc/{self._thread}/mem", "r+b", buffering=0) as memory:
            if os.pwrite(memory.fileno(), data, at) != len(data):
                raise OSError("its stack cannot be written")

    def _wait(self) -> int:
        """What it stopped with: a signal, and an event above that.

        Without collecting it, should it end: that is for others.
        """
        until = time.monotonic() + _LIMIT_S
        while time.monotonic() < until:
            found = os.waitid(os.P_PID, self._thread, os.WSTOPPED | os.WNOHANG)
            if found is not None and found.si_pid == self._thread:
                return found.si_status
            time.sleep(_POLL_S)
        raise TimeoutError("it does not stop")

    def _interrupt(self) -> bool:
        """Stop it wherever it is; whether it stands."""
        try:
            self._ask(_INTERRUPT)
            self._wait()
        except OSError:  # it ended, or is in a sleep that nothing interrupts
            return False
        return True

    def _let_go(self) -> None:
        """Only who stands can be let go of; one that stays traced stops at its next signal."""
        try:
            self._ask(_DETACH)
        except ProcessLookupError:  # it ended, or was woken
            if self._interrupt():
                self._ask(_DETACH)
