"""SIGKILL round effects that cannot be taken back: they are never made twice, at worst in doubt."""

from pathlib import Path

import charging
import pytest
from after_death import assert_clean
from loop import life_of

from crabrt.errors import InDoubt, NotFound, NotResumable
from crabrt.testing import crash

PROGRAM = Path(charging.__file__)
CASES = [("journal.appended", hit) for hit in range(2, 40, 2)]
CASES += [("journal.synced", hit) for hit in range(1, 12)]
CASES += [(f"checkpoint.{step}", hit) for step in ("scanned", "captured") for hit in (2, 3, 5)]


def ledger(place):
    path = place / "ledger"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize(("point", "hit"), CASES)
def test_a_payment_is_never_made_twice(point, hit, tmp_path):
    crash.kill_at(point, hit, PROGRAM, [tmp_path], mark=tmp_path / "mark")
    before = ledger(tmp_path)
    assert_clean(life_of(tmp_path, 0, 0))
    try:
        assert charging.lead(tmp_path, resume=True) == "paid"
    except InDoubt:
        assert ledger(tmp_path) == before
        return
    except (NotFound, NotResumable):
        assert before == []
        assert charging.lead(tmp_path) == "paid"
    assert ledger(tmp_path) == list(charging.PAYMENTS)
    assert (tmp_path / "ws/receipt").read_text() == f"charged {charging.PAYMENTS[-1]}"
