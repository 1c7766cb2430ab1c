"""Filters as people type them into a search box: bare words, values without quotes, names of columns.

A filter that ``parse_filter`` accepts keeps its meaning; only one that it rejects is read here. Words without
an operator are searched for: ``timeout status = error`` is ``search ILIKE '%timeout%' AND status = 'ERROR'``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from ..exceptions import FilterError
from ..model import SpanStatusCode, SpanType, TraceState
from .fields import SEARCH_FIELD, Field, Operator, Type, find_other_name
from .parser import KnownKeys, Name, Parser, parse_filter, read
from .tokens import Kind, Token, tokenize_words
from .tree import And, Compare, Node, format_filter
from .values import check_value

FIXED_VALUES: Final = {"status": TraceState, "span.status": SpanStatusCode}
"""Fields with a fixed set of values."""
_UPPER: Final = {name: {one.value for one in values} for name, values in FIXED_VALUES.items()} | {
    "span.type": {one.value for one in SpanType}
}
_TWO_WORDS: Final = {"REQUEST ID": "client_request_id", "TRACE ID": "request_id", "SESSION ID": "session_id"}
_VALUES: Final = frozenset({Kind.NAME, Kind.NUMBER, Kind.SINGLE, Kind.DOUBLE})
_OPERATORS: Final = frozenset({"IS", "IN", "LIKE", "ILIKE", "RLIKE"})
_NEGATED: Final = frozenset({"IN", "LIKE", "ILIKE"})
_JOINING: Final = frozenset({"AND", "OR", "NOT"})
_NO_WORDS: Final = re.compile("[=<>()'\"`\ud800-\udfff]")  # signs, and what no stored text can hold
_MOST_WORDS: Final = 20


def parse_search(text: str | None, known_keys: KnownKeys = tuple) -> Node | None:
    """Parse a filter, or what may be meant by one; ``None`` for an empty text.

    Raises:
        FilterError: neither can be read; the error is that of ``parse_filter``.
    """
    try:
        return parse_filter(text, known_keys)
    except FilterError as error:
        if text is None or not text.strip():
            return None
        try:
            return read(text, known_keys, _ForgivingParser.filter, _make)
        except FilterError:
            words = text.split()
            if _has_loose_and(words):
                raise error from None
            if _NO_WORDS.search(text) or len(words) > _MOST_WORDS:
                raise error from None
        return _all(_contains(word) for word in words)


def spell_out(text: str | None) -> str | None:
    """The filter that ``parse_search`` reads in a text; a text that cannot be read is returned as it is."""
    try:
        parse_filter(text)
    except FilterError:
        try:
            tree = parse_search(text)
        except FilterError:
            return text
        return None if tree is None else format_filter(tree)
    return text


def single_word(tree: Node | None) -> str | None:
    """The word if the filter searches for nothing else."""
    if isinstance(tree, Compare) and tree.field == SEARCH_FIELD and tree.operator is Operator.ILIKE:
        return str(tree.value)[1:-1]
    return None


def _has_loose_and(words: Sequence[str]) -> bool:
    """Whether an AND has no condition after it."""
    pairs = pairwise([*(word.upper() for word in words), ""])
    return any(word == "AND" and after in {"AND", "OR", ""} for word, after in pairs)


def _contains(word: str) -> Compare:
    return Compare(SEARCH_FIELD, Operator.ILIKE, f"%{word}%")


def _all(nodes: Iterable[Node]) -> Node:
    parts = tuple(nodes)
    return parts[0] if len(parts) == 1 else And(parts)


def _make(text: str, known_keys: KnownKeys) -> Parser:
    return _ForgivingParser(text, tokenize_words(text), known_keys)


class _ForgivingParser(Parser):
    """The grammar with bare words and values; only rules that differ have another form here."""

    def _and(self) -> Node:
        """``and := not (["AND"] not)*``."""
        parts = [self._not()]
        while self.accept_word("AND") or (
            self._next.kind in {*_VALUES, Kind.LEFT, Kind.KEY} and self._next.keyword != "OR"
        ):
            parts.append(self._not())
        return _all(parts)

    def _comparison(self) -> Compare:
        """``comparison := word | "…" | '…' | name operator value``."""
        token = self._next
        if token.kind not in _VALUES or token.keyword in _JOINING or self._has_operator():
            return super()._comparison()
        self._count_condition()
        return _contains(self._advance().content)

    def _has_operator(self) -> bool:
        """Whether an operator follows the name that is next."""
        ahead = self._ahead()
        first, second = next(ahead), next(ahead)
        is_keyed = first.text.endswith(".") and second.start == first.end
        if is_keyed or f"{first.keyword} {second.keyword}" in _TWO_WORDS:
            second = next(ahead)
        return (
            second.kind is Kind.OPERATOR
            or second.keyword in _OPERATORS
            or (second.keyword == "NOT" and next(ahead).keyword in _NEGATED)
        )

    def _ahead(self) -> Iterator[Token]:
        """The next tokens; after the end, the end again."""
        yield from self._tokens[self._position :]
        while True:
            yield self._tokens[-1]

    def find(self, name: Name) -> Field:
        """The field with this name, or with this other name."""
        try:
            return super().find(name)
        except FilterError:
            other = find_other_name(name.family, name.key)
            if other is None:
                raise
            return other

    def name(self) -> Name:
        """``name := "request" "id" | "trace" "id" | "session" "id" | …``."""
        ahead = self._ahead()
        first, second = next(ahead), next(ahead)
        if (field := _TWO_WORDS.get(f"{first.keyword} {second.keyword}")) is not None:
            self._position += 2
            return Name(first, None, field)
        return super().name()

    def _value(self, field: Field, operator: Operator) -> str | float:
        """``value := word ["ago"] | "…" | '…' | number``."""
        token = self._next
        is_word = token.kind is Kind.NAME and token.keyword not in _JOINING
        if not is_word and not (token.kind is Kind.NUMBER and field.type is Type.TEXT):
            return super()._value(field, operator)
        value = _as_recorded(field, self._advance().content)
        if field.type is Type.TIME and self.accept_word("AGO"):
            value += " ago"
        try:
            check_value(field, operator, value)
        except ValueError as error:
            raise self.error(str(error), token) from None
        return value

    def _quoted(self, field: Field) -> str:
        """``quoted := word | "…" | '…'``."""
        if self._next.kind is Kind.NAME:
            self._count_value()
            return _as_recorded(field, self._advance().content)
        return super()._quoted(field)


def _as_recorded(field: Field, word: str) -> str:
    """A value of a fixed set in the case in which it is recorded."""
    return word.upper() if word.upper() in _UPPER.get(field.label, ()) else word
