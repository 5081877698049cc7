import contextlib
import os
import signal
import subprocess
import sys

import pytest

from crabrt.core.verdicts import Guess, Likely, Prior
from crabrt.testing import oracle

RUNNER = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("builder", sys.argv[1])
builder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(builder)
run = builder.small_run(Path(sys.argv[2]), Path(sys.argv[3]))
claim = run.workspace.claim(run.run, shared=False)
print(run.run, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.close()
    return run


@pytest.fixture
def live(builder, home, workspace):
    """A run of three turns that another process is in the middle of; its id."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, builder.__file__, str(home), str(workspace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    run = process.stdout.readline().strip()
    yield run
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_restore_and_undo_bring_back_exactly_what_was(crab, run, workspace):
    now = oracle.digest(workspace)
    (at_one,) = {oracle.digest(place) for place in [workspace.parent / "one"] if to(crab, place, 1)}
    data = crab("restore", "last@1", "--json").data
    assert oracle.digest(workspace) == at_one
    assert data["restored"] == f"{run.run}@1"
    assert (data["created"], data["replaced"], data["deleted"]) == (0, 1, 0)
    assert data["undo"] == f"crab undo {workspace}"
    assert data["not_restored"] == data["held_open"] == data["external_effects_since"] == []
    assert crab("undo", "--json").code == 0
    assert oracle.digest(workspace) == now
    assert crab("undo").code == 0  # undoing the undo is a redo
    assert oracle.digest(workspace) == at_one


def to(crab, place, turn):
    return crab("restore", f"last@{turn}", "--to", place).code == 0


def test_undo_works_from_anywhere_inside(crab, run, workspace):
    (workspace / "sub").mkdir()
    assert crab("restore", "last@1", "app.py").code == 0
    done = crab("undo", cwd=workspace / "sub")
    assert done.code == 0
    assert (workspace / "app.py").read_text() == "one\n2\nthree\n"
    assert crab("undo", cwd="/").code in {2, 4}
    assert crab("undo", "absent").code == 4


def test_what_a_run_excluded_in_code_or_config_is_never_deleted(crab, builder, home, workspace):
    (workspace / "modules").mkdir(parents=True)
    (workspace / "modules" / "m.js").write_text("m")
    (workspace / "out").mkdir()
    (workspace / "crab.toml").write_text('exclude = ["/out/"]')
    run = builder.small_run(home, workspace, exclude=("/modules/", "/out/"))
    run.close()
    (workspace / "out" / "late").write_text("x")
    assert crab("diff", "last@-1").out == ""
    assert crab("restore", "last@0").code == 0
    assert not (workspace / "app.py").exists()
    assert (workspace / "modules" / "m.js").exists()
    assert (workspace / "out" / "late").exists()


def test_a_dry_run_touches_nothing(crab, run, workspace):
    now = oracle.digest(workspace)
    done = crab("restore", "last@0", "--dry-run")
    assert "- app.py" in done.out
    assert "Would restore" in done.out
    assert oracle.digest(workspace) == now
    assert crab("undo").code == 4


def test_somebody_elses_changes_are_refused_listed_and_forced(crab, run, workspace):
    (workspace / "app.py").write_text("mine\n")
    done = crab("restore", "last@1")
    assert done.code == 5
    assert "changed: app.py" in done.err
    assert "--force" in done.err
    assert (workspace / "app.py").read_text() == "mine\n"
    assert crab("restore", "last@1", "--json").error["paths"] == [{"path": "app.py"}]
    assert crab("restore", "last@1", "--dry-run").code == 5
    assert crab("restore", "last@1", "kept.txt").code == 0  # not in the way of that
    assert crab("restore", "last@1", "--force").code == 0
    assert (workspace / "app.py").read_text() == "one\ntwo\nthree\n"
    assert crab("undo").code == 0
    assert (workspace / "app.py").read_text() == "mine\n"


def test_paths_may_be_meant_from_here_or_from_the_workspace(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    (workspace / "sub").mkdir()
    (workspace / "sub" / "a").write_text("a")
    run.turn(None)
    (workspace / "sub" / "a").write_text("b")
    (workspace / "app.py").write_text("b")
    run.turn(None)
    run.close()
    assert crab("restore", "last@4", "a", cwd=workspace / "sub").code == 0
    assert (workspace / "sub" / "a").read_text() == "a"
    assert (workspace / "app.py").read_text() == "b"
    assert crab("restore", "last@4", "app.py", cwd=workspace / "sub").code == 0
    assert (workspace / "app.py").read_text() == "one\n2\nthree\n"
    assert crab("restore", f"{run.run}@5", "sub/a", cwd="/").code == 0
    assert crab("restore", f"{run.run}@5", workspace / "app.py", cwd="/").code == 0
    assert (workspace / "sub" / "a").read_text() + (workspace / "app.py").read_text() == "bb"
    for outside in ("../x", "/etc/passwd"):
        done = crab("restore", "last@5", outside)
        assert done.code == 2
        assert "outside" in done.err
    assert crab("restore", "last@5", "nothing").code == 4


def test_a_restore_says_what_happened_outside_and_stays(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.turn(None, tool="charge", prior=Prior.EXTERNAL)
    run.close()
    done = crab("restore", "last@1", "--json")
    assert done.data["external_effects_since"] == [
        {"run": run.run, "turn": 4, "tool": "charge", "ok": True, "known": "declared", "why": ""}
    ]
    assert "charge (done)" in crab("restore", "last@2").out
    assert crab("restore", "last@4", "--json").data["external_effects_since"] == []


def test_a_restore_says_what_was_only_taken_for_external(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    push = Guess(Likely.EXTERNAL, "git push: leaves the machine")
    run.turn(None, guess=push, evidence=("external: sh, git push: leaves the machine (guess)",))
    run.close()
    assert crab("restore", "last@1", "--dry-run", "--json").data["external_effects_since"] == [
        {
            "run": run.run, "turn": 4, "tool": "sh", "ok": True,
            "known": "guess", "why": "git push: leaves the machine",
        }
    ]  # fmt: skip
    line = f"{run.run}@4: sh (done, guess): git push: leaves the machine"
    assert line in crab("restore", "last@2").out


def test_the_conversation_alone_is_json_and_touches_no_file(crab, run, workspace):
    now = oracle.digest(workspace)
    data = crab("restore", "last@2", "--conversation-only", "--json").data
    assert [m["content"] for m in data["messages"]] == ["turn 1?", "reply 1", "turn 2?"]
    assert data["reply"]["content"] == "reply 2"
    assert data["results"] == [
        {"tool": "sh", "arguments": [["make"], {}], "result": "ok", "error": None}
    ]
    assert oracle.digest(workspace) == now
    assert crab("restore", "last@0", "--conversation-only").code == 4
    assert crab("restore", "last@2", "--conversation-only", "app.py").code == 2


def test_a_directory_that_is_not_empty_is_not_restored_into(crab, run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert crab("restore", "last@1", "--to", tmp_path / "full").code == 2
    assert os.listdir(tmp_path / "full") == ["file"]
    assert crab("restore", "last@1", "--to", tmp_path / "new", "--dry-run").code == 2


def test_a_live_run_is_left_alone(crab, live, workspace, tmp_path):
    now = oracle.digest(workspace)
    for words in (
        ["restore", "last@1"],
        ["undo"],
        ["resume", "last", "--yes"],
        ["rm", "last", "--yes"],
    ):
        done = crab(*words, "--json")
        assert done.code == 6, words
        assert done.error["kind"] in {"run-busy", "workspace-busy"}
    assert oracle.digest(workspace) == now
    assert crab("runs", "--json").data[0]["status"] == "running"
    # what only looks, names, or works beside is allowed
    assert crab("label", "last@1", "good").code == 0
    assert crab("restore", "last@good", "--to", tmp_path / "beside").code == 0
    assert crab("fork", "last@1", "--to", tmp_path / "fork").code == 0
    assert crab("gc").code == 0


def test_resume_becomes_the_recorded_command_in_its_directory(crab, builder, home, workspace):
    show = "import os; print(os.environ['CRAB_RESUME'], os.getcwd(), os.environ['CRAB_HOME'])"
    run = builder.small_run(home, workspace, argv=(sys.executable, "-c", show + "; exit(9)"))
    run.close()
    done = crab("resume", "last", "--dry-run")
    assert "CRAB_RESUME=" in done.out
    done = crab("resume", f"{run.run}@2", "--yes", process=True, cwd="/")
    assert done.out.split() == [f"{run.run}@2", str(workspace), str(home)]
    assert done.code == 9  # its own
    assert "Resuming" in done.err
    done = crab("resume", "last", process=True)
    assert done.code == 2  # nobody is there to ask
    assert "--yes" in done.err


def test_what_cannot_be_resumed_is_refused_with_the_reason(
    crab, builder, home, workspace, tmp_path
):
    finished = builder.small_run(home, workspace)
    finished.end()
    done = crab("resume", finished.run, "--yes", "--json")
    assert done.code == 2
    assert done.error["kind"] == "not-resumable"
    assert crab("resume", f"{finished.run}@1", "--dry-run").code == 0
    unknown = builder.RunBuilder(home, workspace, "other")
    unknown.close()
    done = crab("resume", unknown.run, "--yes", "--json")
    assert done.error["kind"] == "not-resumable"
    moved = builder.RunBuilder(home, workspace, "moved", argv=("x",), cwd=b"/nowhere/at/all")
    moved.close()
    assert crab("resume", moved.run, "--yes").code == 4


def test_fork_makes_a_run_of_its_own_that_outlives_its_parent(crab, run, workspace, tmp_path, home):
    place = tmp_path / "another"
    data = crab("fork", "last@1", "--to", place, "--json").data
    assert data["parent"] == run.run
    fork = data["run"]
    assert (place / "app.py").read_text() == "one\ntwo\nthree\n"
    row = next(r for r in crab("runs", "--json").data if r["run"] == fork)
    assert (row["parent"], row["family"], row["turns"]) == (run.run, run.run, 1)
    assert row["workspace"] == str(place)
    again = crab("fork", "last@1", "--to", place, "--json")
    assert again.error["message"] == "the directory is not empty"
    assert "--force" not in again.error["hint"]  # there is no such option
    assert crab("rm", run.run, "--yes").code == 0
    assert crab("gc", "--json").data["missing"] == []
    assert crab("check").code == 0
    (place / "app.py").unlink()
    assert crab("restore", f"{fork}@1", "--force").code == 0
    assert (place / "app.py").exists()
    found = crab("resume", fork, "--dry-run", "--json").data
    assert found["cwd"] in {str(place), str(workspace)}


def test_a_conversation_that_names_the_old_path_is_forked_only_when_told(
    crab, builder, home, workspace, tmp_path
):
    run = builder.small_run(home, workspace)
    run.turn(None, argument=f"rm -rf {workspace}/build")
    run.close()
    done = crab("fork", "last@4", "--to", tmp_path / "f")
    assert done.code == 2
    assert "absolute path" in done.err
    assert not (tmp_path / "f").exists()
    assert crab("fork", "last@3", "--to", tmp_path / "f").code == 0
    assert crab("fork", f"{run.run}@4", "--to", tmp_path / "g", "--paths=keep").code == 0


def test_bisect_finds_the_turn_and_leaves_the_workspace_alone(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    for number in range(12):
        run.turn(lambda n=number: (workspace / "count").write_text(f"{n}\n"))
    run.close()
    now = oracle.digest(workspace)
    test = 'test "$(cat count 2>/dev/null || echo 0)" -lt 7'
    done = crab("bisect", "last", "--json", "--", "sh", "-c", test)
    assert done.data["first_bad"] == 11
    assert done.data["last_good"] == 10
    assert len(done.data["tried"]) < 8
    assert oracle.digest(workspace) == now
    hidden = f"grep -q 6 count && exit 125; {test}"
    done = crab("bisect", "last", "--json", "--", "sh", "-c", hidden)
    assert done.code == 3
    assert done.data["suspects"] == [10, 11]
    assert crab("bisect", "last", "--json", "--", "true").data["first_bad"] is None
    assert crab("bisect", "last", "--", "/no/such/program").code == 2
    assert crab("bisect", "last", "--", "sh", "-c", "exit 200").code == 1
    assert crab("bisect", "last").code == 2


def test_labels_and_pins_name_and_keep(crab, run):
    assert crab("label", "last@2", "second").code == 0
    assert crab("log", "last", "--json").data["turns"][2]["labels"] == ["second"]
    assert crab("show", "last@second", "--json").data["turn"] == 2
    assert crab("label", "last@1", "second", "--json").data["turn"] == 1  # it moves
    assert crab("show", "last@second", "--json").data["turn"] == 1
    done = crab("show", "last@third")
    assert done.code == 4
    assert "second" in done.err
    for bad in ("last", "12", "a/b", "1.2"):
        assert crab("label", "last@1", bad).code == 2
    assert crab("label", "last", "second", "--remove").code == 0
    assert crab("label", "last", "second", "--remove").code == 4
    assert crab("pin", "last@2").code == 0
    assert crab("log", "last", "--json").data["turns"][2]["pinned"] is True
    assert crab("pin", "last@2", "--remove").code == 0
    assert crab("log", "last", "--json").data["turns"][2]["pinned"] is False
    assert crab("pin", "last@9").code == 4


def test_what_a_label_and_a_pin_would_do_is_told_and_not_done(crab, run):
    told = crab("label", "last@2", "second", "--dry-run").out
    assert f"Would label {run.run}@2" in told
    assert crab("log", "last", "--json").data["turns"][2]["labels"] == []
    done = crab("label", "last@2", "second")
    assert "It was read back, and is so." in done.out
    moves = crab("label", "last@1", "second", "--dry-run")
    assert f"second is {run.run}@2 now, which loses that label: it moves." in moves.out
    data = crab("label", "last@1", "second", "--dry-run", "--json").data
    assert (data["before"], data["turn"], data["dry_run"]) == (2, 1, True)
    assert "nothing would change" in crab("label", "last@2", "second", "--dry-run").out
    assert f"away from {run.run}@2" in crab("label", "last", "second", "--remove", "--dry-run").out
    assert crab("log", "last", "--json").data["turns"][2]["labels"] == ["second"]
    assert f"Would pin {run.run}@2" in crab("pin", "last@2", "--dry-run").out
    assert crab("log", "last", "--json").data["turns"][2]["pinned"] is False
    assert "It was read back, and is so." in crab("pin", "last@2").out
    assert "nothing would change" in crab("pin", "last@2", "--dry-run").out
    assert (
        "its label keeps them still: second" in crab("pin", "last@2", "--remove", "--dry-run").out
    )
    assert crab("log", "last", "--json").data["turns"][2]["pinned"] is True
    assert "It was read back, and is so." in crab("label", "last", "second", "--remove").out


def test_every_path_that_would_be_lost_is_named_if_asked(crab, run, workspace):
    for number in range(30):
        (workspace / f"mine-{number:02}.txt").write_text("mine\n")
    short = crab("restore", "last@0")
    assert short.code == 5
    assert short.err.count("mine-") == 20
    assert "and 10 more" in short.err
    whole = crab("restore", "last@0", "--all")
    assert whole.code == 5
    assert whole.err.count("mine-") == 30


def test_a_program_may_be_told_how_far_a_restore_is(crab, run):
    ours, theirs = os.pipe()
    try:
        assert crab("restore", "last@0", "--progress-fd", str(theirs)).code == 0
        told = os.read(ours, 1 << 16).split(b"\n")
    finally:
        os.close(ours)
        os.close(theirs)
    *lines, end = told
    done, total = lines[-1].split()
    assert end == b""
    assert done == total != b"0"


def test_a_program_that_hears_nothing_keeps_no_restore_waiting(crab, run):
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(theirs, b"x" * 4096)
        assert crab("restore", "last@0", "--progress-fd", str(theirs)).code == 0
        os.close(ours)
        ours = -1
        assert crab("undo", "--progress-fd", str(theirs)).code == 0
    finally:
        os.close(theirs)
        if ours >= 0:
            os.close(ours)
    assert crab("restore", "last@1", "--progress-fd", "999").code == 0


def test_prune_thins_by_policy_and_what_is_kept_stays_exact(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    for number in range(10):
        run.turn(lambda n=number: (workspace / "big").write_bytes(os.urandom(50_000) + bytes([n])))
    run.end()
    assert crab("prune").code == 2
    assert crab("label", "last@5", "dear").code == 0
    assert crab("pin", "last@6").code == 0
    plan = crab("prune", "--keep-per-run", "1", "--dry-run", "--json").data
    thinned = [1, 2, 3, 4, 7, 8, 9, 10, 11, 12]
    assert plan["runs"][0]["turns"] == thinned
    size = crab("du", "--json").data["store"]["pack_bytes"]
    assert crab("prune", "--older-than", "1d", "--json").data["runs"] == []
    data = crab("prune", "--keep-per-run", "1", "--json").data
    assert data["collected"]["missing"] == []
    assert crab("gc").code == 0
    assert crab("du", "--json").data["store"]["pack_bytes"] < size - 300_000
    turns = crab("log", "last", "--json").data["turns"]
    assert [t["turn"] for t in turns if t["thinned"]] == thinned
    assert crab("check", "--read-data").code == 0
    for kept in (0, 5, 6, 13):
        assert crab("restore", f"last@{kept}").code == 0
    done = crab("restore", "last@7")
    assert done.code == 4
    assert "thinned" in done.err
    assert crab("show", "last@7", "--json").data["calls"]  # the conversation stays
    assert crab("prune", "--keep-last", "0", "--drop-runs", "--no-keep-labelled").code == 0
    assert len(crab("runs", "--json").data) == 1  # pinned


def test_prune_drops_whole_runs_only_when_asked_and_confirmed(crab, builder, home, workspace):
    for _ in range(3):
        builder.small_run(home, workspace).end()
    done = crab("prune", "--keep-last", "1", "--drop-runs")
    assert done.code == 2  # nobody to ask
    assert len(crab("runs", "--json").data) == 3
    assert crab("prune", "--keep-last", "1", "--drop-runs", "--yes").code == 0
    assert len(crab("runs", "--json").data) == 1


def test_rm_asks_deletes_and_leaves_relatives_that_need_it(
    crab, builder, home, workspace, tmp_path
):
    run = builder.small_run(home, workspace)
    run.turn(None, tool="charge", prior=Prior.EXTERNAL)
    run.close()
    assert crab("rm", "last").code == 2
    assert crab("fork", "last@1", "--to", tmp_path / "f").code == 0
    done = crab("rm", run.run, "--yes")
    assert done.code == 2
    assert "charge" in done.err
    assert crab("rm", run.run, "--yes", "--force").code == 0
    assert run.run not in [r["run"] for r in crab("runs", "--json").data]
    assert os.listdir(home / "trash") == []


def test_check_finds_damage_names_the_turns_and_repair_sets_it_aside(
    crab, builder, home, workspace
):
    run = builder.small_run(home, workspace)
    run.turn(lambda: (workspace / "noise").write_bytes(os.urandom(100_000)))
    run.end()
    assert crab("check", "--read-data", "--json").data["healthy"] is True
    (pack,) = (path for path in (home / "packs").rglob("*") if path.is_file())
    data = bytearray(pack.read_bytes())
    middle = len(data) // 2
    data[middle] ^= 0xFF
    pack.chmod(0o600)
    pack.write_bytes(data)
    done = crab("check", "--read-data", "--json")
    assert done.code == 7
    assert done.data["healthy"] is False
    assert done.data["affected"] == [f"{run.run}@4"]
    assert "put right by: crab repair" in crab("check", "--read-data").out
    assert crab("repair").code == 3  # something was lost
    assert "cannot be brought back" in crab("check").out
    done = crab("check", "--json")
    assert done.code == 7  # what is lost is lost, and said
    assert done.data["affected"] == [f"{run.run}@4"]
    assert crab("repair").code == 0  # and there is nothing more to be done
    for words in (["show", "last@4:noise"], ["restore", "last@4", "--to", workspace / "sub"]):
        done = crab(*words, "--json")
        assert done.code == 7
        assert done.error["kind"] == "damaged-object"
    assert not (workspace / "sub").exists()
    assert crab("restore", "last@2", "app.py").code == 0  # what is whole can be restored


def test_a_damaged_journal_is_told_and_cut_only_when_asked(crab, run, home):
    (segment,) = (home / "runs" / run.run / "journal").iterdir()
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    done = crab("log", run.run)
    assert done.code == 7
    assert "damaged" in done.out
    done = crab("runs")
    assert done.code == 3
    assert "damaged" in done.out
    assert crab("check").code == 7
    assert crab("gc", "--json").error["kind"] == "damaged-journal"
    assert crab("repair").code == 3
    done = crab("repair", "--cut-journals", "--json")
    assert done.data["journals_cut"] == [run.run]
    assert crab("log", run.run).code == 0
    assert crab("gc").code == 0


def test_a_store_of_a_newer_format_is_refused(crab, run, home):
    text = (home / "format.json").read_text()
    (home / "format.json").write_text(text.replace('"version": 1', '"version": 99'))
    assert '"version": 99' in (home / "format.json").read_text()
    done = crab("log", "last", "--json")
    assert done.code == 7
    assert done.error["kind"] == "format-too-new"
