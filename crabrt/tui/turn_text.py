"""A turn as lines: what it did and why one thinks so, its messages, its calls, what was alive.

Each is an iterator that reads from the store as it goes, for `text_view.TextView`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import filterfalse

from pygments.lexer import Lexer

from crabrt.core.processes import ProcessState
from crabrt.core.secrets import redact_text
from crabrt.core.verdicts import is_passing
from crabrt.journal import CallDetail
from crabrt.journal.outside import GUESS
from crabrt.operations.conversations import payload_bytes
from crabrt.timeline import amounts, values
from crabrt.timeline.alive import Member, alive_trees
from crabrt.timeline.pages import WHOLE_MAX, LongText, stored_bytes
from crabrt.timeline.reader import Patch, PatchLine, RunReader
from crabrt.timeline.rows import Row
from crabrt.timeline.safe_text import safe_path, safe_text
from crabrt.timeline.signs import Tone
from crabrt.timeline.troubles import in_words
from crabrt.tui.highlight import highlighted, lexer_for
from crabrt.tui.pieces import Line, Piece, sign_piece

_SHOWN_MESSAGES = 6
_HELD = 8  # files, and connections, of a process
_TITLE = 100  # characters: what does not fit follows in full
_PATCH_TONES = {
    "head": Tone.NEWS,
    "hunk": Tone.QUIET,
    "note": Tone.WARNING,
}
_GROUNDS: dict[str, Tone | None] = {"added": Tone.GOOD, "removed": Tone.BAD, "context": None}


def overview(reader: RunReader, row: Row) -> Iterator[Line]:
    """What the turn did, how one knows, how safe it is, what did not go well."""
    view = row.view
    yield _fact("did", (sign_piece(row.verdict, strong=True), Piece("  " + _files(row))))
    for phrase in view.evidence:
        yield _fact("", (Piece(safe_text(phrase)),))
    yield _fact("safe", (sign_piece(row.checkpoint), Piece(_safety(row), Tone.QUIET)))
    yield from _warnings(row)
    for tool in row.effects:
        text = f"X {safe_text(tool.name)}: declared external; no restore takes it back"
        yield _fact("effect", (Piece(text, Tone.EXTERNAL),))
    for tool, how in row.suspected:
        why = "taken for external" if how == GUESS else "it may be what was seen to reach the world"
        text = f"? {safe_text(tool.name)}: {why}; no restore takes that back"
        yield _fact("effect", (Piece(text, Tone.EXTERNAL),))
    if view.labels or view.pinned:
        names = [f"⚑ {safe_text(label)}" for label in view.labels]
        yield _fact("named", (Piece("  ".join([*names, *["★ pinned"] * view.pinned]), Tone.NEWS),))
    if row.went_back_to is not None:
        yield _fact("began on", (Piece(f"turn {row.went_back_to}", Tone.WARNING),))
    yield _fact("began", (Piece(f"{amounts.clock(view.started_ns)}, {_times(row)}"),))
    if view.observer:
        by = "; ".join([view.observer, *filter(is_passing, view.unobserved)])
        yield _fact("seen by", (Piece(safe_text(by), Tone.QUIET),))
    yield ()
    yield from alive(reader.alive(view))
    yield from call_titles(reader, reader.detail(view).calls)


def alive(state: ProcessState) -> Iterator[Line]:
    """A line for each process that outlived the turn, and what it holds; nothing if none did."""
    for tree in alive_trees(state):
        more = f" and {tree.below} below it" if tree.below else ""
        image = Piece(f"  {tree.image.word}", tree.image.tone)
        for member in tree.members:
            if member is tree.top:
                yield _fact("alive", (Piece(member.title + more), image))
                for reason in tree.reasons:
                    yield _fact("", (Piece(f"  {safe_text(reason)}", Tone.WARNING),))
            else:
                yield _fact("", (Piece(f"{'  ' * member.depth}└ {member.title}"),))
            yield from _held(member)
        if tree.more:
            yield _fact("", (Piece(f"  └ {tree.more:,} more", Tone.QUIET),))
    if state.trees:
        yield ()


def _held(member: Member) -> Iterator[Line]:
    margin = "  " * (member.depth + (2 if member.depth else 1))
    for holding in member.beside_title:
        items = ", ".join(holding.items(_HELD))
        yield _fact("", (Piece(f"{margin}{holding.verb} {items}", Tone.QUIET),))
    if member.unlisted:
        text = f"{margin}{member.unlisted:,} more files and connections are not listed"
        yield _fact("", (Piece(text, Tone.QUIET),))


def call_titles(reader: RunReader, calls: Iterable[CallDetail]) -> Iterator[Line]:
    """A line for each call."""
    for call in calls:
        yield from _apart(call, _titled(reader, call))


def _titled(reader: RunReader, call: CallDetail) -> Iterator[Line]:
    took = Piece(f"{amounts.duration(call.duration_ms):>10}  ", Tone.QUIET)
    yield (took, *_title(reader, call))


def calls(reader: RunReader, row: Row) -> Iterator[Line]:
    """Every call with what went in and what came out."""
    for number, call in enumerate(reader.detail(row.view).calls):
        if number:
            yield ()
        yield from _apart(call, _call(reader, call))


def _call(reader: RunReader, call: CallDetail) -> Iterator[Line]:
    given = iter(()) if call.model else arguments(reader, call)
    first = next(given, None)
    named = _title(reader, call) if first is None else _name(call)
    yield (*named, Piece(f"  {amounts.duration(call.duration_ms)}", Tone.QUIET))
    if call.guess is not None:
        text = f"  taken for {call.guess.effect} ({safe_text(call.guess.reason)})"
        yield (Piece(text, Tone.QUIET),)
    if first is not None:
        yield first
    yield from given
    yield from _outcome(reader, call)


def _apart(call: CallDetail, lines: Iterator[Line]) -> Iterator[Line]:
    """The lines of a call; what of it cannot be shown is told, and other calls are shown."""
    try:
        yield from lines
    except Exception as error:  # noqa: BLE001 - it is a line of the text, for people
        text = f"! {call.call.callable}: cannot be shown: {in_words(error)}"
        yield (Piece(safe_text(text), Tone.BAD),)


def preview(reader: RunReader, row: Row) -> Iterator[Line]:
    """A turn beside the timeline: its overview, then its calls."""
    yield (Piece(f"turn {row.number}", Tone.NEWS, strong=True),)
    yield from overview(reader, row)
    yield ()
    yield from calls(reader, row)


def arguments(reader: RunReader, call: CallDetail) -> Iterator[Line]:
    """What went in, an argument after the other, text as a block; nothing if the title says all."""
    if stored_bytes(call.arguments) > WHOLE_MAX:
        yield from _text(reader.arguments(call), "  ", Tone.QUIET)
        return
    data = payload_bytes(call.arguments, reader.store)
    if data is None:
        return
    value = values.decode_to_show(data)
    if len(values.call_text(call.call.callable, value, _TITLE + 1)) <= _TITLE:
        return
    positional, named = values.arguments(value)
    for name, given in (*(("", one) for one in positional), *named.items()):
        head = f"  {safe_text(name)}" if name else "  -"
        first, *more = values.readable(given).split("\n")
        if not more:
            yield (Piece(f"{head} ", Tone.QUIET), Piece(first))
            continue
        yield (Piece(f"{head}:", Tone.QUIET),)
        for line in (first, *more):
            yield (Piece("    │ ", Tone.QUIET), Piece(line))


def messages(reader: RunReader, row: Row) -> Iterator[Line]:
    """What was said to the model, the latest first few, and what it said."""
    for call in reader.detail(row.view).calls:
        if call.model:
            yield from _apart(call, _talk(reader, call))


def _talk(reader: RunReader, call: CallDetail) -> Iterator[Line]:
    asked = safe_text(call.asked or call.call.callable)
    yield (Piece(f"to {asked}", Tone.NEWS, strong=True), Piece(_tokens(call), Tone.QUIET))
    if call.messages is None:
        yield from _text(reader.arguments(call), "  ")
    ids = reader.message_ids(call)
    earlier = max(0, len(ids) - _SHOWN_MESSAGES)
    for message in reader.messages(ids[earlier:]):
        yield (Piece(f"  {message.role or 'message'}", Tone.FILES, strong=True),)
        yield from _text(message.text, "    ")
    yield (Piece("reply", Tone.GOOD, strong=True),)
    yield from _outcome(reader, call)
    yield ()
    if earlier:
        count = amounts.count(earlier, "earlier message")
        yield (Piece(f"  {count}, the latest first:", Tone.QUIET),)
        for at in range(earlier - 1, -1, -1):
            [message] = reader.messages(ids[at : at + 1])
            yield (Piece(f"  {message.role or 'message'}", Tone.QUIET, strong=True),)
            yield from _text(message.text, "    ", Tone.QUIET)


def patch_lines(patch: Patch) -> Iterator[Line]:
    """How a path changed: its lines in the tones of its language, on the ground of what changed."""
    lexer = lexer_for(safe_path(patch.change.path))
    hunk: list[PatchLine] = []
    for line in patch.lines:
        if line.kind in _GROUNDS:
            hunk.append(line)
            continue
        yield from _hunk(hunk, lexer)
        hunk = []
        yield (Piece(line.text, _PATCH_TONES.get(line.kind, Tone.PLAIN)),)
    yield from _hunk(hunk, lexer)
    if patch.more:
        yield (Piece("... there is more: `crab diff` prints all of it", Tone.WARNING),)
    if not patch.lines:
        yield (Piece("nothing a patch could say", Tone.QUIET),)


def _hunk(lines: Sequence[PatchLine], lexer: Lexer | None) -> Iterator[Line]:
    """Old and new text are read apart, as each is whole only without the other."""
    shown: dict[int, Line] = {}
    for kind in ("removed", "added"):
        side = [at for at, line in enumerate(lines) if line.kind in {kind, "context"}]
        shown |= zip(side, highlighted([lines[at].text[1:] for at in side], lexer), strict=True)
    for at, line in enumerate(lines):
        ground = _GROUNDS[line.kind]
        sign = Piece(line.text[:1], ground or Tone.QUIET, strong=True, ground=ground)
        yield (sign, *(replace(piece, ground=ground) for piece in shown[at]))


def _title(reader: RunReader, call: CallDetail) -> Line:
    if call.model:
        asked = safe_text(call.asked or "")
        return (Piece(f"{safe_text(call.call.callable)} {asked}".rstrip(), Tone.NEWS),)
    return _name(call, reader.title(call, _TITLE))


def _name(call: CallDetail, title: str = "") -> Line:
    """The title of a tool's call: as given, else its name alone."""
    tone = Tone.PLAIN if call.failure is None else Tone.BAD
    named = Piece(title or safe_text(call.call.callable), tone, strong=True)
    return (named, Piece(f"  [{call.prior}]", Tone.EXTERNAL)) if call.external else (named,)


