"""Recursive descent parser; the grammar is in the docstrings.

``filter := or END``; an absent or empty filter matches every trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from ..exceptions import FilterError
from .errors import did_you_mean, error_at, near_words
from .fields import EQUALITY, LIST, ORDER, PRESENCE, Field, Operator, Type, UnknownFieldError, find_field
from .tokens import Kind, Token, tokenize
from .tree import And, Compare, Node, Not, Or, height
from .values import check_value, expected_value, number_of

MAX_CONDITIONS: Final = 500  # SQLite limits the depth of an expression to 1,000
MAX_VALUES: Final = 5_000  # SQLite limits the parameters of a statement to 32,766
MAX_DEPTH: Final = 100  # the parser and the compiler are recursive
MAX_HEIGHT: Final = 20  # SQLite's own parser fails at a depth of about 27

_QUOTED: Final = frozenset({Kind.SINGLE, Kind.DOUBLE})
_KEYWORDS: Final = frozenset({"AND", "OR", "NOT", "IN", "IS", "LIKE", "ILIKE", "RLIKE", "NULL"})
_SIGNS: Final = {operator.value: operator for operator in (*EQUALITY, *ORDER)}
_SIGN_HINTS: Final = {"==": "=", "<>": "!=", "=>": ">=", "=<": "<=", "!": "!="}
_WORDS: Final = {"LIKE": Operator.LIKE, "ILIKE": Operator.ILIKE, "RLIKE": Operator.RLIKE, "IN": Operator.IN}
_NEGATED: Final = {"LIKE": Operator.NOT_LIKE, "ILIKE": Operator.NOT_ILIKE, "IN": Operator.NOT_IN}

KnownKeys = Callable[[], Iterable[str]]
_Result = TypeVar("_Result")


def parse_filter(text: str | None, known_keys: KnownKeys = tuple) -> Node | None:
    """Parse a filter; ``None`` for an empty one.

    ``known_keys`` returns the keys that traces carry; it is called for the suggestion if a field is unknown.

    Raises:
        FilterError: the filter is invalid; the message shows where, and what was expected.
    """
    return None if text is None or text == "" else read(text, known_keys, Parser.filter)


def parse_field(text: str) -> Field:
    """The field with this name, as in a filter: ``user`` or ``metadata.app_version``.

    Raises:
        FilterError: it is not a field.
    """
    return read(text, tuple, Parser.field)


def read(
    text: str,
    known_keys: KnownKeys,
    rule: Callable[[Parser], _Result],
    make: Callable[[str, KnownKeys], Parser] | None = None,
) -> _Result:
    r"""Parse ``text`` with ``rule``, with the parser that ``make`` returns.

    A backslash is an ordinary character. MLflow reads ``\'`` as part of a value, so a text that is only valid
    in that reading is parsed that way.
    """
    if not isinstance(text, str):
        raise FilterError(f"expected text, not {text!r}")
    try:
        return rule(make(text, known_keys) if make else Parser(text, tokenize(text), known_keys))
    except FilterError:
        if make or ("\\'" not in text and '\\"' not in text):
            raise
        try:
            return rule(Parser(text, tokenize(text, backslash=True), known_keys))
        except FilterError:
            pass
        raise


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a field as it was written; ``family`` is ``None`` without one."""

    token: Token
    family: str | None
    key: str


