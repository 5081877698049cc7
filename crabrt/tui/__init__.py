"""``crab tui``: the runs, and the timeline of a run, on one screen, live.

What it is: thin widgets (Textual) over the view state of `timeline`. `pieces`, `lines`, `plots`,
`summary` and `turn_text` make lines of text in tones, without a terminal; `..._view` are widgets,
`..._screen` what fills the terminal; `following` and `background` keep threads apart from it;
`deeds` runs a `crab` command for whatever changes anything, `deed_screen` asks before.
What it is not: a place where anything about a run is decided or computed.

May import: everything below ``cli`` but ``bench``, ``traces`` and ``testing``. Textual is an extra
(``crabrt[tui]``): nothing here is imported before somebody asks for the interface.
"""
