"""Names and handles: what changes under another name, another mount, or on the move is told."""

import ctypes
import os
import subprocess

import pytest

from crabrt.inspector.watch import SELF

pytestmark = pytest.mark.root


@pytest.fixture
def here(on_volume):
    """A workspace with ``a``, ``d/b`` and ``d/e/c``, watched."""
    (on_volume.root / "d" / "e").mkdir(parents=True)
    for name in ("a", "d/b", "d/e/c"):
        (on_volume.root / name).write_bytes(b"as it was")
    on_volume.watch = on_volume.open()
    return on_volume


def told(here, act):
    step = here.during(here.watch, act)
    assert step.changed, "nothing was changed"
    assert step.untold() == set(), step.dirty
    return step


def write(path):
    path.write_bytes(os.urandom(20))


def test_nothing_happened_is_clean(here):
    here.watch.drain()
    assert here.nothing_in(here.watch.drain())


def test_reading_is_no_event(here):
    here.watch.drain()
    subprocess.run(["grep", "-r", "nothing", here.root], check=False)
    assert here.nothing_in(here.watch.drain())


def test_a_plain_write_is_told_by_its_name_alone(here):
    step = told(here, lambda: write(here.root / "d" / "b"))
    assert step.dirty.places == {b"d": frozenset({b"b"})}
    assert not step.dirty.subtrees


def test_the_attributes_of_a_directory_are_its_own(here):
    step = told(here, lambda: (here.root / "d").chmod(0o701))
    assert step.dirty.places == {b"d": frozenset({SELF})}
    step = told(here, lambda: here.root.chmod(0o701))
    assert step.dirty.places == {b"": frozenset({SELF})}


def test_a_write_through_a_descriptor_older_than_the_watch_is_told(on_volume):
    path = on_volume.root / "a"
    with open(path, "wb", buffering=0) as file:
        watch = on_volume.open()
        step = on_volume.during(watch, lambda: file.write(b"later"))
    assert step.untold() == set()


def test_a_write_through_a_name_outside_is_told(here):
    os.link(here.root / "a", here.outside / "alias")
    told(here, lambda: write(here.outside / "alias"))


def test_a_write_through_a_name_outside_that_is_gone_again_is_told(here):
    def act():
        os.link(here.root / "a", here.outside / "alias")
        write(here.outside / "alias")
        (here.outside / "alias").unlink()

    told(here, act)


def test_a_write_through_a_descriptor_of_another_name_is_told(here):
    os.link(here.root / "a", here.outside / "alias")
    with open(here.outside / "alias", "wb", buffering=0) as file:
        (here.outside / "alias").unlink()
        here.watch.drain()
        told(here, lambda: file.write(b"through no name"))


def test_all_names_of_a_file_are_told_of(here):
    os.link(here.root / "a", here.root / "d" / "alias")
    step = told(here, lambda: write(here.root / "a"))
    assert step.changed == {b"a", b"d/alias"}


def test_linking_changes_the_other_names_too(here):
    step = told(here, lambda: os.link(here.root / "a", here.root / "d" / "alias"))
    assert step.changed == {b"a", b"d/alias"}


def test_a_write_to_a_file_renamed_while_open_is_told_under_its_new_name(here):
    with open(here.root / "a", "wb", buffering=0) as file:
        (here.root / "a").rename(here.root / "d" / "moved")
        here.watch.drain()
        step = told(here, lambda: file.write(b"more"))
    assert b"moved" in step.dirty.places[b"d"]


def test_a_file_without_a_name_that_gets_one_and_is_written_on_is_told(here):
    handle = os.open(here.root, os.O_TMPFILE | os.O_RDWR, 0o644)
    try:
        told(
            here,
            lambda: os.link(
                f"/proc/self/fd/{handle}",
                here.root / "named",
                src_dir_fd=handle,
                follow_symlinks=True,
            ),
        )
        told(here, lambda: os.write(handle, b"later, through the old descriptor"))
    finally:
        os.close(handle)


def test_a_directory_moved_out_changed_and_moved_back_is_looked_at_whole(here):
    def act():
        (here.root / "d").rename(here.outside / "d")
        write(here.outside / "d" / "e" / "c")
        (here.outside / "d").rename(here.root / "d")

    told(here, act)


def test_a_directory_moved_in_is_looked_at_whole(here):
    (here.outside / "in" / "deep").mkdir(parents=True)
    write(here.outside / "in" / "deep" / "x")
    step = told(here, lambda: (here.outside / "in").rename(here.root / "in"))
    assert b"in" in step.dirty.subtrees
    told(here, lambda: write(here.root / "in" / "deep" / "x"))


def test_below_a_moved_directory_things_are_told_at_their_new_place(here):
    told(here, lambda: write(here.root / "d" / "e" / "c"))
    told(here, lambda: (here.root / "d").rename(here.root / "f"))
    step = told(here, lambda: write(here.root / "f" / "e" / "c"))
    assert step.dirty.places == {b"f/e": frozenset({b"c"})}


def test_writing_before_and_after_a_move_in_one_turn_is_told(here):
    def act():
        write(here.root / "d" / "e" / "c")
        (here.root / "d").rename(here.root / "f")
        write(here.root / "f" / "b")
        (here.root / "f").rename(here.root / "d")

    told(here, act)


