"""Targets, names, configuration, entries: what is typed or stored means one thing, or an error."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import crabrt.errors
from crabrt.core.config import Config, unknown_variables
from crabrt.core.config_files import parse_settings
from crabrt.core.entries import BODIES, CallId, Ended, Intent, Payload
from crabrt.core.envelopes import body_of, decode_entry, encode_entry
from crabrt.core.ids import derived_run_id, new_run_id, valid_name
from crabrt.core.targets import Target, TurnRef, parse_target
from crabrt.errors import CrabError, UsageError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("last", Target("last")),
        ("fixer-7f3a@12", Target("fixer-7f3a", TurnRef(turn=12))),
        ("a@-1", Target("a", TurnRef(turn=-1))),
        ("a@3.1", Target("a", TurnRef(turn=3, inner=1))),
        ("a@before-the-risky-part", Target("a", TurnRef(label="before-the-risky-part"))),
        ("a@v1.2.3", Target("a", TurnRef(label="v1.2.3"))),
    ],
)
def test_a_target_means_one_thing_and_prints_as_it_was_typed(text: str, meant: Target) -> None:
    assert parse_target(text) == meant
    assert str(meant) == text


@pytest.mark.parametrize("text", ["", "@1", "a@", "a b", "a/b@1", "a@x y", "a@last", "a@-1.2"])
def test_a_malformed_target_is_a_usage_error_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(text)
    assert caught.value.hint


@given(st.text(max_size=20))
def test_parsing_a_target_raises_usage_errors_only(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_target(text)


def test_names_are_no_integers_and_not_last() -> None:
    assert all(map(valid_name, ["a", "v1", "1a", "a.b", "-x"]))
    assert not any(map(valid_name, ["", "1", "-1", "3.1", "last", "a b", "é", "a/b"]))
    assert valid_name(new_run_id("x"))
    assert derived_run_id("c", new_run_id("p"), "0:c#0") != derived_run_id(
        "c", new_run_id("p"), "0:c#0"
    )


def test_the_layers_of_configuration_win_in_order() -> None:
    env = {"CRAB_HOME": "/s", "CRAB_OBSERVER": "scan", "CRAB_GATE_LIMIT_MS": "700"}
    config = Config.from_env(
        user={"observer": "fanotify", "strict": True, "gate_limit_ms": 900},
        workspace={"observer": "auto", "name": "proj"},
        environ=env,
        gate_limit_ms=500,
    )
    assert (config.home, config.observer, config.strict) == (Path("/s"), "scan", True)
    assert (config.name, config.gate_limit_ms) == ("proj", 500)


def test_the_workspace_may_lower_a_limit_and_not_raise_it() -> None:
    user = {"gate_limit_ms": 900}
    lower = Config.from_env(user=user, workspace={"gate_limit_ms": 100}, environ={})
    higher = Config.from_env(user=user, workspace={"gate_limit_ms": 9_000}, environ={})
    assert (lower.gate_limit_ms, higher.gate_limit_ms) == (100, 900)


@pytest.mark.parametrize("key", ["home", "strict", "disable", "size_cap_bytes", "force"])
def test_the_workspace_may_not_set_what_protects_from_the_agent(key: str) -> None:
    with pytest.raises(UsageError, match="the agent can write that file"):
        Config.from_env(workspace={key: 1}, environ={})


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"user": {"nonsense": 1}}, "unknown setting 'nonsense'"),
        ({"user": {"strict": "maybe"}}, "strict"),
        ({"environ": {"CRAB_STRICT": "maybe"}}, "neither 0 nor 1"),
        ({"environ": {"CRAB_GATE_LIMIT_MS": "soon"}}, "not a whole number"),
        ({"observer": "telepathy"}, "observer is 'telepathy'"),
    ],
)
def test_a_bad_setting_says_what_and_where(layer: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config.from_env(**({"environ": {}} | layer))


@pytest.mark.parametrize(
    ("layer", "where"),
    [
        ({"environ": {"CRAB_OBSERVER": "bogus"}}, "CRAB_OBSERVER"),
        ({"observer": "bogus"}, "the argument observer"),
        ({"user": {"observer": "bogus"}}, "the user's config file"),
        ({"user": {"observer": 7}}, "the user's config file"),
    ],
)
def test_a_bad_value_is_told_with_its_source(layer: dict, where: str) -> None:
    with pytest.raises(UsageError) as raised:
        Config.from_env(**({"environ": {}} | layer))
    assert raised.value.where == where


def test_the_source_is_the_layer_that_won() -> None:
    with pytest.raises(UsageError) as raised:
        Config.from_env(user={"observer": "bogus"}, environ={"CRAB_OBSERVER": "worse"})
    assert (raised.value.where, raised.value.hint) == (
        "CRAB_OBSERVER",
        "one of: auto, scan, fanotify",
    )
    assert (
        Config.from_env(user={"observer": "bogus"}, environ={"CRAB_OBSERVER": "scan"}).observer
        == "scan"
    )


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("crab.toml", '# observer = "scan"\nname = "x"\n"observer" = "bogus"\n', 3),
        ("crab.toml", "exclude = [\n'observer = 1',\n]\n  observer='bogus'\n", 4),
        ("pyproject.toml", '[tool.other]\nobserver = 1\n[tool.crab] # us\nobserver="bogus"\n', 4),
    ],
)
def test_a_bad_value_in_a_file_is_told_with_its_line(name, text, line) -> None:
    path = Path("/ws") / name
    settings = parse_settings(path, text, "tool.crab" if name == "pyproject.toml" else "")
    with pytest.raises(UsageError) as raised:
        Config.from_env(workspace=settings, environ={})
    assert raised.value.where == f"{path}:{line}"


def test_a_bad_value_on_no_line_of_its_own_is_told_with_its_file() -> None:
    settings = parse_settings(Path("p.toml"), "tool.crab = {observer = 'bogus'}\n", "tool.crab")
    with pytest.raises(UsageError) as raised:
        Config.from_env(workspace=settings, environ={})
    assert raised.value.where == "p.toml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tool = 7\n", "'tool' is no table"),
        ("tool.crab = [1]\n", "'crab' is no table"),
        ("=\n", "not a TOML file"),
    ],
)
def test_a_file_that_holds_no_settings_is_told(text, message) -> None:
    with pytest.raises(UsageError, match=message):
        parse_settings(Path("p.toml"), text, "tool.crab")


def test_the_hint_names_a_variable_only_where_there_is_one() -> None:
    for key, hint in (
        ("regenerable", "set it in your own config file, or in code"),
        ("strict", "set it in your own config file, in CRAB_STRICT, or in code"),
    ):
        with pytest.raises(UsageError) as raised:
            Config.from_env(workspace={key: "skip"}, environ={})
        assert raised.value.hint == hint


def test_variables_that_are_no_settings_are_found_with_the_nearest() -> None:
    env = {"CRAB_OBSERVR": "scan", "CRAB_XYZZY": "1", "CRAB_HOME": "/s", "CRABS": "", "PATH": ""}
    known = {"CRAB_RUN": "r", "CRAB_RESUME": "r@1"}
    found = unknown_variables(env | known)
    assert found == {"CRAB_OBSERVR": "CRAB_OBSERVER", "CRAB_XYZZY": None}
    assert unknown_variables(known) == {}


def test_the_store_lies_where_the_user_keeps_state() -> None:
    state, elsewhere = {"XDG_STATE_HOME": "/state"}, {"CRAB_HOME": "/elsewhere"}
    assert Config.from_env(environ=state).home == Path("/state/crabrt")
    assert Config.from_env(environ=state | elsewhere).home == Path("/elsewhere")
    settings = {"home": "/settings"}
    assert Config.from_env(user=settings, environ=state).home == Path("/settings")
    assert Config.from_env(user=settings, environ=elsewhere).home == Path("/elsewhere")
    given = Config.from_env(user=settings, environ=elsewhere, home=Path("/given"))
    assert given.home == Path("/given")


def test_a_store_stays_where_it_is_when_the_program_goes_elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "store"
    assert Config.from_env(environ={"CRAB_HOME": "store"}).home == here
    assert Config.from_env(environ={}, home=Path("store")).home == here
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Config.from_env(environ={"CRAB_HOME": "~/store"}).home == here


def entry(body, **changes) -> bytes:
    return encode_entry(body, seq=1, turn=2, wall_ns=3, mono_ns=4, boot="b", **changes)


def test_entries_read_back() -> None:
    body = Intent(CallId("0", "sh", 1), b"digest", Payload(inline=b"x"))
    decoded = decode_entry(entry(body))
    assert (decoded.seq, decoded.turn, decoded.kind) == (1, 2, "intent")
    assert body_of(decoded) == body


def test_an_unknown_kind_is_skipped_only_if_it_says_so() -> None:
    known = decode_entry(entry(Ended("done", 1.0)))
    unknown = msgspec.structs.replace(known, kind="from-the-future")
    with pytest.raises(KeyError):
        body_of(unknown)
    assert body_of(msgspec.structs.replace(unknown, optional=True)) is None


def test_kinds_of_entries_and_errors_are_unique_and_never_change() -> None:
    """Append-only: a kind that was released is never renamed (stores and programs know it)."""
    assert set(BODIES) >= {
        "started", "forked", "resumed", "turn", "request", "response", "intent", "result",
        "recorded", "superseded", "verdict", "captured", "checkpoint", "gate", "unprotected",
        "rollback", "label", "pin", "note", "ended",
    }  # fmt: skip
    errors = [c for c in vars(crabrt.errors).values() if isinstance(c, type)]
    typed = {c.kind: c.exit_code for c in errors if issubclass(c, CrabError)}
    assert typed["would-lose-changes"] == 5
    assert typed["workspace-busy"] == typed["run-busy"] == 6
    assert (typed["damaged-journal"], typed["diverged"], typed["in-doubt"]) == (7, 8, 9)
