"""Databases with more in memory than on the disk: PostgreSQL, and SQLite held open in WAL mode."""

from __future__ import annotations

from typing import Final

from crabrt.testing.tasks.asking import CTL
from crabrt.testing.tasks.task import Task, sh

_START: Final = """\
# PostgreSQL refuses to be root: root hands it to another user, who may read what root may.
as=""
[ "$(id -u)" != 0 ] || as="setpriv --reuid=65534 --regid=65534 --clear-groups
    --inh-caps=+dac_override --ambient-caps=+dac_override"
mkdir -p data
[ "$(id -u)" != 0 ] || chown 65534:65534 data
umask 077
$as initdb -D data -U crab -A trust --no-sync -E UTF8 --locale=C > /dev/null
# An image holds System V shared memory only together with its IPC namespace.
own=""
[ "$(id -u)" != 0 ] || own="unshare --ipc"
setsid $own $as postgres -D data -p "$PORT" -h 127.0.0.1 -k "" -c fsync=off \\
    -c dynamic_shared_memory_type=mmap -c autovacuum=off -c shared_buffers=8MB \\
    > /dev/null 2>&1 < /dev/null &
for i in $(seq 400); do
    psql -h 127.0.0.1 -p "$PORT" -U crab -d postgres -c "select 1" > /dev/null 2>&1 && break
    sleep 0.02
done
"""

_ASK: Final = 'psql -h 127.0.0.1 -p "$PORT" -U crab -d postgres -qAt -c "$1"\n'

POSTGRESQL = Task(
    "postgresql",
    "PostgreSQL: rows in an unlogged table, which no crash of the server survives",
    files={"start.sh": _START, "sql": _ASK},
    programs=("initdb", "postgres", "psql", "setpriv", "unshare"),
    apart=("data",),
    turns=(
        (sh("sh start.sh; echo started"),),
        (sh("sh sql 'create unlogged table crabs (name text, legs int)'"),),
        (sh("""sh sql "insert into crabs values ('hermit', 10), ('king', 8)" """),),
        (sh("sh sql 'select sum(legs) from crabs' > legs"),),
        (sh("sh sql 'create sequence tags'"), sh("sh sql \"select nextval('tags')\"")),
        (sh("cat legs"),),
        (sh("""sh sql "insert into crabs values ('spider', 8)"; echo 3 > count"""),),
        (sh("sh sql \"select nextval('tags')\"; sh sql 'select count(*) from crabs'"),),
    ),
    questions=(
        sh("sh sql 'select name, legs from crabs order by name' || echo absent"),
        sh("sh sql 'select last_value from tags' || echo absent"),
    ),
)

_NOTES: Final = """\
import os, sqlite3, sys
from ctl import serve

base = sqlite3.connect("notes.db", isolation_level=None)
base.execute("pragma journal_mode=wal")
base.execute("pragma wal_autocheckpoint=0")
base.execute("create table if not exists notes (text)")
is_open = False


def answer(verb, *words):
    global is_open
    if verb == "add":
        if not is_open:
            base.execute("begin immediate")
            is_open = True
        base.execute("insert into notes values (?)", (words[0],))
    elif verb == "commit":
        base.execute("commit")
        is_open = False
    elif verb == "fold":
        base.execute("pragma wal_checkpoint(truncate)")
    found = [text for text, in base.execute("select text from notes order by rowid")]
    return f"{','.join(found)} {'open' if is_open else 'settled'}"


serve(sys.argv[1], answer)
"""

SQLITE = Task(
    "sqlite-wal",
    "SQLite in WAL mode, held open by a process that is in the middle of a transaction",
    files={"ctl.py": CTL, "notes.py": _NOTES},
    apart=("notes.db", "notes.db-wal", "notes.db-shm", "__pycache__"),
    turns=(
        (sh("setsid $PY notes.py $PORT > log 2>&1 < /dev/null & $PY ctl.py $PORT up"),),
        (sh("$PY ctl.py $PORT add first"),),
        (sh("$PY ctl.py $PORT commit"),),
        (sh("$PY ctl.py $PORT add second; echo 2 > count"),),
        (sh("cat count log"),),
        (sh("$PY ctl.py $PORT add third"),),
        (sh("$PY ctl.py $PORT commit; $PY ctl.py $PORT fold"),),
        (sh("echo 3 > count"),),
        (sh("$PY ctl.py $PORT add fourth"),),
    ),
    questions=(
        sh("$PY ctl.py $PORT look"),
        sh(
            "[ -e notes.db ] && $PY -c \"import sqlite3; print(sqlite3.connect('notes.db')"
            ".execute('select count(*) from notes').fetchone())\" || echo absent"
        ),
    ),
)