def test_two_names_that_change_places_are_told(here):
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2

    def exchange():
        one, two = os.fsencode(here.root / "d" / "e"), os.fsencode(here.root / "a")
        assert renameat2(-100, one, -100, two, 2) == 0, ctypes.get_errno()

    step = told(here, exchange)
    assert b"a" in step.dirty.subtrees


def test_a_removed_tree_is_told_and_loses_nothing(here):
    told(here, lambda: subprocess.run(["rm", "-r", here.root / "d"], check=True))


def test_a_directory_renamed_over_an_empty_one_is_told(here):
    (here.root / "empty").mkdir()
    step = told(here, lambda: (here.root / "d").rename(here.root / "empty"))
    assert step.dirty.unknown is None


def test_a_new_file_deeper_than_a_path_can_say_is_told(here):
    fd = os.open(here.root, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("n" * 200, dir_fd=fd)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    here.watch.drain()
    step = told(here, lambda: os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)))
    assert step.dirty.subtrees
    assert step.dirty.unknown is None
    os.close(fd)


def test_a_removed_directory_that_is_someones_cwd_does_no_harm(here):
    fd = os.open(here.root / "d" / "e", os.O_RDONLY)
    told(here, lambda: subprocess.run(["rm", "-r", here.root / "d"], check=True))
    os.fchmod(fd, 0o700)
    os.close(fd)
    assert here.watch.drain().unknown is None


def test_a_workspace_that_moved_is_unknown(here):
    here.watch.drain()
    here.root.rename(here.base / "moved")
    write(here.base / "moved" / "a")
    assert "workspace" in here.watch.drain().unknown
    (here.base / "moved").rename(here.root)


def test_a_directory_above_that_moved_away_and_back_is_unknown_once(on_volume):
    root = on_volume.base / "above" / "ws"
    root.mkdir(parents=True)
    watch = on_volume.open(root)
    watch.drain()
    (on_volume.base / "above").rename(on_volume.base / "elsewhere")
    write(on_volume.base / "elsewhere" / "ws" / "a")
    (on_volume.base / "elsewhere").rename(on_volume.base / "above")
    assert "moved" in watch.drain().unknown
    write(root / "a")
    assert watch.drain().places == {b"": frozenset({b"a"})}


def test_a_workspace_replaced_by_another_directory_is_unknown(here):
    here.root.rename(here.base / "old")
    here.root.mkdir()
    for _ in range(2):
        assert "another directory" in here.watch.drain().unknown


def test_a_workspace_that_is_gone_is_unknown(here):
    subprocess.run(["rm", "-r", here.root], check=True)
    assert "cannot be found" in here.watch.drain().unknown


def test_what_is_written_through_a_bind_mount_is_told(here):
    point = here.outside / "bound"
    point.mkdir()
    subprocess.run(["mount", "--bind", here.root / "d", point], check=True)
    try:
        step = told(here, lambda: write(point / "e" / "c"))
        assert step.dirty.places == {b"d/e": frozenset({b"c"})}
    finally:
        subprocess.run(["umount", point], check=True)


def test_what_is_written_in_another_mount_namespace_is_told(here):
    hidden = f"mount -t tmpfs none /mnt && echo more >> {here.root}/d/b"
    told(here, lambda: subprocess.run(["unshare", "-m", "sh", "-c", hidden], check=True))


def test_mounting_in_the_workspace_is_unknown_once(here):
    here.watch.drain()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", here.root / "d"], check=True)
    try:
        assert "mounted" in here.watch.drain().unknown
        write(here.root / "d" / "on the other file system")
        assert here.nothing_in(here.watch.drain())
    finally:
        subprocess.run(["umount", here.root / "d"], check=True)
    assert "mounted" in here.watch.drain().unknown
    assert here.watch.drain().unknown is None


def test_mounting_elsewhere_is_no_matter(here):
    point = here.outside / "m"
    point.mkdir()
    here.watch.drain()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    subprocess.run(["umount", point], check=True)
    assert here.watch.drain().unknown is None


def test_a_workspace_seen_through_a_bind_mount_is_watched(here):
    point = here.base / "bound"
    point.mkdir()
    subprocess.run(["mount", "--bind", here.root, point], check=True)
    try:
        watch = here.open(point)
        watch.drain()
        write(here.root / "d" / "b")
        assert watch.drain().places == {b"d": frozenset({b"b"})}
        watch.close()
    finally:
        subprocess.run(["umount", point], check=True)


def test_moves_that_race_with_drains_lose_nothing(here):
    """A process moves a directory about and writes below it while this one drains all the time."""
    script = (
        "for i in $(seq 300); do mv d f; echo $i >> f/e/c; mv f d; echo $i >> d/b; done; echo done"
    )
    process = subprocess.Popen(["sh", "-c", script], cwd=here.root, stdout=subprocess.PIPE)
    drained = []
    while process.poll() is None:
        drained.append(here.watch.drain())
    drained.append(here.watch.drain())
    assert process.communicate()[0] == b"done\n"
    assert not any(dirty.unknown for dirty in drained)
    names = {
        (path, name) for dirty in drained for path, names in dirty.places.items() for name in names
    }
    below = {top for dirty in drained for top in dirty.subtrees}
    assert below <= {b"d", b"f"}
    assert below or {(b"d", b"b"), (b"f/e", b"c")} <= names
