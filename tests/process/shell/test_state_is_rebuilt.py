"""What bash can tell of itself is recorded unseen, and given to another shell."""

from __future__ import annotations

import os
import resource

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crabrt.process.shell import Shell, ShellState, script
from crabrt.process.shell.literals import declaration
from crabrt.process.shell.recording import BASH_OWN
from crabrt.process.shell.script import quoted
from crabrt.process.shell.state import Function, Limit, Variable

EVERYTHING = r"""
plain='a b'; export exported=$'tab\t'; declare -r fixed=1; declare -i number=42; declare -u upper=up
declare -a list=(1 'two words' $'three\nlines'); sparse[7]=x; empty=(); declare -a none
declare -A map=([key]=value ['a b']=$'q"\n' ['$(x)']='`y`' [']']=z); declare -rx both=2
declare -n ref=plain; declare -i unset_number; declare unset_plain; export unset_exported
declare -ai numbers=(1 2); unset HOME; export PATH="$PATH:/added"
greet() { echo "hello $1"; }; export -f greet; outer() { inner() { :; }; cat <<X
here $1
X
}
pick() { [[ $1 == @(a|b) ]] && echo picked; }
alias ll='ls -l' quote="echo 'it''s'"
shopt -s extglob nullglob; set -o pipefail
umask 027
trap 'echo "bye '\''now'\''"' EXIT; trap 'echo usr' USR1; trap '' USR2
set -- 'one 1' two ''
ulimit -S -n 200
cd /usr; pushd /etc >/dev/null; pushd /tmp >/dev/null
"""


def comparable(state):
    """Without what two shells cannot share."""
    variables = tuple(one for one in state.variables if one.name != "SHLVL")
    return msgspec.structs.replace(state, variables=variables, jobs=(), descriptors=())


def test_everything_that_bash_tells_comes_back(shell, form, open_shell):
    shell.run("shopt -s extglob")
    assert shell.run(EVERYTHING).note is None
    state = shell.record_state()
    assert state.left_out == ()
    base = os.path.dirname(shell.record.directory)
    with Shell.rebuild(state, isolation=form, directory=base) as other:
        assert other.not_rebuilt == ()
        assert comparable(other.record_state()) == comparable(state)
        checks = {
            'echo "$plain|$exported|$number|$ref|${list[2]}|${map[a b]}|${sparse[@]}|$upper"': (
                'a b|tab\t|42|a b|three\nlines|q"\n|x|UP\n'
            ),
            "greet you; outer x; pick a; bash -c 'greet child'": (
                "hello you\nhere x\npicked\nhello child\n"
            ),
            "ref=changed; echo $plain; number=1+1; echo $number": "changed\n2\n",
            "fixed=2": "bash: fixed: readonly variable\n",
            "pwd; dirs; umask; ulimit -S -n": "/tmp\n/tmp /etc /usr\n0027\n200\n",
            'echo $# "$1" ${HOME-none}; env | grep -c ^both=': "3 one 1 none\n1\n",
            "quote": "its\n",
            "trap -p USR1 USR2": "trap -- 'echo usr' SIGUSR1\ntrap -- '' SIGUSR2\n",
            "exit": "bye 'now'\n",
        }
        for command, expected in checks.items():
            assert other.run(command).output == expected


def test_recording_is_not_seen(plain):
    plain.run("trap 'echo debug >>log' DEBUG; x=1")
    assert plain.run("(exit 5)").exit_status == 5
    before = plain.run("echo $?; history; set; trap -p; jobs").output
    plain.run("(exit 5)")
    plain.record_state()
    after = plain.run("echo $?; history; set; trap -p; jobs").output
    kept = [  # some of bash's own variables come to be by being looked at
        [line for line in text.splitlines() if line.partition("=")[0] not in BASH_OWN]
        for text in (before, after)
    ]
    assert kept[0] == kept[1]
    assert kept[1][0] == "5"
    assert plain.background_output() == b""


VALUES = st.binary(max_size=60).map(lambda value: value.replace(b"\0", b""))
TROUBLE = st.sampled_from(
    [
        b"$(touch made)",
        b"`touch made`",
        b"a[$(touch made)]",
        b"${x}",
        b"$'\\n'",
        b"declare -x y=1\n",
    ]
    + [bytes([byte]) for byte in b"'\"\\\n!]\x01\x7f\xff*~@%"]
)
HOSTILE = st.lists(VALUES | TROUBLE, max_size=4).map(b"".join)


@pytest.fixture(scope="module")
def two_shells(tmp_path_factory):
    base = tmp_path_factory.mktemp("shells")
    options = {"isolation": "session", "directory": base / "channels"}
    with Shell(cwd=base, **options) as shell:
        yield shell, options, base


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    HOSTILE,
    st.lists(HOSTILE, max_size=4),
    st.dictionaries(HOSTILE.filter(bool), HOSTILE, max_size=4),
    st.sampled_from([b"", b"-x", b"-u", b"-i", b"-l"]),
)
def test_values_are_data_whatever_they_are(two_shells, scalar, items, table, flag):
    shell, options, base = two_shells
    text = b"unset v a t; v=%s; declare %s v; a=(%s); declare -A t; " % (
        quoted(scalar),
        flag,
        b" ".join(map(quoted, items)),
    )
    text += b"".join(b"k=%s; t[$k]=%s; " % (quoted(k), quoted(v)) for k, v in table.items())
    show = b'printf \'%s\\0\' "$v" "${#a[@]}" "${a[@]}" "${#t[@]}"; for k in "${!t[@]}"; do '
    show += b'printf \'%s\\0\' "$k" "${t[$k]}"; done'
    assert shell.run(b"shopt -s assoc_expand_once; " + text).exit_status == 0
    expected = shell.run(show)
    state = shell.record_state()
    assert [line for line in state.left_out if line.split()[1] in {"v:", "a:", "t:"}] == []
    with Shell.rebuild(state, **options) as other:
        assert other.not_rebuilt == ()
        shown = other.run(show)
    assert shown.output_bytes == expected.output_bytes
    assert not (base / "made").exists()


