"""Operations that make names which hurt: not UTF-8, longer than a path, full of control bytes."""

from __future__ import annotations

import errno
import os
import subprocess

from crabrt.testing.hostile.hand import TREE_NAMES, Hand, NotApplicable, Unsupported, operation

_HURTFUL = (
    b"\xff\xfe\x80",
    b"latin-\xe9",
    b"line\nbreak",
    b"tab\there",
    b"\x1b[31mred",
    b" leading and trailing ",
    b"-rf",
    b"--help",
    b"..hidden",
    b"...",
    b"back\\slash",
    b"quote'\"`$(id)",
    b"star*?[a]",
    b"#comment",
    b"!bang",
    b"CON",
    "caf\u00e9".encode(),  # composed
    "cafe\u0301".encode(),  # decomposed: another name
    "\u202egnp.exe".encode(),
    "\U0001f980".encode(),
    b"\x01",
    b"\x7f",
)
_DEEP_LEVELS, _DEEP_NAME = 25, b"deeper-than-any-path-" + b"x" * 180
_PROBE = b"the-deep"


@operation("make a file with a name that hurts")
def make_hurtful(hand: Hand) -> str:
    """Any bytes but a slash and NUL are a name."""
    path = hand.new_path(hand.rng.choice(_HURTFUL))
    data = hand.some_bytes(200)
    with open(hand.at(path), "xb") as file:
        file.write(data)
    return repr(path)


@operation("make a directory with a name that hurts")
def make_hurtful_dir(hand: Hand) -> str:
    """With a file in it."""
    path = hand.new_path(hand.rng.choice(_HURTFUL))
    os.mkdir(hand.at(path))
    with open(os.path.join(hand.at(path), b"\xfe"), "xb") as file:
        file.write(b"inside\n")
    return repr(path)


@operation("make a file with a name of 255 bytes")
def make_long(hand: Hand) -> str:
    """No suffix fits behind it: a restorer's temporary names must not be made from it."""
    path = hand.new_path(b"%03d" % (hand.turn % 1000) + b"n" * 252)
    with open(hand.at(path), "xb") as file:
        file.write(b"long\n")
    return repr(path[-255:])


@operation("make a file with a random name")
def make_random_name(hand: Hand) -> str:
    """Random bytes, as a fuzzer leaves them."""
    raw = hand.rng.randbytes(hand.rng.randint(1, 30)).replace(b"/", b"_").replace(b"\0", b"_")
    path = hand.new_path(b"r" + raw)
    os.close(os.open(hand.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    return repr(path)


def _step_down(handle: int, name: bytes) -> int:
    below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
    os.close(handle)
    return below


@operation("make a tree deeper than PATH_MAX")
def make_deep(hand: Hand) -> str:
    """Its leaf can be reached by relative descriptors only."""
    top = hand.at(_PROBE)
    if os.path.lexists(top) or len(hand.listing()) > TREE_NAMES - _DEEP_LEVELS:
        raise NotApplicable("it is there already, or there are names enough")
    os.mkdir(top)
    handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(_DEEP_LEVELS):
            os.mkdir(_DEEP_NAME, dir_fd=handle)
            handle = _step_down(handle, _DEEP_NAME)
        leaf = os.open(b"leaf", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=handle)
        os.write(leaf, b"down here\n")
        os.close(leaf)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _remove(top)
        raise Unsupported(str(error)) from error  # one in user space may go by whole paths
    finally:
        os.close(handle)
    return f"{_PROBE!r}, {_DEEP_LEVELS * (len(_DEEP_NAME) + 1)} bytes of path"


@operation("change a file deeper than PATH_MAX")
def change_deep(hand: Hand) -> str:
    """A byte more in the leaf."""
    if not os.path.isdir(hand.at(_PROBE)):
        raise NotApplicable("there is none")
    handle = os.open(hand.at(_PROBE), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(_DEEP_LEVELS):
            handle = _step_down(handle, _DEEP_NAME)
        leaf = os.open(b"leaf", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644, dir_fd=handle)
        os.write(leaf, b"%d" % hand.turn)
        os.close(leaf)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotApplicable("an earlier operation cut it off") from error
    finally:
        os.close(handle)
    return repr(_PROBE)


@operation("remove a tree deeper than PATH_MAX")
def remove_deep(hand: Hand) -> str:
    """By a program that knows how."""
    if not os.path.isdir(hand.at(_PROBE)) or hand.is_busy(_PROBE):
        raise NotApplicable("there is none, or a process holds a file in it")
    _remove(hand.at(_PROBE))
    return repr(_PROBE)


def _remove(top: bytes) -> None:
    subprocess.run(["rm", "-rf", "--", top], check=True)
