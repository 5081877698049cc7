"""Long contents are cut the same way however they are read, in little memory."""

import itertools
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crabrt.core.content import EMPTY, Content, piece_ids
from crabrt.core.ids import ObjectKind, object_id
from crabrt.errors import DamagedObject, UsageError
from crabrt.store.contents import (
    BLOCK_BYTES,
    WHOLE_MAX,
    ZERO_BLOCK,
    put_bytes,
    put_stream,
    read_blocks,
    read_bytes,
    zero_id,
)

GOLDEN_LENGTHS = [
    129578,
    129260,
    269254,
    127648,
    150604,
    51800,
    132548,
    183085,
    366024,
    137530,
    80584,
    204734,
    151397,
    167062,
    98040,
    61641,
    177390,
    145284,
    153206,
    55205,
    170549,
    3305,
    1048576,
    240891,
    336023,
    123086,
]
GOLDEN_DIGEST = "5e86859363a8b68d751fd8a620a404432568aada7a4b02c7fa3559e7136a6d7f"


class Memory:
    """An object store in a dict."""

    def __init__(self):
        self.objects = {}

    def put(self, data, kind=ObjectKind.DATA):
        assert type(data) is bytes
        put = object_id(data, kind)
        self.objects[put] = data
        return put

    def get(self, wanted, kind=ObjectKind.DATA):
        return self.objects[wanted]

    def contains(self, wanted):
        return wanted in self.objects


def test_an_empty_content_has_no_pieces():
    memory = Memory()
    assert put_bytes(b"", memory) == EMPTY == put_stream((), memory)
    assert read_bytes(EMPTY, memory) == b""


def test_short_contents_are_one_piece(noise):
    memory = Memory()
    for length in (1, 1000, WHOLE_MAX):
        data = noise(length, length)
        assert put_bytes(data, memory) == Content(length, 0, (object_id(data),))
    assert len(put_bytes(noise(1, WHOLE_MAX + 1), memory).ids) > 1


@settings(deadline=None, max_examples=60)
@given(
    layout=st.lists(st.sampled_from("ab00"), min_size=0, max_size=7),
    tail=st.integers(0, BLOCK_BYTES - 1),
    cuts=st.lists(st.integers(0, 8 * BLOCK_BYTES), max_size=6),
    holes=st.booleans(),
)
def test_the_cut_does_not_depend_on_how_it_was_read(layout, tail, cuts, holes):
    blocks = [ZERO_BLOCK if b == "0" else random.Random(b).randbytes(BLOCK_BYTES) for b in layout]
    end = random.Random("tail").randbytes(tail)
    data = b"".join(blocks) + end
    whole = Memory()
    content = put_bytes(data, whole)
    assert read_bytes(content, whole) == data

    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    parts = Memory()
    views = [memoryview(data)[a:b] for a, b in itertools.pairwise(edges)]
    assert put_stream(views, parts) == content

    if holes:
        segments = [1 if b == "0" else block for b, block in zip(layout, blocks, strict=True)]
        assert put_stream([*segments, end], parts) == content
    assert parts.objects.keys() == whole.objects.keys()


def test_zero_blocks_are_one_piece_wherever_they_are(noise):
    memory = Memory()
    content = put_stream([100_000, noise(1, 1000)], memory)
    assert content.size == 100_000 * BLOCK_BYTES + 1000
    ids = list(piece_ids(content, memory.get))
    assert ids[:-1] == [zero_id()] * 100_000
    assert len(memory.objects) < 50
    first = next(read_blocks(content, memory))
    assert first is ZERO_BLOCK


def test_a_count_of_zero_blocks_must_stand_where_a_block_begins():
    with pytest.raises(UsageError):
        put_stream([b"x" * 1000, 1], Memory())


def test_an_edit_in_the_middle_keeps_the_pieces_around_it(noise):
    memory = Memory()
    data = noise(5, 8 << 20)
    before = set(piece_ids(put_bytes(data, memory), memory.get))
    edited = data[: 4 << 20] + b"inserted" + data[4 << 20 :]
    after = set(piece_ids(put_bytes(edited, memory), memory.get))
    assert len(after - before) <= 3


def test_the_golden_cut_of_the_format(noise):
    """Other bounds here mean another format: bump its version instead of changing these."""
    memory = Memory()
    data = noise("golden", 3 << 20) + ZERO_BLOCK + noise("more", 700_000)
    content = put_bytes(data, memory)
    lengths = [len(piece) for piece in read_blocks(content, memory)]
    assert lengths == GOLDEN_LENGTHS
    assert object_id(b"".join(content.ids)).hex() == GOLDEN_DIGEST


def test_pieces_that_do_not_add_up_are_damage(noise):
    memory = Memory()
    data = noise(1, 1000)
    content = put_bytes(data, memory)
    for size in (999, 1001, 1 << 60):
        with pytest.raises(DamagedObject, match="add up"):
            read_bytes(Content(size, 0, content.ids), memory)


def test_a_stream_of_a_gigabyte_needs_little_memory(home):
    script = """
import random, resource, sys
from pathlib import Path
from crabrt.store import Store
from crabrt.store.contents import put_stream
with Store.open(Path(sys.argv[1]), create=True) as store, store.writer() as writer:
    block = random.Random(1).randbytes(1 << 20)
    put_stream([block], writer)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    def blocks():
        for i in range(1024):
            yield i.to_bytes(8, "little") * 16 + block[128:]
    content = put_stream(blocks(), writer)
    writer.sync()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(content.size, after - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, home], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    size, extra_kib = map(int, done.stdout.split())
    assert size == 1 << 30
    assert extra_kib < 60 << 10