STORED = {
    "a command in a value": Variable("x", "", b'"$(touch made)"'),
    "a command behind a value": Variable("x", "", b'"a"; touch made'),
    "a command for a name": Variable("x=1; touch made #", "", b'"a"'),
    "a command in attributes": Variable("x", "x; touch made; declare -", b'"a"'),
    "a command in a key": Variable("x", "A", b'([$(touch made)]="1" )'),
    "a command in an element": Variable("x", "a", b"([0]=`touch made`)"),
    "an unquoted value": Variable("x", "", b"a"),
    "an open quote": Variable("x", "", b'"a'),
}


@pytest.mark.parametrize("what", STORED)
def test_stored_states_are_not_trusted(two_shells, what):
    _, options, base = two_shells
    state = ShellState(directory=os.fsencode(base), umask="0022", variables=(STORED[what],))
    with Shell.rebuild(state, **options) as shell:
        assert any("not in a form that is safe" in line for line in shell.not_rebuilt)
        assert shell.run("echo $x").output == "\n"
    assert not (base / "made").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"aliases": (b"alias x='a'; touch made\n",)},
        {"aliases": (b"alias x=$(touch made)\n",)},
        {"traps": (b"trap -- 'a' EXIT; touch made\n",)},
        {"set_options": (b"set -o errexit; touch made\n",)},
        {"shopts": (b"shopt -s extglob\ntouch made\n",)},
        {"functions": (Function(b"f", "", b"touch made"),)},
        {"functions": (Function(b"f;touch made", "", b"f;touch made () \n{ :; }"),)},
    ],
    ids=str,
)
def test_stored_commands_are_of_one_form(two_shells, change):
    _, options, base = two_shells
    state = ShellState(directory=os.fsencode(base), umask="0022", **change)
    with Shell.rebuild(state, **options) as shell:
        assert any("safe" in line for line in shell.not_rebuilt)
    assert not (base / "made").exists()


def test_redirections_of_the_question_are_no_descriptors_of_the_shell(two_shells, monkeypatch):
    shell, _options, base = two_shells
    shell.run(f"exec 7>{base}/held")
    line = script.report_line
    still = b"; sleep .2; } </dev/null"
    monkeypatch.setattr(
        script, "report_line", lambda *args: line(*args).replace(b"; } </dev/null", still)
    )
    assert shell.record_state().descriptors == (f"7 {base}/held".encode(),)
    shell.run("exec 7>&-")


def test_what_cannot_come_back_is_listed(plain, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    plain.run(f"cd {gone}; sleep 1000 & exec 7>{tmp_path}/held; false")
    state = plain.record_state()
    gone.rmdir()
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limits = (Limit("RLIMIT_NONSENSE", 1, 1), Limit("RLIMIT_NOFILE", 9, 5))
    state = msgspec.structs.replace(state, limits=limits)
    options = {"isolation": "session", "directory": tmp_path / "channels"}
    with Shell.rebuild(state, **options) as other:
        text = "\n".join(other.not_rebuilt)
        assert f"directory {gone}: gone" in text
        assert "process in the background: sleep 1000" in text
        assert f"open descriptor 7 {tmp_path}/held" in text
        assert "RLIMIT_NONSENSE" in text
        assert "RLIMIT_NOFILE 9/5" in text
        assert other.run("true").ok
    assert hard == resource.getrlimit(resource.RLIMIT_CORE)[1]


def test_a_state_too_large_says_what_is_missing(plain, monkeypatch):
    monkeypatch.setattr("crabrt.process.shell.recording.STATE_MOST_BYTES", 200_000)
    plain.run("aaa=1; zzz=$(head -c 90000 /dev/zero | tr '\\0' x); zzzz=$zzz$zzz; f() { :; }")
    state = plain.record_state()
    assert "variable zzzz: too large, or not told" in state.left_out
    assert "variable zzz: too large" not in " ".join(state.left_out)
    assert {"aaa", "zzz"} <= {one.name for one in state.variables}
    assert plain.run("echo $aaa ${#zzzz}").output == "1 180000\n"


def test_states_can_be_stored(plain):
    plain.run(EVERYTHING)
    state = plain.record_state()
    stored = msgspec.msgpack.encode(state)
    assert msgspec.msgpack.decode(stored, type=ShellState) == state


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'declare -- x="a"', ("", b"x", b'"a"')),
        (b"declare -ix x\n", ("ix", b"x", None)),
        (b"declare -a x=([0]=\"a\" [1]=$'b')", ("a", b"x", b"([0]=\"a\" [1]=$'b')")),
        (b"declare -a x=()", ("a", b"x", b"()")),
        (b'declare -- x="a" y="b"', None),
        (b'declare -- x="a$b"', None),
        (b'declare -- x="a\\$b"', ("", b"x", b'"a\\$b"')),
        (b"declare -- x=$'a'$(b)", None),
        (b"declare -a x=([0]=a)", None),
        (b"echo", None),
    ],
)
def test_literals_are_told_from_code(text, expected):
    assert declaration(text) == expected
