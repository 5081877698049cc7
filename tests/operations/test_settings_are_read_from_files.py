import pytest

from crabrt.errors import UsageError
from crabrt.operations.settings_files import read_settings


def test_a_file_that_is_not_there_sets_nothing(tmp_path):
    assert read_settings(tmp_path / "crab.toml") is None
    (tmp_path / "file").write_text("")
    assert read_settings(tmp_path / "file" / "crab.toml") is None


def test_a_table_of_a_file_is_read(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "x"\n[tool.crab]\nobserver = "scan"\n')
    settings = read_settings(path, "tool.crab")
    assert settings.values == {"observer": "scan"}
    assert settings.place("observer") == f"{path}:4"
    assert read_settings(path, "tool.other").values == {}


def test_what_cannot_be_read_is_told_with_its_path(tmp_path):
    (tmp_path / "crab.toml").write_bytes(b"\xff")
    for path, message in (
        (tmp_path / "crab.toml", "not a TOML file"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(UsageError, match=message) as raised:
            read_settings(path)
        assert raised.value.where == str(path)
