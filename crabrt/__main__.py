"""``python -m crabrt``: the same program as ``crab``."""

from crabrt.cli import main

if __name__ == "__main__":
    main()
