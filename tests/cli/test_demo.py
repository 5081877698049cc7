import subprocess
import sys

from crabrt.cli import demo_agent


def test_the_demo_kills_its_agent_and_proves_its_claims(crab, home, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = crab("demo", "--json", process=True)
    assert done.code == 0, done.err
    assert len(done.data["proofs"]) == 4
    assert all(
        proof["holds"] and proof["expected"] == proof["found"] for proof in done.data["proofs"]
    )
    assert not list(tmp_path.glob("crab-demo-*"))
    assert not home.exists()  # nothing of the user's is touched


def test_resuming_an_earlier_turn_goes_on_from_the_files_of_that_turn(crab, home, workspace):
    agent = [sys.executable, demo_agent.__file__]
    done = subprocess.run(agent, cwd=workspace, capture_output=True, text=True, check=True)
    noted = [line.split()[1:] for line in done.stdout.splitlines()]
    states = {int(turn): digest for turn, digest in noted}
    assert states[4] != states[7]
    done = crab("resume", "last@4", "--yes", process=True)
    assert done.code == 0, done.err
    resumed = [line.split()[1:] for line in done.out.splitlines()]
    live = dict(resumed)["4"]  # what the loop met when it went live
    assert live == states[4]
    runs = crab("runs", "--json").data
    assert runs[0]["parent"] == runs[1]["run"]
    assert runs[0]["status"] == "done"
