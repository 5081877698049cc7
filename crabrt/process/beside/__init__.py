"""The processes of a fork, beside those of the run that it was forked from.

An image names process numbers, ports and paths that the original still has. So what was alive in
another workspace than the one it is restored into comes back in namespaces of its own.

* `network`: a network namespace with nothing but loopback, and whether one is needed.
* `room`, `keeper`: PID and mount namespaces where images of plain processes are restored.
* `coming`: all of it together, for one recorded state.
* `faces`: how the fork's processes are told to people.
* `whose`: telling the processes of a fork from those of the original, by the files that they see.

What it is not: it decides nothing about what is to be alive. docs/internals/processes.md tells the
whole; docs/design/0010-a-fork-has-rooms-of-its-own.md tells why.
May import: ``crabrt.process``, ``workspace``, ``store``, ``core``, ``errors``.
"""
