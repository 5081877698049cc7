"""What the clients of databases will probably do, by the host that they are told to ask. Pure.

Without one they ask this machine, as far as their words tell (their configuration may say else).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from crabrt.core.verdicts import Guess, Likely
from crabrt.inspector.priors_words import Place, is_local, leaves, reads
from crabrt.inspector.shell import Word

_TELLS: Final = frozenset({"--version", "--help", "-V", "-?"})
_HOST: Final = "h"
_SAYS_NOTHING: Final = frozenset(
    {"--command", "--eval", "--file", "--port", "--username", "--variable"}
)
"""Options whose value surely is the next word, and names no host."""


@dataclass(frozen=True, slots=True)
class _Client:
    """How a client is told whom to ask.

    Attributes:
        valued: its one-letter options that surely take a value.
        attached: those whose value, if they have one, stands in the same word.
        addresses: those of them, and long ones, whose value is an address with a host in it.
        operand: whether its operands may be such addresses.
        elsewhere: long options with which it asks whom its operands name.
    """

    valued: str
    attached: str = ""
    addresses: frozenset[str] = frozenset()
    operand: bool = False
    elsewhere: frozenset[str] = frozenset()


_MYSQL: Final = _Client("euPSD", attached="p")
_MONGO: Final = _Client("u", attached="p", operand=True)
CLIENTS: Final[Mapping[str, _Client]] = {
    "redis-cli": _Client(
        "psanridDXtu", addresses=frozenset({"u"}), elsewhere=frozenset({"--cluster"})
    ),
    "psql": _Client(
        "cdfvpULoFRTP", addresses=frozenset({"d", "--dbname"}), operand=True
    ),
    "mysql": _MYSQL, "mysqldump": _MYSQL, "mongo": _MONGO, "mongosh": _MONGO,
}  # fmt: skip

HOSTED: Final = re.compile(
    r"(?<!\w)(PGHOST|PGHOSTADDR|PGSERVICE|PGSERVICEFILE|MYSQL_HOST)="
    r"(?!['\"]?(localhost|127[\d.]+|/[^\s'\"]*)['\"]?(?=[\s;&|]|$))"
)
"""A text in which a variable names a host for such clients, and not this machine."""


def database(name: str, args: Sequence[Word], place: Place) -> Guess:
    """A client of a database: to this machine, nobody knows what it does; else it leaves it."""
    del place
    if args and set(args) <= _TELLS:
        return reads(name)
    client = CLIENTS[name]
    if all(_is_here(option, value) for option, value in _addressed(client, args)):
        return Guess(Likely.UNKNOWN, f"{name}: asks something on this machine")
    return leaves(name)


def _addressed(client: _Client, args: Sequence[Word]) -> Iterator[tuple[str, Word]]:
    """What names a host, or may: ``h`` with a host, else an empty text with an address."""
    rest = iter(args)
    for word in rest:
        if word is None or not word.startswith("-") or word == "-":
            if client.operand:
                yield "", word
        elif word.startswith("--"):
            option, equals, value = word.partition("=")
            if option in client.elsewhere:
                yield _HOST, None
            elif option == "--host" or option in client.addresses:
                yield _HOST if option == "--host" else "", value if equals else next(rest, "")
            elif option in _SAYS_NOTHING and not equals:
                next(rest, "")
        else:
            yield from _clustered(client, word[1:], rest)


def _clustered(client: _Client, letters: str, rest: Iterator[Word]) -> Iterator[tuple[str, Word]]:
    for at, letter in enumerate(letters):
        if letter in client.attached:
            return
        if letter == _HOST or letter in client.valued:
            value = letters[at + 1 :] or next(rest, "")
            if letter == _HOST or letter in client.addresses:
                yield _HOST if letter == _HOST else "", value
            return


_HOSTS_OF: Final = re.compile(r"[\w+]+://(?:[^/?#]*@)?([^/?#]*)")
_PAIRS: Final = re.compile(r"(?<!\w)(host|hostaddr|service)\s*=\s*'?([^\s'&]*)")


def _is_here(option: str, value: Word) -> bool:
    """Whether a host, or the address of a database, is on this machine."""
    if value is None:
        return False
    if option == _HOST:
        return all(not one or one.startswith("/") or is_local(one) for one in value.split(","))
    pairs = [_is_here(_HOST, host) for _, host in _PAIRS.findall(value)]
    found = _HOSTS_OF.match(value)
    if found is not None:
        return all(pairs) and _is_here(_HOST, found[1]) and "+srv://" not in value
    if pairs or "=" in value:
        return all(pairs)
    return re.fullmatch(r"[\w$-]*|[^:]*\.js", value) is not None or is_local(value)
