"""What people do to runs: find a state, restore, fork, name, thin, verify, ask what is protected.

What it is: the decisions behind the command line, for it and the runtime alike. Every function
takes an opened store (or its directory) and plain values, and returns frozen values.
What it is not: a place that prints, asks, or reads the environment.
Public, by module: ``targets`` (who is meant), ``restoring``, ``forking``, ``naming``, ``roots``
(what gc must keep), ``retention``, ``checking``, ``repairing``, ``measuring``, ``bisecting``,
``comparing``, ``facts``, ``settings_files``.
May import: inspector, workspace, journal, store, core, errors.
"""
