"""litellm's model calls as crabrt's model calls, with one line and nothing else to change.

::

    import crabrt_litellm

    crabrt_litellm.instrument()

After that, ``litellm.completion`` and ``litellm.acompletion`` (streaming too) are recorded inside a
run and answered from the journal on resume, as equal objects of litellm's own classes; so are the
exceptions they raise. Outside of a run they are what they were. Importing this package does nothing
and imports nothing heavy; `instrument` imports litellm.

What it is: a client of crabrt's public face. What it is not: a change to litellm.
"""

from crabrt_litellm.patching import instrument, uninstrument

__all__ = ["instrument", "uninstrument"]
