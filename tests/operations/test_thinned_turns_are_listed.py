import pytest

from crabrt.errors import DamagedJournal
from crabrt.operations.thinning import thin_turns, thinned_turns


def test_lists_of_several_processes_add_up(tmp_path):
    assert thinned_turns(tmp_path) == frozenset()
    thin_turns(tmp_path, [3, 1])
    thin_turns(tmp_path, [3, 7])
    thin_turns(tmp_path, [])
    assert thinned_turns(tmp_path) == {1, 3, 7}


def test_a_list_that_never_got_its_name_counts_nothing(tmp_path):
    thin_turns(tmp_path, [1])
    (tmp_path / "thinned" / "9-ab.tmp").write_bytes(b"torn")
    assert thinned_turns(tmp_path) == {1}


@pytest.mark.parametrize(
    "harm", [lambda d: d[:5], lambda d: d[:-1] + b"\x00", lambda d: b"", lambda d: d + b"x"]
)
def test_a_damaged_list_is_an_error_not_an_empty_one(tmp_path, harm):
    thin_turns(tmp_path, [1, 2])
    (path,) = (tmp_path / "thinned").iterdir()
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(DamagedJournal, match="damaged") as caught:
        thinned_turns(tmp_path)
    assert str(path) in str(caught.value)
