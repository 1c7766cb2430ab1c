"""Values from outside: whatever they are, they are kept as plain data and never raise."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import types
import uuid
from collections import OrderedDict, namedtuple
from pathlib import PurePosixPath
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr
from starlette.requests import Request

from wherefrom._capture.values import (
    MAX_JSON_BYTES,
    MAX_KEY_LENGTH,
    clean_pairs,
    clean_text,
    cut,
    dump,
    safe_repr,
    snapshot,
    to_json,
)

CHARACTERS = 'ab"\\\0\n\x7fé中🙂'
TEXT = st.text(CHARACTERS + "\ud800\udfff", max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(CHARACTERS, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Word(str):
    """Lies about itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return "lie"


class Model(BaseModel):
    when: dt.date
    secret: SecretStr


class Broken(BaseModel):
    value: Any

    def model_dump(self, **_options: Any) -> dict[str, Any]:
        raise RuntimeError


@dataclasses.dataclass
class Data:
    value: Any


class Sly:
    """Not even asking whether it has an attribute is safe."""

    def __getattr__(self, name: str) -> Any:
        if name == "model_dump":
            raise RuntimeError(name)
        raise AttributeError(name)

    def __repr__(self) -> str:
        return "Sly()"


Point = namedtuple("Point", "x y")  # noqa: PYI024


def cyclic() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


# --- Text ---------------------------------------------------------------------------------------------------


@given(TEXT, st.integers(0, 25))
def test_cut_text_is_short_enough_and_shows_that_it_was_cut(text: str, limit: int) -> None:
    """Text that fits stays as it is."""
    short = cut(text, limit)
    assert len(short) <= limit
    if len(text) <= limit:
        assert short == text
    else:
        assert short.endswith("..."[:limit])
        assert text.startswith(short[: max(limit - 3, 0)])


@given(TEXT)
def test_clean_text_can_be_encoded(text: str) -> None:
    """Text that already could stays as it is; a lone surrogate becomes a question mark."""
    clean = clean_text(text)
    clean.encode()
    assert len(clean) == len(text)
    assert all(kept in (char, "?") for kept, char in zip(clean, text, strict=True))


def test_text_of_what_cannot_be_printed_names_its_type() -> None:
    """``str`` and ``repr`` may both raise."""
    assert clean_text(Unprintable()) == safe_repr(Unprintable()) == "<Unprintable object, its repr failed>"
    assert clean_text(10**5000) == snapshot(10**5000) == "<int object, its repr failed>"
    assert clean_text(5) == "5"
    assert clean_text(None) == "None"


def test_a_repr_is_cut_and_a_long_one_of_bytes_not_even_made() -> None:
    """At most 1,000 characters."""
    assert safe_repr(b"ab") == "b'ab'"
    assert len(safe_repr(["x" * 5000])) == 1000
    for value in (b"x" * 10**8, bytearray(10**8)):
        assert len(safe_repr(value)) == 1000


def test_pairs_are_cleaned_and_cut() -> None:
    """Keys to 250 characters, values to the limit; ``None`` is left out, anything else becomes text."""
    odd = {"k" * 300: "v" * 300, 5: True, "none": None, "\ud800": "\ud800", "list": [1], "empty": ""}
    assert clean_pairs(odd, 100) == {
        "k" * MAX_KEY_LENGTH: "v" * 97 + "...",
        "5": "True",
        "?": "?",
        "list": "[1]",
        "empty": "",
    }


# --- Snapshots ----------------------------------------------------------------------------------------------


@given(JSON)
def test_plain_data_is_kept_as_it_is(value: Any) -> None:
    """And as another object, so that later changes do not show."""
    kept = snapshot(value)
    assert kept == value
    assert json.loads(to_json(value)) == value
    assert kept is not value or not isinstance(value, (list, dict))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"ab", "b'ab'"),
        (dt.datetime(2020, 1, 1), "2020-01-01 00:00:00"),
        (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "2020-01-01 00:00:00+00:00"),
        (dt.date(2020, 1, 1), "2020-01-01"),
        (dt.time(1, 2), "01:02:00"),
        (dt.timedelta(hours=1), "1:00:00"),
        (decimal.Decimal("1.5"), "1.5"),
        (PurePosixPath("/tmp/x"), "/tmp/x"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (Word("word"), "word"),
        (Point(1, 2), [1, 2]),
        ((1, 2), [1, 2]),
        ({1}, [1]),
        (frozenset({1}), [1]),
        (OrderedDict(a=1), {"a": 1}),
        ({1: 2, None: 3, (1, 2): 4}, {"1": 2, "null": 3, "(1, 2)": 4}),
        ({1: 2, None: 3}, {"1": 2, "null": 3}),
        (Data(Data(1)), {"value": {"value": 1}}),
        (Model(when=dt.date(2020, 1, 1), secret=SecretStr("s")), {"when": "2020-01-01", "secret": "*" * 10}),
        (len, "<built-in function len>"),
        (Model, f"<class '{__name__}.Model'>"),
        (Sly(), "Sly()"),
        (Unprintable(), "<Unprintable object, its repr failed>"),
        (types.MappingProxyType({"a": 1}), "mappingproxy({'a': 1})"),
        (math.inf, math.inf),
        ([math.nan, -math.inf], [None, None]),
        (2**63 - 1, 2**63 - 1),
        (2**70, str(2**70)),
        ([2**70, -(2**63)], [str(2**70), -(2**63)]),
        ("\ud800a", "?a"),
        (cyclic(), [1, "<circular: list 1 level up>"]),
    ],
)  # fmt: skip
def test_anything_is_kept_as_plain_data(value: Any, kept: Any) -> None:
    """What JSON has no form for is kept as its repr; dates, decimals and paths as text, as in MLflow."""
    assert snapshot(value) == kept


