"""Places for lives, and what the undisturbed ones did."""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))  # what the children import from beside them


@pytest.fixture(autouse=True)
def _no_settings(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("CRAB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
