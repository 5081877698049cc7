"""Images in the store: gc keeps them, check knows whose they are, rm frees them."""

from __future__ import annotations

import json

import pytest

from crabrt.core.content import piece_ids
from crabrt.core.ids import ObjectId
from crabrt.process.state import image_of, read_state
from crabrt.store import Store, layout
from crabrt.workspace import find_entry

from .counted_runs import succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]


def pages(agent) -> dict[int, set[ObjectId]]:
    """The pieces of what is in memory, of each turn that has an image."""
    with Store.open(agent.home) as store:
        found = {}
        for turn in filter(lambda turn: turn.processes, agent.turns()):
            root = ObjectId(turn.processes)
            (tree,) = read_state(root, store).trees
            files = [file for file in image_of(root, tree, store).files if "pages-" in file.name]
            found[turn.turn] = {p for file in files for p in piece_ids(file.content, store.get)}
    return found


def damage(agent, piece: ObjectId) -> None:
    with Store.open(agent.home) as store:
        (place,) = store.locate(piece)
    with open(layout.pack_path(agent.home, place.pack), "r+b") as file:
        file.seek(place.offset + place.length - 8)
        last = file.read(4)
        file.seek(-4, 1)
        file.write(bytes(byte ^ 255 for byte in last))


def unreferenced_bytes(agent) -> int:
    told = json.loads(succeeded(agent.crab("du", "--live", "--json")))
    return told["data"]["store"]["dead_bytes"]


def test_gc_keeps_images_while_a_turn_names_them_and_takes_them_after(agent):
    succeeded(agent.run(6))
    succeeded(agent.crab("gc"))
    assert "No problems" in succeeded(agent.crab("check", "--read-data"))
    everything = set().union(*pages(agent).values())
    assert unreferenced_bytes(agent) == 0
    succeeded(agent.crab("prune", "--keep-per-run", "1", "--yes"))
    assert unreferenced_bytes(agent) > 0
    assert "No problems" in succeeded(agent.crab("check", "--read-data"))
    succeeded(agent.crab("rm", agent.last, "--yes"))
    succeeded(agent.crab("gc"))
    with Store.open(agent.home) as store:
        left = [piece for piece in everything if store.contains(piece)]
    assert not left


def test_where_nobody_can_tell_who_was_alive_the_files_still_come_back(agent):
    succeeded(agent.run(6))
    turns = {turn.turn: ObjectId(turn.processes) for turn in agent.turns()}
    with Store.open(agent.home) as store:
        content = find_entry(store, turns[2], b"state").content
        (piece,) = piece_ids(content, store.get)
    damage(agent, piece)
    (agent.ws / "log").unlink()
    done = agent.crab("restore", f"{agent.last}@2", "--force")
    assert done.returncode == 7
    assert "CRAB_PROCESSES=off" in done.stderr
    assert agent.server_lives  # nothing was touched
    agent._env["CRAB_PROCESSES"] = "off"
    succeeded(agent.crab("restore", f"{agent.last}@4", "--force"))
    assert (agent.ws / "log").read_text() == "[1]\n"
    succeeded(agent.crab("restore", f"{agent.last}@2", "--force"))
    assert not (agent.ws / "log").exists()


def test_no_turn_is_told_to_have_stored_what_another_did(agent):
    """Images are stored behind the loop, while the next turn is captured."""
    succeeded(agent.run(6))
    usage = json.loads(succeeded(agent.crab("du", "--json")))["data"]
    assert 0 < usage["runs"][0]["stored_bytes"] <= usage["store"]["pack_bytes"]


def test_what_is_in_memory_is_in_no_trace(agent):
    agent._env["SECRET_OF_THE_SERVER"] = secret = "kept-in-memory-alone-0123456789"
    succeeded(agent.run(4))
    out = agent.top / "trace.jsonl"
    for words in ((), ("--redact",)):
        succeeded(agent.crab("export", "last", "-o", str(out), *words))
        assert secret not in out.read_text()
        out.unlink()


@pytest.mark.parametrize("repaired", [False, True], ids=["damaged", "lost"])
def test_a_damaged_image_is_said_to_be_one_of_which_turns_and_files_come_back(agent, repaired):
    succeeded(agent.run(6))
    mine = pages(agent)
    victim = min(mine[1] - set().union(*(mine[turn] for turn in (4, 5, 6))))
    hurt = [f"{agent.last}@{turn}" for turn, pieces in mine.items() if victim in pieces]
    damage(agent, victim)
    if repaired:
        assert agent.crab("repair").returncode == 3
    done = agent.crab("check", "--read-data", "--json")
    assert done.returncode == 7
    told = json.loads(done.stdout)["data"]
    assert (told["affected"], told["unrevivable"]) == ([], hurt)
    (agent.ws / "log").write_text("lost")
    assert agent.crab("gc").returncode in {0, 3}
    server = agent.server
    done = agent.crab("restore", f"{agent.last}@1")
    assert done.returncode == 7
    assert "nothing was changed" in done.stderr
    assert "--force" in done.stderr
    assert (agent.server, agent.add(0)) == (server, 9)
    assert (agent.ws / "log").read_text() == "lost"
    done = agent.crab("restore", f"{agent.last}@1", "--force")
    assert done.returncode == 3
    assert ("the store does not have this object" if repaired else "checksum") in done.stdout
    assert not (agent.ws / "log").exists()
    succeeded(agent.crab("undo", str(agent.ws)))
    assert (agent.ws / "log").read_text() == "lost"
    assert agent.add(0) == 9
    succeeded(agent.crab("restore", f"{agent.last}@6", "--force"))
    assert agent.add(0) == 9


def test_a_loop_that_goes_back_to_a_damaged_image_goes_on_without_it(agent):
    """Nobody is there to be asked: what is not back is told."""
    succeeded(agent.run(6))
    mine = pages(agent)
    damage(agent, min(mine[4] - mine[1]))
    done = agent.run(6, resume=f"{agent.last}@4")
    assert "is not back" in done.stderr
    assert any("checksum" in note for note in agent.notes("not-revived"))
