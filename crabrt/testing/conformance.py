"""What every implementation of a port must do, as suites to inherit from.

A suite is a class of tests; an implementation's own tests inherit it and say how to make one::

    class TestMyBlobs(BlobStoreSuite):
        @pytest.fixture
        def blobs(self):
            return MyBlobStore(...)

The idea of one suite for all back ends is restic's.
"""

from __future__ import annotations

import threading

import pytest

from crabrt.core.ids import ObjectKind, object_id
from crabrt.core.ports import BlobStore, ObjectWriter
from crabrt.errors import DamagedObject, NotFound, UsageError


class BlobStoreSuite:
    """The contract of `BlobStore`. Inherit, and define the fixture ``blobs``: an empty store."""

    def test_what_was_put_comes_back(self, blobs: BlobStore) -> None:
        """Any bytes, any length."""
        for length in (0, 1, 5000, 1 << 20):
            data = bytes(range(256)) * (length // 256 + 1)
            assert blobs.put(f"a/{length}", data[:length])
            assert blobs.get(f"a/{length}") == data[:length]
            assert blobs.size(f"a/{length}") == length

    def test_the_first_of_two_stays(self, blobs: BlobStore) -> None:
        """Put-if-absent: also where both bring the same bytes, only one wins."""
        assert blobs.put("name", b"first") is True
        assert blobs.put("name", b"second") is False
        assert blobs.put("name", b"first") is False
        assert blobs.get("name") == b"first"

    def test_of_many_at_once_one_wins(self, blobs: BlobStore) -> None:
        """The winner is told so, nobody else is, and its bytes are there whole."""
        start = threading.Barrier(8)
        won: list[bytes] = []

        def put(data: bytes) -> None:
            start.wait()
            if blobs.put("race", data):
                won.append(data)

        threads = [threading.Thread(target=put, args=(bytes([n]) * 9999,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert blobs.get("race") == won[0]

    def test_ranges_are_exact_or_refused(self, blobs: BlobStore) -> None:
        """A range that is not all there is damage, not a shorter answer."""
        blobs.put("r", b"0123456789")
        assert blobs.get("r", 3) == b"3456789"
        assert blobs.get("r", 3, 4) == b"3456"
        assert blobs.get("r", 10) == b""
        assert blobs.get("r", 0, 0) == b""
        for offset, length in ((8, 3), (11, None), (11, 0)):
            with pytest.raises(DamagedObject):
                blobs.get("r", offset, length)

    def test_what_is_absent_is_not_found(self, blobs: BlobStore) -> None:
        """Also where a longer or shorter name exists."""
        blobs.put("a/b", b"")
        for name in ("a", "a/b/c", "b"):
            with pytest.raises(NotFound):
                blobs.get(name)
            with pytest.raises(NotFound):
                blobs.size(name)

    def test_names_are_listed_in_order(self, blobs: BlobStore) -> None:
        """By prefix of the whole name, not by directory."""
        names = ["a/1", "a/10", "a/2", "ab", "b/c/d"]
        for name in reversed(names):
            blobs.put(name, b"x")
        assert blobs.list() == names
        assert blobs.list("a") == names[:4]
        assert blobs.list("a/") == names[:3]
        assert blobs.list("a/1") == names[:2]
        assert blobs.list("b/c") == names[4:]
        assert blobs.list("zzz") == []

    def test_deleting_is_idempotent_and_frees_the_name(self, blobs: BlobStore) -> None:
        """Deleting what is absent is no error."""
        blobs.put("n", b"1")
        blobs.delete("n")
        blobs.delete("n")
        assert blobs.list() == []
        assert blobs.put("n", b"2")
        assert blobs.get("n") == b"2"

    @pytest.mark.parametrize(
        "name",
        ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.hidden", "a b", "a\0b", "\u00e9"],
    )
    def test_names_that_lead_elsewhere_are_refused(self, blobs: BlobStore, name: str) -> None:
        """Before anything is touched."""
        for action in (blobs.get, blobs.size, blobs.delete, lambda bad: blobs.put(bad, b"")):
            with pytest.raises(UsageError):
                action(name)


class ObjectWriterSuite:
    """The contract of `ObjectWriter`. Inherit, and define the fixture ``writer``: an empty one."""

    def test_what_was_put_comes_back_at_once(self, writer: ObjectWriter) -> None:
        """An object is readable through its writer without a flush."""
        for kind in ObjectKind:
            for data in (b"", b"x", b"abc" * 5_000):
                found = writer.put(data, kind)
                assert found == object_id(data, kind)
                assert writer.contains(found)
                assert writer.get(found, kind) == data

    def test_many_at_once_are_as_each_alone(self, writer: ObjectWriter) -> None:
        """`put_many` stores what `put` would, and what is there already is no obstacle."""
        known = writer.put(b"known")
        objects = {
            object_id(data, kind): (data, kind)
            for data in (b"known", *(b"number %d" % i for i in range(3_000)))
            for kind in (ObjectKind.DATA, ObjectKind.TREE)
        }
        writer.put_many(objects)
        writer.put_many(objects)
        writer.put_many({})
        writer.flush()
        writer.sync()
        assert known in objects
        for found, (data, kind) in objects.items():
            assert writer.get(found, kind) == data

    def test_what_is_absent_is_damage(self, writer: ObjectWriter) -> None:
        """A reference to what is not there can only come from damage."""
        absent = object_id(b"never put")
        assert not writer.contains(absent)
        with pytest.raises(DamagedObject):
            writer.get(absent)
