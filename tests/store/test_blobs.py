"""The blob stores meet the contract of their port."""

import os

import pytest

from crabrt.errors import StoreUnavailable
from crabrt.store.blobs import LocalBlobStore, MemoryBlobStore
from crabrt.testing.conformance import BlobStoreSuite


class TestLocalBlobs(BlobStoreSuite):
    @pytest.fixture
    def blobs(self, tmp_path):
        return LocalBlobStore(tmp_path / "some" / "blobs")

    def test_a_file_in_the_way_is_a_typed_error(self, blobs):
        blobs.put("a", b"")
        with pytest.raises(StoreUnavailable):
            blobs.put("a/b", b"")

    def test_everything_is_private_and_nothing_is_left_over(self, blobs):
        old = os.umask(0)
        try:
            blobs.put("a/b", b"x")
            blobs.put("a/b", b"y")
        finally:
            os.umask(old)
        found = {
            str(p.relative_to(blobs.root)): p.stat().st_mode & 0o777 for p in blobs.root.rglob("*")
        }
        assert found == {"a": 0o700, "a/b": 0o600}


class TestMemoryBlobs(BlobStoreSuite):
    @pytest.fixture
    def blobs(self):
        return MemoryBlobStore()
