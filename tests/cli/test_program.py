import json
import os
import signal
import subprocess
import sys

import pytest

from crabrt import errors
from crabrt.cli.exits import ALWAYS, MEANING, Exit
from crabrt.cli.group import GROUP, VERBS
from crabrt.cli.program import execute

HEAVY = ("rich", "sqlite3", "zstandard", "pathspec", "pyfastcdc")


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom crabrt.cli import main\nsys.argv = ['crab', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "restore" in done.stdout
    assert done.stderr == ""


def test_every_error_has_an_exit_code_of_the_table():
    found = [errors.CrabError]
    for cls in found:
        found += cls.__subclasses__()
        assert cls.exit_code in set(Exit), cls
    assert set(MEANING) == set(Exit)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_with_an_example_and_its_exit_codes(name):
    command = GROUP.get_command(None, name)
    assert command.name == name
    with command.make_context(name, ["--help"], resilient_parsing=True) as context:
        text = command.get_help(context)
    assert "--json" in text
    assert any(example.startswith(("crab ", "eval ")) for example in command.examples)
    assert all(example in text for example in command.examples)
    codes = text[text.index("Exit codes") :]
    for code in {*ALWAYS, *command.exits}:
        assert f"\n  {int(code)} " in codes
        assert MEANING[code].split(":")[0] in " ".join(codes.split())


def test_usage_errors_are_told_with_a_hint_and_exit_2(crab):
    for words in (["nope"], ["runs", "--nope"], ["restore"], ["restore", "a b"], ["show", "x@"]):
        done = crab(*words)
        assert done.code == 2, words
        assert done.err.startswith("crab: ")
        assert "hint:" in done.err
        assert "Traceback" not in done.err
        assert done.out == ""


def test_usage_errors_are_envelopes_with_json(crab):
    done = crab("restore", "--json")
    assert done.code == 2
    assert done.error["kind"] == "usage"
    assert done.envelope["version"] == 1
    assert done.envelope["command"] == "restore"
    assert done.err == ""


def test_json_behind_a_double_dash_is_not_ours(crab):
    done = crab("bisect", "nobody", "--", "cmd", "--json")
    assert done.code == 4
    assert done.out == ""


def test_a_wrong_setting_is_a_usage_error_that_names_it(crab, tmp_path):
    done = crab("runs", env={"CRAB_SIZE_CAP_BYTES": "lots"})
    assert done.code == 2
    assert "CRAB_SIZE_CAP_BYTES" in done.err
    config = tmp_path / "config" / "crabrt" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("size_cap_bytes = = 1")
    done = crab("du", "--json")
    assert done.code == 2
    assert str(config) in done.error["where"]


def test_a_store_that_is_not_there_is_told_apart_from_an_empty_one(crab, home):
    assert crab("runs", "--json").data == []
    assert crab("status", "--json").data["protected"] is False
    done = crab("log", "last")
    assert done.code == 4
    assert str(home) in done.err
    assert "crab demo" in done.err
    assert not home.exists()


def test_an_unexpected_exception_is_one_line_and_debug_shows_the_traceback(crab, home):
    home.mkdir(parents=True)
    (home / "format.json").write_text("{}")
    broken = home.parent / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import crabrt.cli.verbs.gc as gc\n"
        "def boom(*a, **k): raise ValueError('no\\x1b[31mluck')\n"
        "gc.collect_garbage = boom\n"
        "import crabrt.store as s\n"
        "s.Store.open = classmethod(lambda cls, home: type('S', (), {'__enter__': lambda s: s,"
        " '__exit__': lambda s, *a: None})())\n"
    )
    path = os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")])
    done = crab("gc", env={"PYTHONPATH": path}, process=True)
    assert done.code == 1
    assert "unexpected ValueError: no\\x1b[31mluck" in done.err
    assert "--debug" in done.err
    assert "Traceback" not in done.err
    done = crab("gc", "--debug", env={"PYTHONPATH": path}, process=True)
    assert done.code == 1
    assert "Traceback" in done.err


