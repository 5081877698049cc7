"""A scripted server that speaks OpenAI's chat API over real HTTP, streaming included.

In a test::

    with ScriptedServer(replies) as server:
        litellm.completion("openai/scripted", messages, api_base=server.url, api_key="none")

As a program, for clients that are processes of their own (it prints its address first)::

    python -m crabrt.testing.llm_server script.json --port 0

Which reply is due is told by the request alone (see `model`), so a client that is killed and
resumed, or asks twice, gets consistent answers; nothing in a response depends on the time.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import types
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from crabrt.testing.model import (
    Reply,
    ScriptedModel,
    ScriptEnded,
    parse_script,
    replies_so_far,
)

_CREATED = 1_700_000_000
_PATHS = ("/v1/chat/completions", "/chat/completions")
_PIECE = 8  # characters of text in a streamed chunk


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, model: ScriptedModel, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.model = model
        self.requests: list[dict[str, Any]] = []
        self.news = threading.Condition()
        self.held: set[int] = set()

    def take(self, request: dict[str, Any], number: int) -> None:
        """Note a request for reply `number`, and wait while that reply is held back."""
        with self.news:
            self.requests.append(request)
            self.news.notify_all()
            self.news.wait_for(lambda: number not in self.held)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed leaves its connection: that is what this server is for."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """One connection; kept alive between requests, as real clients expect."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing: who wants to know reads `ScriptedServer.requests`."""

    def do_GET(self) -> None:
        """The list of models, which some clients ask for first."""
        models = [{"id": "scripted", "object": "model", "created": _CREATED, "owned_by": "crabrt"}]
        self._send_json(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        """A chat completion."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path not in _PATHS:
            self._send_error(404, f"there is only {_PATHS[0]} here")
            return
        try:
            request = json.loads(body)
            messages = request["messages"]
            due = replies_so_far(messages)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._send_error(400, f"not a chat request: {error}")
            return
        self.server.take(request, due)
        try:
            number, reply = self.server.model.reply(messages)
            message = self.server.model(messages)
        except ScriptEnded as error:
            self._send_error(400, str(error))
            return
        name = str(request.get("model", "scripted"))
        if request.get("stream"):
            usage = bool((request.get("stream_options") or {}).get("include_usage"))
            self._send_stream(stream_chunks(reply, message, number, name, usage=usage))
        else:
            self._send_json(200, completion(reply, message, number, name))

    def _send_json(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_error(self, status: int, message: str) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        self._send_json(status, {"error": error})

    def _send_stream(self, chunks: Iterator[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self._send_event(json.dumps(chunk))
        self._send_event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _send_event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()


def _usage(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.tokens_in,
        "completion_tokens": reply.tokens_out,
        "total_tokens": reply.tokens_in + reply.tokens_out,
    }


def completion(reply: Reply, message: dict[str, Any], number: int, name: str) -> dict[str, Any]:
    """The body of a response that is not streamed."""
    finish = "tool_calls" if reply.tool_calls else "stop"
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": name,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": _usage(reply),
    }


def stream_chunks(
    reply: Reply, message: dict[str, Any], number: int, name: str, *, usage: bool
) -> Iterator[dict[str, Any]]:
    """The events of a streamed response: role, text in pieces, tool calls in pieces, the end."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
        return {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion.chunk",
            "created": _CREATED,
            "model": name,
            "choices": choices,
        }

    yield chunk({"role": "assistant", "content": ""})
    text = reply.content or ""
    for start in range(0, len(text), _PIECE):
        yield chunk({"content": text[start : start + _PIECE]})
    for index, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        head = {"index": index, "id": call["id"], "type": "function"}
        yield chunk(
            {"tool_calls": [head | {"function": {"name": function["name"], "arguments": ""}}]}
        )
        arguments = function["arguments"]
        for start in range(0, len(arguments), _PIECE):
            piece = {"arguments": arguments[start : start + _PIECE]}
            yield chunk({"tool_calls": [{"index": index, "function": piece}]})
    yield chunk({}, "tool_calls" if reply.tool_calls else "stop")
    if usage:
        yield chunk({}) | {"choices": [], "usage": _usage(reply)}


class ScriptedServer:
    """The server on a thread of this process, on 127.0.0.1.

    Attributes:
        url: base address for clients, ending in ``/v1``.
        requests: the bodies of all chat requests so far, in order of arrival.

    Args:
        script: the replies; a plain string is a reply of that text.
        port: 0 takes a free one.
    """

    def __init__(self, script: Iterable[Reply | str], port: int = 0) -> None:
        self._server = _Server(ScriptedModel(script), port)
        self.requests = self._server.requests
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def hold(self, number: int) -> None:
        """Hold reply `number` (from 0) back from now on, until `release`: the model thinks."""
        with self._server.news:
            self._server.held.add(number)

    def release(self) -> None:
        """Let go of all that is held back."""
        with self._server.news:
            self._server.held.clear()
            self._server.news.notify_all()

    def wait_for_request(self, number: int, timeout_s: float = 60.0) -> None:
        """Wait until reply `number` (from 0) has been asked for.

        Raises:
            TimeoutError: it was not, for so long.
        """

        def asked() -> bool:
            return any(replies_so_far(body["messages"]) == number for body in self.requests)

        with self._server.news:
            if not self._server.news.wait_for(asked, timeout_s):
                raise TimeoutError(f"reply {number} was not asked for")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m crabrt.testing.llm_server")
    parser.add_argument("script", help="JSON: a list of replies")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    given = parser.parse_args()
    with open(given.script, "rb") as file:
        script = parse_script(file.read())
    with ScriptedServer(script, given.port) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    _main()
