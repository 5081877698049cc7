"""Somebody takes a disk away: a tree with its own copy of the mounts has images all the same."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from crabrt.process import table
from crabrt.process.criu import NotImaged, dump, left_behind
from crabrt.process.severing import would_be_lost
from crabrt.testing.filesystems import file_system

SLEEPER = "ready(); import time; time.sleep(1000)"
READER = "file = open(sys.argv[1]); ready(); import time; time.sleep(1000)"
KINDS = ("ext4", "fuse")


def seen_by(pid, place):
    return f" {place} " in Path(f"/proc/{pid}/mountinfo").read_text()


def places_left_behind(pid):
    return [Path(os.fsdecode(mount.point)) for mount in left_behind(pid)]


def unmount(*places):
    for place in places:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_leaves_out_what_is_mounted_nowhere_else(criu, trees, images, kind):
    with file_system(kind) as place:
        root = trees.inside(SLEEPER)
        assert place not in places_left_behind(root)
        unmount(place)
        assert seen_by(root, place)
        assert place in places_left_behind(root)
        assert any(f"what it sees at {place} " in text for text in would_be_lost(root))
        dump(criu, root, images, own_namespace=True)
        trees.end(root)
        back = trees.restore(criu, images, own_namespace=True)
        assert not seen_by(back, place)
        assert table.look(back) is not None


def test_so_is_what_is_mounted_in_that(criu, trees, images):
    with file_system("ext4") as outer:
        inner = outer / "inner"
        inner.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "inner", inner], check=True)
        root = trees.inside(SLEEPER)
        unmount(inner, outer)
        assert seen_by(root, inner)
        dump(criu, root, images, own_namespace=True)
        trees.end(root)
        back = trees.restore(criu, images, own_namespace=True)
        assert not seen_by(back, inner)


def test_who_has_a_file_open_there_has_no_image_and_is_told(criu, trees, images):
    with file_system("ext4") as place:
        file = place / "open"
        file.write_text("kept")
        root = trees.inside("import sys\n" + READER, file)
        unmount(place)
        with pytest.raises(NotImaged, match=f"mount.*{file}"):
            dump(criu, root, images, own_namespace=True)
        assert table.look(root) is not None


def test_what_is_mounted_when_it_is_imaged_may_be_gone_when_it_comes_back(criu, trees, images):
    with file_system("fuse") as place:
        root = trees.inside(SLEEPER)
        dump(criu, root, images, own_namespace=True)
        trees.end(root)
    back = trees.restore(criu, images, own_namespace=True)
    assert not seen_by(back, place)


SHARED = """
    import os, subprocess, sys, time
    from pathlib import Path
    from crabrt.process import namespaces, table
    from crabrt.process.criu import dump, find, restore

    def mount(place): subprocess.run(["mount", "-t", "tmpfs", "crabrt", place], check=True)
    def unmount(place): subprocess.run(["umount", place], check=True)
    def sees(pid, place): return f" {place} " in Path(f"/proc/{pid}/mountinfo").read_text()

    top, criu = Path(sys.argv[1]), find(Path(sys.argv[2]))
    before, later, inside = (top / name for name in ("before", "later", "inside"))
    for place in (before, later, inside): place.mkdir()
    mount(before)
    sleeper = "exec sleep 1000 </dev/null >/dev/null 2>&1"
    script = f"mount -t tmpfs own {inside}; touch {top}/ready; {sleeper}"
    child = subprocess.Popen(["unshare", *namespaces.OPTIONS, "setsid", "sh", "-c", script])
    while not (top / "ready").exists(): time.sleep(0.01)
    (root,) = table.children(child.pid)
    for half in ("as it began", "restored"):
        print(half, sees(root, before), sees(root, later), sees(root, inside), sees("self", inside))
        mount(later)
        print("mounted", sees(root, later))
        unmount(later)
        print("unmounted", sees(root, later))
        if half == "as it began":
            dump(criu, root, top / "images", own_namespace=True)
            subprocess.run(["kill", "-KILL", str(root)], check=True)
            child.wait()
            root = restore(criu, top / "images", own_namespace=True)
    unmount(before)
    print("all gone", sees(root, before))
    subprocess.run(["kill", "-KILL", str(root)], check=True)
    os.waitpid(root, 0)
"""
"""In namespaces that are shared, as systemd makes those of a machine."""

IN_SHARED = ("unshare", "--mount", "--propagation", "shared", sys.executable, "-c")


def test_where_mounts_are_shared_they_come_and_go_inside_as_well(criu, tmp_path):
    done = subprocess.run(
        [*IN_SHARED, textwrap.dedent(SHARED), tmp_path, criu.program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    once = ["True False True False", "mounted True", "unmounted False"]
    told = [f"as it began {once[0]}", *once[1:], f"restored {once[0]}", *once[1:]]
    assert done.stdout.splitlines() == [*told, "all gone False"]
