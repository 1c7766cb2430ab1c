"""Completion of a filter that is being typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, Protocol

from ..exceptions import FilterError
from ..model import SpanStatusCode, TraceState
from .fields import (
    ALL_FIELDS,
    LIST,
    OPEN,
    PRESENCE,
    SPAN_ATTRIBUTE,
    Field,
    Operator,
    Type,
    UnknownFieldError,
    field_names,
    find_field,
)
from .tokens import Kind, Token, tokenize
from .tree import quote

_OPERATORS: Final = frozenset(operator.value for operator in Operator)
_JOINING: Final = ("AND", "OR")
_CLOSING: Final = (",", ")")
_OPEN: Final = frozenset({*OPEN, SPAN_ATTRIBUTE})
_STRING: Final = re.compile(r"'(?:''|[^'])*'|\"(?:\"\"|[^\"])*\"|`(?:``|[^`])*`")
_QUOTE: Final = re.compile(r"['\"`]")
_LAST: Final = re.compile(r"(?:[\w.$#]+|[=!<>]+)\Z")
_MOST_STEPS: Final = 3  # a single completion is followed by its own, but not for ever
_MOST_VALUES: Final = 50
_TIMES: Final = ("30m ago", "1h ago", "24h ago", "7d ago", "today", "yesterday")
_DURATIONS: Final = ("100ms", "500ms", "1s", "10s")
_FIXED_VALUES: Final = {"status": TraceState, "span.status": SpanStatusCode}
"""Fields with a fixed set of values."""

_NAMES: Final = {field.name: field.aliases for field in ALL_FIELDS}
"""The other names of fields."""

Offer = tuple[str, str]
"""The text as it would be, and what that means."""


class Known(Protocol):
    """The keys and values in a store."""

    def spelled_keys(self) -> Iterator[str]:
        """Keys of metadata, tags and span attributes, and names of feedback, as in a filter."""

    def values(self, field: Field, limit: int) -> list[str]:
        """The values of the field in traces, the most frequent first, without quotes."""


Allows = Callable[[str], object]
"""Whether a value may be offered."""


class _Expects(Enum):
    FIELD = auto()
    KEY = auto()  # a key in quotes: metadata.`a key`
    OPERATOR = auto()
    VALUE = auto()
    LIST = auto()  # the start of such a key
    ITEM = auto()
    NEXT_ITEM = auto()
    JOIN = auto()


_IN_LISTS: Final = {
    (_Expects.LIST, Kind.LEFT): _Expects.ITEM,
    (_Expects.ITEM, Kind.SINGLE): _Expects.NEXT_ITEM,
    (_Expects.ITEM, Kind.DOUBLE): _Expects.NEXT_ITEM,
    (_Expects.NEXT_ITEM, Kind.COMMA): _Expects.ITEM,
}


@dataclass(frozen=True, slots=True)
class _State:
    """What may follow the words so far; the field and the operator of the unfinished condition."""

    expects: _Expects = _Expects.FIELD
    family: str = ""
    field: Field | None = None
    operator: str = ""


def offers(text: str, known: Known, allows: Allows, *, inside: bool = False) -> list[Offer]:
    """The completions of ``text``. If there is only one for the last word, what may follow it too.

    With ``inside``, words come last that contain the last word, or whose other names or meaning do: they
    replace it.
    """
    found = list(_next(text, known, allows))
    if inside:
        known_texts = {offer for offer, _ in found}
        others = [offer for offer in _containing(text, known, allows) if offer[0] not in known_texts]
        if others:
            return found + others
    for _ in range(_MOST_STEPS):
        if len(found) != 1 or found[0][0].endswith("'"):
            break
        only = found[0][0]
        found = list(_next(only if only.endswith("(") else only + " ", known, allows)) or found
    return found


def known_values(field: Field, known: Known, allows: Allows) -> list[str]:
    """The values to offer for a field, the most frequent first; for times and durations examples."""
    if field.type is Type.TIME:
        return list(_TIMES)
    if field.type is Type.DURATION:
        return list(_DURATIONS)
    if field.type is Type.NUMBER:
        return []
    fixed = [value.value for value in _FIXED_VALUES.get(field.name, ())]
    return list(dict.fromkeys([*fixed, *filter(allows, known.values(field, _MOST_VALUES))]))


def _next(text: str, known: Known, allows: Allows) -> Iterator[Offer]:
    start = start_of_last(text)
    head, part = text[:start], text[start:]
    try:
        state = _after(tokenize(head))
    except (FilterError, UnknownFieldError):
        return
    is_open = not head or head[-1].isspace() or head[-1] == "("
    for word, meaning in _words(state, part, known, allows):
        if word.startswith(part):
            gap = "" if part or is_open or word in _CLOSING else " "
            yield head + gap + word, meaning


def _containing(text: str, known: Known, allows: Allows) -> Iterator[Offer]:
    start = start_of_last(text)
    head, part = text[:start], text[start:].strip("'\"`").casefold()
    try:
        state = _after(tokenize(head))
    except (FilterError, UnknownFieldError):
        return
    if not part or state.expects not in {_Expects.FIELD, _Expects.VALUE, _Expects.ITEM}:
        return
    for word, meaning in _words(state, "", known, allows):
        names = _NAMES.get(word, ()) if state.expects is _Expects.FIELD else ()
        if any(part in text.casefold() for text in (word, meaning, *names)):
            yield head + word, meaning


def start_of_last(text: str) -> int:
    """The start of the word, sign or open quote that is being typed."""
    blanked = _STRING.sub(lambda match: "\0" * len(match[0]), text)
    opened = _QUOTE.search(blanked)
    if opened is None:
        return len(_LAST.sub("", blanked))
    before = blanked[: opened.start()]
    return len(_LAST.sub("", before)) if before.endswith(".") else len(before)


def _after(tokens: Sequence[Token]) -> _State:
    """The state after these words.

    Raises:
        FilterError: no filter starts with these words.
        UnknownFieldError: there is no such field.
    """
    state = _State()
    for token in tokens[:-1]:
        state = _step(state, token)
    return state


def _step(state: _State, token: Token) -> _State:
    match state.expects, token.kind:
        case _Expects.FIELD, _:
            return _read_field(state, token)
        case _Expects.KEY, _:
            return _State(_Expects.OPERATOR, field=find_field(state.family, token.content))
        case _Expects.OPERATOR, _:
            return _read_operator(state, token)
        case (_Expects.VALUE, _) | (_Expects.NEXT_ITEM | _Expects.JOIN, Kind.RIGHT):
            return _State(_Expects.JOIN)
        case _Expects.JOIN, _ if token.keyword in _JOINING:
            return _State()
    following = _IN_LISTS.get((state.expects, token.kind))
    if following is None:
        raise FilterError(f"{token.text!r} is not expected here")
    return replace(state, expects=following)


def _read_field(state: _State, token: Token) -> _State:
    if token.keyword == "NOT" or token.kind is Kind.LEFT:
        return state
    family, key = token.parts
    if family is not None and not key:
        return _State(_Expects.KEY, family=family)
    return _State(_Expects.OPERATOR, field=find_field(family, key))


def _read_operator(state: _State, token: Token) -> _State:
    operator = f"{state.operator} {token.text.upper()}".strip()
    if operator in PRESENCE:
        return _State(_Expects.JOIN)
    expects = _Expects.OPERATOR
    if operator in _OPERATORS:
        expects = _Expects.LIST if operator in LIST else _Expects.VALUE
    return replace(state, expects=expects, operator=operator)


def _words(state: _State, part: str, known: Known, allows: Allows) -> Iterator[Offer]:
    """The keywords and signs that may follow, in lower case if ``part`` is."""
    match state:
        case _State(_Expects.FIELD):
            yield from _fields(part, known)
        case _State(_Expects.OPERATOR, field=Field() as field, operator=begun):
            rests = [name.removeprefix(begun).lstrip() for name in field.operators if name.startswith(begun)]
            yield from ((_in_case_of(part, rest), "") for rest in rests)
        case _State(_Expects.VALUE | _Expects.ITEM, field=Field() as field):
            yield from ((quote(value), "") for value in known_values(field, known, allows))
        case _State(_Expects.LIST):
            yield "(", ""
        case _State(_Expects.NEXT_ITEM):
            yield from ((",", ""), (")", ""))
        case _State(_Expects.JOIN):
            yield from ((_in_case_of(part, word), "") for word in _JOINING)


def _fields(part: str, known: Known) -> list[Offer]:
    """Fields and known keys; an alias of a field only if ``part`` is the prefix of nothing else."""
    found = [(field.name, field.help) for field in ALL_FIELDS if field.operators and field not in _OPEN]
    found += [(key, "") for key in known.spelled_keys()]
    if part and not any(name.startswith(part) for name, _ in found):
        return [(name, "") for name in field_names()]
    return found


def _in_case_of(part: str, word: str) -> str:
    return word.lower() if part.islower() else word
