"""The command line: ``crab``. One module a verb; the only floor that prints.

What it is: options, rendering, the JSON envelope, and the mapping from errors to exit codes.
What it is not: a place for decisions about runs, stores or files; those are in ``operations``.
Public: `main`. Heavy packages (rich, sqlite3, zstandard) are imported by the verbs that need them,
so that ``crab --help`` and completion answer at once.
May import: every floor below.
"""

from __future__ import annotations


def main() -> None:
    """Run the program: parse ``sys.argv``, act, exit with a code of `cli.exits`."""
    from crabrt.cli.program import run_program  # noqa: PLC0415 - importing crabrt.cli stays free

    run_program()


__all__ = ["main"]
