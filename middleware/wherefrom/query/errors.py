"""Filter errors with a caret under the invalid token, and suggestions for misspelled words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from ..exceptions import FilterError

_WINDOW = 40  # characters around the error: it fits on a line of a terminal


def error_at(text: str, start: int, length: int, message: str) -> FilterError:
    """A ``FilterError`` that shows ``text`` with a caret under ``length`` characters from ``start``."""
    first = max(0, start - _WINDOW)
    last = min(len(text), start + max(length, 1) + _WINDOW)
    before = "..." if first else ""
    after = "..." if last < len(text) else ""
    shown = "".join(char if char.isprintable() else " " for char in text[first:last])
    carets = "^" * max(1, min(length, last - start))
    return FilterError(
        f"{message}\n  {before}{shown}{after}\n  {' ' * (len(before) + start - first)}{carets}"
    )


def did_you_mean(word: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """``; did you mean a or b?`` for the nearest known words; a mapping has their spelling in a filter."""
    return phrase(near_words(word, known))


def near_words(word: str, known: Iterable[str] | Mapping[str, str]) -> list[str]:
    """The nearest known words, at most two; a mapping has their spelling in a filter."""
    near = get_close_matches(word, list(known), n=2, cutoff=0.6)
    return [known[one] for one in near] if isinstance(known, Mapping) else near


def phrase(words: Sequence[str]) -> str:
    """``; did you mean a or b?``, or nothing without words."""
    return f"; did you mean {' or '.join(words)}?" if words else ""
