"""Recorded paths in the workspace at hand: a trace speaks of the directory that it was made in."""

from __future__ import annotations

import os
import re

from crabrt.traces.values import boundary


class OutsideWorkspace(Exception):
    """A recorded edit names a file that is not in the workspace: it is left alone."""


class Places:
    """Translates recorded paths.

    Args:
        recorded: the directory that the trace speaks of; empty: none, paths are as they are.
        workspace: the directory it runs in now.
    """

    def __init__(self, recorded: str, workspace: str) -> None:
        self.workspace = os.path.realpath(workspace)
        self._recorded = recorded.rstrip("/")
        known = len(self._recorded) > 1
        self._pattern = re.compile(boundary(self._recorded)) if known else None

    def command(self, text: str) -> str:
        """A command line with the recorded directory replaced, wherever it stands as a path."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda _: self.workspace, text)

    def directory(self, recorded: str | None) -> str:
        """Where a command runs: the recorded directory here, the workspace where it is not there.

        A directory outside of the recorded workspace stays what it is, if it exists.
        """
        if recorded is None:
            return self.workspace
        path = os.path.join(self.workspace, self._moved(recorded))
        return path if os.path.isdir(path) else self.workspace

    def file(self, recorded: str) -> str:
        """The file that an edit means.

        Raises:
            OutsideWorkspace: it is not below the workspace, links followed.
        """
        path = os.path.join(self.workspace, self._moved(recorded))
        if "\0" in path:
            raise OutsideWorkspace(recorded)
        real = os.path.realpath(path)
        if not real.startswith(self.workspace.rstrip("/") + "/"):
            raise OutsideWorkspace(recorded)
        return path

    def _moved(self, path: str) -> str:
        old = self._recorded
        if old and (path == old or path.startswith(old + "/")):
            return self.workspace + path[len(old) :]
        return path
