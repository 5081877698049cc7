"""The namespaces that shells and forks get: their own processes and mounts."""

from __future__ import annotations

from typing import Final

OPTIONS: Final = ("--pid", "--mount", "--propagation", "slave", "--mount-proc", "--fork")
"""Of unshare(1). What is mounted elsewhere later shows inside, what is unmounted goes, and nothing
that is mounted inside shows elsewhere. A private copy, unshare's own choice, would keep a file
system busy that somebody unmounts to take the disk away, and CRIU cannot image what sees that. Only
where the machine's mounts are shared, as systemd makes them; elsewhere nothing reaches a copy."""
