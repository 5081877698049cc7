"""A writer process beside gc: commits random subsets of a small pool, and forgets old ones.

Its "journal" is a file of ids, replaced by rename after each sync, so that objects die and come
back all the time, and most puts find something that gc may be about to remove.
"""

import os
import random
import sys
from pathlib import Path

from crabrt.core.ids import object_id
from crabrt.store import Store

POOL = 60


def data_of(seed):
    return random.Random(seed).randbytes(400)


def work(home, journals, number, commits):
    rng = random.Random(number)
    journal = journals / f"{number}.ids"
    kept = []
    with Store.open(home) as store, store.writer(pack_bytes=6_000) as writer:
        for _ in range(commits):
            with writer.commit():
                seeds = rng.sample(range(POOL), 8)
                ids = [writer.put(data_of(seed)) for seed in seeds[:4]]
                if rng.random() < 0.3:
                    writer.sync()
                ids += [writer.put(data_of(seed)) for seed in seeds[4:]]
                writer.sync()
                for wanted in ids * 3:  # gc gets its chance before the journal says anything
                    store.get(wanted)
                kept = [*kept[-2:], ids]
                temporary = journal.with_suffix(".tmp")
                temporary.write_text("\n".join(i.hex() for ids in kept for i in ids))
                os.rename(temporary, journal)
            for ids in kept:
                for wanted in ids:
                    assert object_id(store.get(wanted)) == wanted
    sys.stdout.write("done\n")


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
