"""The kit that proves the rest, shipped so that others can prove theirs with it.

What it is: an oracle that digests a directory by code of its own (`oracle`), a seeded generator of
hostile turns (`hostile`), real SIGKILLs at named failpoints and at random moments (`crash`), a
model of power loss for append-only files (`powercut`), scripted language models in process
(`model`) and over HTTP (`llm_server`), scripted agents that leave processes behind (`tasks`), and
conformance suites for ports.
What it is not: mocks. Files, processes and signals here are real.
May import: every floor below it. Used by ``bench``, by the demo in ``cli``, and by the tests.
"""
