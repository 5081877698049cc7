"""Processes that have no image are started again from their recorded commands.

What that brings back is the program, its arguments, directory, environment, files of output, limits
and sockets; not what it had in memory, its connections, or where it was in its work.

* `recording`: what of a tree can be started again, and what that takes. Read from ``/proc`` at the
  end of a turn, and before a restore ends anybody.
* `starting`: one is started, and waited for until it listens where it listened; by `launcher`, a
  small program between us and it, which `launching` talks with.
* `returning`: all of a state, in the order in which they once began.

Whether any of this may happen is the user's to say, and asked above.
May import: what ``process`` may.
"""
