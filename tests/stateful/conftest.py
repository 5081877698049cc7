"""The machine leads the same loops as the crash suite, and asks the same of what they leave."""

import os
import sys
from pathlib import Path

import pytest

LOOPS = Path(__file__).parent.parent / "crash"
if str(LOOPS) not in sys.path:
    sys.path.insert(0, str(LOOPS))


@pytest.fixture(autouse=True)
def _no_settings(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("CRAB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
