"""The two themes of this interface: quiet grounds, and colours that only say something."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="crab-dark",
    primary="#6c9bd2",
    secondary="#b79ad0",
    accent="#6fb3a8",
    success="#86b97b",
    warning="#d8a657",
    error="#df7079",
    foreground="#d7dade",
    background="#14161a",
    surface="#181b20",
    panel="#22262d",
    dark=True,
)
"""For terminals with a dark ground; the one that is shown first."""

LIGHT = Theme(
    name="crab-light",
    primary="#2b62a8",
    secondary="#7b4f9d",
    accent="#1d7a6e",
    success="#3c7a35",
    warning="#96610a",
    error="#b3303c",
    foreground="#22262b",
    background="#ffffff",
    surface="#fbfbf9",
    panel="#ebece8",
    dark=False,
)
"""For terminals with a light ground."""