class Parser:
    """The tokens and the current position; the docstring of each rule is its grammar."""

    def __init__(self, text: str, tokens: list[Token], known_keys: KnownKeys) -> None:
        self._text = text
        self._tokens = tokens
        self._known_keys = known_keys
        self._position = 0
        self._depth = 0
        self._conditions = 0
        self._values = 0

    def filter(self) -> Node:
        """``filter := or END``."""
        node = self._or()
        self.end("expected AND, OR or the end")
        if height(node) > MAX_HEIGHT:
            raise FilterError(f"at most {MAX_HEIGHT} ANDs, ORs and NOTs may stand inside each other")
        return node

    def name(self) -> Name:
        """``name := [family "."] key``, ``family := word | `word` ``, ``key := word | `…` | "…" | '…'``.

        There is no space around the dot.
        """
        token = self._advance()
        if token.kind in {Kind.KEY, Kind.DOUBLE}:
            return Name(token, None, token.content)
        if token.kind is not Kind.NAME or token.keyword in _KEYWORDS:
            raise self.error("expected a field such as metadata.app_version or status", token)
        family, key = token.parts
        if token.text.endswith("."):
            key += self._key_after(token)
        return Name(token, family, key)

    def field(self) -> Field:
        """``field := name END``."""
        found = self.find(self.name())
        self.end("expected nothing after the field")
        return found

    def find(self, name: Name) -> Field:
        """The field with this name."""
        try:
            return find_field(name.family, name.key)
        except UnknownFieldError:
            pass
        try:  # Reading the known keys costs a query, so only a failed look-up does it, for its suggestion.
            return find_field(name.family, name.key, self._known_keys())
        except UnknownFieldError as error:
            raised = self.error(str(error), name.token)
            raised.suggestions = self._instead(name.token, error.names)
            raise raised from None

    def accept_word(self, word: str) -> bool:
        """Skip ``word``, in any case, if it is next."""
        if self._next.keyword != word:
            return False
        self._advance()
        return True

    def end(self, message: str) -> None:
        """``END``."""
        if self._next.kind is not Kind.END:
            raise self.error(message)

    def error(self, message: str, token: Token | None = None) -> FilterError:
        """A ``FilterError`` at a token, by default the next one."""
        at = token or self._next
        return error_at(self._text, at.start, len(at.text), message)

    def _instead(self, token: Token, words: Iterable[str]) -> tuple[str, ...]:
        """The text with each of these words in place of a token, as far as it is a filter then."""
        texts = (self._text[: token.start] + word + self._text[token.end :] for word in words)
        return tuple(text for text in texts if len(text) <= _LONGEST and _can_be_read(text))

    def _or(self) -> Node:
        """``or := and ("OR" and)*``."""
        parts = [self._and()]
        while self.accept_word("OR"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Node:
        """``and := not ("AND" not)*``."""
        parts = [self._not()]
        while self.accept_word("AND"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Node:
        """``not := "NOT" not | "(" or ")" | comparison``."""
        token = self._next
        if token.keyword != "NOT" and token.kind is not Kind.LEFT:
            return self._comparison()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self.error(f"at most {MAX_DEPTH} NOTs and parentheses may stand inside each other")
        self._advance()
        if token.kind is Kind.LEFT:
            node = self._or()
            self._expect(Kind.RIGHT, "expected ')', AND or OR")
        else:
            node = Not(self._not())
        self._depth -= 1
        return node

    def _comparison(self) -> Compare:
        """``comparison := name (sign value | word value | [NOT] IN list | IS [NOT] NULL)``."""
        self._count_condition()
        field = self.find(self.name())
        at = self._next
        operator = self._operator(field)
        if operator not in field.operators:
            raise self.error(f"{field.label} does not take {operator}: {_takes(field)}", at)
        if operator in PRESENCE:
            return Compare(field, operator)
        if operator in LIST:
            return Compare(field, operator, self._list(field))
        return Compare(field, operator, self._value(field, operator))

    def _operator(self, field: Field) -> Operator:
        """``sign := = | != | > | >= | < | <=``, ``word := [NOT] LIKE | [NOT] ILIKE | RLIKE``."""
        token = self._advance()
        if token.text in _SIGNS:
            return _SIGNS[token.text]
        if token.keyword == "IS":
            operator = Operator.IS_NOT_NULL if self.accept_word("NOT") else Operator.IS_NULL
            if not self.accept_word("NULL"):
                raise self.error("expected NULL or NOT NULL")
            return operator
        words = _WORDS
        if token.keyword == "NOT":
            words, token = _NEGATED, self._advance()
        if token.keyword in words:
            return words[token.keyword]
        near = _SIGN_HINTS.get(token.text)
        hint = f"; did you mean {near}?" if near else did_you_mean(token.keyword, list(words))
        error = self.error(f"expected an operator after {field.label}: {_takes(field)}{hint}", token)
        error.suggestions = self._instead(token, (near,) if near else near_words(token.keyword, words))
        raise error

    def _value(self, field: Field, operator: Operator) -> str | float:
        """``value := '…' | "…" | number``; a quote inside quotes is doubled."""
        token = self._advance()
        if token.kind is not Kind.NUMBER and token.kind not in _QUOTED:
            quotes = "" if field.type is Type.NUMBER else ", in quotes unless it is a number"
            raise self.error(f"expected {expected_value(field)}{quotes}", token)
        try:
            value = number_of(token.text) if token.kind is Kind.NUMBER else token.content
            check_value(field, operator, value)
        except ValueError as error:
            raise self.error(str(error), token) from None
        return value

    def _list(self, field: Field) -> tuple[str, ...]:
        """``list := "(" quoted ("," quoted)* [","] ")"``."""
        self._expect(Kind.LEFT, "expected '(' and a list of quoted values")
        values = [self._quoted(field)]
        while self._accept(Kind.COMMA) and self._next.kind is not Kind.RIGHT:
            values.append(self._quoted(field))
        self._expect(Kind.RIGHT, "expected ',' or ')'")
        return tuple(values)

    def _quoted(self, field: Field) -> str:  # noqa: ARG002 # of use where words have a meaning by field
        """``quoted := '…' | "…"``."""
        self._count_value()
        token = self._advance()
        if token.kind not in _QUOTED:
            raise self.error("expected a value in quotes", token)
        return token.content

    def _count_condition(self) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise self.error(f"a filter has at most {MAX_CONDITIONS} conditions")

    def _count_value(self) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise self.error(f"a filter lists at most {MAX_VALUES:,} values")

    def _key_after(self, name: Token) -> str:
        token = self._next
        if token.start != name.end or token.kind not in {Kind.KEY, *_QUOTED}:
            raise self.error(f"expected a key right after {name.text!r}")
        return self._advance().content

    @property
    def _next(self) -> Token:
        return self._tokens[self._position]

    def _advance(self) -> Token:
        token = self._next
        if token.kind is not Kind.END:
            self._position += 1
        return token

    def _accept(self, kind: Kind) -> bool:
        if self._next.kind is not kind:
            return False
        self._advance()
        return True

    def _expect(self, kind: Kind, message: str) -> None:
        if not self._accept(kind):
            raise self.error(message)


_LONGEST: Final = 1_000  # characters of a suggestion


def _can_be_read(text: str) -> bool:
    try:
        Parser(text, tokenize(text), tuple).filter()
    except FilterError:
        return False
    return True


def _takes(field: Field) -> str:
    return f"it takes {', '.join(field.operators)}"
