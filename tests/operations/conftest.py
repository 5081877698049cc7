import importlib.util
from pathlib import Path

import pytest


def load_builder():
    path = Path(__file__).with_name("builder.py")
    spec = importlib.util.spec_from_file_location("crab_test_builder", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def builder():
    return load_builder()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def workspace(tmp_path):
    return tmp_path / "workspace"
