"""A life of a store, told line by line: what a child does before it is killed at some failpoint.

It prints ``keep SEED`` once the object made from SEED must survive SIGKILL, so that whoever reads
the output knows what to look for.
"""

import os
import random
import signal
import sys
from pathlib import Path

from crabrt.core import failpoints
from crabrt.core.ids import object_id
from crabrt.store import ObjectRef, Store
from crabrt.store.check import check
from crabrt.store.gc import collect
from crabrt.store.repair import repair


def say(*words):
    os.write(1, (" ".join(words) + "\n").encode())  # at once: the next moment may be the last


def data_of(seed):
    return random.Random(seed).randbytes(random.Random(seed).randrange(100, 3000))


def keep(seeds):
    for seed in seeds:
        say("keep", seed)


def put_all(writer, seeds):
    for seed in seeds:
        writer.put(data_of(seed))


def victim(home, name, hurt):
    """A writer that dies with an unsealed pack: torn at its end, or broken in the middle."""
    with Store.open(home) as store:
        writer = store.writer()
        put_all(writer, [f"{name}{i}" for i in range(9)])
        writer.flush()
        (path,) = (home / "packs").glob(f"*/{writer.id}*.pack")
        with open(path, "r+b") as file:
            if hurt == "torn":
                file.seek(0, os.SEEK_END)
                file.write(b"CRo1 and then nothing")
            elif hurt == "middle":
                file.seek(40 + 70)
                file.write(b"\0\0\0\0")
        os.kill(os.getpid(), signal.SIGKILL)


def die(home, name, hurt):
    """Leave behind what a writer leaves that was killed; then let the next one adopt it."""
    child = os.fork()  # no store is open here
    if child == 0:
        for point in failpoints.ALL.values():
            point.action = None
        victim(home, name, hurt)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with Store.open(home) as store:
        store.writer().close()
    lost = 1 if hurt == "middle" else 0
    keep(f"{name}{i}" for i in range(lost, 9))


def roots_of(seeds):
    return lambda: [ObjectRef(object_id(data_of(seed))) for seed in seeds]


def life(home):
    with Store.open(home, create=True) as store, store.writer(pack_bytes=20_000) as writer:
        for turn in range(4):
            with writer.commit():
                seeds = [f"{turn}.{i}" for i in range(15)]
                put_all(writer, seeds)
                writer.flush()
                if turn % 2:
                    keep(seeds)
                writer.sync()
    wanted = [f"{turn}.{i}" for turn in (1, 3) for i in range(15)]
    die(home, "torn", "torn")
    die(home, "whole", "")
    die(home, "middle", "middle")
    with Store.open(home) as store:
        wanted += [f"{n}{i}" for n in ("torn", "whole") for i in range(9)]
        wanted += [f"middle{i}" for i in range(1, 9)]
        with store.writer() as writer:
            put_all(writer, ["late"])
        keep(["late"])
        wanted += ["late"]
        collect(store, roots_of(wanted), sparse=0.1)
        collect(store, roots_of(wanted), sparse=0.1)
        assert check(store, read_data=True).problems == ()
    say("damaged")
    pack = max((home / "packs").glob("*/*.pack"), key=lambda path: path.stat().st_size)
    with open(pack, "r+b") as file:
        file.seek(10)
        file.write(b"\xff\xff")
    (home / "chunks.sqlite").write_bytes(b"no database")
    (home / "format.json").unlink()
    repair(home)
    with Store.open(home) as store:
        assert check(store, read_data=True).problems == ()
    say("lived")


if __name__ == "__main__":
    life(Path(sys.argv[1]))
