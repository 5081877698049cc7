"""Moments and amounts as a report words them: the same for every reader, whatever their clock."""

from __future__ import annotations

from datetime import UTC, datetime

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip


def utc(wall_ns: int) -> str:
    """``2026-03-01 14:02:09 UTC``; empty for a moment that is not known."""
    if not wall_ns:
        return ""
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(wall_ns: int) -> str:
    """``1 March 2026, 14:02 UTC``; empty for a moment that is not known."""
    if not wall_ns:
        return ""
    moment = datetime.fromtimestamp(wall_ns / 1e9, UTC)
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M} UTC"


def since(wall_ns: int, origin_ns: int) -> str:
    """``+0:07``, ``+1:02:03``: hours, minutes and seconds since the run began."""
    seconds = (wall_ns - origin_ns) // 1_000_000_000
    sign = "+" if seconds >= 0 else "-"
    minutes, second = divmod(abs(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours}:{minute:02d}:{second:02d}"
    return f"{sign}{minute}:{second:02d}"


def short_count(number: int) -> str:
    """``940``, ``1.2k``, ``31k``, ``2.4M``."""
    for factor, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if number >= factor:
            amount = number / factor
            return f"{amount:.1f}{letter}" if amount < 10 else f"{amount:.0f}{letter}"
    return str(number)


def dollars(amount: float) -> str:
    """``$0.0012``, ``$3.40``; empty for nothing."""
    if amount <= 0:
        return ""
    return f"${amount:.4f}" if amount < 0.1 else f"${amount:,.2f}"
