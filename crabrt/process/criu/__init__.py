"""Images of process trees, taken and restored by CRIU.

* `probing`: which CRIU there is, and whether it can do here what it is asked for.
* `installing`: one that works, unpacked beside the system's packages, for one user.
* `dumping`, `restoring`: one tree into a directory of images, and back; nothing hangs.
* `owners`: as whom CRIU takes an image; `guarding`: what ends it, and what is half done, if we die.
* `locks`, `interrupted`, `sessions`: what CRIU gets wrong, put right or refused.
* `outside`: what a tree holds whose other end is elsewhere, so that it cannot come back whole.
* `connections`: those that lead out come back closed, those inside of the tree go on.
* `mounts`: what a tree with a mount namespace of its own sees, at its image and when it is back.
* `images`: a directory of images into the store, and back.

What it is not: it freezes nothing for longer than CRIU does, decides nothing about which processes
belong to a run, and restores no files. Everything CRIU does is told in docs/internals/images.md.
May import: ``crabrt.process`` as far as that lists processes and sockets, ``workspace``, ``store``,
``core``, ``errors``.
"""

from crabrt.process.criu.causes import Cause, NotImaged, NotRevived
from crabrt.process.criu.connections import leading_out
from crabrt.process.criu.dumping import Dumped, dump
from crabrt.process.criu.images import get_images, image_objects, put_images
from crabrt.process.criu.installing import CannotInstall, install
from crabrt.process.criu.mounts import Bind, left_behind
from crabrt.process.criu.outside import LOST, Leads, Outside, outside
from crabrt.process.criu.probing import find
from crabrt.process.criu.programs import Criu, Lack, NoCriu
from crabrt.process.criu.restoring import restore
from crabrt.process.criu.sessions import NEXT_STEP, is_ours_outside

__all__ = [
    "LOST",
    "NEXT_STEP",
    "Bind",
    "CannotInstall",
    "Cause",
    "Criu",
    "Dumped",
    "Lack",
    "Leads",
    "NoCriu",
    "NotImaged",
    "NotRevived",
    "Outside",
    "dump",
    "find",
    "get_images",
    "image_objects",
    "install",
    "is_ours_outside",
    "leading_out",
    "left_behind",
    "outside",
    "put_images",
    "restore",
]
