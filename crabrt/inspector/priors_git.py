"""What a git command will probably do, by its subcommand and options. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from crabrt.core.verdicts import Guess
from crabrt.inspector import priors_table as table
from crabrt.inspector.priors_words import (
    Place,
    has,
    leaves,
    operands,
    reads,
    runs_code,
    unknown,
    writes,
)
from crabrt.inspector.shell import Word


def git(name: str, args: Sequence[Word], place: Place) -> Guess:
    """What ``git args`` will probably do."""
    rest = list(args)
    while rest and (rest[0] is None or rest[0].startswith("-")):
        option = rest.pop(0)
        if option is None:
            return unknown(name)
        if option in {"--version", "--help", "--exec-path", "-h", "-v"}:
            return reads(f"{name} {option}")
        if option in {"-C", "-c", "--git-dir", "--work-tree", "--namespace", "--config-env"}:
            value = rest.pop(0) if rest else None
            if option == "-c" and (value is None or value.startswith("alias.")):
                return unknown(f"{name} -c")
    if not rest:
        return reads(name)
    word = rest[0]
    if word is None:
        return unknown(name)
    what = f"{name} {word}"
    return _git_subcommand(what, word, rest[1:], place)


_SENDS = frozenset({"push", "send-email", "send-pack", "http-push", "imap-send"})
_SENDS_WITH = {"lfs": {"push"}, "svn": {"dcommit"}, "p4": {"submit"}, "annex": {"sync", "copy"}}


def _git_subcommand(what: str, word: str, args: Sequence[Word], place: Place) -> Guess:
    if word in _SENDS or (word in _SENDS_WITH and set(args) & _SENDS_WITH[word]):
        return leaves(what)
    if word == "submodule" and operands(args)[:1] == ["foreach"]:
        return runs_code(f"{what} foreach")
    if word in {"rebase", "bisect"} and (has(args, "x", "--exec") or args[:1] == ["run"]):
        return runs_code(what)
    if word in table.GIT_LISTS:
        return _git_lists(what, word, args)
    if word in table.GIT_READS:
        into = [one for one in args if one and one.startswith("--output")]
        return writes(f"{what} --output") if into else reads(what)
    if word == "archive":
        return writes(what) if has(args, "o", "--output") else reads(what)
    if word in table.GIT_WRITES:
        target = operands(args, "bcjou")[1:] if word == "clone" else []
        if target and place.outside(target[0]):
            return reads(f"{what} (outside the workspace)")
        return writes(what)
    return unknown(what)


def _git_lists(what: str, word: str, args: Sequence[Word]) -> Guess:
    listing = table.GIT_LISTS[word].split()
    bare = not args and word in {"branch", "tag", "remote", "notes", "reflog", "submodule"}
    options = {arg.partition("=")[0] for arg in args if arg and arg.startswith("-")}
    if bare or options.intersection(listing) or set(operands(args)[:1]).intersection(listing):
        return reads(what)
    if word in {"config", "symbolic-ref"} and len(operands(args)) == 1 == len(args):
        return reads(what)
    if word == "lfs":
        return unknown(what)
    return writes(what)
