"""What people changed is refused again after every restore that did not overwrite it."""

import os

import pytest

from crabrt.errors import NotFound, WouldLoseChanges
from crabrt.journal import RunIndex
from crabrt.operations.restoring import last_known, restore_state, undo_restore
from crabrt.operations.roots import collect_garbage
from crabrt.operations.targets import resolve
from crabrt.testing import oracle


class Desk:
    """A directory in which two turns changed `a` and `d/b`, and the verbs that people use."""

    def __init__(self, run, path):
        self.run, self.path = run, path
        run.turn(lambda: self.write("a", "a1"))
        run.turn(lambda: self.write("d/b", "b1"))

    def write(self, name, text):
        (self.path / name).write_text(text)

    def read(self, name):
        return (self.path / name).read_text()

    def restore(self, turn, *paths, **options):
        paths = [os.fsencode(path) for path in paths]
        return self._with_index(
            lambda index: restore_state(
                index, self.run.writer, self.run.workspace,
                resolve(index, f"last@{turn}"), paths=paths, **options,
            )
        )  # fmt: skip

    def undo(self, **options):
        return self._with_index(
            lambda index: undo_restore(index, self.run.writer, self.run.workspace, **options)
        )

    def refused(self, act):
        """The paths for which `act` is refused; the directory is as it was."""
        before = oracle.digest(self.path)
        with pytest.raises(WouldLoseChanges) as caught:
            act()
        assert oracle.digest(self.path) == before
        return caught.value.paths

    def last_known(self):
        return self._with_index(lambda index: last_known(index, self.run.workspace))

    def _with_index(self, act):
        with RunIndex.open(self.run.home) as index:
            index.refresh()
            return act(index)


@pytest.fixture
def desk(builder, home, workspace):
    workspace.mkdir()
    (workspace / "d").mkdir()
    (workspace / "a").write_text("a0")
    (workspace / "d/b").write_text("b0")
    run = builder.RunBuilder(home, workspace)
    yield Desk(run, workspace)
    run.close()


def test_a_restore_of_another_path_leaves_an_edit_somebodys(desk):
    desk.write("a", "precious")
    desk.write("d/mine", "mine")
    desk.restore(0, "d/b")
    assert desk.refused(lambda: desk.restore(0)) == [b"a", b"d/mine"]
    desk.restore(1, "d/b")  # what was restored is nobody's work
    assert desk.refused(lambda: desk.restore(2)) == [b"a", b"d/mine"]
    assert desk.restore(0, dry_run=True).report.conflicts == (b"a", b"d/mine")
    desk.restore(0, force=True)
    desk.restore(2)
    assert desk.read("a") == "a1"


def test_what_an_undo_brings_back_of_others_is_theirs_again(desk):
    desk.write("a", "precious")
    desk.write("mine", "mine")
    for _ in range(2):  # restored by force, taken back, and so once more
        assert desk.refused(lambda: desk.restore(0)) == [b"a", b"mine"]
        desk.restore(0, force=True)
        desk.undo()
        assert desk.read("a") == "precious"
    desk.undo()  # a redo takes back what the undo brought, and nobody has touched it since
    assert desk.read("a") == "a0"
    desk.restore(2)
    desk.undo()
    desk.undo()
    assert desk.read("a") == "a1"


def test_what_a_forced_undo_overwrote_is_theirs_after_the_redo(desk):
    desk.restore(0)
    desk.write("a", "precious")
    assert desk.refused(desk.undo) == [b"a"]
    desk.undo(force=True)
    desk.undo()
    assert desk.read("a") == "precious"
    assert desk.refused(lambda: desk.restore(2)) == [b"a"]


def test_an_undo_of_some_paths_leaves_other_edits_somebodys(desk):
    desk.write("d/b", "theirs")
    desk.restore(0, "d", force=True)
    desk.write("a", "precious")
    desk.undo()
    assert desk.read("d/b") == "theirs"
    assert desk.refused(lambda: desk.restore(0)) == [b"a", b"d/b"]


def test_a_checkpoint_after_the_restore_is_what_is_known(desk):
    desk.write("a", "precious")
    desk.restore(0, "d/b")
    desk.run.turn(None)
    assert desk.last_known() == desk.run.root
    desk.restore(0)
    assert desk.read("a") == "a0"


def test_a_collection_keeps_what_is_known(desk):
    desk.write("a", "precious")
    desk.restore(0, "d/b")
    known = desk.last_known()
    desk.run.writer.flush()
    for _ in range(3):
        report = collect_garbage(desk.run.store, undo_keep_days=0)
        assert not report.missing
    assert desk.run.store.contains(known)
    assert desk.refused(lambda: desk.restore(0)) == [b"a"]


def test_a_path_that_is_nowhere_changes_nothing_that_is_known(desk):
    known = desk.last_known()
    with pytest.raises(NotFound):
        desk.restore(0, "nowhere")
    desk.restore(2)
    assert desk.last_known() == known
