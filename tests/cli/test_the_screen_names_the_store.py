"""Whether commands that the screen shows have to name their store."""

from crabrt.cli.verbs.tui import _is_default


def test_a_store_is_the_default_if_another_terminal_finds_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("CRAB_HOME", str(tmp_path / "other"))
    assert _is_default(tmp_path / "crabrt")
    assert not _is_default(tmp_path / "other")
    (tmp_path / "config" / "crabrt").mkdir(parents=True)
    (tmp_path / "config" / "crabrt" / "config.toml").write_text(f'home = "{tmp_path}/other"\n')
    assert _is_default(tmp_path / "other")
