"""What a page can be asked: one table that checks requests and that the OpenAPI document is made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlencode

from ..exceptions import FilterError
from ..query.errors import did_you_mean

MAX_TEXT: Final = 10_000
MAX_REPEATS: Final = 100
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)
_FLAGS: Final = {"true": True, "false": False}


class Kind(StrEnum):
    """What a parameter takes."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "true or false"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row: ``least`` and ``most`` bound a number, or the length of a text; ``many`` may be repeated.

    ``pattern`` is what all of a text matches, such as ``example``. ``in_path`` is a part of the path. An
    empty text counts as none, as a form sends what is not filled in.
    """

    name: str
    help: str
    kind: Kind = Kind.TEXT
    default: Any = None
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    example: str | None = None
    many: bool = False
    in_path: bool = False

    def read(self, texts: Sequence[str]) -> Any:
        """The value that is meant by what was given.

        Raises:
            ParameterError: it cannot be used.
        """
        given = [text for text in texts if text or self.kind is not Kind.TEXT or self.choices]
        if self.many:
            if len(texts) > MAX_REPEATS:
                raise ParameterError(f"{self.name} may be given at most {MAX_REPEATS} times")
            return tuple(map(self._read_one, given)) or self.default or ()
        if len(given) > 1:
            raise ParameterError(f"{self.name} is given {len(given)} times; it is taken once")
        return self._read_one(given[0]) if given else self.default

    def takes(self) -> str:
        """What it takes, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.example is not None:
            return f"text such as {self.example}"
        if self.kind is Kind.TEXT:
            return f"at most {self.most or MAX_TEXT:,} characters"
        bounds = [f"{word} {bound:,}" for word, bound in (("from", self.least), ("to", self.most)) if bound]
        return " ".join([str(self.kind), *bounds])

    def _read_one(self, text: str) -> Any:
        value = _parse(self.kind, text)
        if value is None or not self._is_within(value):
            shown = text if len(text) <= 60 else f"{text[:60]}…"
            raise ParameterError(f"{self.name} takes {self.takes()}, not {shown!r}")
        return value

    def _is_within(self, value: Any) -> bool:
        if not isinstance(value, str):
            return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            return False
        return len(value) <= (self.most or MAX_TEXT) and (not self.choices or value in self.choices)


class ParameterError(FilterError):
    """A parameter that a page does not have, or a value that it does not take."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a page was asked: every parameter of its table by name, checked.

    ``given`` is what stood in the address, to make others from.
    """

    values: Mapping[str, Any]
    given: Mapping[str, tuple[str, ...]]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def text(self, name: str) -> str | None:
        """A text, or ``None`` where none was given."""
        value = self.values[name]
        return None if value is None else str(value)

    def query(self, **changes: Any) -> str:
        """The query string with some parameters changed; ``None`` leaves one out."""
        return encode({**self.given, **changes})


def read_parameters(
    table: Iterable[Parameter], given: Iterable[tuple[str, str]], path: Mapping[str, str]
) -> Parameters:
    """The parameters of a request, checked against the table.

    Raises:
        ParameterError: one is not in the table, or its value cannot be used.
    """
    rows = {row.name: row for row in table}
    texts: dict[str, list[str]] = {}
    for name, text in given:
        if name not in rows or rows[name].in_path:
            raise ParameterError(f"there is no parameter {name[:60]!r} here{did_you_mean(name, list(rows))}")
        texts.setdefault(name, []).append(text)
    values = {
        name: row.read([path[name]] if row.in_path else texts.get(name, ())) for name, row in rows.items()
    }
    return Parameters(
        values, {name: kept for name, all_ in texts.items() if (kept := tuple(filter(None, all_)))}
    )


def encode(pairs: Mapping[str, Any]) -> str:
    """Pairs as a query string; ``None``, an empty text and an empty list are left out."""
    flat = {name: _spelled(value) for name, value in pairs.items() if value not in (None, "", (), [])}
    return urlencode(flat, doseq=True)


def _spelled(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return list(value) if isinstance(value, (tuple, list)) else str(value)


def _parse(kind: Kind, text: str) -> Any:
    """The value, or ``None`` where the text is not of this kind."""
    match kind:
        case Kind.INTEGER:
            return int(text) if _INTEGER.fullmatch(text) else None
        case Kind.NUMBER:
            return float(text) if _NUMBER.fullmatch(text) else None
        case Kind.FLAG:
            return _FLAGS.get(text)
    return text


FILTER: Final = Parameter("filter", "Which traces: a filter in the query language; all by default.")
SINCE: Final = Parameter(
    "since",
    "From when on: `2h ago`, `yesterday`, an ISO date or ms since 1970; a day before `until` by default.",
    most=100,
)
UNTIL: Final = Parameter("until", "Until when, likewise; until now by default.", most=100)
RANGE: Final = (FILTER, SINCE, UNTIL)
"""What every page about many traces takes."""

_OFFERED: Final = {
    "15m ago": "15 min",
    "1h ago": "1 hour",
    "6h ago": "6 hours",
    "24h ago": "24 hours",
    "7d ago": "7 days",
    "30d ago": "30 days",
    "0": "All",
}


@dataclass(frozen=True, slots=True)
class Offer:
    """One range to choose: what ``since`` would be, and whether it is so now."""

    since: str
    title: str
    is_chosen: bool


def range_context(query: Parameters) -> dict[str, list[Offer]]:
    """``ranges`` for the template of a page."""
    return {"ranges": offered_ranges(query)}


def offered_ranges(query: Parameters) -> list[Offer]:
    """The ranges that a page offers, all up to now."""
    since = query.text("since") or "24h ago"
    is_open = query.text("until") is None
    return [Offer(one, title, is_open and one == since) for one, title in _OFFERED.items()]
