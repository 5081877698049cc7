"""Images of real processes in a real store: what a second one adds, and how they come back."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crabrt.core.ids import ObjectId
from crabrt.core.processes import ImageFile, ImageSet
from crabrt.errors import DamagedObject
from crabrt.process.criu import (
    Cause,
    NotImaged,
    NotRevived,
    dump,
    get_images,
    image_objects,
    put_images,
    wire,
)
from crabrt.process.criu.pagecuts import BLOCK_BYTES, cuts
from crabrt.store import Store
from crabrt.store.reachable import mark
from crabrt.testing.filesystems import file_system
from crabrt.testing.memory import MemoryObjects

PAGE = 4096
MEMORY = """
    import mmap, random, sys
    pages, noise = int(sys.argv[1]), random.Random(3)
    memory = mmap.mmap(-1, pages << 12)
    for at in range(0, pages << 12, 1 << 20):
        memory[at : at + (1 << 20)] = noise.randbytes(1 << 20) if at >> 20 & 1 else bytes(1 << 20)
    ready()
    for line in sys.stdin:
        first, count = map(int, line.split())
        memory[first << 12 : (first + count) << 12] = noise.randbytes(count << 12)
        print("done", flush=True)
"""


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture
def writer(store):
    with store.writer() as opened:
        yield opened


def same_files(left, right):
    names = sorted(path.name for path in left.iterdir())
    assert names == sorted(path.name for path in right.iterdir())
    return all((left / name).read_bytes() == (right / name).read_bytes() for name in names)


@pytest.mark.root
def test_a_second_image_stores_what_changed(criu, trees, writer, tmp_path):
    pages = 120 << 8  # 120 MiB
    child = trees.start(MEMORY, pages, stdin=-1, stdout=-1)
    dump(criu, child.pid, tmp_path / "first")
    first = put_images(tmp_path / "first", writer)
    assert writer.bytes_stored < 0.65 * first.size_bytes  # half of it are zeros
    extent = pages // 100 // 20
    for number in range(20):  # 1 % of the pages, in 20 extents
        child.stdin.write(b"%d %d\n" % (number * (pages // 20) + 7, extent))
        child.stdin.flush()
        assert child.stdout.readline() == b"done\n"
    before = writer.bytes_stored
    dump(criu, child.pid, tmp_path / "second")
    second = put_images(tmp_path / "second", writer)
    stored = writer.bytes_stored - before
    assert 0.008 * second.size_bytes < stored <= 0.03 * second.size_bytes
    assert len(msgspec.msgpack.encode(second)) < 16 << 10
    trees.end(child.pid)
    for image, was in ((first, "first"), (second, "second")):
        get_images(image, tmp_path / f"{was}-again", writer)
        assert same_files(tmp_path / was, tmp_path / f"{was}-again")
    again = tmp_path / "first-again"
    assert sum(path.stat().st_blocks * 512 for path in again.iterdir()) < 0.7 * first.size_bytes
    trees.restore(criu, tmp_path / "second-again")


@pytest.mark.root
def test_the_pages_of_a_real_image_are_cut_by_address(criu, trees, images):
    child = trees.start(MEMORY, 4 << 8, stdin=-1, stdout=-1)
    dump(criu, child.pid, images)
    pagemap = wire.read_pagemap((images / f"pagemap-{child.pid}.img").read_bytes())
    size = (images / f"pages-{pagemap.pages_id}.img").stat().st_size
    assert size == sum(run.pages for run in pagemap.runs if run.stored) * PAGE
    lengths = list(cuts(size, pagemap))
    assert lengths != list(cuts(size, None))
    assert sum(lengths) == size
    # Every piece lies within one aligned block of the address space.
    addresses = [
        run.address + number * PAGE
        for run in pagemap.runs
        if run.stored
        for number in range(run.pages)
    ]
    for length in lengths:
        mine, addresses = addresses[: length // PAGE], addresses[length // PAGE :]
        assert len({address // BLOCK_BYTES for address in mine}) == 1
    tasks = wire.read_tasks((images / "pstree.img").read_bytes())
    assert [(task.pid, task.threads) for task in tasks] == [(child.pid, (child.pid,))]


runs = st.lists(
    st.builds(
        wire.PageRun, st.integers(0, 1 << 20).map(PAGE.__mul__), st.integers(0, 70), st.booleans()
    ),
    max_size=12,
)


@given(runs, st.integers(-3, 3))
def test_pieces_add_up_whatever_a_pagemap_says(runs, wrong):
    pages = sum(run.pages for run in runs if run.stored)
    size = max(0, pages * PAGE + wrong)
    lengths = list(cuts(size, wire.Pagemap(1, tuple(runs))))
    assert sum(lengths) == size
    assert all(0 < length <= BLOCK_BYTES for length in lengths)


@given(st.binary(max_size=64))
def test_bytes_that_are_no_image_are_refused_and_never_trip(data):
    for read in (wire.read_pagemap, wire.read_tasks, wire.read_dump_times):
        for prefix in (b"", wire.image([], wire.PAGEMAP_MAGIC), wire.image([], wire.PSTREE_MAGIC)):
            try:
                read(prefix + data)
            except wire.NotUnderstood:
                continue


@given(st.integers(1, 1000), st.integers(0, (1 << 64) - 1), st.binary(max_size=300))
def test_fields_are_read_as_they_were_written(number, value, data):
    message = wire.varint_field(number, value) + wire.bytes_field(number + 1, data)
    first, second = wire.fields(message)
    assert (first.number, first.value) == (number, value)
    assert (second.number, second.data) == (number + 1, data)
    assert first.raw + second.raw == message


def pages_directory(directory, pagemap, pages):
    directory.mkdir()
    (directory / "pages-1.img").write_bytes(pages)
    (directory / "pagemap-7.img").write_bytes(pagemap)
    return directory


@pytest.mark.parametrize("pagemap", [b"", b"no pagemap at all", wire.image([], wire.PAGEMAP_MAGIC)])
def test_a_pagemap_that_is_not_understood_changes_no_byte(tmp_path, pagemap):
    pages = bytes(range(256)) * 16 * 40 + b"odd"
    directory = pages_directory(tmp_path / "images", pagemap, pages)
    objects = MemoryObjects()
    get_images(put_images(directory, objects), tmp_path / "again", objects)
    assert same_files(directory, tmp_path / "again")


def test_gc_reaches_every_object_of_an_image_from_its_roots(store, writer, tmp_path):
    pages = b"".join(bytes([number % 251, number // 251]) * 32768 for number in range(300))
    image = put_images(pages_directory(tmp_path / "images", b"x" * 300_000, pages), writer)
    writer.sync()
    roots = list(image_objects(image))
    reached = mark(store, roots)
    assert len(reached) > 300
    memory = MemoryObjects()
    for name in reached:
        kind = store.locate(name)[0].kind
        memory.objects[name] = store.get(name, kind)
    get_images(image, tmp_path / "again", memory)  # nothing else is needed
    assert same_files(tmp_path / "images", tmp_path / "again")


def test_a_lost_or_cut_off_piece_is_damage_and_leaves_no_file(tmp_path):
    pages = b"".join(bytes([number]) * BLOCK_BYTES for number in range(1, 9))
    objects = MemoryObjects()
    image = put_images(pages_directory(tmp_path / "images", b"", pages), objects)
    whole = dict(objects.objects)
    victim = max(whole, key=lambda name: len(whole[name]))
    for harm in ({}, {victim: whole[victim][:-1]}, {victim: whole[victim] + b"more"}):
        objects.objects = {n: d for n, d in whole.items() if n != victim} | harm
        with pytest.raises(DamagedObject):
            get_images(image, tmp_path / "again", objects)
        assert list((tmp_path / "again").iterdir()) == []


def test_a_flipped_bit_in_the_store_is_found(store, writer, tmp_path):
    directory = pages_directory(tmp_path / "images", b"", bytes(range(1, 256)) * 4096)
    image = put_images(directory, writer)
    writer.close()
    (pack,) = (tmp_path / "store" / "packs").glob("*/*.pack")
    with open(pack, "r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(bytes([byte[0] ^ 4]))
    with pytest.raises(DamagedObject):
        get_images(image, tmp_path / "again", store)


@pytest.mark.parametrize("name", ["../core-1.img", "a/b", ".hidden", "", "x" * 300, "a\nb"])
def test_stored_names_that_lead_elsewhere_are_damage(tmp_path, name):
    content = put_images(pages_directory(tmp_path / "i", b"", b"1"), objects := MemoryObjects())
    image = ImageSet((ImageFile(name, content.files[0].content),))
    with pytest.raises(DamagedObject):
        get_images(image, tmp_path / "again", objects)
    assert list((tmp_path / "again").iterdir()) == []


def test_what_is_no_image_is_not_stored_as_one(tmp_path):
    directory = pages_directory(tmp_path / "images", b"", b"1")
    (directory / "below").mkdir()
    with pytest.raises(NotImaged, match="is none"):
        put_images(directory, MemoryObjects())
    with pytest.raises(NotImaged, match="cannot be read"):
        put_images(tmp_path / "absent", MemoryObjects())


@pytest.mark.root
def test_images_for_which_there_is_no_room_leave_none(tmp_path):
    objects = MemoryObjects()
    pages = b"".join(bytes([number % 255 + 1]) * (1 << 20) for number in range(8))
    image = put_images(pages_directory(tmp_path / "images", b"", pages), objects)
    with file_system("tmpfs") as small:
        (small / "rest").write_bytes(bytes(318 << 20))
        with pytest.raises(NotRevived) as caught:
            get_images(image, small / "again", objects)
        assert caught.value.cause is Cause.NO_SPACE
        assert list((small / "again").iterdir()) == []


def test_an_object_id_of_an_image_is_one_of_the_store(tmp_path):
    objects = MemoryObjects()
    image = put_images(pages_directory(tmp_path / "images", b"", b"1"), objects)
    assert {ObjectId(ref.id) for ref in image_objects(image)} <= set(objects.objects)
