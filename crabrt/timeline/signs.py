"""Shapes, words and tones: how a verdict, a checkpoint, a run is told at a glance, in every face.

A sign says the same three times, so that none of them is needed alone: a shape (one cell of a
terminal), a word, and a tone, which a face turns into a colour if it has any. Words may be text of
the journal: like all text of a view state they pass through `safe_text` on their way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from crabrt.core.verdicts import Consistency, Protection
from crabrt.journal.views import TurnView


class Tone(StrEnum):
    """What a colour would mean. Each face has its own colours, and may have none."""

    PLAIN = "plain"
    QUIET = "quiet"
    GOOD = "good"
    NEWS = "news"
    FILES = "files"
    PROCESSES = "processes"
    EXTERNAL = "external"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Sign:
    """A shape, a word, a tone.

    Attributes:
        shape: one character, one cell wide; empty where the word is enough.
        word: what it means.
        tone: see `Tone`.
    """

    shape: str
    word: str
    tone: Tone = Tone.PLAIN

    @property
    def text(self) -> str:
        """Shape and word."""
        return f"{self.shape} {self.word}" if self.shape else self.word


_EFFECTS = {
    "none": Sign("·", "none", Tone.QUIET),
    "files": Sign("F", "files", Tone.FILES),
    "processes": Sign("P", "processes", Tone.PROCESSES),
    "external": Sign("X", "external", Tone.EXTERNAL),
}
_STRONGEST_FIRST = ("external", "processes", "files")

_CHECKPOINTS = {
    "durable": Sign("●", "durable", Tone.GOOD),
    "replicated": Sign("◉", "replicated", Tone.GOOD),
    "inherited": Sign("○", "inherited", Tone.GOOD),
    "captured": Sign("◐", "captured", Tone.NEWS),
    "pending": Sign("…", "pending", Tone.QUIET),
    "none": Sign("-", "none", Tone.QUIET),
    "thinned": Sign("-", "thinned", Tone.QUIET),
    "unprotected": Sign("✗", "unprotected", Tone.BAD),
}

_RUNS = {
    "running": Sign("▶", "running", Tone.GOOD),
    "waiting": Sign("?", "waiting", Tone.WARNING),
    "done": Sign("✓", "done"),
    "failed": Sign("✗", "failed", Tone.BAD),
    "crashed": Sign("!", "crashed", Tone.WARNING),
    "ended": Sign("!", "ended", Tone.WARNING),
    "forked": Sign("⑂", "forked", Tone.NEWS),
    "damaged": Sign("☒", "damaged", Tone.BAD),
    "gone": Sign("∅", "gone", Tone.BAD),
}


def effect_sign(name: str) -> Sign:
    """The sign of one effect class; one that is not known here has the shape ``?``."""
    return _EFFECTS.get(name) or Sign("?", name, Tone.QUIET)


def verdict_sign(view: TurnView, *, live: bool) -> Sign:
    """What the turn did: a letter for each class of effects, in the tone of the strongest.

    Args:
        view: the turn.
        live: somebody works on the run, so what is not known yet will be.
    """
    names = view.verdict_names
    if view.turn == 0:
        return Sign("", "baseline", Tone.QUIET)
    if not names:
        if view.protection is not Protection.PENDING:
            return Sign("?", "unknown", Tone.WARNING)
        return Sign("?", "not yet" if live else "cut off", Tone.QUIET)
    signs = [effect_sign(name) for name in names]
    strongest = next((name for name in _STRONGEST_FIRST if name in names), "none")
    return Sign(
        "".join(sign.shape for sign in signs),
        "+".join(sign.word for sign in signs),
        _EFFECTS[strongest].tone,
    )


def checkpoint_word(view: TurnView, *, live: bool) -> str:
    """How safe the turn is: a `Protection`, or ``thinned``, or ``none`` (it was cut off)."""
    if view.thinned_ns:
        return "thinned"
    if view.protection is Protection.PENDING and not live:
        return "none"
    return str(view.protection)


def checkpoint_sign(view: TurnView, *, live: bool) -> Sign:
    """How safe the turn is; a torn one says so."""
    sign = _CHECKPOINTS[checkpoint_word(view, live=live)]
    if view.consistency is Consistency.TORN:
        return Sign(sign.shape, f"{sign.word} (torn)", sign.tone)
    return sign


def run_sign(state: str) -> Sign:
    """How a run is: a status of the journal's, ``waiting`` (for a decision) or ``gone``."""
    return _RUNS.get(state) or Sign("?", state, Tone.WARNING)
