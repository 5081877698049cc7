"""Which lines of two texts belong together: in bounded time, whatever the texts.

Lines that stand once in either text are anchors, as in Bram Cohen's patience diff: the longest
sequence of them that is in the same order in both is kept, and what lies between two of them is
aligned in the same way. Where there is no anchor, a short stretch is left to difflib, and a longer
one is replaced as a whole: difflib takes minutes for some texts of 20,000 lines.
"""

from __future__ import annotations

import bisect
import difflib
from collections import Counter
from collections.abc import Iterator, Sequence

_SHORT = 400
"""Lines of a stretch without anchors that are still compared one by one."""

_DEPTH = 48
"""How often a stretch between anchors is aligned anew."""

_Range = tuple[int, int, int, int]


class Alignment(difflib.SequenceMatcher[str]):
    """A `difflib.SequenceMatcher` whose time is bounded; its `get_opcodes` is what it is for."""

    def __init__(self, before: Sequence[str], after: Sequence[str]) -> None:
        super().__init__(None, (), ())
        self.a, self.b = before, after

    def get_matching_blocks(self) -> list[difflib.Match]:
        """Stretches that are in both, in order, and an empty one at the end."""
        pairs = sorted(_pairs(self.a, self.b))
        blocks: list[difflib.Match] = []
        for one, other in pairs:
            last = blocks[-1] if blocks else None
            if last is not None and (last.a + last.size, last.b + last.size) == (one, other):
                blocks[-1] = difflib.Match(last.a, last.b, last.size + 1)
            else:
                blocks.append(difflib.Match(one, other, 1))
        return [*blocks, difflib.Match(len(self.a), len(self.b), 0)]


def hunks(before: Sequence[str], after: Sequence[str], context: int = 3) -> Iterator[str]:
    """The hunks of a unified diff, headings first; lines keep their ends."""
    for group in Alignment(before, after).get_grouped_opcodes(context):
        first, last = group[0], group[-1]
        yield f"@@ -{_extent(first[1], last[2])} +{_extent(first[3], last[4])} @@"
        for tag, a1, a2, b1, b2 in group:
            if tag == "equal":
                yield from (f" {line}" for line in before[a1:a2])
            else:
                yield from (f"-{line}" for line in before[a1:a2])
                yield from (f"+{line}" for line in after[b1:b2])


def _extent(start: int, stop: int) -> str:
    """A range of lines as a heading has it; an empty one names the line before it."""
    length = stop - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"


def _pairs(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of lines that belong together, in no order."""
    ahead: list[tuple[_Range, int]] = [((0, len(before), 0, len(after)), 0)]
    while ahead:
        (a1, a2, b1, b2), depth = ahead.pop()
        while a1 < a2 and b1 < b2 and before[a1] == after[b1]:
            yield a1, b1
            a1, b1 = a1 + 1, b1 + 1
        while a1 < a2 and b1 < b2 and before[a2 - 1] == after[b2 - 1]:
            a2, b2 = a2 - 1, b2 - 1
            yield a2, b2
        if a1 == a2 or b1 == b2:
            continue
        stretch = (a1, a2, b1, b2)
        anchors = _anchors(before, after, stretch) if depth < _DEPTH else []
        if anchors:
            yield from anchors
            ahead += [(part, depth + 1) for part in _between(anchors, stretch)]
        elif max(a2 - a1, b2 - b1) <= _SHORT:
            matcher = difflib.SequenceMatcher(None, before[a1:a2], after[b1:b2], autojunk=False)
            for block in matcher.get_matching_blocks():
                for at in range(block.size):
                    yield a1 + block.a + at, b1 + block.b + at


def _anchors(before: Sequence[str], after: Sequence[str], stretch: _Range) -> list[tuple[int, int]]:
    """Lines that are there once on either side: the longest sequence in the order of both."""
    a1, a2, b1, b2 = stretch
    once_before = Counter(before[a1:a2])
    once_after = Counter(after[b1:b2])
    places = {after[at]: at for at in range(b1, b2) if once_after[after[at]] == 1}
    found = [
        (at, places[before[at]])
        for at in range(a1, a2)
        if once_before[before[at]] == 1 and before[at] in places
    ]
    return _longest_ascending(found)


def _longest_ascending(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest part of `found` whose second numbers ascend, by patience sorting."""
    tops: list[int] = []
    top_of: list[int] = []
    under: list[int] = []
    for at, (_, value) in enumerate(found):
        pile = bisect.bisect_left(tops, value)
        under.append(top_of[pile - 1] if pile else -1)
        tops[pile : pile + 1] = [value]
        top_of[pile : pile + 1] = [at]
    chosen, at = [], top_of[-1] if top_of else -1
    while at >= 0:
        chosen.append(found[at])
        at = under[at]
    return chosen[::-1]


def _between(anchors: list[tuple[int, int]], stretch: _Range) -> Iterator[_Range]:
    """What lies before, between and behind the anchors."""
    a1, a2, b1, b2 = stretch
    for one, other in anchors:
        if one > a1 or other > b1:
            yield a1, one, b1, other
        a1, b1 = one + 1, other + 1
    yield a1, a2, b1, b2
