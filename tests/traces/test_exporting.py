"""A run as a trace: everything that is known of it, nothing that is secret, and it runs again."""

import json
import subprocess
import threading

import pytest

import crabrt
from crabrt.core.entries import Intent
from crabrt.core.ids import RunId
from crabrt.errors import NotFound
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.store import Store
from crabrt.testing import oracle
from crabrt.traces import Options, Trace, export_run, lines, read_trace, write_file

TOKEN = "ghp_" + "a1B2" * 9


@pytest.fixture
def work(workspace, home, tmp_path, monkeypatch):
    """A run of four turns; its id."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    @crabrt.model(usage=lambda _: crabrt.Usage(tokens_in=9, tokens_out=2, cost_usd=0.5))
    def think(messages, model):
        return {"role": "assistant", "content": f"thought, ann@corp.test {TOKEN}"}

    @crabrt.tool
    def sh(command, api_key=None):
        done = subprocess.run(
            ["sh", "-c", command], cwd=workspace, capture_output=True, text=True, check=False
        )
        return {"exit_code": done.returncode, "output": done.stdout}

    @crabrt.tool
    def write_file(path, content):
        (workspace / path).write_bytes(content)

    @crabrt.tool
    def fail():
        raise ValueError(f"no luck with {TOKEN}")

    def run(extra=()):
        with crabrt.open_run(workspace=workspace, name="fixer", home=home) as run:
            messages = [{"role": "user", "content": "Do it."}]
            for act in (
                lambda: sh(f"echo hi > a; cat {workspace}/a", api_key="hush"),
                lambda: sh("exit 4"),
                lambda: write_file("bytes", b"\xff\x00"),
                fail,
                *extra,
            ):
                messages.append(think(messages, model="m-1"))
                try:
                    result = act()
                except ValueError as error:
                    result = str(error)
                messages.append({"role": "tool", "content": str(result)})
            return run.id

    run.sh = sh
    return run


def exported(store_home, run, **options):
    with Store.open(store_home) as store, RunIndex.open(store_home) as index:
        index.refresh()
        header, turns = export_run(store, index, index.find(run), Options(**options))
        return Trace(header, tuple(turns))


def test_everything_that_is_known_of_a_run_is_in_its_trace(work, home, workspace):
    trace = exported(home, work(), made_by="a test", timing="synthetic")
    header = trace.header
    assert (header.name, header.status, header.turns) == ("fixer", "done", 5)
    assert (header.workspace, header.made_by, header.timing) == (
        str(workspace),
        "a test",
        "synthetic",
    )
    zero, one, two, three, four = trace.turns
    assert (zero.turn, zero.models, zero.tools) == (0, (), ())
    model = one.models[0]
    assert (model.name, model.model, model.tokens_in, model.cost_usd) == ("think", "m-1", 9, 0.5)
    assert model.wait_ms >= 0
    assert model.request.messages == 1
    assert [said.text for said in model.request.new] == ["Do it."]
    assert two.models[0].request.messages == 3
    assert two.models[0].request.new == ()
    assert one.verdict == ("files",)
    assert one.evidence == ("files: a new",)
    assert (one.files.added, one.files.paths[0].path, one.files.paths[0].how) == (
        1,
        "a",
        ("added",),
    )
    assert one.tools[0].result == {"exit_code": 0, "output": "hi\n"}
    assert (two.verdict, two.files, two.tools[0].exit_code) == (("none",), None, 4)
    assert two.checkpoint == "inherited"
    assert three.tools[0].arguments["content"] == {"$crab": ["base64", "/wA="]}
    assert (four.tools[0].ok, four.tools[0].exit_code) == (False, None)
    assert four.tools[0].failure.startswith("ValueError: no luck")


def test_keys_and_tokens_never_get_in(work, home):
    text = b"".join(lines(*_parts(exported(home, work())))).decode()
    assert TOKEN not in text
    assert "hush" not in text
    assert "[redacted]" in text
    assert "ann@corp.test" in text


def test_a_redacted_trace_has_no_texts_and_no_places(work, home, workspace):
    trace = exported(home, work(), redact=True, home=str(workspace.parent))
    text = b"".join(lines(*_parts(trace))).decode()
    assert trace.header.redacted
    assert trace.header.workspace == "/workspace"
    assert trace.turns[1].tools[0].arguments["command"] == "echo hi > a; cat /workspace/a"
    assert trace.turns[1].verdict == ("files",)
    assert trace.turns[2].tools[0].exit_code == 4
    for secret in (
        TOKEN,
        "hush",
        "ann@corp.test",
        str(workspace.parent),
        "thought",
        "no luck",
        "Do it",
    ):
        assert secret not in text
    assert json.loads(text.splitlines()[2])["models"][0]["reply"]["$out"]["chars"] > 0


@pytest.mark.parametrize("redact", [False, True])
def test_what_was_exported_runs_again_to_the_same_files(
    work, home, workspace, tmp_path, replay, redact
):
    path, other = tmp_path / "run.trace.jsonl", tmp_path / "other"
    other.mkdir()
    (other / "kept.txt").write_text("kept\n")
    trace = exported(home, work(), redact=redact)
    write_file(path, lines(*_parts(trace)))
    assert read_trace(path) == trace
    report = replay(read_trace(path), other, home=tmp_path / "another")
    ours, theirs = (oracle.manifest(place, times=False) for place in (workspace, other))
    assert ours == theirs
    assert [turn.verdict for turn in report.turns] == [turn.verdict for turn in trace.turns[1:]]
    assert report.exit_agreement == (2, 2)


def test_a_long_output_is_cut_and_a_long_argument_is_kept(work, home):
    run = work([lambda: work.sh("seq 100000"), lambda: work.sh("true # " + "x" * 50_000)])
    trace = exported(home, run, text_chars=300)
    assert trace.turns[5].tools[0].result["output"]["$cut"]["chars"] == 588_895
    assert len(trace.turns[6].tools[0].arguments["command"]) == 50_007


def test_a_run_that_has_not_begun_has_no_trace(home, workspace, monkeypatch, tmp_path, work):
    work()
    with Store.open(home) as store, RunIndex.open(home) as index:
        index.refresh()
        row = index.runs()[0]
        monkeypatch.setattr(index, "turns", lambda _: [])
        with pytest.raises(NotFound, match="no turn"):
            export_run(store, index, row, Options())


def _parts(trace):
    return trace.header, trace.turns


def test_calls_of_threads_without_an_order_are_called_as_their_functions(workspace, home):
    """Such a call is told from others by a digest behind its name, which is nobody's name."""

    @crabrt.model
    def think(messages, model):
        return {"role": "assistant", "content": "go on"}

    @crabrt.tool
    def sh(command):
        return subprocess.check_output(["sh", "-c", command], cwd=workspace, text=True)

    def work():
        think([], model="m-1")
        sh("echo x > file")

    with crabrt.open_run(workspace=workspace, name="fixer", home=home) as run:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    directory = run_dir(home, RunId(run.id))
    scopes = {r.body.call.scope for r in read_journal(directory) if isinstance(r.body, Intent)}
    assert {scope[-2:] for scope in scopes} == {"/~"}
    trace = exported(home, run.id)
    calls = [call.name for turn in trace.turns for call in (*turn.models, *turn.tools)]
    assert calls == ["think", "sh"]
