"""Bytes on disk that are not what was written: typed errors, and never a wrong answer."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crabrt.core.ids import object_id
from crabrt.errors import CrabError, Damaged, DamagedObject, FormatTooNew, NotFound
from crabrt.store import Store
from crabrt.store.check import check
from crabrt.store.repair import repair
from crabrt.store.usage import usage

DATA = [bytes([65 + i]) * (40 * i) + bytes(range(256)) * (i % 3) for i in range(12)]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A closed store with one sealed pack, and one pack whose writer died."""
    home = tmp_path_factory.mktemp("pristine") / "store"
    with Store.open(home, create=True) as store:
        with store.writer() as writer:
            for data in DATA[:9]:
                writer.put(data)
        writer = store.writer()
        for data in DATA[9:]:
            writer.put(data)
        writer.flush()
        kept = home.with_name("copy")
        shutil.copytree(home, kept)
    for lock in (kept / "writers").glob("*.lock"):
        lock.unlink()
    return kept


def answers(home):
    """What the store says about every object: its bytes, or the kind of error."""
    try:
        with Store.open(home) as store:
            said = []
            for data in DATA:
                try:
                    said.append(store.get(object_id(data)))
                except CrabError as error:
                    said.append(type(error))
            usage(store)
            return said, check(store, read_data=True)
    except CrabError as error:
        return type(error), None


def assert_never_wrong(home):
    said, report = answers(home)
    if isinstance(said, list):
        for data, got in zip(DATA, said, strict=True):
            assert got in (data, DamagedObject)
        return said, report
    assert issubclass(said, (Damaged, NotFound))
    return None, None


FILES = ["sealed", "orphan", "chunks.sqlite", "format.json"]


def file_of(home, name):
    if name not in ("sealed", "orphan"):
        return home / name
    by_size = sorted((home / "packs").glob("*/*.pack"), key=lambda path: path.stat().st_size)
    return by_size[-1 if name == "sealed" else 0]


@settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(FILES),
    how=st.sampled_from(["cut", "flip", "zeros", "garbage"]),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_no_damage_gives_a_wrong_answer_and_repair_makes_it_usable(
    pristine, tmp_path_factory, name, how, where, bit
):
    home = tmp_path_factory.mktemp("damaged") / "store"
    shutil.copytree(pristine, home)
    path = file_of(home, name)
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    if how == "cut":
        del content[at:]
    elif how == "flip":
        content[at] ^= 1 << bit
    else:
        content[at : at + 64] = (b"\0" if how == "zeros" else b"CRo1\xff\xff") * 11
    path.write_bytes(content)

    said, _ = assert_never_wrong(home)
    if name == "chunks.sqlite":
        assert said == DATA
    try:
        repair(home)
    except FormatTooNew:
        assert name == "format.json"
        return
    with Store.open(home) as store, store.writer() as writer:
        after = check(store, read_data=True)
        assert after.problems == ()
        for data in DATA:
            writer.put(data)
        writer.sync()
        assert [store.get(object_id(data)) for data in DATA] == DATA
    if said is not None:
        with Store.open(home) as store:
            for data, got in zip(DATA, said, strict=True):
                assert got != data or store.contains(object_id(data))
    shutil.rmtree(home.parent)


def test_a_newer_format_is_refused_with_a_hint(home, store):
    store.close()
    path = home / "format.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "version": 2, "new": {"things": []}}))
    with pytest.raises(FormatTooNew, match="upgrade"):
        Store.open(home)
    with pytest.raises(FormatTooNew):
        repair(home)
    path.write_text(json.dumps({**content, "requires": ["encryption"]}))
    with pytest.raises(FormatTooNew, match="encryption"):
        Store.open(home, create=True)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": "1"}', b"[" * 9999]
)
def test_a_broken_format_file_is_damage(home, store, content):
    store.close()
    (home / "format.json").write_bytes(content)
    with pytest.raises(Damaged, match="repair"):
        Store.open(home, create=True)
    assert repair(home).format_rewritten
    Store.open(home).close()


@pytest.mark.parametrize("changed", [{"id": "sha256"}, {"chunker": {"max": 1 << 20}}])
def test_settings_that_would_find_nothing_again_are_damage(home, store, changed):
    store.close()
    path = home / "format.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(Damaged, match="settings"):
        Store.open(home)


def test_packs_without_a_format_file_are_not_taken_for_a_new_store(home, store):
    with store.writer() as writer:
        writer.put(b"precious")
    store.close()
    (home / "format.json").unlink()
    with pytest.raises(Damaged, match="repair"):
        Store.open(home, create=True)
    repair(home)
    with Store.open(home) as again:
        assert again.get(object_id(b"precious")) == b"precious"


def test_a_bad_record_is_named_with_pack_and_offset(home, store, noise, flip, pack_files):
    with store.writer() as writer:
        good, bad = writer.put(noise(1, 500)), writer.put(noise(2, 500))
    (pack,) = pack_files()
    flip(pack, 40 + 556 + 56 + 100)
    with pytest.raises(DamagedObject) as caught:
        store.get(bad)
    assert caught.value.where == f"{pack.stem}:596"
    assert store.get(good) == noise(1, 500)
    assert check(store, read_data=False).problems == ()
    (problem,) = check(store, read_data=True).problems
    assert (problem.area, problem.where, problem.objects) == ("object", f"{pack.stem}:596", (bad,))


def test_repair_keeps_the_good_records_and_sets_the_bad_pack_aside(
    home, store, noise, flip, pack_files
):
    with store.writer() as writer:
        ids = [writer.put(noise(i, 500)) for i in range(10)]
    store.close()
    (pack,) = pack_files()
    flip(pack, 40 + 3 * 556 + 200)
    report = repair(home)
    assert (report.objects_salvaged, report.objects_lost) == (9, 1)
    assert (home / "damaged").is_dir()
    assert len(report.packs_set_aside) == 1
    with Store.open(home) as again:
        assert check(again, read_data=True).problems == ()
        for i in range(10):
            if i == 3:
                with pytest.raises(DamagedObject):
                    again.get(ids[i])
            else:
                assert again.get(ids[i]) == noise(i, 500)


def test_a_damaged_copy_is_passed_over_for_a_good_one(home, store, noise, flip):
    with store.writer() as one, store.writer() as two:
        put = one.put(noise(1, 1000))
        two.put(noise(1, 1000))
        names = one.open_packs() + two.open_packs()
    for name in names[:1]:
        flip(home / "packs" / name[:2] / f"{name}.pack", 500)
    assert store.get(put) == noise(1, 1000)


def test_repairing_nothing_says_that_there_is_nothing(tmp_path):
    with pytest.raises(NotFound):
        repair(tmp_path)


def test_repairing_a_sound_store_changes_nothing(home, store, noise):
    with store.writer() as writer:
        for i in range(20):
            writer.put(noise(i, 100))
    store.close()
    report = repair(home)
    assert (report.packs_set_aside, report.objects_lost, report.objects) == ((), 0, 20)


def test_repair_closes_a_store_that_others_could_look_into(home, store):
    store.close()
    home.chmod(0o755)
    (home / "packs").chmod(0o750)
    assert repair(home).directories_closed == 2
    assert [p.stat().st_mode & 0o777 for p in (home, home / "packs")] == [0o700, 0o700]
    assert repair(home).directories_closed == 0
