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
