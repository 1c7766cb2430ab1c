"""Experiments are searched by their name as SQLite would."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.exceptions import FilterError
from wherefrom.query.experiments import search_experiments
from wherefrom.query.tree import quote

NAMES = ["chat", "Chat", "shop", "shop_eu", "100%", "a\nb", "\u017fhop", "\u212a"]
EXPERIMENTS = list(enumerate(NAMES, start=1))

texts = st.text(alphabet="aAbkkKsS%_\n.*[\u017f\u212aé", max_size=8)


def found(text: str | None, order_by: list[str] | None = None) -> list[str]:
    return [name for _, name in search_experiments(EXPERIMENTS, text, order_by)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, NAMES[::-1]),
        ("name = 'chat'", ["chat"]),
        ("name != 'chat' AND name LIKE '%ha%'", ["Chat"]),
        ("name IN ('chat', 'shop')", ["shop", "chat"]),
        ("name NOT IN ('chat', 'shop') AND name RLIKE '^sh'", ["shop_eu"]),
        ("name LIKE 'chat' OR name ILIKE 'SHOP'", ["shop", "chat"]),
        ("name NOT LIKE '%o%' AND name NOT ILIKE '%A%'", ["\u212a", "100%"]),
        ("NOT name LIKE '%'", []),
        ("name IS NULL", []),
        ("name IS NOT NULL AND name = '\u212a'", ["\u212a"]),
        ("name LIKE 'a_b'", ["a\nb"]),
    ],
)
def test_a_filter_on_the_name(text: str | None, names: list[str]) -> None:
    """Every operator that a trace's name has; the latest experiment comes first."""
    assert found(text) == names


@given(pattern=texts, name=texts)
def test_patterns_match_as_in_sqlite(pattern: str, name: str) -> None:
    """``LIKE`` minds case, and ``ILIKE`` ignores that of ASCII letters alone."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA case_sensitive_like = ON")
        (like,) = connection.execute("SELECT ? LIKE ?", (name, pattern)).fetchone()
        connection.execute("PRAGMA case_sensitive_like = OFF")
        (ilike,) = connection.execute("SELECT ? LIKE ?", (name, pattern)).fetchone()
    for operator, matches in (("LIKE", like), ("ILIKE", ilike)):
        text = f"name {operator} {quote(pattern)}"
        assert bool(search_experiments([(1, name)], text)) == bool(matches)
        assert bool(search_experiments([(1, name)], f"NOT {text}")) != bool(matches)


@pytest.mark.parametrize("pattern", ["%a" * 200, "%_" * 200 + "b", "%a%_" * 100 + "b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    """Names and patterns are both untrusted input."""
    started = time.process_time()
    search_experiments([(1, "a" * 5_000)], f"name LIKE {quote(pattern)}")
    assert time.process_time() - started < 1


def test_orders() -> None:
    """By name or by id, one after the other; ties go to the latest."""
    assert found(None, ["name"]) == sorted(NAMES)
    assert found(None, ["creation_time ASC"]) == NAMES
    assert found(None, ["attributes.name DESC", "experiment_id"]) == sorted(NAMES, reverse=True)


@pytest.mark.parametrize(
    ("text", "order"), [("status = 'OK'", None), (None, ["status"]), (None, ["name UP"])]
)
def test_nothing_else_can_be_asked_for(text: str | None, order: list[str] | None) -> None:
    """Traces' other fields are not an experiment's."""
    with pytest.raises(FilterError):
        found(text, order)
