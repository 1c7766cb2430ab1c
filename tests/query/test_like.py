"""``LIKE`` and ``RLIKE`` of long texts: the same answers, in bounded time."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom import TraceClient
from wherefrom.exceptions import QueryTimeoutError
from wherefrom.query.like import compile_like
from wherefrom.query.regex import _is_found
from wherefrom.stores.deadline import Deadline
from wherefrom.stores.sqlite.dialect import SQLITE
from wherefrom.stores.sqlite.store import SQLiteStore

from ..web.samples import make_trace

PARTS = st.sampled_from(
    ["%", "_", "a", "A", "b", "é", "É", "🙂", "*", "?", "[", "]", "\\", "'", "\n", "ab", "__"]
)
PATTERNS = st.lists(PARTS, max_size=12).map("".join)
TEXTS = st.text("aAbéÉ🙂*?[]\\'\n", max_size=30)


@pytest.fixture(scope="module")
def sqlite() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


@given(PATTERNS, TEXTS)
def test_it_answers_as_sqlite_does(sqlite: sqlite3.Connection, pattern: str, text: str) -> None:
    """Where the case of ASCII letters matters, and where it does not."""
    native = sqlite.execute(
        "SELECT ? GLOB ?, ? LIKE ?", (text, SQLITE.pattern(pattern), text, pattern)
    ).fetchone()
    ours = [compile_like(pattern, ignores_case=ignores)(text) for ignores in (False, True)]
    assert ours == list(map(bool, native))


@given(TEXTS, st.data())
def test_a_pattern_made_of_a_text_finds_it(text: str, data: st.DataObject) -> None:
    """With any characters replaced by ``_`` and any pieces by ``%``."""
    pattern = ""
    for char in text:
        pattern += data.draw(st.sampled_from([char, char, "_", "%", f"%{char}", "%_"]))
    assert compile_like(pattern, ignores_case=False)(text)


RANDOM = random.Random(1)
ROWS: dict[str, str] = {
    "one letter": "a" * 1_000_000,
    "its end differs": "a" * 999_999 + "é",
    "two letters": "".join(RANDOM.choices("ab", k=10_000)) * 100,
    "many letters": "".join(map(chr, RANDOM.choices(range(192, 1200), k=10_000))) * 100,
}
HOSTILE = {
    "a long part": f"%{'a' * 1000}b%",
    "a very long part": f"%{'a' * 49_000}b%",
    "parts": "%" + "a%" * 500 + "b",
    "unknown letters": f"%{'_' * 1000}b%c",
    "letters and unknown ones": "%" + "a_" * 450 + "b%",
    "many of these": "%" + "a_" * 24_000 + "b%",
    "short ones": "%" + "a_%" * 16_000 + "b",
    "all letters": "%" + "".join(f"{chr(192 + number)}_" for number in range(900)) + "%",
}


@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_pattern_takes_long_between_two_checks(pattern: str) -> None:
    """Of a text of 1 MB: what can end it is asked every few milliseconds."""
    calls: list[float] = []
    for text in ROWS.values():
        calls.append(time.thread_time())
        is_like = compile_like(
            HOSTILE[pattern], ignores_case=True, check=lambda: calls.append(time.thread_time())
        )
        assert is_like(text) in (True, False)
        calls.append(time.thread_time())
    assert max(after - before for before, after in pairwise(calls)) < 0.5


# --- Regular expressions ------------------------------------------------------------------------------------


@given(
    st.sampled_from(
        [r"a+b", r"\bab\b", "a$", "^a", "(?m)^b$", r"é.", ".*b", r"a\z", "🙂?b", r"\Ba", "(?:)", "b{2}"]
    ),
    TEXTS,
    st.integers(1, 9),
)
def test_a_search_in_steps_finds_the_same(pattern: str, text: str, step: int) -> None:
    """However the text is divided."""
    re2 = pytest.importorskip("re2")
    compiled = re2.compile(pattern)
    stepwise = _is_found(compiled, text.encode(), step, lambda _seconds: None)
    assert stepwise == (compiled.search(text.encode()) is not None)


PATTERNS_OF_RE2 = {
    "many states": "a(a|b){200}c",
    "repetitions": "(?i)(a.{1,30}){20}z",
    "classes": r"\w{100}\d",
    "alternatives": "(" + "|".join("a" * n + "[ab]" * (60 - n) for n in range(60)) + ")c",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLiteStore]:
    """Traces whose root span has one of the texts as its input."""
    store = SQLiteStore(tmp_path_factory.mktemp("long") / "wherefrom.db")
    store.write(
        [make_trace(number, attributes={"text": text}) for number, text in enumerate(ROWS.values(), 1)]
    )
    yield store
    store.close()


@pytest.mark.parametrize(
    "condition",
    [f"LIKE '{pattern}'" for pattern in HOSTILE.values()]
    + [f"ILIKE '{pattern}'" for pattern in HOSTILE.values()]
    + [f"RLIKE '{pattern}'" for pattern in PATTERNS_OF_RE2.values()],
    ids=[f"{operator} {name}" for operator in ("LIKE", "ILIKE") for name in HOSTILE]
    + [f"RLIKE {name}" for name in PATTERNS_OF_RE2],
)
def test_a_query_of_large_values_ends_at_its_deadline(store: SQLiteStore, condition: str) -> None:
    """Within it, or soon after: no single call goes on past it for long."""
    started = time.thread_time()
    try:
        with Deadline(0.2):
            TraceClient(store).search_traces(filter_string=f"span.attributes.text {condition}")
    except QueryTimeoutError:
        pass
    assert time.thread_time() - started < 1.2
