"""Two texts are aligned right, whatever they are, and never for minutes."""

from __future__ import annotations

import difflib
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crabrt.timeline.aligning import Alignment, hunks

LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "x\n", "y\n", "\n"]), max_size=30)


@given(LINES, LINES)
def test_the_opcodes_lead_from_one_text_to_the_other(before, after):
    made, at = [], 0
    for tag, a1, a2, b1, b2 in Alignment(before, after).get_opcodes():
        assert a1 == at
        at = a2
        if tag == "equal":
            assert before[a1:a2] == after[b1:b2]
        made += after[b1:b2] if tag != "equal" else before[a1:a2]
    assert (made, at) == (after, len(before))


@given(LINES)
def test_equal_texts_have_no_hunks(text):
    assert list(hunks(text, text)) == []


def test_a_small_change_is_a_small_hunk():
    before = [f"line {n}\n" for n in range(1_000)]
    after = [*before[:500], "new\n", *before[501:]]
    assert list(hunks(before, after)) == list(difflib.unified_diff(before, after, lineterm=""))[2:]


def test_a_moved_function_is_not_torn_apart():
    one = ["def one():\n", "    return 1\n"]
    two = ["def two():\n", "    return 2\n"]
    added = [line for line in hunks(one + two, two + one) if line.startswith("+")]
    assert added in ([f"+{line}" for line in one], [f"+{line}" for line in two])


def cycling(length, step, repeats):
    return [f"l{n * step % length}\n" for n in range(length)] * repeats


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (cycling(101, 1, 200), cycling(101, 7, 200)),
        (cycling(390, 1, 50), cycling(390, 7, 50)),
        (["x\n"] * 20_000, ["x\n"] * 19_999 + ["y\n"]),
    ],
)
def test_texts_that_are_hard_to_align_are_aligned_all_the_same(before, after, tmp_path):
    """With difflib alone the first of them takes longer than a test may."""
    (tmp_path / "file").write_text("".join(before))
    lines = (line if line.endswith("\n") else line + "\n" for line in hunks(before, after))
    patch = "--- a/file\n+++ b/file\n" + "".join(lines)
    done = subprocess.run(
        ["git", "apply"], input=patch, text=True, cwd=tmp_path, capture_output=True, check=False,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "".join(after)
