"""Small plots made of characters: bars on a scale, and series as a row of columns."""

from __future__ import annotations

from collections.abc import Sequence

COLUMNS = " ▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_FULL, _WAIT, _BEYOND = "█", "░", "»"


def sparkline(values: Sequence[float], width: int) -> str:
    """`values` as columns of up to eight eighths, one a cell; the largest is full.

    What is above nothing is never drawn as nothing.

    Args:
        values: at least 0.
        width: cells at most; further values are left out.
    """
    shown = values[:width]
    largest = max(shown, default=0.0)
    if largest <= 0:
        return COLUMNS[1] * len(shown) if shown else ""
    steps = len(COLUMNS) - 1
    return "".join(
        COLUMNS[max(1, round(value / largest * steps)) if value > 0 else 0] for value in shown
    )


def filled(share: float, width: int) -> tuple[str, str]:
    """A share (0 to 1) of `width` cells: what is done, to an eighth of a cell, and what is not."""
    eighths = round(min(1.0, max(0.0, share)) * max(0, width) * 8)
    whole, part = divmod(eighths, 8)
    done = _FULL * whole + (_EIGHTHS[part] if part else "")
    return done, _WAIT * (max(0, width) - len(done))


def wait_and_work(wait: float, work: float, full: float, width: int) -> tuple[str, str, str]:
    """Two amounts after each other on a scale of `width` cells: waited, worked, the rest.

    The first is drawn light, the second solid, to an eighth of a cell; what goes beyond the scale
    ends in ``»``. An amount above nothing gets a mark of its own where there is room for it.

    Args:
        wait: at least 0, in the unit of `full`.
        work: likewise.
        full: what the whole width stands for.
        width: cells.

    Returns:
        Three strings of `width` cells together.
    """
    if width <= 0 or full <= 0:
        return "", "", " " * max(0, width)
    scale = width / full
    beyond = wait + work > full * (1 + 0.5 / width)
    room = width - 1 if beyond else width
    waited = min(room, round(wait * scale))
    if wait > 0 and waited == 0 and work * scale < room - 1:
        waited = 1
    eighths = min((room - waited) * 8, round(work * scale * 8))
    if work > 0 and eighths == 0 and waited < room:
        eighths = 1
    whole, part = divmod(eighths, 8)
    worked = _FULL * whole + (_EIGHTHS[part] if part else "")
    if beyond:
        worked += _FULL * (room - waited - len(worked)) + _BEYOND
    return _WAIT * waited, worked, " " * (width - waited - len(worked))