def test_ctrl_c_exits_with_130(builder, home, workspace):
    run = builder.small_run(home, workspace)  # live: --follow waits for more
    # What a shell starts in the background ignores the signal, and so does all that follows.
    process = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "crabrt", "log", run.run, "--follow"],
        env=os.environ | {"CRAB_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "running" in process.stdout.readline()
    assert "turn" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    run.close()


def test_follow_shows_turns_as_they_close_and_ends_with_the_run(builder, home, workspace):
    run = builder.small_run(home, workspace)
    process = subprocess.Popen(
        [sys.executable, "-m", "crabrt", "log", run.run, "--follow", "--json"],
        env=os.environ | {"CRAB_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    seen = [json.loads(process.stdout.readline())["data"]["turns"][0]["turn"] for _ in range(3)]
    assert seen == [0, 1, 2]  # turn 3 is open
    run.turn(lambda: (workspace / "late").write_text("x"))
    run.end()
    out, _ = process.communicate(timeout=30)
    assert [json.loads(line)["data"]["turns"][0]["turn"] for line in out.splitlines()] == [3, 4]
    assert process.returncode == 0


def test_a_reader_that_leaves_is_no_error(builder, home, workspace):
    run = builder.small_run(home, workspace)
    (workspace / "big").write_bytes(b"line\n" * 200_000)
    run.turn(None)
    run.close()
    process = subprocess.Popen(
        [sys.executable, "-m", "crabrt", "show", f"{run.run}@-1:big"],
        env=os.environ | {"CRAB_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 0


def test_completion_prints_a_script_for_each_shell_and_completes_runs_and_turns(
    crab, builder, home, workspace
):
    for shell in ("bash", "zsh", "fish"):
        done = crab("completion", shell)
        assert done.code == 0
        assert "_CRAB_COMPLETE" in done.out
    run = builder.small_run(home, workspace)
    run.close()
    assert crab("label", f"{run.run}@1", "nice").code == 0

    def complete(line):
        words = line.split(" ")
        env = {
            "_CRAB_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        return {text.split(",")[1] for text in crab(env=env, process=True).out.splitlines()}

    assert {"restore", "runs", "resume", "repair", "rm"} <= complete("crab r")
    assert complete("crab log la") == {"last"}
    assert complete("crab log fix") == {run.run}
    assert complete("crab restore fix") == {run.run, f"{run.run}@"}  # the word goes on
    assert {"last@-1", "last@nice", "last@0", "last@3"} <= complete("crab restore last@")
    assert complete("crab restore last@ni") == {"last@nice"}


def test_a_locale_without_our_symbols_is_no_error(crab, builder, home, workspace):
    run = builder.small_run(home, workspace)
    run.close()
    done = crab("log", "last", process=True, env={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0
    assert "\\u25cf durable" in done.out


def test_a_workspace_that_is_gone_is_told_and_can_be_restored_elsewhere(
    crab, builder, home, workspace, tmp_path
):
    run = builder.small_run(home, workspace)
    run.close()
    workspace.rename(tmp_path / "moved")
    state = f"{run.run}@1"
    for words in (["restore", state], ["diff", "last@1"], ["resume", run.run, "--yes"]):
        done = crab(*words, cwd=tmp_path)
        assert done.code == 4, words
        assert str(workspace) in done.err
    assert crab("restore", "last@1", "--to", workspace, cwd=tmp_path).code == 0
    assert (workspace / "app.py").exists()


def test_bash_is_told_that_a_target_is_one_word(crab):
    script = crab("completion", "bash").out
    shown = subprocess.run(
        ["bash", "-c", f'COMP_WORDBREAKS=" @:"\n{script}\nprintf %s "$COMP_WORDBREAKS"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == " :"


@pytest.mark.parametrize("name", ["crab", "crabrt"])
def test_a_completion_script_is_for_the_name_it_was_asked_under(name, home, capfd):
    assert execute(["completion", "bash"], name) == 0
    script = f"{capfd.readouterr().out}\ncomplete -p {name}"
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[-1] == name
    assert f"_{name.upper()}_COMPLETE=" in script
