"""Bytes in, ids out: content-addressed objects in packs, safe for many writers.

What it is: frames, packs and their indexes, the catalog, compression, cutting of long contents, and
what keeps a store healthy: gc, check, repair, usage. docs/internals/store.md has the byte layouts
and what a crash at each step leaves.
What it is not: anything that knows runs, turns or files. Which objects are needed is told by the
floors above (`collect` takes the roots).
Public: `Store`, `StoreWriter`, `ObjectRef`, and the modules ``contents``, ``gc``, ``check``,
``repair``, ``usage``, ``blobs``.
May import: ``crabrt.core``, ``crabrt.errors``, zstandard, sqlite3, pyfastcdc, xxhash, msgspec.
"""

from crabrt.store.reachable import ObjectRef
from crabrt.store.store import Store
from crabrt.store.writer import StoreWriter

__all__ = ["ObjectRef", "Store", "StoreWriter"]
