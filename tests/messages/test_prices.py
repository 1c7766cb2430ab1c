"""Prices: the table that is shipped, a file over it, and what tokens cost."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from wherefrom import Settings
from wherefrom.exceptions import SettingsError
from wherefrom.messages.content import Usage
from wherefrom.messages.prices import Cost, Price, load_prices


def test_the_table_that_is_shipped() -> None:
    """It names its date and its source, and has the usual models of three providers."""
    prices = load_prices()
    assert date.fromisoformat(prices.date).year >= 2026
    assert "openai.com" in prices.source
    assert {name.partition("-")[0] for name in prices.models} >= {"gpt", "claude", "gemini"}
    assert prices.find("gpt-4o") == Price(2.5, 10.0, cache_read=1.25)
    assert all(price.output >= price.input or not price.output for price in prices.models.values())


@pytest.mark.parametrize(
    ("model", "same_as"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("GPT-4o ", "gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("openrouter/google/gemini-2.5-flash-001", "gemini-2.5-flash"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("claude-sonnet-5-latest", "claude-sonnet-5"),
    ],
)
def test_dated_names_and_names_with_a_provider(model: str, same_as: str) -> None:
    """A date, a version and the provider are no part of the name."""
    prices = load_prices()
    assert prices.find(model) == prices.models[same_as]


@pytest.mark.parametrize("model", ["", "/", "gpt", "gpt-4o-audio", "my-model", "gpt-4o-2024", "-latest"])
def test_other_models_have_no_price(model: str) -> None:
    """No price is guessed from the beginning of a name."""
    assert load_prices().find(model) is None


def test_only_the_beginning_of_a_name_counts() -> None:
    """A client may choose a name of many versions, and each of them takes a search."""
    assert load_prices().find("gpt-4o" + "-001" * 40) is not None
    assert load_prices().find("gpt-4o" + "-001" * 1_000) is None


def test_a_name_with_a_date_may_have_a_price_of_its_own() -> None:
    """It comes before that of the name without the date."""
    prices = load_prices()
    assert prices.find("gpt-4o-2024-05-13") == prices.models["gpt-4o-2024-05-13"] != prices.models["gpt-4o"]


def test_what_tokens_cost() -> None:
    """Tokens of the cache are part of the input, at prices of their own where there are any."""
    usage = Usage(1_000_000, 100_000, 1_100_000, 400_000, 100_000)
    own = Price(2, 10, cache_read=0.5, cache_write=4).cost(usage)
    assert own.to_dict() == {"input_cost": 1.6, "output_cost": 1.0, "total_cost": 2.6}
    assert Price(2, 10).cost(usage) == Cost(2.0, 1.0)
    assert Price(2, 10).cost(Usage(0, 0, 0, 5, 5)).total_cost == pytest.approx(2e-5)


def test_a_file_over_the_table(tmp_path: Path) -> None:
    """It overrides single models and adds others; the rest of the table stays."""
    file = tmp_path / "prices.json"
    models = {
        "GPT-4o": {"input": 1, "output": 2},
        "acme/my-model": {"input": 3, "output": 4, "cache_read": 0},
    }
    file.write_text(json.dumps({"models": models}))
    prices = load_prices(str(file))
    assert prices.find("gpt-4o-2024-08-06") == Price(1, 2)
    assert prices.find("acme/my-model") == Price(3, 4, cache_read=0)
    assert prices.find("gpt-4.1") == load_prices().find("gpt-4.1")
    assert load_prices().find("gpt-4o") == Price(2.5, 10.0, cache_read=1.25)


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"models": []}', '{"models": {"m": 1}}', '{"models": {"m": {"input": 1}}}',
        '{"models": {"m": {"input": 1, "output": -1}}}', '{"models": {"m": {"input": true, "output": 1}}}',
        '{"models": {"m": {"input": 1, "output": 1, "other": 1}}}', None,
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops the start, with the variable and its value."""
    file = tmp_path / "prices.json"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("WHEREFROM_PRICES", str(file))
    with pytest.raises(
        SettingsError, match=r"WHEREFROM_PRICES=.*prices.json' cannot be used: it takes a JSON"
    ):
        Settings()


def test_the_setting(tmp_path: Path) -> None:
    """A file that can be read is taken."""
    file: Any = tmp_path / "prices.json"
    file.write_text('{"models": {}}')
    assert Settings(prices=str(file)).prices == str(file)


def test_a_file_without_end(tmp_path: Path) -> None:
    """A device, a pipe, a folder and a file of very many bytes are refused unread."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10_000_001)
    for name in ("/dev/zero", tmp_path / "pipe", tmp_path, tmp_path / "large"):
        with pytest.raises(SettingsError, match="holds no prices"):
            load_prices(str(name))
