"""The child program: loops on litellm, run and resumed; what each check found, as JSON.

In a process of its own because litellm and what it needs warn, leave sockets and event loops
behind, and ask the network on import unless told not to.
"""

import asyncio
import json
import sys
import tempfile
import traceback
import types
import warnings

import litellm

import crabrt
import crabrt_litellm
from crabrt.testing.llm_server import ScriptedServer
from crabrt.testing.model import Reply, ToolCall
from crabrt_litellm.replies import usage_of

SCRIPT = [
    Reply("Let me look around.", (ToolCall("bash", {"command": "ls"}),)),
    Reply("Done."),
]
USER = {"role": "user", "content": "go"}
CHECKS = {}


class Stopped(Exception):
    """What ends a run half-way here."""


class Setting:
    """A server, and the arguments that lead a call to it."""

    def __init__(self, server):
        self.server = server
        self.ask = {
            "model": "openai/scripted",
            "api_base": server.url,
            "api_key": "none",
            "max_retries": 0,
        }

    def twice(self, loop):
        """Run `loop` in a run that stops half-way, then resume it: what it gave each time."""
        given, runs = [], []

        @crabrt.tool
        def go_on():
            """So that it did not end with what failed in `loop`: that would be made again."""

        @crabrt.agent(workspace=tempfile.mkdtemp(), name="loop")
        def agent():
            runs.append(crabrt.current_run().id)
            given.append(loop())
            go_on()
            if len(given) == 1:
                raise Stopped

        try:
            agent()
        except Stopped:
            agent.resume(runs[0])
        assert len(given) == 2
        return given


def check(function):
    CHECKS[function.__name__] = function
    return function


@check
def a_reply_comes_back_equal_and_is_not_asked_for_again(setting):
    first, second = setting.twice(lambda: litellm.completion(messages=[USER], **setting.ask))
    assert type(first) is type(second) is litellm.ModelResponse
    assert first == second
    assert second.choices[0].message.tool_calls[0].function.name == "bash"
    assert second.usage.prompt_tokens == 100
    assert len(setting.server.requests) == 1


@check
def an_async_reply_comes_back_equal(setting):
    def loop():
        return asyncio.run(litellm.acompletion(messages=[USER], **setting.ask))

    first, second = setting.twice(loop)
    assert type(second) is litellm.ModelResponse
    assert first == second
    assert len(setting.server.requests) == 1


@check
def a_stream_comes_back_piece_by_piece(setting):
    def loop():
        return list(litellm.completion(messages=[USER], stream=True, **setting.ask))

    first, second = setting.twice(loop)
    assert len(first) > 3
    assert first == second
    assert {type(piece).__name__ for piece in second} == {"ModelResponseStream"}
    assert len(setting.server.requests) == 1


@check
def an_async_stream_comes_back_piece_by_piece(setting):
    async def collect():
        stream = await litellm.acompletion(messages=[USER], stream=True, **setting.ask)
        return [piece async for piece in stream]

    first, second = setting.twice(lambda: asyncio.run(collect()))
    assert len(first) > 3
    assert first == second
    assert len(setting.server.requests) == 1


@check
def an_exception_comes_back_as_litellms_own(setting):
    ended = [USER, *[{"role": "assistant", "content": "x"}] * 5]

    def loop():
        try:
            litellm.completion(messages=ended, **setting.ask)
        except litellm.BadRequestError as error:
            return error

    first, second = setting.twice(loop)
    assert type(first) is type(second) is litellm.BadRequestError
    assert str(first) == str(second)
    assert (second.status_code, second.llm_provider) == (400, "openai")
    assert len(setting.server.requests) == 1


@check
def outside_of_a_run_nothing_has_changed(setting):
    for _ in range(2):
        stream = litellm.completion(messages=[USER], stream=True, **setting.ask)
        assert isinstance(stream, litellm.CustomStreamWrapper)
        assert len(list(stream)) > 3
    assert len(setting.server.requests) == 2


@check
def instrumenting_twice_is_once_and_undoing_restores(_setting):
    wrapped = litellm.completion, litellm.acompletion
    crabrt_litellm.instrument()
    assert (litellm.completion, litellm.acompletion) == wrapped
    for _ in range(2):
        crabrt_litellm.uninstrument()
        assert (litellm.completion, litellm.acompletion) == ORIGINALS
    assert wrapped[0] is not ORIGINALS[0]
    assert wrapped[1] is not ORIGINALS[1]


@check
def modules_that_took_the_function_before_get_the_wrapped_one(_setting):
    crabrt_litellm.uninstrument()
    module = sys.modules["somebodys_agent"] = types.ModuleType("somebodys_agent")
    module.ask = litellm.completion
    crabrt_litellm.instrument()
    assert module.ask is litellm.completion
    assert module.ask is not ORIGINALS[0]
    crabrt_litellm.uninstrument()
    assert module.ask is ORIGINALS[0]


@check
def tokens_and_cost_are_read_off_replies_and_streams(setting):
    reply = litellm.completion(messages=[USER], **setting.ask)
    assert usage_of(reply) == crabrt.Usage(100, 20, None)  # nobody knows this model's price
    options = {"stream": True, "stream_options": {"include_usage": True}}
    pieces = list(litellm.completion(messages=[USER], **options, **setting.ask))
    assert usage_of(pieces) == crabrt.Usage(100, 20, None)
    assert usage_of(pieces[:2]) == crabrt.Usage()
    reply = litellm.completion(messages=[USER], **setting.ask | {"model": "openai/gpt-4o"})
    price = litellm.model_cost["gpt-4o"]
    expected = 100 * price["input_cost_per_token"] + 20 * price["output_cost_per_token"]
    assert abs(usage_of(reply).cost_usd - expected) < 1e-9


ORIGINALS = litellm.completion, litellm.acompletion


def main():
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", crabrt.UnprotectedWarning)
    found = {}
    for name, function in CHECKS.items():
        crabrt_litellm.instrument()
        with ScriptedServer(SCRIPT) as server:
            try:
                function(Setting(server))
                found[name] = ""
            except Exception:
                found[name] = traceback.format_exc()
    print("found", json.dumps(found))


if __name__ == "__main__":
    main()
