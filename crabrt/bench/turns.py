"""Generated turns: what agents do to a source tree, from a seed.

They are not recorded from anybody; they have the shapes that recorded ones have: few files a turn,
most of them small; now and then a cache, a commit, a log, a database.
"""

from __future__ import annotations

import contextlib
import os
import py_compile
import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping

from crabrt.bench.trees import Tree

_ROWS = 40_000
_ROW_BYTES = 200
_LOG_LINES = 400


class Turns:
    """Plays turns on a tree. `prepare` first, then `play` as often as wanted.

    Args:
        tree: where.
        rng: decides everything.
        environ: what git, for the workspace's own repository, sees.
    """

    def __init__(self, tree: Tree, rng: random.Random, environ: Mapping[str, str]) -> None:
        self._tree = tree
        self._rng = rng
        self._environ = dict(environ) | {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        self._made = 0
        self._kinds: dict[str, Callable[[], None]] = {
            "edit a file": lambda: self._edit(1),
            "edit 3 files": lambda: self._edit(3),
            "create 2 files": self._create,
            "run tests (caches)": self._run_tests,
            "git commit": self._commit,
            "append to a log": self._log,
            "change 10 rows of a database": self._change_rows,
        }

    def prepare(self) -> None:
        """Give the tree a repository, a log and a database of about 10 MB, as before any turn."""
        self._git("init", "--quiet")
        self._git("add", "-A", "-f", ".")
        self._commit()
        self._log()
        with self._database() as db:
            db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, body BLOB, hits INTEGER)")
            rows = ((i, self._rng.randbytes(_ROW_BYTES), 0) for i in range(_ROWS))
            db.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)

    def play(self, number: int) -> str:
        """Play turn `number`; its kind, which are taken in turn."""
        kinds = list(self._kinds)
        kind = kinds[number % len(kinds)]
        self._kinds[kind]()
        return kind

    def _edit(self, count: int) -> None:
        self._tree.edit(count, self._rng).apply()

    def _create(self) -> None:
        sources = [name for name in self._tree.files if name.endswith(".py")]
        for _ in range(2):
            self._made += 1
            beside = self._tree.path / self._rng.choice(sources)
            lines = beside.read_bytes().splitlines(keepends=True)
            self._rng.shuffle(lines)
            (beside.parent / f"made_{self._made}.py").write_bytes(b"".join(lines[:120]))

    def _run_tests(self) -> None:
        """What a test run leaves: byte code of what it imported, a cache of results."""
        sources = [name for name in self._tree.files if name.endswith(".py")]
        for name in self._rng.sample(sources, min(8, len(sources))):
            with contextlib.suppress(py_compile.PyCompileError):  # deliberately broken samples
                py_compile.compile(str(self._tree.path / name), doraise=True)
        cache = self._tree.path / ".pytest_cache" / "v" / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        for name in ("lastfailed", "nodeids", "stepwise"):
            ids = [f'  "{source}::test_{self._rng.randrange(9)}"' for source in sources[:60]]
            (cache / name).write_text("[\n" + ",\n".join(ids) + "\n]\n")

    def _commit(self) -> None:
        who = ("-c", "user.name=agent", "-c", "user.email=agent@localhost")
        self._git(*who, "commit", "--quiet", "--all", "--allow-empty", "-m", "a turn's work")

    def _log(self) -> None:
        with open(self._tree.path / "agent.log", "a", encoding="ascii") as file:
            for line in range(_LOG_LINES):
                stamp = f"{self._rng.randrange(1 << 32):010d}"
                file.write(f"{stamp} INFO worker-{line % 7} handled request {stamp[::-1]}\n")

    def _change_rows(self) -> None:
        with self._database() as db:
            for _ in range(10):
                row = self._rng.randrange(_ROWS)
                db.execute("UPDATE items SET hits = hits + 1 WHERE id = ?", (row,))

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._tree.path / "data.sqlite")
        try:
            with db:
                yield db
        finally:
            db.close()

    def _git(self, *arguments: str) -> None:
        subprocess.run(
            ["git", *arguments],
            cwd=self._tree.path,
            env=self._environ,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
