"""``crab log --stats``; a journal broken in the middle; turns that were passed over."""

import pytest

from crabrt.core.verdicts import Prior


@pytest.fixture
def run(builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.turn(None, tool="pay", prior=Prior.EXTERNAL)
    yield run
    if not run.journal.inert:
        run.close()


def test_stats_say_what_turns_did_and_whether_priors_were_right(run, crab):
    run.turn(None, tool="peek", prior=Prior.NONE)
    run.turn(
        lambda: (run.path / "app.py").write_text("no peeking\n"), tool="peek", prior=Prior.NONE
    )
    run.end()
    stats = crab("log", "--stats", "--json").data["stats"]
    assert (stats["turns"], stats["judged"]) == (6, 6)
    assert stats["verdicts"]["files"] == {"turns": 3, "share": 0.5}
    assert stats["exposed_ms"] == {"p50": 0.0, "p99": 0.0, "max": 0.0, "total": 0.0}
    peek = next(tool for tool in stats["tools"] if tool["name"] == "peek")
    assert peek == {
        "name": "peek", "prior": "none", "guess": None, "calls": 2,
        "observed": {"none": 1, "files": 1}, "unclear": 0,
        "right": 1, "wrong": 1, "share_right": 0.5,
    }  # fmt: skip
    text = crab("log", "--stats").out
    assert "6 turns, 6 of them with a verdict" in text
    assert "files 50% (3)" in text
    assert "p50 0 ms, p99 0 ms, max 0 ms" in text
    [line] = [line for line in text.splitlines() if line.startswith("peek")]
    assert "50% of 2" in line
    assert "not watched" in text
    assert "not declared" in text


def test_stats_of_the_last_turns_only_and_not_while_following(run, crab):
    run.end()
    assert crab("log", "--stats", "-n", 2, "--json").data["stats"]["turns"] == 2
    assert crab("log", "--stats", "--follow").code == 2
    assert "prior" in crab("log", "--help").out


def break_turn(run, crab):
    """The journal is changed in the middle after everything has looked at it."""
    assert crab("log").code == 0
    [path] = sorted((run.directory / "journal").glob("*.seg"))
    data = bytearray(path.read_bytes())
    place = data.index(b"reply 2")
    data[place] ^= 1
    path.write_bytes(data)


def test_a_journal_broken_in_the_middle_is_noticed_by_whatever_looks(run, crab):
    run.end()
    break_turn(run, crab)
    name = min((run.directory / "journal").glob("*.seg")).name
    for words in (("log",), ("log", run.run), ("log", "--stats"), ("log", "--follow")):
        done = crab(*words)
        assert done.code == 7, words
        assert f"{run.run}/{name}:" in done.out
    assert crab("log", "--json").data["problem"]
    for words in (("show",), ("show", f"{run.run}@3"), ("show", "last@-1"), ("diff", "last@4")):
        done = crab(*words, "--json")
        assert done.code == 7, words
        assert done.error["kind"] == "damaged-journal"
        assert done.error["where"].startswith(f"{run.run}/{name}:")
    assert crab("show", f"{run.run}@1").code == 0
    listed = crab("runs")
    assert listed.code == 3
    assert name in listed.out
    assert crab("check").code == 7


def test_turns_that_do_not_count_from_the_end_are_named(run, crab, tmp_path):
    run.unprotected_turn("disk full")
    run.close()
    said = "turn 5 cannot be restored and did not count"
    assert said in " ".join(crab("restore", "last@-1", "--dry-run").out.split())
    assert crab("restore", "last@-1", "--dry-run", "--json").data["skipped_turns"] == [5]
    forked = crab("fork", "last@-1", "--to", tmp_path / "fork", "--paths=keep")
    assert said in " ".join(forked.out.split())
    assert said in crab("diff", "last@-1").err
    assert said not in crab("restore", "last@4", "--dry-run").out
    assert f"{run.run}@4" in crab("show", "last@-1").out
    assert f"{run.run}@5" in crab("show", "last").out


def test_a_check_mentions_what_was_not_durable_and_is_content(run, crab, monkeypatch):
    from crabrt.core.content import Content  # noqa: PLC0415 - for this test alone
    from crabrt.core.entries import CallId, Payload, Request  # noqa: PLC0415

    messages = Content(1, 0, (b"m" * 32,))
    run.journal.append(
        Request(CallId("0", "think", 99), b"d", Payload(b"x"), messages, "m"), turn=run.turns
    )
    run.close()
    assert crab("check").code == 7
    monkeypatch.setattr("crabrt.operations.checking.boot_id", lambda: "the next boot")
    done = crab("check")
    assert done.code == 0
    assert "not durable yet when the power was lost" in " ".join(done.out.split())
    data = crab("check", "--json").data
    assert (data["healthy"], data["not_durable"]) == (True, [(b"m" * 32).hex()])
    assert data["lost"] == [run.run]
