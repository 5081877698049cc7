"""Which turns are wanted: what a person types, and whether a row fits it.

``verdict:files tool:sh path:src/ label:good unprotected oops`` means: changed files, called sh, a
path that contains ``src/``, and so on, and ``oops`` in the text of the conversation. What a row can
tell is decided here. A row names the first paths that changed, not all: the trees of the turn do.
Text is `searching`'s to find, since it is not in the rows.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace

from crabrt.core.verdicts import Protection
from crabrt.errors import UsageError
from crabrt.timeline.rows import Row

VERDICTS = ("none", "files", "processes", "external", "unknown")
FLAGS = ("unprotected", "failed", "labelled", "pinned", "torn", "thinned", "noted")
"""Words that stand for a kind of turn; to search for such a word, write ``text:unprotected``."""

SAMPLE_MOST = 20
"""A row with so many paths may not name all that changed (`Verdict.sample` has no more)."""

_KEYS = ("verdict", "tool", "path", "label", "is", "text")


@dataclass(frozen=True, slots=True)
class Filter:
    """What is wanted of a turn: all of it.

    Attributes:
        verdicts: each of these effect classes; ``unknown``: it has no verdict.
        tools: a call of each of these tools (part of the name, in any case).
        paths: for each, a changed path that contains it: see `fits_paths`.
        labels: for each, a label that contains it.
        flags: some of `FLAGS`.
        text: what the turn's conversation has to contain (in any case), for `searching.TextSearch`.
    """

    verdicts: frozenset[str] = frozenset()
    tools: tuple[str, ...] = ()
    paths: tuple[bytes, ...] = ()
    labels: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()
    text: str = ""

    @property
    def is_about_rows(self) -> bool:
        """Whether rows alone decide something."""
        return replace(self, text="") != Filter()

    def fits(self, row: Row) -> bool:
        """Whether a row has all that is wanted, but for `paths` and `text`."""
        view = row.view
        verdict = frozenset(view.verdict) or {"unknown"}
        return (
            self.verdicts <= verdict
            and all(any(tool in one.name.lower() for one in view.tools) for tool in self.tools)
            and all(any(label in one.lower() for one in view.labels) for label in self.labels)
            and all(_is(row, flag) for flag in self.flags)
        )

    def fits_paths(self, row: Row) -> bool | None:
        """Whether the turn changed `paths`, as far as its row tells.

        None: only its trees can tell (`reader.RunReader.paths_changed` asks them), as the row does
        not name every path.
        """
        if not unmet(self.paths, row.view.sample):
            return True
        return False if _names_all(row) else None


def unmet(wanted: tuple[bytes, ...], changed: Iterable[bytes]) -> tuple[bytes, ...]:
    """Those of `wanted` that are part of none of the `changed` paths."""
    for path in changed:
        if not wanted:
            break
        wanted = tuple(one for one in wanted if one not in path)
    return wanted


def _names_all(row: Row) -> bool:
    """Whether the paths that a row names are all that the turn changed.

    Of a turn that goes on nothing is known yet; when it has ended it is asked again.
    """
    view = row.view
    if view.turn == 0 or (row.live and view.protection is Protection.PENDING):
        return True
    named = len(view.sample)
    if named >= SAMPLE_MOST or named < view.files:
        return False
    return named > 0 or (bool(view.verdict) and "files" not in view.verdict)


def parse_filter(text: str) -> Filter:
    """What somebody typed. Quotes keep words together: ``text:"no such file"``.

    Raises:
        UsageError: a verdict or kind that there is none of, or a quote without its end.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError("a quote has no end", where=text) from error
    found: dict[str, list[str]] = {key: [] for key in _KEYS}
    for word in words:
        key, colon, value = word.partition(":")
        if colon and key in found and value:
            found[key].append(value)
        elif word in FLAGS:
            found["is"].append(word)
        else:
            found["text"].append(word)
    _refuse_unknown("verdict", found["verdict"], VERDICTS)
    _refuse_unknown("kind of turn", found["is"], FLAGS)
    return Filter(
        frozenset(found["verdict"]),
        tuple(tool.lower() for tool in found["tool"]),
        tuple(path.encode("utf-8", "surrogateescape") for path in found["path"]),
        tuple(label.lower() for label in found["label"]),
        frozenset(found["is"]),
        " ".join(found["text"]),
    )


def _refuse_unknown(what: str, given: list[str], known: tuple[str, ...]) -> None:
    for word in given:
        if word not in known:
            raise UsageError(f"there is no {what} {word!r}", hint=f"known: {', '.join(known)}")


def _is(row: Row, flag: str) -> bool:
    view = row.view
    match flag:
        case "unprotected":
            return row.is_unprotected
        case "failed":
            return any(one.ok is False for one in view.tools) or any(
                one.ok is False for one in view.models
            )
        case "labelled":
            return bool(view.labels)
        case "pinned":
            return view.pinned
        case "torn":
            return row.torn
        case "thinned":
            return bool(view.thinned_ns)
        case _:
            return bool(view.notes)
