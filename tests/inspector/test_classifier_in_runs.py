"""Priors and caches in real runs: what is journalled, what waits, what is left out of captures."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Checkpoint, Intent, Result
from crabrt.core.ids import RunId
from crabrt.core.verdicts import Likely, Prior
from crabrt.errors import StoreUnavailable
from crabrt.inspector import shell
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.operations.places import open_workspace
from crabrt.operations.restoring import restore_state
from crabrt.operations.statistics import statistics_of
from crabrt.operations.targets import resolve
from crabrt.runtime.session import Session
from crabrt.store import Store
from crabrt.workspace import Tracker, Workspace, find_entry
from crabrt.workspace.diff import read_tree


@crabrt.tool
def sh(command: str) -> int:
    return subprocess.run(["sh", "-c", command], check=False, cwd=os.environ["WS"]).returncode


@crabrt.tool(effect="none")
def look(command: str) -> int:
    return subprocess.run(["sh", "-c", command], check=False, cwd=os.environ["WS"]).returncode


@crabrt.model
def think(turn: int) -> int:
    return turn


def play(ws: Path, *commands: str, name: str = "run", tool=sh, **options) -> str:
    """A run with a turn for each command; its id."""
    os.environ["WS"] = str(ws)

    @crabrt.agent(workspace=ws, name=name, **options)
    def loop() -> str:
        for turn, command in enumerate(commands):
            think(turn)
            tool(command)
        return crabrt.current_run().id

    return loop()


def turns(ws: Path, run: str):
    with RunIndex.open(ws.parent / "home") as index:
        index.refresh()
        return index.turns(run)


def view(ws: Path, run: str):
    with RunIndex.open(ws.parent / "home") as index:
        index.refresh()
        return index.find(run).view


def paths(ws: Path, root) -> set[str]:
    with Store.open(ws.parent / "home") as store:
        return {os.fsdecode(path) for path, _ in read_tree(store, root)} - {""}


def restore(ws: Path, target: str, exclude=()):
    """As `crab restore` does it."""
    home = ws.parent / "home"
    with Store.open(home) as store, store.writer() as writer, RunIndex.open(home) as index:
        index.refresh()
        state = resolve(index, target)
        workspace = open_workspace(bytes(ws), home, (*state.run.view.exclude, *exclude))
        return restore_state(index, writer, workspace, state).report


def bodies(ws: Path, run: str):
    return [record.body for record in read_journal(run_dir(ws.parent / "home", RunId(run)))]


# -- priors ------------------------------------------------------------------------------------


def test_prior_and_verdict_are_both_on_record_and_counted(ws):
    (ws / "a").write_text("a")
    run = play(ws, "cat a", "echo b > b", "cat a", "sh -c 'cat a'", "true; ls > /dev/null; ./x")
    guesses = [body.guess for body in bodies(ws, run) if isinstance(body, Intent)]
    assert [guess.effect for guess in guesses] == [
        Likely.NONE, Likely.FILES, Likely.NONE, Likely.NONE, Likely.UNKNOWN,
    ]  # fmt: skip
    assert guesses[0].reason == "reads only: cat"
    records = {one.guess: one for one in statistics_of(turns(ws, run)).tools}
    assert (records[Likely.NONE].right, records[Likely.NONE].wrong) == (3, 0)
    assert (records[Likely.FILES].right, records[Likely.FILES].wrong) == (1, 0)
    assert records[Likely.UNKNOWN].share_right is None


def test_a_prior_that_is_wrong_changes_no_verdict_and_shows(ws):
    tools = ws.parent / "bin"
    tools.mkdir()
    (tools / "tac").write_text("#!/bin/sh\necho lied > lie\n")
    (tools / "tac").chmod(0o755)
    os.environ["WS"] = str(ws)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        run = play(ws, "tac a")
    assert (ws / "lie").exists()
    assert turns(ws, run)[1].verdict == ("files",)
    (record,) = statistics_of(turns(ws, run)).tools
    assert (record.guess, record.right, record.wrong) == (Likely.NONE, 0, 1)


def test_a_declared_effect_is_not_guessed_about(ws):
    run = play(ws, "git push", tool=look)
    (intent,) = [body for body in bodies(ws, run) if isinstance(body, Intent)]
    assert (intent.prior, intent.guess, intent.external) == (Prior.NONE, None, None)
    assert turns(ws, run)[1].verdict == ("none",)


def test_what_leaves_the_machine_finds_all_before_it_durable(ws):
    run = play(ws, "echo a > a; git push 2> /dev/null", network_observer="off")
    (turn,) = turns(ws, run)[1:]
    assert turn.verdict == ("files", "external")
    assert turn.evidence[-1] == "external: sh, git push: leaves the machine (guess)"
    kinds = [body for body in bodies(ws, run) if isinstance(body, Intent | Result | Checkpoint)]
    intent = next(i for i, body in enumerate(kinds) if isinstance(body, Intent))
    assert [(c.turn, c.inner) for c in kinds[:intent]] == [(0, 0)]  # the baseline, waited for
    after = [(c.turn, c.inner) for c in kinds[intent + 2 :]]
    assert after == [(1, 1), (1, 0)]  # its own effects are committed before the turn ends
    assert [one.inner for one in turn.inner] == [1]


def test_a_second_tool_that_leaves_the_machine_waits_for_the_first(ws):
    os.environ["WS"] = str(ws)

    @crabrt.agent(workspace=ws, name="two")
    def loop() -> str:
        think(0)
        sh("echo a > a")
        sh("git push 2> /dev/null")
        return crabrt.current_run().id

    run = loop()
    kinds = [body for body in bodies(ws, run) if isinstance(body, Intent | Checkpoint)]
    push = [i for i, body in enumerate(kinds) if isinstance(body, Intent)][1]
    before = [(c.turn, c.inner) for c in kinds[:push] if isinstance(c, Checkpoint)]
    assert before == [(0, 0), (1, 1)]
    assert "a" in paths(ws, next(c.root for c in kinds if getattr(c, "inner", 0) == 1))


def test_without_the_grammar_a_run_goes_on_and_knows_nothing(ws, monkeypatch):
    monkeypatch.setattr(shell, "_language", lambda: None)
    run = play(ws, "echo a > a; true git push")
    (intent,) = [body for body in bodies(ws, run) if isinstance(body, Intent)]
    assert intent.guess.effect is Likely.UNKNOWN
    assert turns(ws, run)[1].verdict == ("files",)


def test_a_guess_waits_for_durability_and_goes_on_without_it(ws, monkeypatch):
    plain, failed = Session._sync, []

    def fail_once(self):
        if not failed:
            failed.append(1)
            raise StoreUnavailable("no room")
        plain(self)

    monkeypatch.setattr(Session, "_sync", fail_once)
    with pytest.warns(crabrt.UnprotectedWarning, match="no room"):
        run = play(ws, "echo a > a; git push 2> /dev/null", network_observer="off")
    assert failed
    assert (ws / "a").exists()
    assert turns(ws, run)[1].verdict == ("files", "external")


def test_priors_that_nobody_can_check_are_not_judged(ws):
    run = play(ws, "sleep 0 & wait", "git push 2> /dev/null", network_observer="off")
    for record in statistics_of(turns(ws, run)).tools:
        assert (record.right, record.wrong, record.calls) == (0, 0, 1)


# -- caches ------------------------------------------------------------------------------------

COMPILE = "mkdir -p __pycache__ && echo compiled >> __pycache__/a.pyc"


def test_a_turn_of_caches_alone_is_captured_and_says_so(ws):
    run = play(ws, COMPILE, "echo a > a", "true")
    _, first, second, third = turns(ws, run)
    assert first.verdict == ("files",)
    assert first.evidence == ("files: caches only: __pycache__/a.pyc new, 1 directory new",)
    assert second.evidence == ("files: a new",)
    assert third.verdict == ("none",)
    assert "__pycache__/a.pyc" in paths(ws, first.root)
    assert not restore(ws, f"{run}@0").not_restored
    assert list(ws.iterdir()) == []


def test_a_git_status_is_a_turn_of_caches_alone_and_a_git_add_is_not(ws):
    subprocess.run(["git", "init", "-q", "."], cwd=ws, check=True)
    (ws / "a").write_text("a")
    subprocess.run(["git", "add", "a"], cwd=ws, check=True)
    run = play(ws, "touch -d @1000 a", "git status > /dev/null", "echo b > b", "git add b")
    _, _, status, _, add = turns(ws, run)
    assert status.verdict == ("files",)
    assert status.evidence == ("files: caches only: .git/index content",)
    assert add.verdict == ("files",)
    assert not any("caches only" in line for line in add.evidence)


def test_reading_caches_last_gives_the_state_that_is_there(ws):
    run = play(
        ws,
        "mkdir -p a/__pycache__/x b/c && touch a/__pycache__/x/1 a/1 b/c/1 && ln a/1 b/c/2",
        "mkdir -p a/__pycache__/y/z b/__pycache__ && mv a/__pycache__/x b/c/x && touch b/c/x/2",
        "echo 2 | tee a/1 b/__pycache__/2 b/c/x/3; mv b a/__pycache__/b; mkdir b; touch b/1",
        "mv a/__pycache__/b/c b/c; rm -r a/__pycache__; echo 3 > b/c/3",
    )
    found = turns(ws, run)
    assert found[-1].root == fresh_root(ws)
    for number in (3, 1, 2, 4):
        assert restore(ws, f"{run}@{number}").verified
        assert fresh_root(ws) == found[number].root


def fresh_root(ws: Path):
    """What somebody else who captures the workspace finds."""
    home = ws.parent / "elsewhere"
    with Store.open(home, create=True) as store, store.writer() as writer:
        tracker = Tracker(Workspace.open(ws, home), huge_files=1_000, huge_bytes=1 << 20)
        return tracker.capture(tracker.scan(), writer).root


def test_skipped_caches_are_neither_captured_nor_deleted(ws):
    run = play(ws, COMPILE, "echo a > a", COMPILE, regenerable="skip")
    _, first, second, third = turns(ws, run)
    assert [first.verdict, second.verdict, third.verdict] == [("none",), ("files",), ("none",)]
    assert paths(ws, third.root) == {"a"}
    report = restore(ws, f"{run}@0")
    assert (report.not_restored, report.verified) == ((), True)
    assert sorted(p.name for p in ws.rglob("*")) == ["__pycache__", "a.pyc"]


def test_a_skipped_stat_cache_is_no_effect_and_is_captured_all_the_same(ws):
    subprocess.run(["git", "init", "-q", "."], cwd=ws, check=True)
    (ws / "a").write_text("a")
    subprocess.run(["git", "add", "a"], cwd=ws, check=True)
    run = play(ws, "touch -d @1000 a", "git status > /dev/null", regenerable="skip")
    _, touched, status = turns(ws, run)
    assert (touched.verdict, status.verdict) == (("files",), ("none",))
    assert status.evidence == ("caches only: .git/index content",)
    with Store.open(ws.parent / "home") as store:
        indexes = [find_entry(store, turn.root, b".git/index") for turn in (touched, status)]
    assert indexes[0].content != indexes[1].content


def test_states_made_with_caches_are_restored_without_them_where_they_are_skipped_now(ws):
    run = play(ws, f"{COMPILE}; echo a > a", "rm -r __pycache__; echo b > a", f"{COMPILE}; rm a")
    skip = ("__pycache__/",)
    report = restore(ws, f"{run}@1", skip)
    assert (report.not_restored, report.verified) == ((), True)
    assert (ws / "a").read_text() == "a\n"
    assert (ws / "__pycache__/a.pyc").read_text() == "compiled\n"  # as turn 3 left it
    (ws / "__pycache__/a.pyc").unlink()
    report = restore(ws, f"{run}@2", skip)
    assert (report.not_restored, report.verified) == ((), True)
    assert (ws / "__pycache__").is_dir()
    report = restore(ws, f"{run}@1", skip)
    assert report.verified
    assert not (ws / "__pycache__/a.pyc").exists()


def test_a_state_without_caches_deletes_none_after_a_run_that_kept_them(ws):
    first = play(ws, f"{COMPILE}; echo a > a", name="first", regenerable="skip")
    second = play(ws, f"{COMPILE}; echo b > a", name="second")
    assert "__pycache__/a.pyc" in paths(ws, turns(ws, second)[1].root)
    report = restore(ws, f"{first}@1")
    assert report.verified
    assert (ws / "a").read_text() == "a\n"
    assert (ws / "__pycache__/a.pyc").exists()


@pytest.mark.parametrize("then", ["keep", "skip"])
@pytest.mark.parametrize("first", ["keep", "skip"])
def test_a_run_that_is_resumed_leaves_alone_what_it_ever_did(ws, first, then):
    os.environ["WS"] = str(ws)
    script = [f"{COMPILE}; echo a > a", f"{COMPILE}; echo b > a", f"{COMPILE}; echo c > a"]
    begun = play(ws, *script, name="begun", regenerable=first)

    @crabrt.agent(workspace=ws, name="begun", regenerable=then)
    def loop() -> str:
        for turn, command in enumerate([*script[:1], "echo z > z", COMPILE]):
            think(turn)
            sh(command)
        return crabrt.current_run().id

    with pytest.raises(crabrt.Diverged):
        loop.resume(f"{begun}@2")
    run = loop.resume(f"{begun}@1")
    skipped = "skip" in {first, then}
    assert (ws / "a").read_text() == "a\n"
    assert (ws / "__pycache__/a.pyc").exists()
    last_turn = turns(ws, run)[-1]
    assert last_turn.verdict == (("none",) if skipped else ("files",))
    assert ("__pycache__/a.pyc" in paths(ws, last_turn.root)) is not skipped
    assert bool(view(ws, run).exclude) is skipped
    assert restore(ws, f"{run}@0").verified
    assert (ws / "__pycache__").exists() is skipped


def test_a_directory_that_holds_skipped_caches_stays_and_is_listed(ws):
    run = play(ws, "mkdir -p new/__pycache__ && echo > new/__pycache__/a.pyc && echo > new/a.py",
               regenerable="skip")  # fmt: skip
    report = restore(ws, f"{run}@0")
    assert not (ws / "new/a.py").exists()
    assert (ws / "new/__pycache__/a.pyc").exists()
    assert [path for path, _ in report.not_restored] == [b"new"]


def test_a_file_that_is_a_hard_link_to_skipped_caches_is_listed(ws):
    run = play(ws, f"{COMPILE}; ln __pycache__/a.pyc zz; echo a > a", "rm -r __pycache__ zz a")
    report = restore(ws, f"{run}@1", ("__pycache__/",))
    assert (ws / "a").exists()
    assert (ws / "zz").exists() or b"zz" in dict(report.not_restored)