def _outcome(reader: RunReader, call: CallDetail) -> Iterator[Line]:
    if call.failure is not None:
        text = redact_text(f"{call.failure.tag}: {call.failure.message}")
        for line in text.splitlines():
            yield (Piece(f"  raised {safe_text(line)}", Tone.BAD),)
    elif call.cancelled:
        yield (Piece("  cancelled", Tone.WARNING),)
    elif call.result is None:
        yield (Piece("  no result: it runs, or was cut off", Tone.WARNING),)
    else:
        yield from _text(reader.output(call).text, "  ")


def _text(text: LongText, indent: str, tone: Tone = Tone.PLAIN) -> Iterator[Line]:
    """The lines of a long text, page by page; the last line of a page goes on on the next."""
    rest = ""
    for page in text.pages():
        *whole, rest = (rest + page.text).split("\n")
        for line in whole:
            yield (Piece(indent), Piece(line, tone))
        if len(rest) > 1 << 16:  # a line without an end
            yield (Piece(indent), Piece(rest, tone))
            rest = ""
    if rest:
        yield (Piece(indent), Piece(rest, tone))


def _fact(name: str, what: Iterable[Piece]) -> Line:
    return (Piece(f"{name:<9} ", Tone.QUIET), *what)


def _warnings(row: Row) -> Iterator[Line]:
    view = row.view
    for reason in view.unprotected:
        yield _fact("", (Piece(f"✗ {safe_text(reason)}", Tone.BAD),))
    for path, why in view.not_captured:
        yield _fact("", (Piece(f"not captured: {safe_path(path)}: {safe_text(why)}", Tone.BAD),))
    if view.thinned_ns:
        why = safe_text(view.thinned_why or "retention")
        yield _fact("", (Piece(f"thinned {amounts.clock(view.thinned_ns)}: {why}", Tone.WARNING),))
    for what in filterfalse(is_passing, view.unobserved):
        yield _fact("not seen", (Piece(safe_text(what), Tone.WARNING),))
    for note in view.notes:
        text = f"{safe_text(note.topic)}: {safe_text(note.text)}"
        yield _fact("note", (Piece(text, Tone.WARNING),))


