import json

import pytest

from crabrt.traces import read_trace


@pytest.fixture
def run(builder, home, workspace):
    """A run of three turns, recorded without a runtime."""
    built = builder.small_run(home, workspace)
    built.end()
    return built.run


@pytest.fixture
def trace(tmp_path, crab, home, workspace):
    """A trace of three turns: a file appears, nothing happens, it goes away."""
    path = tmp_path / "some.jsonl"
    header = {"schema": "crabrt-trace", "version": 1, "id": "some", "turns": 3, "workspace": "/app"}
    commands = ["mkdir -p hidden; echo x > /app/hidden/file", "ls", "rm -r hidden"]
    turns = [
        {
            "turn": n,
            "models": [{"wait_ms": 50}],
            "tools": [{"name": "sh", "arguments": {"command": c}}],
        }
        for n, c in enumerate(commands, 1)
    ]
    path.write_text("".join(json.dumps(item) + "\n" for item in [header, *turns]))
    return path


def test_export_writes_lines_to_stdout_or_a_file(crab, run, tmp_path, workspace):
    printed = crab("export", run)
    assert printed.code == 0
    assert json.loads(printed.out.splitlines()[0])["id"] == run
    path = tmp_path / "t.jsonl"
    done = crab("export", run, "-o", path)
    assert "4 turns" in done.out
    assert path.read_text() == printed.out
    assert [turn.turn for turn in read_trace(path).turns] == [0, 1, 2, 3]
    data = crab("export", "--json", "--redact").data
    assert data["run"] == run
    assert data["trace"][0]["redacted"] is True
    assert str(workspace) not in json.dumps(data)


def test_export_of_nobody_and_to_nowhere(crab, run, tmp_path):
    assert crab("export", "nobody", "--json").error["kind"] == "not-found"
    done = crab("export", run, "-o", tmp_path / "no" / "t.jsonl", "--json")
    assert done.code == 1
    assert done.error["kind"] == "cannot-write"


def test_replay_runs_a_trace_as_a_run(crab, trace, workspace):
    done = crab("replay", trace, "--workspace", workspace, "--speed", "inf", "--oracle")
    assert done.code == 0, done.err
    assert "3 turns: 1 none, 2 files" in done.out
    assert "3 right, 0 false none" in done.out
    assert "replay-some" in crab("log", "last").out or crab("log", "last", "--json").data["turns"]
    data = crab("replay", trace, "--workspace", workspace, "--json", "--turns", 1).data
    assert data["turns"][0]["verdict"] == ["files"]
    assert data["turns"][0]["model_wait_ms"] >= 50
    assert data["counts"]["turns"] == 1


def test_replay_exits_with_1_when_a_change_was_not_seen(crab, trace, workspace):
    (workspace / "hidden").mkdir()
    (workspace / "crab.toml").write_text('exclude = ["hidden/"]\n')
    done = crab("replay", trace, "--workspace", workspace, "--oracle", "--turns", 1)
    assert done.code == 1
    assert "false none: turn 1" in done.out
    assert "hidden/file" in done.out


def test_replay_says_what_it_could_not_run_and_exits_with_3(crab, trace, workspace):
    trace.write_text(trace.read_text().replace('"sh"', '"my_tool"'))
    done = crab("replay", trace, "--workspace", workspace)
    assert done.code == 3
    assert "my_tool" in done.out
    done = crab("replay", trace, "--workspace", workspace, "--tool", "my_tool=shell")
    assert done.code == 0


def test_replay_without_crabrt_leaves_no_store(crab, trace, workspace, home):
    done = crab("replay", trace, "--workspace", workspace, "--plain", "--json")
    assert done.data["run"] == ""
    assert not home.exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--speed", "0"], 2),
        (["--speed", "nan"], 2),
        (["--tool", "x"], 2),
        (["--tool", "x=magic"], 2),
        (["--trajectory", "x"], 2),
        (["--workspace", "absent"], 4),
    ],
)
def test_replay_refuses_what_makes_no_sense(crab, trace, workspace, words, code):
    done = crab("replay", trace, "--workspace", workspace, *words, "--json")
    assert done.code == code
    assert done.error["message"]


@pytest.mark.parametrize(
    ("damage", "code", "kind"),
    [
        (lambda text: text[:-30], 7, "damaged-trace"),
        (lambda text: text.replace('"version": 1', '"version": 9'), 7, "format-too-new"),
        (lambda text: text.replace("crabrt-trace", "other"), 2, "not-a-trace"),
        (lambda _: "", 2, "not-a-trace"),
    ],
)
def test_replay_of_a_file_that_is_no_whole_trace_says_what_where_and_what_next(
    crab, trace, workspace, damage, code, kind
):
    trace.write_text(damage(trace.read_text()))
    done = crab("replay", trace, "--workspace", workspace, "--json")
    assert done.code == code
    assert done.error["kind"] == kind
    assert str(trace) in done.error["where"]
    assert done.error["hint"]


def test_import_writes_a_trace_that_replays(crab, tmp_path, workspace):
    session = tmp_path / "mini.traj.json"
    messages = [
        {"role": "user", "content": "Do it."},
        {"role": "assistant", "content": "```bash\necho 1 > /testbed/made\n```"},
        {"role": "user", "content": "<returncode>0</returncode>"},
    ]
    info = {"mini_version": "1.0", "config": {"environment": {"cwd": "/testbed"}}}
    session.write_text(json.dumps({"messages": messages, "info": info}))
    path = tmp_path / "mini.jsonl"
    done = crab("import", session, "-o", path)
    assert done.code == 0
    assert "1 turn, 1 call, waits unknown" in done.out
    assert crab("import", session).out == path.read_text()
    assert crab("import", session, "--json").data["trace"][0]["source"] == "mini-swe-agent"
    done = crab("replay", path, "--workspace", workspace, "--oracle")
    assert done.code == 0
    assert "1 wait unknown" in done.out
    assert (workspace / "made").exists()


def test_import_of_something_else_is_told(crab, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    done = crab("import", path)
    assert done.code == 2
    assert "hint:" in done.err
    assert crab("import", tmp_path / "absent", "--json").code == 4
