"""The way from one directory of the index to another, on disk: by descriptors, a name at a time."""

from __future__ import annotations

from crabrt.workspace.dirfd import DirStack
from crabrt.workspace.index import Dir


class Lost(Exception):
    """A directory that the index has cannot be entered.

    Attributes:
        dir: the topmost such directory on the way.
        error: why.
    """

    def __init__(self, node: Dir, error: OSError) -> None:
        super().__init__(str(error))
        self.dir = node
        self.error = error


class Cursor:
    """Where a walk is, on disk (`stack`) and in the index."""

    __slots__ = ("_chain", "stack")

    def __init__(self, stack: DirStack, root: Dir) -> None:
        self.stack = stack
        self._chain = [root]

    def go(self, target: Dir) -> int:
        """Go to `target`; its descriptor, valid until the next move.

        Raises:
            Lost: it, or a directory above it, is not there or locked; the walk is just above that.
            DirectoryMoved: the way back up is not what it was.
        """
        chain, stack = self._chain, self.stack
        down: list[Dir] = []
        node: Dir | None = target
        while node is not None and not (node.depth < len(chain) and chain[node.depth] is node):
            down.append(node)
            node = node.parent
        assert node is not None, "the root is always in the chain"
        stack.up_to(node.depth)
        del chain[node.depth + 1 :]
        for below in reversed(down):
            try:
                stack.push(below.name)
            except OSError as error:
                raise Lost(below, error) from error
            chain.append(below)
        return stack.fd