def _files(row: Row) -> str:
    view = row.view
    counts = ((view.files_added, "added"), (view.files_changed, "changed"),
              (view.files_removed, "removed"))  # fmt: skip
    return ", ".join(f"{number} {word}" for number, word in counts if number)


def _safety(row: Row) -> str:
    view = row.view
    points = ", ".join(f"{view.turn}.{one.inner}" for one in view.inner)
    stored = f", {amounts.size(view.bytes_stored)} stored" if view.bytes_stored else ""
    return f"  {view.consistency}{stored}" + (f", points inside: {points}" if points else "")


def _times(row: Row) -> str:
    view = row.view
    frozen = f", processes stood still {amounts.duration(view.frozen_ms)}" * bool(view.frozen_ms)
    return (
        f"took {amounts.duration(row.took_ms) or 'unknown'}: "
        f"model {amounts.duration(view.model_wait_ms)}, tools {amounts.duration(row.tool_ms)}, "
        f"held {amounts.duration(view.exposed_ms)}{frozen}"
    )


def _tokens(call: CallDetail) -> str:
    if not (call.tokens_in or call.tokens_out):
        return f"  {amounts.duration(call.duration_ms)}"
    given, got = call.tokens_in or 0, call.tokens_out or 0
    cost = f", ${call.cost_usd:.4f}" if call.cost_usd else ""
    return f"  {amounts.duration(call.duration_ms)}, {given:,} + {got:,} tokens{cost}"
