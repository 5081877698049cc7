"""The vocabulary: ids, trees, journal entries, verdicts, configuration, ports.

What it is: frozen values, pure functions on them, and the Protocols the floors above implement.
What it is not: a place that touches files, processes or the network. The one exception is
``clock.boot_id``, which reads a constant of the running kernel.
May import: ``crabrt.errors``, msgspec, blake3, xxhash.
"""
