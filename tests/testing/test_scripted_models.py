"""Scripted models answer by the conversation alone, in process and over real HTTP."""

import http.client
import json
import subprocess
import sys
import threading

import pytest

from crabrt.testing.llm_server import ScriptedServer
from crabrt.testing.model import (
    Reply,
    ScriptedModel,
    ScriptEnded,
    ToolCall,
    dump_script,
    parse_script,
)

SCRIPT = (
    Reply("Let me look.", (ToolCall("bash", {"command": "ls -la", "a": 1}),), tokens_in=7),
    Reply(None, (ToolCall("a"), ToolCall("b", {"x": [1, 2]}))),
    Reply("All done, ünïcode too."),
)
USER = {"role": "user", "content": "go"}
ASSISTANT = {"role": "assistant", "content": "x"}


def test_the_due_reply_is_told_by_the_conversation_alone():
    model = ScriptedModel(["one", "two"])
    for _ in range(2):
        assert model([USER])["content"] == "one"
        assert model([USER, ASSISTANT, USER])["content"] == "two"
    with pytest.raises(ScriptEnded, match="2 replies, number 2"):
        model([USER, ASSISTANT, ASSISTANT])
    assert len(model.requests) == 5


def test_a_reply_waits_before_it_comes():
    waited = []
    model = ScriptedModel([Reply("late", wait_s=1.5), Reply("now")], wait=waited.append)
    assert model([USER])["content"] == "late"
    assert model([USER, ASSISTANT])["content"] == "now"
    assert waited == [1.5]


def test_tool_calls_have_ids_that_repeat():
    message = SCRIPT[1].message(1)
    assert [call["id"] for call in message["tool_calls"]] == ["call_1_0", "call_1_1"]
    assert json.loads(message["tool_calls"][1]["function"]["arguments"]) == {"x": [1, 2]}
    assert message == SCRIPT[1].message(1)


def test_a_script_survives_json():
    assert parse_script(dump_script(SCRIPT)) == SCRIPT
    with pytest.raises(ValueError, match="not a script"):
        parse_script('{"content": 1}')


@pytest.fixture
def server():
    with ScriptedServer(SCRIPT) as started:
        yield started


def _post(server, body, path="/v1/chat/completions"):
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=30)
    try:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, raw, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_completion_has_what_openai_clients_read(server):
    for _ in range(2):  # asked again, answered alike
        status, body = _post(server, {"model": "m", "messages": [USER]})
        answer = json.loads(body)
        assert status == 200
        assert answer["model"] == "m"
        assert answer["choices"][0]["message"] == SCRIPT[0].message(0)
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
        assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 20, "total_tokens": 27}
    assert [request["messages"] for request in server.requests] == [[USER]] * 2


@pytest.mark.parametrize("number", range(3))
def test_a_stream_carries_the_same_message(number, server):
    messages = [USER, *[ASSISTANT] * number]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    status, body = _post(server, {"model": "m", "messages": messages, **options})
    assert status == 200
    events = [line[6:] for line in body.decode().splitlines() if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert chunks.pop()["usage"]["completion_tokens"] == 20
    text, calls = "", {}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        text += choice["delta"].get("content") or ""
        for piece in choice["delta"].get("tool_calls", ()):
            call = calls.setdefault(piece["index"], {"name": "", "arguments": ""})
            for key, value in piece["function"].items():
                call[key] += value
    assert text == (SCRIPT[number].content or "")
    expected = SCRIPT[number].message(number).get("tool_calls", [])
    assert list(calls.values()) == [call["function"] for call in expected]
    assert choice["finish_reason"] == ("stop" if number == 2 else "tool_calls")


def test_requests_that_make_no_sense_are_refused_as_openai_does(server):
    status, body = _post(server, {"model": "m", "messages": [ASSISTANT] * 3})
    assert status == 400
    assert "number 3 is due" in json.loads(body)["error"]["message"]
    assert _post(server, b"{")[0] == 400
    assert _post(server, {"model": "m"})[0] == 400
    assert _post(server, {"model": "m", "messages": ["hello"]})[0] == 400
    assert _post(server, {}, path="/v1/embeddings")[0] == 404


def test_a_reply_is_held_back_until_it_is_released(server):
    server.hold(1)
    answers = []
    body = {"model": "m", "messages": [USER, ASSISTANT]}
    asking = threading.Thread(target=lambda: answers.append(_post(server, body)))
    asking.start()
    server.wait_for_request(1)
    assert _post(server, {"model": "m", "messages": [USER]})[0] == 200  # others are answered
    assert answers == []
    server.release()
    asking.join()
    assert answers[0][0] == 200
    with pytest.raises(TimeoutError, match="reply 2"):
        server.wait_for_request(2, timeout_s=0)


def test_connections_are_kept_alive_between_requests(server):
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=30)
    body = json.dumps({"model": "m", "messages": [USER], "stream": True})
    for _ in range(2):
        connection.request("POST", "/v1/chat/completions", body)
        local = connection.sock.getsockname()
        assert connection.getresponse().read().endswith(b"[DONE]\n\n")
        assert connection.sock is not None
        assert connection.sock.getsockname() == local
    connection.close()


def test_it_serves_as_a_program_too(tmp_path):
    (tmp_path / "script.json").write_bytes(dump_script(SCRIPT))
    command = [sys.executable, "-m", "crabrt.testing.llm_server", tmp_path / "script.json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        try:
            connection = http.client.HTTPConnection(url.split("/")[2], timeout=30)
            connection.request("GET", "/v1/models")
            assert json.loads(connection.getresponse().read())["data"][0]["id"] == "scripted"
            connection.close()
        finally:
            process.kill()
