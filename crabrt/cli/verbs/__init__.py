"""The verbs of ``crab``, one module each; each has a click command named ``command``."""
