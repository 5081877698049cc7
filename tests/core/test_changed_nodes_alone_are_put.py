import random

import pytest

from crabrt.core.ids import object_id
from crabrt.core.trees import (
    Entry,
    Kind,
    put_above,
    put_directory,
    put_leaves,
    put_leaves_again,
)


class Objects:
    def __init__(self):
        self.puts = 0

    def put(self, data, kind):
        self.puts += 1
        return object_id(data, kind)


def entries(names, mode=0o600):
    return {name: Entry(name, Kind.FIFO, mode, 0, 0) for name in sorted(names)}


@pytest.mark.parametrize("count", [1, 16, 17, 40, 300, 5000])
@pytest.mark.parametrize("touched", [0, 1, 3, 30])
def test_a_directory_put_again_has_the_id_it_would_have_anew(count, touched):
    rng = random.Random(count * 100 + touched)
    names = [rng.randbytes(rng.randrange(1, 12)).replace(b"/", b"_").hex().encode()
             for _ in range(count)]  # fmt: skip
    before = entries(names)
    leaves = put_leaves(list(before.values()), Objects().put)
    changed = rng.sample(sorted(before), min(touched, len(before)))
    after = before | {name: Entry(name, Kind.FIFO, 0o644, 0, 0) for name in changed}
    again = Objects()
    found = put_leaves_again(leaves, list(before), after.__getitem__, changed, again.put)
    assert again.puts <= len(changed)
    anew = put_directory([after[name] for name in sorted(after)], Objects().put)
    assert put_above(found, Objects().put) == anew


def test_an_empty_directory_is_one_node():
    objects = Objects()
    leaves = put_leaves([], objects.put)
    assert put_above(leaves, objects.put) == put_directory([], Objects().put)
    assert objects.puts == 1
