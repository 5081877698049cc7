"""A listing that was changed is the one that would have been made anew, and cost what changed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crabrt.core.ids import object_id
from crabrt.core.listing import NOTHING, Edit, put_directory
from crabrt.core.trees import Entry, Kind, read_directory


class Objects(dict):
    puts = 0

    def put(self, data, kind):
        self.puts += 1
        found = object_id(data, kind)
        self[found] = data
        return found

    def read(self, object_id, kind):
        return self[object_id]


def entry(name, mode=0o600):
    return Entry(name, Kind.FIFO, mode, 0, 0)


def made(entries, objects):
    edit = Edit(NOTHING)
    for one in entries.values():
        edit.keep(one)
    return edit.store(objects.put)


def changed(listing, changes, objects):
    edit = Edit(listing)
    for name, one in changes.items():
        if one is None:
            edit.drop(name)
        else:
            edit.keep(one)
    return edit.store(objects.put)


def applied(entries, changes):
    now = {**entries, **changes}
    return {name: now[name] for name in sorted(now) if now[name] is not None}


def some_names(rng, count):
    return sorted({rng.randbytes(rng.randrange(2, 9)).hex().encode() for _ in range(count)})


def some_changes(rng, entries, *, values, removed, added):
    names = list(entries)
    changes = {name: entry(name, 0o644) for name in rng.sample(names, min(values, len(names)))}
    changes |= dict.fromkeys(rng.sample(names, min(removed, len(names))))
    return changes | {name: entry(name) for name in some_names(rng, added)}


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 18, 40, 300, 5000])
@pytest.mark.parametrize(
    ("values", "removed", "added"),
    [(0, 0, 0), (1, 0, 0), (30, 0, 0), (0, 1, 0), (0, 0, 1), (3, 2, 2), (10, 40, 40), (0, 4990, 0)],
)
def test_a_changed_listing_is_the_one_made_anew(count, values, removed, added):
    for seed in range(20 if count < 1000 else 3):
        rng = random.Random(f"{seed} {count} {values} {removed} {added}")
        objects = Objects()
        before = {name: entry(name) for name in some_names(rng, count)}
        listing = made(before, objects)
        changes = some_changes(rng, before, values=values, removed=removed, added=added)
        after = applied(before, changes)
        now = changed(listing, changes, objects)
        assert now == made(after, Objects())
        assert now.id == put_directory(list(after.values()), Objects().put)
        assert list(now.entries()) == list(after.values())
        assert list(read_directory(now.id, objects.read)) == list(after.values())


@given(
    st.lists(st.binary(min_size=1, max_size=2), max_size=60, unique=True),
    st.lists(
        st.dictionaries(st.binary(min_size=1, max_size=2), st.sampled_from([None, 1, 2])),
        max_size=6,
    ),
)
def test_a_listing_changed_again_and_again_is_the_one_made_anew(names, rounds):
    entries = {name: entry(name) for name in sorted(names)}
    listing = made(entries, Objects())
    for round_ in rounds:
        changes = {n: None if mode is None else entry(n, mode) for n, mode in round_.items()}
        entries = applied(entries, changes)
        listing = changed(listing, changes, Objects())
        assert listing == made(entries, Objects())


@pytest.mark.parametrize("count", [100, 20_000])
def test_one_change_costs_one_node_a_level_whatever_the_length(count):
    rng = random.Random(count)
    before = {name: entry(name) for name in some_names(rng, count)}
    listing = made(before, Objects())
    for changes in (
        {rng.choice(list(before)): None},
        {b"a new name": entry(b"a new name")},
        {name: entry(name, 0o644) for name in rng.sample(list(before), 1)},
    ):
        objects = Objects()
        changed(listing, changes, objects)
        # A name that comes or goes may move the cuts up to the next one that stays, on each level.
        assert 1 <= objects.puts <= 4 * len(listing.levels)


def test_the_first_name_of_a_node_may_go_and_the_node_before_goes_on():
    rng = random.Random(0)
    before = {name: entry(name) for name in some_names(rng, 400)}
    listing = made(before, Objects())
    for leaf in listing.levels[0]:
        now = changed(listing, {leaf.first: None}, Objects())
        assert now == made(applied(before, {leaf.first: None}), Objects())


def test_what_is_set_to_what_it_was_changes_nothing():
    before = {name: entry(name) for name in some_names(random.Random(1), 50)}
    listing = made(before, Objects())
    edit = Edit(listing)
    name = next(iter(before))
    edit.drop(name)
    edit.keep(entry(name))
    edit.drop(b"never there")
    objects = Objects()
    assert edit.store(objects.put) is listing
    assert objects.puts == 0
    assert edit.differing() == {}


def test_an_empty_directory_is_one_node():
    objects = Objects()
    listing = made({}, objects)
    assert listing.id == put_directory([], Objects().put)
    assert (objects.puts, listing.count, list(listing.entries())) == (1, 0, [])
