"""Where a file of memory pages is cut: at addresses, so that unchanged pages are equal pieces.

CRIU writes the pages of a process one after the other, without those that were never touched. One
page more moves everything behind it in the file, but nothing in memory. So a piece is what the file
has of one aligned block of the address space. That takes the pagemap; a file of pages that does not
fit its pagemap is cut into blocks from its beginning, which is as right and finds less again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from crabrt.process.criu.wire import Pagemap

BLOCK_BYTES: Final = 64 << 10
"""Of address space; 16 pages of 4 KiB. Measured with 500 MiB, of which 1 % of the pages
changed (docs/internals/images.md): smaller blocks store less of scattered changes, and cost more
time and more of the catalog for each image."""

_PAGE_BYTES: Final = frozenset({4 << 10, 16 << 10, 64 << 10})


def cuts(size_bytes: int, pagemap: Pagemap | None) -> Iterator[int]:
    """The lengths of the pieces of a file of pages, in order; they add up to its size.

    Args:
        size_bytes: how long the file is.
        pagemap: what it should contain, or None if that is not known.
    """
    page_bytes = _page_bytes(size_bytes, pagemap)
    if pagemap is None or page_bytes is None:
        whole, rest = divmod(size_bytes, BLOCK_BYTES)
        for _ in range(whole):
            yield BLOCK_BYTES
        if rest:
            yield rest
        return
    length, block = 0, -1
    for run in pagemap.runs:
        if not run.stored:
            continue
        address, end = run.address, run.address + run.pages * page_bytes
        while address < end:
            here = address // BLOCK_BYTES
            if here != block and length:
                yield length
                length = 0
            block = here
            upto = min(end, max((here + 1) * BLOCK_BYTES, address + page_bytes))
            length += upto - address
            address = upto
    if length:
        yield length


def _page_bytes(size_bytes: int, pagemap: Pagemap | None) -> int | None:
    """The size of a page, if file and pagemap agree in every respect."""
    if pagemap is None:
        return None
    stored = [run for run in pagemap.runs if run.stored]
    pages = sum(run.pages for run in stored)
    if not pages or size_bytes % pages:
        return None
    page_bytes = size_bytes // pages
    if page_bytes not in _PAGE_BYTES or any(run.address % page_bytes for run in stored):
        return None
    ends = [run.address + run.pages * page_bytes for run in stored]
    if any(run.address < end for run, end in zip(stored[1:], ends, strict=False)):
        return None  # not ascending: nothing that CRIU writes
    return page_bytes