@pytest.mark.parametrize(
    "bad", ["\ud800", 2**70, cyclic(), Unprintable(), Broken(value=1), Data(cyclic()), Data("\ud800")]
)
def test_a_value_that_cannot_be_kept_costs_only_itself(bad: Any) -> None:
    """Its neighbours are kept as they are without it."""
    good = {
        "model": Model(when=dt.date(2020, 1, 1), secret=SecretStr("s")),
        "data": Data([True, 1, 1.5, None, "text"]),
        "when": dt.datetime(2020, 1, 1),
        "enum": [Colour.RED, Level.LOW, Word("word")],
        "tuple": (1, {2}),
    }
    kept = snapshot([good, bad])
    assert kept[0] == snapshot(good)
    assert len(kept) == 2
    assert dump(kept)


def test_a_request_is_never_looked_into() -> None:
    """It is a mapping with the credentials of a client in it; it is kept by its repr."""
    request = Request({"type": "http", "headers": [(b"authorization", b"secret")]})
    for value in (request, [request, "\ud800"], {"a": request, "b": 2**70}):
        assert "secret" not in to_json(value)
        assert "<starlette.requests.Request object at " in to_json(value)


def test_arrays_are_lists() -> None:
    """And their scalars numbers."""
    np = pytest.importorskip("numpy")
    assert snapshot({"a": np.arange(3), "f": np.float64(1.5)}) == {"a": [0, 1, 2], "f": 1.5}


def test_a_mock_is_not_taken_for_a_model() -> None:
    """It has every attribute that one asks it for."""
    assert snapshot(MagicMock(name="m")).startswith("<MagicMock name='m'")


def test_nesting_without_end_is_cut() -> None:
    """Deeper than JSON writers go, the rest is kept by its repr."""
    assert snapshot(deep(100)) == deep(100)
    assert "[[[" in to_json(deep(5000))


def test_of_what_is_huge_the_beginning_is_kept() -> None:
    """At most 1 MB of text, in its place: a list of one long text is still a list."""
    for value in (["x" * 2_000_000], "x" * 2_000_000, ["é" * 2_000_000], "🙂" * 2_000_000):
        kept = snapshot(value)
        assert type(kept) is type(value)
        text = kept[0] if isinstance(kept, list) else kept
        assert MAX_JSON_BYTES - 10 <= len(text.encode()) <= MAX_JSON_BYTES
        assert text.endswith("...")
    assert snapshot("x" * MAX_JSON_BYTES) == "x" * MAX_JSON_BYTES


class Hostile(dict[str, int]):
    """None of its methods may be relied on."""

    def items(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")

    __iter__ = __len__ = keys = values = items


def test_a_container_is_read_whatever_its_methods_do() -> None:
    """They are not called."""
    assert snapshot([Hostile(a=1), 2**70]) == [{"a": 1}, str(2**70)]


@given(st.recursive(
    st.none() | TEXT | st.floats() | st.integers() | st.binary(max_size=4) | st.datetimes() | st.decimals()
    | st.sampled_from([Colour.RED, object]) | st.builds(Unprintable) | st.builds(Sly) | st.builds(cyclic),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.builds(Data, inner)
    | st.dictionaries(st.none() | TEXT | st.integers() | st.dates(), inner, max_size=3),
    max_leaves=10,
))  # fmt: skip
def test_a_snapshot_is_plain_json_and_stays_the_same(value: Any) -> None:
    """A snapshot of a snapshot is equal to it: nothing is left to convert."""
    kept = snapshot(value)
    if not isinstance(kept, float):
        assert json.loads(to_json(value)) == kept
        assert snapshot(kept) == kept
    to_json(kept).encode()
