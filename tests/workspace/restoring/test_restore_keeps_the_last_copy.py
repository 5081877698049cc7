"""The index vouches for a file by its stamps; the store may have lost the bytes since."""

from crabrt.core.ids import object_id
from crabrt.testing.memory import MemoryObjects
from crabrt.workspace import restore, undo


def test_a_restore_stores_again_what_the_store_lost_before_it_takes_it_away(place):
    objects = MemoryObjects()
    tracker = place.tracker()
    place.file("keep", b"target")
    target = tracker.capture(tracker.scan(), objects).root
    place.file("keep", b"the only copy")
    place.file("gone", b"another")
    while not (scan := tracker.scan()).clean:  # until the stamps are old enough to be trusted
        tracker.capture(scan, objects)
    before = place.facts()
    for data in (b"the only copy", b"another"):
        del objects.objects[object_id(data)]
    restore(place.workspace, objects, target, base=None, tracker=tracker)
    assert (place.path / "keep").read_bytes() == b"target"
    undo(place.workspace, objects)
    assert place.facts() == before
