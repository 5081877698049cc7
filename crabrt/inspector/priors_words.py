"""The words that rules about commands are written in: verdicts, places, options, operands."""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass

from crabrt.core.verdicts import Guess, Likely
from crabrt.inspector.priors_table import LOCAL_HOST
from crabrt.inspector.shell import Word

LEAVES = "leaves the machine"

STRENGTH = (Likely.EXTERNAL, Likely.UNKNOWN, Likely.PROCESSES, Likely.FILES, Likely.NONE)
"""Strongest first. Unknown is stronger than all but what surely cannot be taken back."""

PLAIN = frozenset(
    {
        "-q", "--quiet", "--silent", "--verbose", "--debug", "-y", "--yes", "--no-pager",
        "--offline", "--no-color",
    }
)  # fmt: skip
"""Options that, wherever they exist, take no value."""

DEVICES = re.compile(r"/dev/(null|zero|full|stdin|stdout|stderr|tty|fd/\d+)|&?\d+|-")


@dataclass(frozen=True, slots=True)
class Place:
    """Where commands run: `workspace` is its absolute path, or empty where it is not known."""

    workspace: str = ""

    def outside(self, path: Word) -> bool:
        """Whether writing to `path` surely writes nothing in the workspace (links aside)."""
        if path is None:
            return False
        if DEVICES.fullmatch(path):
            return True
        if not self.workspace or not path.startswith("/"):
            return False
        real = os.path.normpath(path)
        above = self.workspace.rstrip("/") + "/"
        return not (real + "/").startswith(above) and not above.startswith(real.rstrip("/") + "/")


def reads(name: str) -> Guess:
    """It only reads; reasons of this kind are joined: `name` is all there is to say."""
    return Guess(Likely.NONE, name)


def writes(what: str) -> Guess:
    """It writes files."""
    return Guess(Likely.FILES, f"{what}: writes files")


def leaves(what: str) -> Guess:
    """It does something elsewhere."""
    return Guess(Likely.EXTERNAL, f"{what}: {LEAVES}")


def starts(what: str) -> Guess:
    """It starts or ends processes."""
    return Guess(Likely.PROCESSES, f"{what}: starts or ends processes")


def runs_code(what: str) -> Guess:
    """It may do anything."""
    return Guess(Likely.UNKNOWN, f"{what}: runs code")


def unknown(what: str) -> Guess:
    """Nothing is known of it."""
    return Guess(Likely.UNKNOWN, f"{what}: not known")


def redirection(path: Word, place: Place) -> Guess | None:
    """What ``> path`` does; None where it is of no interest."""
    if path is not None and path.startswith(("/dev/tcp/", "/dev/udp/")):
        return leaves(f"> {path}")
    if place.outside(path):
        return None
    return Guess(Likely.FILES, "writes a file" if path is None else f"writes {path}")


_HOST = re.compile(
    r"(?:\w+://)?(?:[^/?#]*@)?(\[[^\]/?#]*\]|[^:/?#\[]*)(?::\d*)?(?:[/?#].*)?", re.DOTALL
)


def is_local(url: str) -> bool:
    """Whether a URL, or an address without a scheme, names this machine: by its whole host."""
    found = _HOST.fullmatch(url)
    return found is not None and LOCAL_HOST.fullmatch(found[1].lower()) is not None


def has(args: Sequence[Word], letters: str, *long: str, valued: str = "") -> bool:
    """Whether one of these options is given: letters also in a cluster (``-Ei``).

    Args:
        args: the arguments.
        letters: of short options.
        long: long options.
        valued: letters of options whose value may be the rest of the word (``-Iinclude``).
    """
    for word in args:
        if word == "--":
            return False
        if word is None or not word.startswith("-") or word == "-":
            continue
        if word.startswith("--"):
            if word.partition("=")[0] in long:
                return True
        elif not set(letters).isdisjoint(_cluster(word, valued)):
            return True
    return False


def _cluster(word: str, valued: str) -> str:
    """The letters of ``-Ei``, without the value that one of `valued` may have in the same word."""
    ends = [at for at, letter in enumerate(word) if letter in valued]
    return word[: ends[0]] if ends else word


def operands(args: Sequence[Word], valued: str = "", *long: str) -> list[Word]:
    """What is no option.

    Args:
        args: the arguments.
        valued: letters of options whose value is the next word.
        long: long options of that kind.
    """
    found: list[Word] = []
    rest = iter(args)
    for word in rest:
        if word == "--":
            return [*found, *rest]
        if word is None or not word.startswith("-") or word == "-":
            found.append(word)
        elif word in long or (not word.startswith("--") and word[-1] in valued):
            next(rest, None)
    return found


def subcommands(args: Sequence[Word], valued: str = "", *long: str) -> list[Word]:
    """The words that may be the subcommand, as far as the options before it are known.

    It is the first operand. Behind an option that is not known stands its value or an operand:
    then the next operand is meant, too.
    """
    found: list[Word] = []
    doubt = False
    rest = iter(args)
    for word in rest:
        if word is None or not word.startswith("-") or word == "-":
            found.append(word)
            if not doubt:
                break
            doubt = False
        elif word == "--":
            found += [next(rest, "")]
            break
        elif word in long or (not word.startswith("--") and word[-1] in valued):
            next(rest, None)
            doubt = False
        else:
            doubt = "=" not in word and word not in PLAIN
    return found


def leading(
    args: Sequence[Word], valued: frozenset[str], plain: frozenset[str] = frozenset()
) -> list[str]:
    """The operands up to the first option that is not known: its value may stand behind it.

    Args:
        args: the arguments.
        valued: options whose value is the next word.
        plain: options that take none, beside `PLAIN`.
    """
    found: list[str] = []
    rest = iter(args)
    for word in rest:
        if word is None:
            break
        if not word.startswith("-"):
            found.append(word)
        elif word in valued:
            next(rest, None)
        elif not (word in plain or word in PLAIN or word.partition("=")[0] in valued):
            break
    return found
