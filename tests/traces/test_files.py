"""Trace files: what is written is read back; whatever else a file holds is a typed error."""

import contextlib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crabrt.errors import CrabError, FormatTooNew, NotFound, UsageError
from crabrt.traces import (
    DamagedTrace,
    Header,
    ModelCall,
    NotATrace,
    ToolCall,
    Trace,
    Turn,
    read_trace,
    trace_lines,
    write_file,
)
from crabrt.traces.schema import LINE_MAX_BYTES, ChangedPath, Files, Request, Said
from crabrt.traces.writing import CannotWrite, turn_line


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.trace.jsonl"


@pytest.fixture
def written(path, make):
    """A trace of three turns in a file."""
    trace = make.trace("true", "echo two > two", "rm two")
    write_file(path, trace_lines(trace))
    return trace


def test_every_field_survives_a_file(path):
    turn = Turn(
        turn=3,
        base=1,
        started_at="2026-01-02T03:04:05.678+00:00",
        models=(
            ModelCall(
                name="think",
                model="m-1",
                wait_ms=12.5,
                request=Request(4, 900, (Said("user", "do it"),)),
                reply={"role": "assistant", "content": "ü\u2028"},
                failure="Timeout: late",
                tokens_in=7,
                tokens_out=8,
                cost_usd=0.25,
            ),
        ),
        tools=(ToolCall("sh", {"command": "x"}, "/w", {"rc": 2}, 2, False, "E: no", 3.5, "files"),),
        verdict=("files",),
        evidence=("files: a new",),
        files=Files(1, 2, 3, (ChangedPath("a", ("added",)),), 4),
        checkpoint="durable",
        consistency="exact",
        bytes_stored=99,
        scan_ms=1.0,
        capture_ms=2.0,
        durable_ms=3.0,
        exposed_ms=4.0,
        unprotected=("why",),
        unobserved=("network",),
    )  # fmt: skip
    header = Header("crabrt-trace", 1, "id-1", 1, "/w", "s", "v", "n", "t", "done", "synthetic")
    trace = Trace(header, (turn,))
    size = write_file(path, trace_lines(trace))
    assert path.stat().st_size == size
    assert read_trace(path) == trace
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_unknown_fields_of_a_later_minor_change_are_passed_over(path, written):
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    for fields in lines:
        fields["added_later"] = {"x": 1}
    path.write_bytes(b"\n".join(msgspec.json.encode(fields) for fields in lines))
    assert read_trace(path) == written


def test_a_file_that_lost_its_last_turns_says_how_many(path, written):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(DamagedTrace, match="after 2 of 3 turns") as caught:
        read_trace(path)
    assert caught.value.exit_code == 7
    assert str(path) in caught.value.where
    assert caught.value.hint


@pytest.mark.parametrize("kept", [1, 10, 40])
def test_a_file_cut_in_the_middle_of_a_line_names_the_line(path, written, kept):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:kept])
    with pytest.raises(DamagedTrace, match="ends in the middle") as caught:
        read_trace(path)
    assert caught.value.where.endswith("line 3")


def test_a_file_with_more_turns_than_it_should_have_is_damaged(path, written):
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[-1])
    with pytest.raises(DamagedTrace, match="4 of 3"):
        read_trace(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("turn", "one"), ("tools", [{"name": 3}]), ("tools", [{}]), ("models", [{"wait_ms": "long"}])],
)
def test_a_field_of_the_wrong_type_is_damage_in_that_line(path, written, field, value):
    lines = path.read_bytes().splitlines()
    fields = msgspec.json.decode(lines[2])
    fields[field] = value
    lines[2] = msgspec.json.encode(fields)
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DamagedTrace) as caught:
        read_trace(path)
    assert caught.value.where.endswith("line 3")


def test_a_newer_version_is_refused_with_what_to_do(path, written):
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(FormatTooNew, match="version 2") as caught:
        read_trace(path)
    assert caught.value.exit_code == 7
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"hello\n",
        b"[1, 2]\n",
        b'{"messages": []}\n',
        b'{"schema": "another", "version": 1}\n',
        b"\xff\xfe\x00",
        b"x" * (LINE_MAX_BYTES + 2),
    ],
)
def test_other_files_are_no_traces(path, data):
    path.write_bytes(data)
    with pytest.raises(NotATrace) as caught:
        read_trace(path)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_a_header_of_the_right_schema_that_makes_no_sense_is_damage(path):
    path.write_bytes(b'{"schema": "crabrt-trace", "version": 1, "id": "x", "turns": -1}\n')
    with pytest.raises(DamagedTrace, match="no sense"):
        read_trace(path)
    path.write_bytes(b'{"schema": "crabrt-trace", "version": "one"}\n')
    with pytest.raises(DamagedTrace, match="header"):
        read_trace(path)


def test_a_line_over_the_bound_is_refused_without_being_read_whole(path, written):
    data = path.read_bytes() + b"[" * (LINE_MAX_BYTES * 3)
    path.write_bytes(data)
    with pytest.raises(DamagedTrace, match="longer than") as caught:
        read_trace(path)
    assert caught.value.where.endswith("line 5")


def test_absent_and_unreadable_are_told_apart(path, tmp_path):
    with pytest.raises(NotFound):
        read_trace(path)
    with pytest.raises(UsageError, match="directory"):
        read_trace(tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), at=st.integers(0, 400), keep=st.booleans())
def test_whatever_is_in_a_file_only_typed_errors_come_out(path, make, data, at, keep):
    whole = b"".join(trace_lines(make.trace("true", "false")))
    path.write_bytes(whole[:at] + data + (whole[at:] if keep else b""))
    with contextlib.suppress(CrabError):
        read_trace(path)


def test_lines_stay_within_their_bound_and_say_what_was_cut():
    big = ToolCall("sh", {"command": "true"}, result="x" * (5 << 20))
    turn = msgspec.json.decode(turn_line(Turn(1, tools=(big,))), type=Turn)
    assert turn.tools[0].arguments == {"command": "true"}
    assert not turn.tools[0].cut
    assert turn.tools[0].result["$cut"]["chars"] == 5 << 20

    long = ToolCall("write_file", {"path": "a", "content": "y" * (2 << 20)})
    line = turn_line(Turn(1, tools=(long,)))
    assert len(line) <= LINE_MAX_BYTES
    kept = msgspec.json.decode(line, type=Turn).tools[0]
    assert kept.cut
    assert kept.arguments["path"] == "a"


def test_a_turn_of_very_many_calls_loses_some_and_says_so():
    calls = tuple(ToolCall("sh", {"command": f"echo {i} {'z' * 200}"}) for i in range(9_000))
    line = turn_line(Turn(1, tools=calls))
    assert len(line) <= LINE_MAX_BYTES
    turn = msgspec.json.decode(line, type=Turn)
    assert 0 < len(turn.tools) < 9_000
    assert "9000 tool calls" in turn.evidence[-1]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(CannotWrite) as caught:
        write_file(tmp_path / "nowhere" / "x.jsonl", [b"x"])
    assert caught.value.where
