r"""What is said to bash: the program of a session's first process, and the lines its shell reads.

The shell is interactive, so that no error of a command ends it: an unset variable, a syntax error,
a failed ``exec``, SIGINT and SIGTERM only end the command. It has no terminal and no prompt. It
reads lines from a FIFO. A command is two of them: the first sources a file that evaluates the text,
with the command's own standard descriptors; the second reports how that went. Bash reads both as
one block, and an interrupt, which makes it drop the line that it is at, leaves it the report.

Sourced, because then bash does not announce background jobs; evaluated in that, because then its
messages name no file. What a shell itself writes at its prompt goes nowhere, so the lines of
protocol show in no trace and no trap of the user's. Every builtin is called by ``\builtin``, which
no alias and no function but one shadows.
"""

from __future__ import annotations

import re
from typing import Final

START: Final = '. "$1/keeper"'
"""How the first process comes to its program: not by an argument that every ``ps`` would show, nor
as a script, which would stay open."""

KEEPER: Final = rb"""
exec 2>/dev/null
for fd in /proc/self/fd/*; do
  fd=${fd##*/}
  if ((fd > 2)); then exec {fd}>&-; fi
done
exec 0<>"$1/control" 3<>"$1/command" 4<>"$1/status" 5<>"$1/output" 6<>"$1/errors" 7<>"$1/state"
exec 1>/dev/null 2>&1
cd /
SHLVL=$((SHLVL - 1))
printf '\0\0init\0%s\0' "$$" >&4
while IFS= read -r -d '' where; do
  ( cd -- "$where" || cd /
    unset OLDPWD
    printf '\0\0shell\0%s\0' "$BASHPID" >&4
    exec setsid "$2" --norc --noprofile --noediting -i +H +o history \
      0<>"$1/command" 1>"$1/output" 2>/dev/null 3>&- 4>&- 5>&- 6>&- 7>&- )
  printf '\0\0ended\0%s\0' "$?" >&4
done
"""
"""Holds the channels open, and starts a shell whenever it is told where. As the first process of a
PID namespace it inherits and reaps what loses its parent. It opens its descriptors itself and
closes those that came along: what was opened in another mount namespace cannot be in an image. The
shell is no job in the background, for there its children would ignore SIGINT.
"""

SETTINGS: Final = (
    b"PS1= PS2=; \\builtin set -m; \\builtin shopt -s execfail; "
    b"\\builtin unset HISTFILE MAILCHECK\n"
)
"""Job control gives every job a process group, without a terminal as well. An ``exec`` that fails
does not end the shell."""

REPAIR: Final = b"POSIXLY_CORRECT=y\n\\unset -f builtin\n\\unset POSIXLY_CORRECT\n"
"""Finds the special builtin ``unset`` before any function, to get rid of one called ``builtin``."""

AGAIN: Final = b'\\builtin return "$1"\n'
"""Content of the file that sets ``$?`` without starting a process."""

_SPECIAL = re.compile(rb"[^ !#-&(-\[\]-~]")


def quoted(text: bytes) -> bytes:
    """`text` as one word of bash, in characters that mean the same in every locale.

    Octal throughout: bytes of a character may be quotes and backslashes in some locales.
    """
    return b"$'" + _SPECIAL.sub(lambda found: b"\\%03o" % found[0][0], text) + b"'"


def command_file(text: bytes, nonce: str, status: int, directory: bytes) -> bytes:
    """The file to source for a command: one line, as lines of `text` are numbered from its own.

    It says first that the command is begun. A report alone does not prove that: what runs at the
    prompt may have swallowed the line before it.

    Args:
        text: what the user typed, without NUL.
        nonce: of the command.
        status: what ``$?`` is when it begins.
        directory: of the channels.
    """
    channel = quoted(directory + b"/status")
    begun = b"\\builtin printf '\\0\\0begun\\0%%s\\0' %s 1<>%s" % (nonce.encode(), channel)
    # Neither ``set -e`` nor an ERR trap minds what fails before ``&&``.
    before = b"\\builtin . %s %d && :" % (quoted(directory + b"/again"), status)
    return b"%s; %s; \\builtin eval -- %s\n" % (begun, before, quoted(text))


def run_line(directory: bytes, name: str, *, separate_errors: bool) -> bytes:
    """Run the command file `name`. The outer redirection is for what traps print on our account."""
    errors = quoted(directory + b"/errors") if separate_errors else b"&1"
    return b"{ \\builtin . %s </dev/null >%s 2>%s; } >/dev/null 2>&1\n" % (
        quoted(directory + b"/" + name.encode()),
        quoted(directory + b"/output"),
        errors,
    )


def ask_line(directory: bytes) -> bytes:
    """Run the file ``ask`` with its output to ``state``."""
    return b"{ \\builtin . %s </dev/null 1<>%s; } >/dev/null 2>&1\n" % (
        quoted(directory + b"/ask"),
        quoted(directory + b"/state"),
    )


def state_line(directory: bytes, command: bytes) -> bytes:
    """Run a builtin at the top level, not in a sourced file, its output and a NUL to ``state``."""
    state = quoted(directory + b"/state")
    return b"{ \\builtin %s 1<>%s; \\builtin printf '\\0' 1<>%s; } </dev/null >/dev/null 2>&1\n" % (
        command,
        state,
        state,
    )


def report_line(directory: bytes, nonce: str) -> bytes:
    """Report ``$?``, the shell's flags and directory. The last argument leaves ``$_`` empty."""
    status = quoted(directory + b"/status")
    return (
        b'{ \\builtin printf \'\\0\\0report\\0%%s\\0%%s\\0%%s\\0\' %s "$?" "$-" 1<>%s; '
        b"\\builtin pwd 1<>%s; \\builtin printf '\\0' '' 1<>%s; } </dev/null >/dev/null 2>&1\n"
    ) % (nonce.encode(), status, status, status)
