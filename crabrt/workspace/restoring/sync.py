"""One sync of a whole file system, by a descriptor in it.

``syncfs`` makes every write and rename durable at once; syncing each file and directory would cost
a journal commit each. Since Linux 5.8 it reports failed write-back.
"""

from __future__ import annotations

import ctypes
import os


def sync_file_system(fd: int) -> None:
    """Make everything written so far to the file system of `fd` durable.

    Raises:
        OSError: write-back failed.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # a libc without it
        os.sync()
    elif syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
