"""Keys and tokens: known by the name they lie under, or by their shape."""

from __future__ import annotations

import pytest

from crabrt.core.secrets import REDACTED, is_secret_name, redact_text, without_secrets


@pytest.mark.parametrize(
    "name",
    ["api_key", "OPENAI_API_KEY", "apiKey", "x-api-key", "Authorization", "aws_secret_access_key",
     "password", "db_password", "access_token", "client_secret", "Cookie"],
)  # fmt: skip
def test_values_under_these_names_are_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["max_tokens", "token_count", "key", "keys", "sort_key", "author", "tokens", "passage"]
)
def test_values_under_these_names_are_not(name: str) -> None:
    assert not is_secret_name(name)


def test_secrets_go_from_mappings_however_deep() -> None:
    value = {"model": "m", "extra": [{"headers": {"Authorization": "Bearer x", "Accept": "*"}}]}
    assert without_secrets(value) == {
        "model": "m",
        "extra": [{"headers": {"Authorization": REDACTED, "Accept": "*"}}],
    }
    assert without_secrets({"api_key": None}) == {"api_key": None}


def test_tokens_in_text_are_known_by_their_shape() -> None:
    text = "sk-abcdefghijklmnop1234, ghp_abcdefghijklmnopqrst0123; Bearer abc.def-123456"
    shown = redact_text(text)
    assert shown.count(REDACTED) == 3
    assert "sk-abc" not in shown
    assert redact_text("the task is done, sky-high") == "the task is done, sky-high"
