"""Power fails at any moment: what was synced is there, the rest is cut, nobody has to repair."""

import pytest

from crabrt.store import Store
from crabrt.store.check import check
from crabrt.testing.powercut import PowerCut


@pytest.mark.parametrize("lose_names", [False, True])
@pytest.mark.parametrize("end", ["flushed", "synced", "closed"])
def test_what_was_synced_survives_every_power_cut(tmp_path, noise, lose_names, end):
    home = tmp_path / "store"
    promised = {}
    Store.open(home, create=True).close()
    with PowerCut(str(home)) as power, Store.open(home) as store:
        writer = store.writer(pack_bytes=20_000)
        for turn in range(4):
            fresh = {}
            for i in range(12):
                data = noise((turn, i).__repr__(), 100 + 150 * i)
                fresh[writer.put(data)] = data
                if i % 5 == 4:
                    writer.flush()
            if turn < 3 or end != "flushed":
                writer.sync()
                promised |= fresh
            else:
                writer.flush()
        if end == "closed":
            writer.close()
        drawn = tmp_path / "drawn"
        lost = 0
        for cut in power.each(40, str(drawn), lose_names=lose_names):
            lost += bool(cut.lost)
            with Store.open(drawn) as after, after.writer() as next_writer:
                for wanted, data in promised.items():
                    assert after.get(wanted) == data, cut
                    next_writer.put(data)
                next_writer.sync()
                assert check(after, read_data=True).problems == (), cut
                assert check(after, read_data=False).unsealed == 0, cut
        assert lost > 0
