"""The head of a report: which run, how it went, what it comes to, what cannot be brought back."""

from __future__ import annotations

import os
from collections.abc import Iterator

from crabrt.core.entries import INTERRUPTIONS
from crabrt.report import wording
from crabrt.report.facts import Facts
from crabrt.report.losses import LISTED_MOST, Loss, Losses
from crabrt.report.markup import Child, Markup, joined, tag
from crabrt.report.redaction import Redaction
from crabrt.timeline import amounts
from crabrt.timeline.signs import Sign

_MODELS_MOST = 4
_COMMAND_CHARS = 300


def sign_markup(sign: Sign) -> Markup:
    """Shape and word, in its tone."""
    shape = tag("span", sign.shape, class_="shape", aria_hidden="true") if sign.shape else None
    return tag("span", shape, " ", tag("span", sign.word), class_=f"sign tone-{sign.tone}")


def heading(facts: Facts, redaction: Redaction) -> Markup:
    """The run in a line or two."""
    state, view = facts.state, facts.state.view
    name = redaction.line(view.name or state.run, 120)
    took = amounts.duration(view.worked_ns(view.started_ns, view.updated_ns) / 1e6)
    count = state.totals.turns
    words: list[Child] = [
        sign_markup(state.sign),
        tag("span", amounts.count(count, "turn")),
        tag("span", took, title="time in which a process worked on it"),
        tag("time", wording.day(view.started_ns), datetime=amounts.iso(view.started_ns) or ""),
    ]
    ended = None
    if view.failure is not None:
        text = redaction.line(view.failure.tag)
        if redaction.keeps_texts and view.failure.message:
            text += f": {redaction.line(view.failure.message)}"
        how = "It was interrupted: " if view.failure.tag in INTERRUPTIONS else "It ended with "
        ended = tag("p", tag("b", how), tag("code", text), class_="ended tone-bad")
    problems = [redaction.line(str(problem.message)) for problem in state.problems]
    return joined(
        tag("h1", tag("bdi", name), " ", tag("span", redaction.line(state.run), class_="run-id")),
        tag("p", *words, class_="summary"),
        ended,
        [tag("p", "Damaged: ", text, class_="ended tone-bad") for text in problems],
    )


def details(facts: Facts, redaction: Redaction) -> Markup:
    """Where it worked, how it was started, what it came from."""
    rows = [(word, value) for word, value in _details(facts, redaction) if value]
    pairs = [tag("div", tag("dt", word), tag("dd", value)) for word, value in rows]
    return tag("dl", *pairs, class_="details")


def _details(facts: Facts, redaction: Redaction) -> Iterator[tuple[str, Child]]:
    view, line = facts.state.view, redaction.line
    yield "workspace", tag("code", redaction.place(view.workspace_path))
    command = " ".join(os.path.basename(a) if at == 0 else a for at, a in enumerate(view.argv))
    yield "command", tag("code", line(command, _COMMAND_CHARS)) if command else None
    models = [
        f"{line(name, 80)} ({amounts.count(count, 'call')})"
        for name, count in facts.models.most_common(_MODELS_MOST)
    ]
    more = len(facts.models) - _MODELS_MOST
    yield "models", ", ".join(models) + (f" and {more} more" if more > 0 else "")
    if view.lineage.parent is not None:
        at = "" if view.forked_at is None else f"@{view.forked_at}"
        yield "came from", tag("code", f"{line(view.lineage.parent)}{at}")
    yield "taken up again", amounts.count(view.resumed, "time") if view.resumed else None
    yield "last entry", wording.utc(view.updated_ns)
    yield "recorded by", f"crabrt {line(view.version)}" if view.version else None


def totals(facts: Facts) -> Markup:
    """What the turns come to."""
    pairs = [
        tag("div", tag("dt", word), tag("dd", value, tag("small", more) if more else None))
        for word, value, more in _totals(facts)
    ]
    return tag("dl", *pairs, class_="totals")


def _totals(facts: Facts) -> Iterator[tuple[str, str, str]]:
    sums = facts.state.totals
    ms = amounts.duration
    turns = len(facts.turns)
    yield "can be restored", f"{facts.restorable:,}", f"of {amounts.count(turns, 'state')}"
    yield "waited for models", ms(sums.model_ms), ""
    yield "tools at work", ms(sums.tool_ms), ""
    busy = sums.model_ms + sums.tool_ms
    percent = 100 * sums.exposed_ms / busy if busy else 0.0
    share = f"{percent:.2f} % on top" if percent >= 0.005 else "under 0.01 % on top"
    yield "loop held back", ms(sums.exposed_ms), share if percent else ""
    counts = (("+", sums.added), ("~", sums.changed), ("-", sums.removed))
    files = " ".join(f"{sign}{count:,}" for sign, count in counts if count)
    yield "files", files or "0", "added, changed, removed" if files else ""
    yield "stored", amounts.size(sums.bytes_stored), ""
    if sums.tokens_in or sums.tokens_out:
        tokens_in, tokens_out = wording.short_count(sums.tokens_in), sums.tokens_out
        yield "tokens", f"{tokens_in} / {wording.short_count(tokens_out)}", "in, out"
    if sums.cost_nano:
        yield "cost", wording.dollars(sums.cost_usd), "as reported"


def losses(found: Losses) -> Markup:
    """What a restore could not bring back; a plain word where that is nothing."""
    met = list(found)
    if not met:
        return tag("p", tag("span", "✓", class_="shape tone-good", aria_hidden="true"),
                   " Nothing: each turn was protected, and nothing outside was touched.",
                   class_="fine")  # fmt: skip
    return tag("div", *(_loss(loss) for loss in met), class_="losses")


def _loss(loss: Loss) -> Markup:
    shown = list(loss.found.items())[:LISTED_MOST]
    items = [tag("li", tag("bdi", text), " ", _links(turns)) for text, turns in shown]
    rest = len(loss.found) - len(shown)
    if rest > 0:
        items.append(tag("li", f"… and {rest:,} more", class_="quiet"))
    title = tag("h3", loss.title, " ", tag("span", f"{loss.count:,}", class_="count"))
    return tag("section", title, tag("ul", *items))


def _links(turns: list[int]) -> Markup:
    links: list[Child] = []
    for turn in turns:
        links += [" " if links else None, tag("a", f"turn {turn}", href=f"#turn-{turn}")]
    more = " …" if len(turns) == LISTED_MOST else None
    return tag("span", links, more, class_="turn-links")
