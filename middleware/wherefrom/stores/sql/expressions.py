"""The SQL that filters and counts are made of, and the interface of a ``Dialect``, which knows what differs.

What differs by value, such as a pattern that has to be translated, is a method of ``Dialect``. What differs
in words alone is an element that each dialect renders: ``json_elements`` and ``collected``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    cast,
    column,
    false,
    func,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.sql.elements import BindParameter, False_, True_
from sqlalchemy.sql.functions import FunctionElement

from .types import Json

Expression = ColumnElement[Any]
Condition = ColumnElement[bool]

WILDCARD: Final = re.compile("[%_]")
"""What stands for other text in a pattern of ``LIKE``."""
# Characters that not every store keeps in their order.
_UNORDERED: Final = re.compile("[\0\U0010fffc\U0010fffd]")
_WITHOUT_NEXT: Final = "\ud7ff\U0010ffff"


class Hint(NamedTuple):
    """What is certain of a value: it starts with ``start`` (``whole``: equals it) and contains ``inside``."""

    start: str
    inside: str = ""
    whole: bool = False


class Dialect(Protocol):
    """What the SQL of one database does in its own way."""

    @property
    def after_all_text(self) -> Any:
        """A value that sorts after all text."""

    def probes(self, *, has_spans: bool) -> int:
        """How many probes among the newest traces are tried before all are searched, also by their spans."""

    def __hash__(self) -> int: ...

    def at_once(self, connection: Connection) -> AbstractContextManager[Any]:
        """Statements that are started in the block may be sent together; their rows are fetched after it."""

    def plain(self, column: Expression) -> Expression:
        """The column as an expression that no index serves, if the planner is not to choose."""

    def pair(self, column: Expression, key: str, hint: Hint | None = None) -> Expression:
        """The text under ``key`` in a JSON object of strings; it may be NULL if it contradicts the hint."""

    def attribute(self, column: Expression, key: str) -> Expression:
        """The JSON value under ``key`` as text: a string unchanged, any other value as JSON."""

    def of_trace(self) -> Condition:
        """The condition for a span of the trace."""

    def may_have(self, key: str, hint: Hint | None) -> Condition:
        """What holds for a span whose attribute under ``key`` is as the hint says, or TRUE."""

    def at(self, column: Expression, path: BindParameter[Any]) -> Expression:
        """The text at a path in a JSON object of strings."""

    def path(self, key: str) -> str | None:
        """The path of a key for ``at``; ``None`` if it has none."""

    def like(self, text: Expression, pattern: str) -> Condition:
        """``LIKE`` where case matters; nothing escapes ``%`` and ``_``."""

    def ilike(self, text: Expression, pattern: str) -> Condition:
        """``LIKE`` where the case of ASCII letters does not matter."""

    def rlike(self, text: Expression, pattern: str) -> Condition:
        """Whether the regular expression matches anywhere in ``text``."""

    def matches(self, text: Expression, pattern: BindParameter[Any]) -> Condition:
        """``LIKE`` where case matters, with a pattern of ``pattern``."""

    def pattern(self, like: str) -> str:
        """A pattern of ``LIKE`` as ``matches`` takes it."""

    def to_number_of(self, text: Expression) -> Expression:
        """``text`` as a number, NULL if it is none."""

    def number_in(self, text: Expression, name: str) -> Expression:
        """The number under ``name`` in a JSON object that is text; NULL if there is none, or no such JSON."""


def starting_alike(pattern: str, dialect: Dialect) -> tuple[str, Any]:
    """The half-open range of all text with the literal prefix of a ``LIKE`` pattern."""
    start = _UNORDERED.split(WILDCARD.split(pattern, maxsplit=1)[0], maxsplit=1)[0].rstrip(_WITHOUT_NEXT)
    return start, start[:-1] + chr(ord(start[-1]) + 1) if start else dialect.after_all_text


class json_elements(FunctionElement[Any]):  # noqa: N801 - the name of a function in SQL
    """The elements of a JSON array, as a table with the column ``value``."""

    inherit_cache = True


class collected(FunctionElement[Any]):  # noqa: N801
    """The values of a group as one JSON array: it is read ten times as fast as a million rows."""

    type = Json()
    inherit_cache = True


class alone(FunctionElement[Any]):  # noqa: N801
    """The buckets of a group: as bytes, characters; as text, codes in JSON (see ``Durations``)."""

    inherit_cache = True


class text_under(FunctionElement[str]):  # noqa: N801
    """The text of the value under a key, in text that is a JSON object."""

    type = Text()
    inherit_cache = True


class joined_lines(FunctionElement[str]):  # noqa: N801
    """The columns as text, joined by newlines, so that a pattern can span them as in MLflow's JSON."""

    type = Text()
    inherit_cache = True


class no_pairs(FunctionElement[Any]):  # noqa: N801
    """A JSON object without a pair."""

    type = Json()
    inherit_cache = True


class unindexed(FunctionElement[str]):  # noqa: N801
    """A text column as an expression, where the planner would choose its index and not a better one."""

    type = Text()
    inherit_cache = True


def texts_of(array: BindParameter[Any]) -> Select[Any]:
    """The elements of a JSON array of texts."""
    return select(json_elements(array).table_valued(column("value", Text())).c.value)


def integers_of(array: BindParameter[Any]) -> Select[Any]:
    """The elements of a JSON array of integers."""
    return select(cast(json_elements(array).table_valued(column("value", Text())).c.value, BigInteger))


TRUE: Final[Condition] = true()
FALSE: Final[Condition] = false()


def all_of(parts: Iterable[Condition]) -> Condition:
    """The conjunction of the conditions; TRUE without any."""
    kept = [part for part in parts if not is_true(part)]
    if any(is_false(part) for part in kept):
        return FALSE
    return and_(*kept) if kept else TRUE


def any_of(parts: Iterable[Condition]) -> Condition:
    """The disjunction of the conditions; FALSE without any."""
    kept = [part for part in parts if not is_false(part)]
    if any(is_true(part) for part in kept):
        return TRUE
    return or_(*kept) if kept else FALSE


def opposite(condition: Condition) -> Condition:
    """True where the condition is false or NULL."""
    if is_true(condition):
        return FALSE
    return TRUE if is_false(condition) else not_(func.coalesce(condition, FALSE))


def is_true(condition: Condition) -> bool:
    """Whether the condition is the constant TRUE."""
    return isinstance(condition, True_)


def is_false(condition: Condition) -> bool:
    """Whether the condition is the constant FALSE."""
    return isinstance(condition, False_)
