"""Values from outside made safe to keep: JSON of anything, cut to a limit and marked where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import orjson

from .secrets import REDACTED, redactor
from .text import ELLIPSIS, MAX_TEXT, clean_text, cut, items_of, redacted_text, safe_repr, size_of
from .walk import LEAST_INT, MAX_NODES, MOST_INT, Walk

PREVIEW_LENGTH = 1000
MAX_KEY_LENGTH = 250
MAX_JSON_BYTES = 1_000_000
MAX_PAIRS = 250

MAX_ATTRIBUTES = 1_000
MAX_EVENTS = 1_000

_STORED_NODES = 1_000_000
_STORED_SIZE = 100_000_000
_LEAST_NODES, _LEAST_SIZE = 16, 12

__all__ = [
    "ELLIPSIS",
    "MAX_ATTRIBUTES",
    "MAX_EVENTS",
    "MAX_JSON_BYTES",
    "MAX_KEY_LENGTH",
    "MAX_NODES",
    "MAX_PAIRS",
    "PREVIEW_LENGTH",
    "Budget",
    "clean_pairs",
    "clean_text",
    "cut",
    "dump",
    "first_pairs",
    "hooked_text",
    "plain",
    "preview",
    "redacted_text",
    "safe_repr",
    "snapshot",
    "to_json",
]


class Budget:
    """What several values may keep together: ``nodes`` (values, items, keys) and ``size`` (bytes of text).

    What is spent here is spent of ``outer`` too.
    """

    __slots__ = ("nodes", "outer", "size")

    def __init__(
        self, nodes: int = MAX_NODES, size: int = MAX_JSON_BYTES, outer: Budget | None = None
    ) -> None:
        self.nodes = nodes
        self.size = size
        self.outer = outer

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left; of what comes then a few nodes and characters are kept all the same."""
        return self.nodes <= 0 or self.size <= 0 or (self.outer is not None and self.outer.is_spent)

    def spend(self, nodes: int, size: int) -> None:
        """Take off what was kept."""
        self.nodes -= nodes
        self.size -= size
        if self.outer is not None:
            self.outer.spend(nodes, size)

    def room(self) -> tuple[int, int]:
        """How many nodes and bytes the next value may take."""
        nodes, size = MAX_NODES, MAX_JSON_BYTES
        budget: Budget | None = self
        while budget is not None:
            nodes, size = min(nodes, budget.nodes), min(size, budget.size)
            budget = budget.outer
        return max(nodes, _LEAST_NODES), max(size, _LEAST_SIZE)


def first_pairs(pairs: Any, most: int) -> tuple[list[Any], int]:
    """The first pairs of a mapping or of an iterable of pairs, and how many more it says that it has."""
    if isinstance(pairs, dict):
        items = items_of(pairs, most)
        return items, size_of(pairs) - len(items)
    items = list(islice(pairs.items() if hasattr(pairs, "keys") else pairs, most))
    return items, len(pairs) - len(items) if hasattr(pairs, "__len__") else 0


def clean_pairs(pairs: Mapping[Any, Any], limit: int) -> dict[str, str]:
    """Metadata or tags as they are kept: keys of at most 250 characters, values cut, ``None`` left out."""
    kept: dict[str, str] = {}
    secrets = redactor()
    for key, value in pairs.items():
        if value is not None:
            name = clean_text(key, 2 * MAX_KEY_LENGTH)[:MAX_KEY_LENGTH]
            is_secret = type(value) is not bool and secrets.hides(name)
            text = REDACTED if is_secret else redacted_text(value, limit)
            if secrets.hook is None:
                kept[name] = text
            elif (hooked := secrets.hooked(name, text)) is not None:
                kept[name] = redacted_text(hooked, limit)
    return kept


def hooked_text(name: str, value: object, limit: int = MAX_TEXT) -> str:
    """``redacted_text(value)`` after the app's hook; empty if the hook returns ``None``."""
    text, secrets = redacted_text(value, limit), redactor()
    if secrets.hook is None:
        return text
    hooked = secrets.hooked(name, text)
    return "" if hooked is None else redacted_text(hooked, limit)


def plain(value: Any, *, is_json: bool = True) -> Any:
    """``value`` as JSON data of our own, with limits a hundred times those of ``snapshot``. Never raises.

    For what is kept already, which an app may still have its hands on. Without ``is_json`` floats that JSON
    cannot hold stay what they are.
    """
    return Walk(_STORED_NODES, _STORED_SIZE, is_json=is_json).value(value)


_KEYS: Final = {str}
_FLAT: Final = {str, int, bool, type(None)}
_SHORT: Final = 5_000
_SHORT_TEXT: Final = 12  # too short for a secret


def dump(value: Any) -> bytes:
    """``plain(value)`` as JSON. Dates, times, decimals and paths are written as ``str``, as MLflow does."""
    if type(value) is dict and {*map(type, value)} == _KEYS and {*map(type, value.values())} <= _FLAT:
        # Nothing in it can call back into Python: no walk, which takes most of the time of a small span.
        try:
            texts = [item for item in value.values() if type(item) is str]
            if sum(map(len, value)) + sum(map(len, texts)) < _SHORT:
                return orjson.dumps(value)
        except (
            TypeError,
            RuntimeError,
        ):  # lone surrogates, long integers, or a dict that another thread changes
            pass
    return orjson.dumps(plain(value))


def to_json(value: Any) -> str:
    """``dump`` as text."""
    return dump(value).decode()


def snapshot(value: Any, budget: Budget | None = None, name: str = "") -> Any:
    """``value`` as plain JSON data, as it is now: later changes to the original do not show.

    Of one value at most 5,000 nodes and 1 MB of text are kept, and of those that share a budget no more in
    all. What is left out is marked in its place. Secrets are replaced by ``[redacted]``; ``name`` is that of
    the value, which may make it one. Never raises.
    """
    kind = type(value)
    secrets = redactor()
    if name and value is not None and kind is not bool and secrets.hides(name):
        value, kind = REDACTED, str
    if secrets.hook is not None:
        value = secrets.hooked(name, value)
        kind = type(value)
    if budget is None:
        if value is None or kind is bool or kind is float:
            return value
        return Walk(MAX_NODES, MAX_JSON_BYTES, redactor=secrets).value(value)
    if value is None or kind is bool or kind is float or (kind is int and LEAST_INT <= value <= MOST_INT):
        budget.spend(1, 0)
        return value
    if (
        kind is str
        and len(value) <= _SHORT_TEXT
        and value.isascii()
        and "=" not in value
        and ":" not in value
    ):
        budget.spend(1, len(value))
        return value
    nodes, size = budget.room()
    walk = Walk(nodes, size, redactor=secrets)
    kept = walk.value(value)
    budget.spend(1 + nodes - walk.nodes, size - walk.size)
    return kept


def preview(value: Any, limit: int, *, spaced: bool = True) -> str:
    """The first ``limit`` characters of JSON, spaced as MLflow writes it; little more is looked at."""
    if type(value) is not float:
        # What is left out of a snapshot here is past the limit: a container has two characters, a text more.
        value = Walk(min(2 * limit + 2, MAX_NODES + 1), limit + 1, redactor=redactor()).value(value)
    text = json.dumps(value, ensure_ascii=False) if spaced else orjson.dumps(value).decode()
    return cut(text, limit)
