"""Tokens of a filter: names, quoted keys and values, numbers, operators and punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from ..exceptions import FilterError
from .errors import error_at

MAX_CHARACTERS: Final = 1_000_000  # untrusted input: reading it takes time
MAX_TOKENS: Final = 25_000


class Kind(Enum):
    """The kinds of tokens."""

    NUMBER = auto()
    NAME = auto()  # may hold dots: metadata.app_version, or end in one: metadata.`a key`
    KEY = auto()  # in backticks
    SINGLE = auto()  # in single quotes
    DOUBLE = auto()  # in double quotes
    OPERATOR = auto()
    LEFT = auto()
    RIGHT = auto()
    COMMA = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """One token: ``text`` as written, from ``start``; ``content`` is the text without quotes."""

    kind: Kind
    text: str
    start: int
    content: str

    @property
    def end(self) -> int:
        """The position after the token."""
        return self.start + len(self.text)

    @property
    def parts(self) -> tuple[str | None, str]:
        """The family before the first dot, without its backticks, and the key; a bare name has no family."""
        first, dot, rest = self.content.partition(".")
        return (first.strip("`"), rest) if dot and self.kind is Kind.NAME else (None, self.content)

    @property
    def keyword(self) -> str:
        """The name in upper case, to compare with keywords; empty for other tokens."""
        return self.text.upper() if self.kind is Kind.NAME else ""


_REST: Final = (
    (Kind.NUMBER, r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.])"),
    (Kind.NAME, r"\w[\w.$#\[\]]*|`\w+`\.(?:\w[\w.$#\[\]]*)?"),
    (Kind.KEY, r"`(?:``|[^`])*`"),
    (Kind.OPERATOR, r"[=!<>]+"),
    (Kind.LEFT, r"\("),
    (Kind.RIGHT, r"\)"),
    (Kind.COMMA, r","),
)
_STRICT: Final = ((Kind.SINGLE, r"'(?:''|[^'])*'"), (Kind.DOUBLE, r'"(?:""|[^"])*"'))
_MLFLOW: Final = ((Kind.SINGLE, r"'(?:''|\\'|[^'])*'"), (Kind.DOUBLE, r'"(?:""|\\"|[^"])*"'))


def _compile(quotes: tuple[tuple[Kind, str], ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?P<{kind.name}>{rule})" for kind, rule in (*quotes, *_REST)))


_WITHOUT_BACKSLASH: Final = _compile(_STRICT)
_WITH_BACKSLASH: Final = _compile(_MLFLOW)
# A word of a search box: it may hold what a name may not, as in 2026-01-31 or a/b.
_WORDS: Final = (
    (Kind.NAME, r"`\w+`\.(?:\w[\w.$#\[\]]*)?"),
    (Kind.KEY, r"`(?:``|[^`])*`"),
    *_REST[3:],
    (Kind.NAME, r"[^\s'\"`()=!<>,]+"),
)
_FORGIVING: Final = re.compile(
    "|".join(f"(?P<{kind.name}_{place}>{rule})" for place, (kind, rule) in enumerate((*_STRICT, *_WORDS)))
)
_WHOLE_NUMBER: Final = re.compile(_REST[0][1])
_SPACE: Final = re.compile(r"\s*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def tokenize(text: str, *, backslash: bool = False) -> list[Token]:
    r"""The tokens of ``text``; the last is END.

    A doubled quote inside quotes is one quote. With ``backslash``, a quote after a backslash does not end a
    value, as in MLflow; both characters are part of the value.

    Raises:
        FilterError: a character starts no token, or the text is too long.
    """
    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"a filter has at most {MAX_CHARACTERS:,} characters; this one has {len(text):,}")
    _check_surrogates(text)
    tokens = []
    for token in _scan(text, _WITH_BACKSLASH if backslash else _WITHOUT_BACKSLASH):
        tokens.append(token)
        if len(tokens) > MAX_TOKENS:
            raise FilterError(f"a filter has at most {MAX_TOKENS:,} words and signs; this one has more")
    return tokens


def tokenize_words(text: str) -> list[Token]:
    """The tokens of a text as people type it: a word is what stands between blanks, quotes and signs.

    Raises:
        FilterError: a quote is never closed, or the text is too long or has a lone surrogate.
    """
    _check_surrogates(text)
    tokens = [] if len(text) > MAX_CHARACTERS else list(_scan(text, _FORGIVING))
    if not 0 < len(tokens) <= MAX_TOKENS:
        raise FilterError(f"a filter has at most {MAX_CHARACTERS:,} characters and {MAX_TOKENS:,} words")
    return [
        replace(token, kind=Kind.NUMBER) if token.kind is Kind.NAME and _is_number(token.text) else token
        for token in tokens
    ]


def _check_surrogates(text: str) -> None:
    if surrogate := _SURROGATE.search(text):
        raise error_at(text, surrogate.start(), 1, "a lone surrogate, which no stored text can hold")


def _is_number(text: str) -> bool:
    return _WHOLE_NUMBER.fullmatch(text) is not None


def _scan(text: str, rules: re.Pattern[str]) -> Iterator[Token]:
    position = _skip(text, 0)
    while position < len(text):
        match = rules.match(text, position)
        if match is None:
            raise error_at(text, position, 1, _unexpected(text[position]))
        kind = Kind[(match.lastgroup or "").partition("_")[0]]
        yield Token(kind, match[0], position, _content(kind, match[0]))
        position = _skip(text, match.end())
    yield Token(Kind.END, "", len(text), "")


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return position if match is None else match.end()


def _content(kind: Kind, text: str) -> str:
    if kind is Kind.SINGLE:
        return text[1:-1].replace("''", "'")
    if kind is Kind.DOUBLE:
        return text[1:-1].replace('""', '"')
    return text[1:-1] if kind is Kind.KEY else text


def _unexpected(character: str) -> str:
    if character in "'\"`":
        return f"a quote {character} that is never closed"
    return f"unexpected {character!r}: a key with such a character goes in backticks, a value in quotes"
