"""What the classifier makes of connections: pure."""

import pytest

from crabrt.core.verdicts import Effect, Guess, Likely, Prior
from crabrt.inspector import CallFact, Observation, classify
from crabrt.inspector.network import Connection, Network

PUSH = CallFact("sh", guess=Guess(Likely.EXTERNAL, "git push: leaves the machine"))
TESTS = CallFact("sh", guess=Guess(Likely.UNKNOWN, "pytest: runs code"))
INSTALL = CallFact("sh", guess=Guess(Likely.FILES, "pip install: writes files"))
PLAIN = CallFact("custom")
READS = CallFact("sh", guess=Guess(Likely.NONE, "reads only: cat"))
HARMLESS = CallFact("look_up", Prior.NONE)
SERVES = CallFact("sh", guess=Guess(Likely.PROCESSES, "runs in the background: &"))
LOCAL = CallFact("edit", Prior.FILES)
CHARGE = CallFact("charge", Prior.EXTERNAL)
QUIET = Network(watched=True, local=True)


def reached(*connections, **more):
    return Network(watched=True, connections=connections, local=True, **more)


def tcp(address="203.0.113.9", port=443, command="curl", pid=7):
    return Connection("tcp", address, port, pid=pid, command=command)


def verdict(network, *calls):
    found = classify(calls, Observation(network=network))
    return Effect.EXTERNAL in found.effects, list(found.evidence)


def test_a_guess_is_cleared_if_nothing_was_sent():
    assert verdict(QUIET, PUSH) == (
        False,
        ["sh, git push: leaves the machine (guess), but nothing was sent"],
    )


@pytest.mark.parametrize(
    "network",
    [
        Network(),
        Network(watched=True),  # AF_UNIX was not
        Network(watched=True, local=True, lost="too many events"),
        Network(watched=True, local=True, unsure=True),
        reached(Connection("unix", path="/run/docker.sock")),
        reached(tcp("127.0.0.1", 8080)),
    ],
    ids=["unwatched", "inet alone", "lost", "unsure", "unix", "loopback"],
)
def test_a_guess_stays_where_something_may_have_been_sent(network):
    assert verdict(network, PUSH) == (True, ["external: sh, git push: leaves the machine (guess)"])


def test_a_guess_that_was_right_has_its_destinations_beside_it():
    assert verdict(reached(tcp(command="git-remote-http")), PUSH) == (
        True,
        [
            "external: sh, git push: leaves the machine (guess)",
            "connected to 203.0.113.9:443 (git-remote-http)",
        ],
    )


def test_what_stays_connected_clears_no_guess():
    network = Network(watched=True, local=True, kept=(tcp(command="ssh"),))
    is_external, evidence = verdict(network, PUSH)
    assert is_external
    assert evidence[1:] == ["still connected to 203.0.113.9:443 (ssh)"]


@pytest.mark.parametrize("call", [TESTS, PLAIN, READS, HARMLESS])
def test_a_call_that_nothing_is_known_of_is_external_if_it_reached_the_world(call):
    """Nor is it known of one that is to do nothing: a prior never narrows what was seen."""
    assert verdict(reached(tcp()), call) == (
        True,
        ["external: connected to 203.0.113.9:443 (curl) (seen)"],
    )
    assert verdict(QUIET, call) == (False, [])
    assert verdict(reached(tcp("127.0.0.1")), call) == (False, [])


@pytest.mark.parametrize(
    "call", [INSTALL, SERVES, CallFact("t", Prior.FILES), CallFact("t", Prior.PROCESSES), None]
)
def test_a_download_is_no_effect_elsewhere(call):
    calls = () if call is None else (call,)
    assert verdict(reached(tcp()), *calls) == (False, ["connected to 203.0.113.9:443 (curl)"])


@pytest.mark.parametrize("explained", [INSTALL, SERVES])
def test_a_download_explains_the_connection_of_its_turn_unless_nothing_is_known(explained):
    told = ["connected to 203.0.113.9:443 (curl)"]
    assert verdict(reached(tcp()), READS, explained) == (False, told)
    assert verdict(reached(tcp()), READS, explained, TESTS)[0]


def test_a_declaration_stands_whatever_was_seen():
    assert verdict(QUIET, CHARGE) == (True, ["external: charge (declared)"])
    assert verdict(QUIET, CHARGE, PUSH)[0]


def test_destinations_are_summarised_and_connections_are_told_first():
    asked = Connection("udp", "192.0.2.1", 53, command="pip")
    many = reached(asked, *[tcp(port=port, pid=port) for port in range(1, 6)], tcp(port=1, pid=99))
    _, (line,) = verdict(many, INSTALL)
    assert line == (
        "connected to 203.0.113.9:1 (curl), 203.0.113.9:2 (curl), 203.0.113.9:3 (curl) and 3 more"
    )
    _, (line,) = verdict(reached(asked, more=7), INSTALL)
    assert line == "connected to 192.0.2.1:53/udp (pip) and 7 more"


def test_what_was_lost_is_said():
    lost = Network(watched=True, lost="too many events for the kernel's buffer")
    found = classify((), Observation(network=lost))
    assert found.unobserved == ("network: too many events for the kernel's buffer",)


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        ([PLAIN], True),
        ([READS], True),
        ([CHARGE], True),
        ([LOCAL, PUSH], True),
        ([LOCAL, HARMLESS, CallFact("serve", Prior.PROCESSES)], False),
        ([], False),
    ],
    ids=str,
)
def test_that_nobody_watched_is_said_of_turns_where_it_matters(calls, told):
    unwatched = classify(calls, Observation(network=Network(why_not="it takes root")))
    assert unwatched.unobserved == (("network not watched: it takes root",) if told else ())
    assert classify(calls, Observation(network=QUIET)).unobserved == ()


@pytest.mark.parametrize(
    ("connection", "target", "where"),
    [
        (tcp(), "203.0.113.9:443", "world"),
        (tcp("2001:db8::9"), "[2001:db8::9]:443", "world"),
        (tcp("::1"), "[::1]:443", "machine"),
        (tcp("127.8.0.1"), "127.8.0.1:443", "machine"),
        (tcp("0.0.0.0"), "0.0.0.0:443", "machine"),
        (Connection("icmp", "192.0.2.1"), "192.0.2.1/icmp", "world"),
        (Connection("udp", "224.0.0.251", 5353), "224.0.0.251:5353/udp", "world"),
        (Connection("unix", path="@x"), "@x", "machine"),
        (Connection("unix"), "a local socket", "machine"),
    ],
)
def test_how_a_connection_is_shown_and_where_it_goes(connection, target, where):
    assert (connection.target, connection.where) == (target, where)
