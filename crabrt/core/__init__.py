"""The vocabulary: ids, trees, journal entries, verdicts, configuration, ports.

What it is: frozen values, pure functions on them, and the Protocols the floors above implement.
What it is not: a place that touches files, processes or the network. Exceptions are
``clock.boot_id``, which reads a constant of the running kernel, and what every floor that has
threads or databases needs so that a fork does no harm (``forks``, ``databases``).
May import: ``crabrt.errors``, msgspec, blake3, xxhash, sqlite3.
"""
