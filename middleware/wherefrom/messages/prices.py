"""Prices of models, and the cost of the tokens that they used.

``prices.json`` holds the table that is shipped, with its date and source, in dollars for a million tokens. A
file of the same form overrides single models or adds some.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import orjson

from ..exceptions import SettingsError
from .content import Usage

_TOKENS: Final = 1_000_000
_VERSION: Final = re.compile(r"(?:-(?:\d{4}-\d\d-\d\d|\d{8}|\d{3}|latest)|-v\d+(?::\d+)?|@[\w.-]+)$")
_KINDS: Final = ("input", "output", "cache_read", "cache_write")
_MOST: Final = 1e6
_MOST_BYTES: Final = 10_000_000
_MAX_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of model calls, in dollars."""

    input_cost: float = 0.0
    output_cost: float = 0.0

    @property
    def total_cost(self) -> float:
        """The whole cost."""
        return self.input_cost + self.output_cost

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.input_cost + other.input_cost, self.output_cost + other.output_cost)

    def to_dict(self) -> dict[str, float]:
        """The cost as MLflow writes it, rounded to a millionth of a cent."""
        figures = (self.input_cost, self.output_cost, self.total_cost)
        names = ("input_cost", "output_cost", "total_cost")
        return {name: round(figure, 8) for name, figure in zip(names, figures, strict=True)}


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one model, in dollars for a million tokens.

    Without prices of its own, what is read from a cache or written to it costs as much as other input.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None

    def cost(self, usage: Usage) -> Cost:
        """The cost of these tokens."""
        read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
        other = max(usage.input_tokens - read - written, 0)
        cost = other * self.input
        cost += read * (self.input if self.cache_read is None else self.cache_read)
        cost += written * (self.input if self.cache_write is None else self.cache_write)
        return Cost(cost / _TOKENS, usage.output_tokens * self.output / _TOKENS)


@dataclass(frozen=True, slots=True)
class Prices:
    """A table of prices by model, and the ``date`` and ``source`` of those that were shipped."""

    models: Mapping[str, Price]
    date: str
    source: str

    def find(self, model: str) -> Price | None:
        """The price of a model; ``None`` for one that is not in the table.

        The provider before a slash, and a date or version at the end, are no part of the name, unless the
        table has a price for that very name.
        """
        name = model[:_MAX_NAME].strip().lower()  # clients choose it, and each version takes a search
        while name not in self.models:
            shorter = name.rpartition("/")[2]
            shorter = _VERSION.sub("", name) if shorter == name else shorter
            if shorter == name:
                return None
            name = shorter
        return self.models[name]


@lru_cache(maxsize=16)
def load_prices(file: str | None = None) -> Prices:
    """The shipped table, with the prices of a file over it.

    Raises:
        SettingsError: the file cannot be read, or is no table of prices.
    """
    shipped = orjson.loads(resources.files(__package__).joinpath("prices.json").read_bytes())
    models = _parse(shipped)
    if file:
        try:
            models |= _parse(orjson.loads(_read(Path(file))))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SettingsError(f"{file} holds no prices: {error}") from None
    return Prices(models, shipped["date"], shipped["source"])


def _read(path: Path) -> bytes:
    if not path.is_file():  # a device or a pipe may have no end
        raise ValueError("there is no such file")
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES:,} bytes")
    return data


def _parse(table: Any) -> dict[str, Price]:
    """The prices of a table; raises what wrong types raise."""
    models = table.get("models")
    if not isinstance(models, dict):
        raise ValueError('it has no object "models"')
    return {name.strip().lower(): Price(**_checked(name, price)) for name, price in models.items()}


def _checked(name: str, price: Mapping[str, Any]) -> dict[str, float]:
    if (
        not isinstance(price, dict)
        or not price.keys() <= set(_KINDS)
        or not {"input", "output"} <= price.keys()
    ):
        raise ValueError(f"{name!r} takes input and output, and may have cache_read and cache_write")
    for value in price.values():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MOST:
            raise ValueError(f"{name!r} has a price that is no number of dollars")
    return price
