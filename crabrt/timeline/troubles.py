"""What is told in the place of something that could not be shown."""

from __future__ import annotations

from crabrt.errors import CrabError


def in_words(error: Exception) -> str:
    """What a person is told of an error: its own words, or that it is a mistake of ours.

    Not safe to print yet: it may name what a store holds.
    """
    if isinstance(error, CrabError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error} (a bug in crabrt)"
