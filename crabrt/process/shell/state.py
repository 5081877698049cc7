"""What of a shell can be had without an image of its processes: the state that bash can tell.

It is made by `recording`, kept by others, and given back by `rebuilding`. Values are as bash
printed them: quoted, for bash to read again. Bytes, because names and values may be any.
"""

from __future__ import annotations

import msgspec


class Variable(msgspec.Struct, frozen=True, array_like=True):
    """A variable.

    Attributes:
        name: of it.
        attributes: the letters of ``declare``: ``a`` array, ``A`` associative, ``i`` integer,
            ``r`` readonly, ``x`` exported, ``n`` reference, ``l``, ``u``, ``c`` case, ``t`` traced.
        value: quoted; None: it is declared and has none.
    """

    name: str
    attributes: str
    value: bytes | None


class Function(msgspec.Struct, frozen=True, array_like=True):
    """A function: its name, the letters of ``declare``, and its definition as bash prints it."""

    name: bytes
    attributes: str
    definition: bytes


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """A resource limit of setrlimit(2); -1: unlimited. `name` as in ``RLIMIT_NOFILE``."""

    name: str
    soft: int
    hard: int


class ShellState(msgspec.Struct, frozen=True, kw_only=True):
    """A shell at rest.

    Attributes:
        directory: where it is.
        directory_stack: of ``dirs``, without its first, which is `directory`.
        variables, functions: see there.
        aliases, traps, set_options, shopts: the commands that bash printed to set each again.
        umask: as bash prints it, octal.
        limits: those of its process.
        positional: ``$1`` and so on.
        jobs: commands of what runs in the background. It is not rebuilt.
        descriptors: what is open above 2, ``NUMBER PATH``. It is not rebuilt either.
        left_out: what should be here and is not, a line each.
    """

    directory: bytes
    directory_stack: tuple[bytes, ...] = ()
    variables: tuple[Variable, ...] = ()
    functions: tuple[Function, ...] = ()
    aliases: tuple[bytes, ...] = ()
    traps: tuple[bytes, ...] = ()
    set_options: tuple[bytes, ...] = ()
    shopts: tuple[bytes, ...] = ()
    umask: str = ""
    limits: tuple[Limit, ...] = ()
    positional: tuple[bytes, ...] = ()
    jobs: tuple[bytes, ...] = ()
    descriptors: tuple[bytes, ...] = ()
    left_out: tuple[str, ...] = ()
