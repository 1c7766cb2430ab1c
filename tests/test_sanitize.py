from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from wherefrom._sanitize import visible, visible_json, visible_lines, without_secrets

HOSTILE = "\x1b[2J\x1b]0;t\x07[bold red]x[/]\n\u202egnp\x9b1m\u200b\x7f'\"\\"


def test_printable_text_stays_as_it_is() -> None:
    for text in ("", "GET /", "Grüße, 東京", "[red]markup[/red]", "a\\b"):
        assert visible(text) == text


def test_what_cannot_be_seen_is_written_out() -> None:
    assert visible("a\x1b[31m\n\u202eb\x9b\u200b") == r"a\x1b[31m\n\u202eb\x9b\u200b"
    assert visible("\ud800") == r"\ud800"
    assert visible("\U000e0041") == r"\U000e0041"


@given(st.text())
def test_nothing_visible_steers_the_terminal(text: str) -> None:
    shown = visible(text)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_lines_stay_lines() -> None:
    assert visible_lines("a\r\n\tb\x1bc\nd\re") == ["a", r"    b\x1bc", r"d\re"]


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_json_means_the_same_when_made_visible(value: dict[str, str]) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    shown = visible_json(text)
    assert json.loads(shown) == value
    assert all(line.isprintable() for line in shown.split("\n"))


def test_json_of_a_hostile_value_is_harmless() -> None:
    shown = visible_json(json.dumps(HOSTILE, ensure_ascii=False))
    assert shown.isprintable()
    assert json.loads(shown) == HOSTILE


def test_credentials_in_urls_are_masked() -> None:
    for secret in (
        "postgresql://me:hunter2@db/wherefrom",
        "'postgresql://hunter2@db/wherefrom' cannot be used",
        "postgresql://db/wherefrom?password=hunter2&x=1",
        "mlflow+https://me:hun@ter2hunter2@host:1?experiment=a",
        "otlp+https://host?api_key=hunter2",
        "postgresql://me:hun?hunter2@host/db",
        "clickhouse://me:1/hunter2#hunter2@host/db?secure=true",
    ):
        assert "hunter2" not in without_secrets(secret)
    assert without_secrets("sqlite:///a@b.db?x=1") == "sqlite:///a@b.db?x=1"
