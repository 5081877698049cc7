"""What a call is taken for: by what is declared, by a command in its arguments, by its name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crabrt.core.entries import BODIES, CallId, Intent, Payload
from crabrt.core.envelopes import body_of, decode_entry, encode_entry
from crabrt.core.verdicts import Consistency, Effect, Guess, Likely, Prior
from crabrt.inspector import CallFact, Observation, classify, guess_call


def effect(tool, arguments):
    guess = guess_call(tool, Prior.AUTO, arguments)
    assert guess is not None
    return guess.effect


@pytest.mark.parametrize("declared", [prior for prior in Prior if prior is not Prior.AUTO])
def test_what_is_declared_is_not_guessed(declared):
    assert guess_call("sh", declared, {"command": "git push"}) is None


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("sh", {"command": "git push"}, Likely.EXTERNAL),
        ("anything", {"command": "ls", "timeout": 5}, Likely.NONE),
        ("anything", {"cmd": "rm a"}, Likely.FILES),
        ("exec", {"cmd": ["bash", "-lc", "git push"]}, Likely.EXTERNAL),
        ("exec", {"cmd": ["echo", "> a"]}, Likely.NONE),
        ("many", {"commands": ["ls", "git push"]}, Likely.EXTERNAL),
        ("execute", {"action": {"command": "rm a"}, "cwd": ""}, Likely.FILES),
        ("run_shell_command", {"text": "rm a"}, Likely.FILES),
        ("bash", {"x": "ls"}, Likely.NONE),
        ("bash", {"x": b"ls"}, Likely.UNKNOWN),
        ("sh", {"command": b"ls \xff"}, Likely.NONE),
        ("sh", {"command": "ls \udc80"}, Likely.NONE),
        ("sh", {"command": 7}, Likely.UNKNOWN),
        ("sh", {"command": [1, 2]}, Likely.UNKNOWN),
        ("sh", {}, Likely.UNKNOWN),
        ("read_file", {"path": "a"}, Likely.NONE),
        ("readFile", {"path": "a"}, Likely.NONE),
        ("grep", {"pattern": "a"}, Likely.NONE),
        ("write_file", {"path": "a"}, Likely.FILES),
        ("str_replace_editor", {"path": "a"}, Likely.UNKNOWN),
        ("edit", {"path": "a"}, Likely.FILES),
        ("send_email", {"to": "a"}, Likely.EXTERNAL),
        ("create_issue", {"title": "a"}, Likely.UNKNOWN),
        ("read_url", {"url": "a"}, Likely.UNKNOWN),
        ("", {}, Likely.UNKNOWN),
    ],
)
def test_a_call_is_taken_for_what_its_command_or_its_name_says(tool, arguments, expected):
    assert effect(tool, arguments) is expected


ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["command", "cmd", "argv", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.text(max_size=20),
    st.dictionaries(st.sampled_from(["command", "cmd", "script", "x"]), ANYTHING, max_size=4),
)
def test_any_call_gets_a_guess_that_the_journal_can_hold(tool, arguments):
    guess = guess_call(tool, Prior.AUTO, arguments)
    intent = Intent(CallId("0", "t", 0), b"", Payload(), guess=guess)
    data = encode_entry(intent, seq=1, turn=1, wall_ns=0, mono_ns=0, boot="b")
    assert body_of(decode_entry(data)) == intent


def test_an_intent_of_a_version_that_did_not_guess_is_read():
    class Old(BODIES["intent"].__base__, frozen=True):
        kind = "intent"
        call: CallId
        digest: bytes
        arguments: Payload

    data = encode_entry(
        Old(CallId("0", "t", 0), b"", Payload()), seq=1, turn=1, wall_ns=0, mono_ns=0, boot="b"
    )
    found = body_of(decode_entry(data))
    assert isinstance(found, Intent)
    assert found.guess is None


# -- what a guess does to a verdict ------------------------------------------------------------

GUESSES = st.none() | st.builds(Guess, st.sampled_from(list(Likely)), st.just("why"))
CALLS = st.lists(st.builds(CallFact, st.sampled_from("ab"), st.sampled_from(Prior), GUESSES))


@given(CALLS, st.sampled_from(Consistency))
def test_a_guess_never_narrows_and_widens_only_to_external(calls, consistency):
    seen = Observation(consistency=consistency)
    plain = classify([CallFact(call.name, call.prior) for call in calls], seen)
    guessed = classify(calls, seen)
    assert set(plain.effects) <= set(guessed.effects)
    assert set(guessed.effects) - set(plain.effects) <= {Effect.EXTERNAL}
    outside = any(call.guess and call.guess.effect is Likely.EXTERNAL for call in calls)
    declared = any(call.prior is Prior.EXTERNAL for call in calls)
    assert (Effect.EXTERNAL in guessed.effects) is (outside or declared)


def test_the_evidence_says_what_is_declared_and_what_is_a_guess():
    calls = [
        CallFact("charge", Prior.EXTERNAL),
        CallFact("sh", Prior.AUTO, Guess(Likely.EXTERNAL, "git push: leaves the machine")),
        CallFact("sh", Prior.AUTO, Guess(Likely.EXTERNAL, "git push: leaves the machine")),
    ]
    assert classify(calls, Observation()).evidence == (
        "external: charge (declared)",
        "external: sh, git push: leaves the machine (guess)",
    )
