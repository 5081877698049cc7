"""Patches between *** Begin Patch and *** End Patch."""

import pytest

from crabrt.traces.patching import PatchFailed, apply_hunks, parse_patch

BEFORE = "def one():\n    return 1\n\n\ndef two():\n    return 1\n"


def patch(*lines):
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


def test_every_kind_of_change_is_read():
    text = patch(
        "*** Add File: new.txt",
        "+a",
        "+",
        "*** Delete File: old.txt",
        "*** Update File: src/x.py",
        "*** Move to: src/y.py",
        "@@ def two():",
        "-    return 1",
        "+    return 2",
    )
    add, delete, update = parse_patch(text)
    assert (add.how, add.path, add.added()) == ("add", "new.txt", "a\n\n")
    assert (delete.how, delete.path) == ("delete", "old.txt")
    assert (update.path, update.move_to) == ("src/x.py", "src/y.py")
    assert apply_hunks(BEFORE, update.hunks) == BEFORE.replace(
        "two():\n    return 1", "two():\n    return 2"
    )


def test_a_hunk_without_removed_lines_goes_behind_its_heading_or_to_the_end():
    behind = parse_patch(patch("*** Update File: a", "@@ def one():", "+    # first"))[0].hunks
    assert apply_hunks(BEFORE, behind).splitlines()[1] == "    # first"
    last = parse_patch(patch("*** Update File: a", "+# last"))[0].hunks
    assert apply_hunks(BEFORE, last) == BEFORE + "# last\n"


def test_trailing_blanks_do_not_hide_a_place():
    hunks = parse_patch(patch("*** Update File: a", " x", "-y", "+z"))[0].hunks
    assert apply_hunks("x   \ny\t\n", hunks) == "x\nz\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*** Begin Patch\n*** Add File: a\n+x",
        patch("+x"),
        patch("*** Update File: a", "?x"),
    ],
)
def test_what_is_no_patch_is_refused(text):
    with pytest.raises(PatchFailed):
        parse_patch(text)


def test_a_hunk_that_does_not_fit_is_named():
    hunks = parse_patch(patch("*** Update File: a", "-no such line", "+x"))[0].hunks
    with pytest.raises(PatchFailed, match="hunk 1"):
        apply_hunks(BEFORE, hunks)
