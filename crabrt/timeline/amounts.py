"""Bytes, durations, moments and counts as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

_KIB = 1024


def size(size_bytes: int) -> str:
    """``0 B``, ``612 B``, ``4.0 KiB``, ``1.2 GiB``."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < _KIB:
            return f"{int(amount)} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= _KIB
    return f"{amount:.1f} TiB"


def parse_size(text: str) -> int:
    """Bytes from ``500``, ``64K``, ``20GiB`` (powers of 1024).

    Raises:
        ValueError: it is not a size.
    """
    number = text.strip().rstrip("iBb").strip()
    factor = {"K": 10, "M": 20, "G": 30, "T": 40}.get(number[-1:].upper(), 0)
    amount = float(number[:-1] if factor else number)
    if not 0 <= amount < 1 << 50:
        raise ValueError(text)
    return int(amount * (1 << factor))


def duration(ms: float | None) -> str:
    """``-``, ``0 ms``, ``320 ms``, ``4.1 s``, ``3 m 05 s``, ``2 h 10 m``."""
    if ms is None:
        return ""
    if ms < 1000:
        return f"{ms:.0f} ms" if ms >= 1 or ms == 0 else "<1 ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} m"


def parse_duration_s(text: str) -> float:
    """Seconds from ``90``, ``45s``, ``30m``, ``12h``, ``14d``, ``2w``.

    Raises:
        ValueError: it is not a duration.
    """
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
    factor = units.get(text[-1:].lower())
    amount = float(text[:-1] if factor else text)
    if not 0 <= amount < 1 << 40:
        raise ValueError(text)
    return amount * (factor or 1)


def iso(wall_ns: int | None) -> str | None:
    """A moment for programs: ISO 8601 in UTC with milliseconds, or None."""
    if wall_ns is None:
        return None
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def clock(wall_ns: int | None) -> str:
    """A moment for people: local time, the date only where it is not today."""
    if wall_ns is None:
        return ""
    moment = datetime.fromtimestamp(wall_ns / 1e9, UTC).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return moment.strftime("%H:%M:%S" if moment.date() == today else "%Y-%m-%d %H:%M")


def count(number: int, singular: str, plural: str | None = None) -> str:
    """``1 file``, ``3 files``, ``0 entries``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
