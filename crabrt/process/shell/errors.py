"""What goes wrong with shells."""

from __future__ import annotations

from crabrt.errors import CrabError


class ShellUnavailable(CrabError):
    """A shell cannot be had, or no longer: no bash, no namespace where one was demanded, closed."""

    kind = "shell-unavailable"
