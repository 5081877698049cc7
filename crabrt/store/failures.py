"""From what the operating system says to what a handler can act on."""

from __future__ import annotations

import errno
import os

from crabrt.errors import StoreUnavailable

_HINTS = {
    errno.ENOSPC: "free some space, or reclaim with `crab prune` and `crab gc`",
    errno.EDQUOT: "the quota is used up: free some space, or `crab prune` and `crab gc`",
    errno.EROFS: "the file system is mounted read-only; set CRAB_HOME to a writable place",
    errno.EACCES: "the store belongs to somebody else; set CRAB_HOME to a directory of yours",
    errno.EPERM: "the store belongs to somebody else; set CRAB_HOME to a directory of yours",
    errno.ENOENT: "the store's directory is gone; set CRAB_HOME, or run `crab repair`",
    errno.ENOTDIR: "something that is no directory is in the way; set CRAB_HOME",
    errno.EIO: "the disk failed; look at the kernel log before trusting it again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def unavailable(error: OSError, path: str | os.PathLike[str], doing: str) -> StoreUnavailable:
    """The error to raise for `error`, which happened at `path` while `doing` something."""
    text = os.strerror(error.errno) if error.errno else str(error)
    hint = _HINTS.get(error.errno or 0, "see `crab doctor`")
    return StoreUnavailable(f"{doing} failed: {text}", where=os.fspath(path), hint=hint)
