"""What must not be told is nowhere in the file: in no text, no path, no name, and not hidden."""

from __future__ import annotations

import json

import msgspec
import pytest

from crabrt.core.entries import CallId, External, Intent, Noted, Payload, Result
from crabrt.core.ids import object_id
from crabrt.core.verdicts import Prior
from crabrt.report.options import ReportOptions
from crabrt.report.redaction import Redaction

TOKEN = "sk-live-0123456789abcdefghijABCDEFGHIJ"
KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAplantedplanted\nAAAAplantedAAAA\n"
    "-----END RSA PRIVATE KEY-----\n"
)
SPOKEN = "correct-horse-battery-staple"  # looks like nothing


@pytest.fixture
def leaky(run):
    """A secret wherever a run has a place for one."""
    (run.path / ".env").write_text(f"PLAIN={SPOKEN}\nDEBUG=1\n")
    (run.path / f"{TOKEN}.txt").write_text("x\n")
    run.say("system", f"the password is {SPOKEN}, write to carol@example.org")
    secrets = f'api_key = "{SPOKEN}"\nkey = """{KEY}"""\nurl = "https://carol:{SPOKEN}@db/x"\n'
    run.turn(
        lambda: (run.path / "settings.py").write_text(secrets + f"token = '{TOKEN}'\n"),
        argument=f"login --password {SPOKEN} --token={TOKEN}; cd {run.path}/src; "
        "mail carol@example.org",
        result=f"logged in with {SPOKEN} as carol@example.org in {run.path}",
    )
    run.turn(lambda: (run.path / ".env").write_text(f"PLAIN={SPOKEN}2\nDEBUG=1\n"))
    run.journal.append(Noted("hint", f"used {TOKEN}", (f"{TOKEN}.txt".encode(),)), turn=2)
    external_turn(run, {"authorization": f"Basic {SPOKEN}", "to": "carol@example.org"})
    run.unprotected_turn(f"no room in {run.path}: {TOKEN}")
    run.end("failed")
    return run


def external_turn(run, order):
    call = CallId("0", "charge", 900)
    run.turns += 1
    arguments = Payload(msgspec.msgpack.encode([[order], {}]))
    external = External(target="carol@example.org")
    intent = Intent(call, object_id(b"a"), arguments, Prior.EXTERNAL, external)
    run.journal.append(intent, turn=run.turns)
    run.journal.append(Result(call, 1.0, Payload(msgspec.msgpack.encode("ok"))), turn=run.turns)
    run.checkpoint(run.turns)


def test_a_redacted_report_has_no_planted_secret_in_any_byte(leaky, report):
    content = report(home=str(leaky.path.parents[1])).decode()
    for secret in (SPOKEN, TOKEN, "plantedplanted", "AAAAplanted", "carol", "secret-client",
                   str(leaky.path), str(leaky.path.parents[1]), "turn 1?", "reply 1"):  # fmt: skip
        assert secret not in content, secret
    assert SPOKEN[8:20] not in content
    assert "/workspace/src" in content
    assert "settings.py" in content


def test_what_was_left_out_is_shown_as_left_out(leaky, report, read):
    page = read(report())
    model, tool = page.turns[1]["calls"]
    assert model["messages"][0][0] == "system"
    assert model["messages"][0][1] == {"out": 71, "unit": "characters"}
    assert model["out"]["out"] == len("reply 1")
    assert tool["out"]["out"] > 40
    assert tool["title"] == (
        "login --password [redacted] --token=[redacted]; cd /workspace/src; mail user@example.com"
    )
    settings = next(i for i in page.turns[1]["files"]["items"] if i["p"] == "settings.py")
    assert 'api_key = "[redacted]"' in settings["patch"]
    assert "[redacted]@db/x" in settings["patch"]
    files = {item["p"]: item for item in page.turns[2]["files"]["items"]}
    assert "redacted" in files[".env"]["note"]
    assert "patch" not in files[".env"]


def test_an_unredacted_report_tells_texts_and_places_but_never_tokens(leaky, report):
    content = report(redact=False).decode()
    for told in (SPOKEN, "carol@example.org", "secret-client", "reply 1", "turn 2?"):
        assert told in content, told
    for secret in (TOKEN, "plantedplanted", "AAAAplanted"):
        assert secret not in content, secret
    assert "[redacted]" in content


def test_a_value_that_the_caller_names_as_secret_is_told_nowhere(leaky, report):
    for redact in (True, False):
        assert SPOKEN not in report(redact=redact, secrets=(SPOKEN,)).decode()


def redacted(text, *, workspace=b"/srv/acme/app", home="/home/carol", **options):
    return Redaction(ReportOptions(home=home, **options), workspace).raw(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/acme/app/x.py and /home/carol/y", "/workspace/x.py and /home/user/y"),
        ("\x1b[32m/home/carol/x\x1b[0m", "\x1b[32m/home/user/x\x1b[0m"),
        ("\\n/home/carol/x", "\\n/home/user/x"),
        ("export DB_PASSWORD=hunter2", "export DB_PASSWORD=[redacted]"),
        ("my_secret: 'abc def'", "my_secret: '[redacted]'"),
        ('{"client_secret": "abcdef"}', '{"client_secret": "[redacted]"}'),
        ("curl -u x --api-key abc123 y", "curl -u x --api-key [redacted] y"),
        ("postgres://ann:pw@db/app", "postgres://[redacted]@db/app"),
        ("Authorization: Basic YWxhZGRpbjpvcGVu", "Authorization: [redacted]"),
        ("mail bob.smith+x@corp.example now", "mail user@example.com now"),
        # what is no secret stays readable
        ("max_tokens = 4096", "max_tokens = 4096"),
        ("token = tokenizer.next()", "token = tokenizer.next()"),
        ("the keyboard and the monkey", "the keyboard and the monkey"),
        ("def password(self): return 1", "def password(self): return 1"),
    ],
)
def test_texts_are_redacted_and_stay_readable(text, shown):
    assert redacted(text) == shown


def test_redacting_twice_changes_nothing_more():
    text = "API_KEY=abc123 --token abc; https://a:b@c/ user@corp.example /home/carol/x"
    once = redacted(text)
    assert redacted(once) == once


def test_files_named_like_secrets_are_known_by_their_names():
    redaction = Redaction(ReportOptions(), b"/w")
    for path in (b".env", b"deploy/.env.production", b"a/id_ed25519", b"tls/server.key", b".ssh/x",
                 b"k8s/app-secrets.yaml", b"credentials.json", b".aws/config"):  # fmt: skip
        assert redaction.hides_file(path), path
    for path in (
        b".env.example",
        b"src/environment.py",
        b"id_rsa.pub",
        b"keyboard.py",
        b"x/secret",
    ):
        assert not redaction.hides_file(path), path
    assert not Redaction(ReportOptions(redact=False), b"/w").hides_file(b".env")


def test_keys_of_maps_and_bytes_are_redacted_too():
    redaction = Redaction(ReportOptions(home="/home/carol"), b"/w")
    value = {"/home/carol/x": [b"\xff /home/carol/y", {"api_key": "abc", "n": 1}]}
    assert redaction.value(value) == {
        "/home/user/x": [b"\xff /home/user/y", {"api_key": "[redacted]", "n": 1}]
    }
    assert json.dumps(redaction.path(b"/home/carol/\xff")) == json.dumps('"/home/user/\\xff"')
