"""The SQL of PostgreSQL. Text is compared by code points, as in SQLite and Python: collation ``C``."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import orjson
from psycopg import Pipeline
from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    Column,
    Connection,
    Double,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    collate,
    column,
    func,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnClause
from sqlalchemy.sql.visitors import iterate

from ...query.regex import compile_pattern
from ...query.values import NUMBER
from ..base import ALONE
from ..sql.expressions import (
    Condition,
    Expression,
    Hint,
    alone,
    collected,
    joined_lines,
    json_elements,
    no_pairs,
    text_under,
    unindexed,
)
from ..sql.schema import SPAN_CONTENT, rollups, sources, spans, traces
from .text import StoredJson, to_json

LINE_BREAK: Final = r" || E'\n' || "
# Of UTF-16: a database with the encoding SQL_ASCII does not know the characters.
ALONE_CHARACTER: Final = f"int2send(CAST({{}} + {ALONE} AS smallint))"
JOINED_ALONE: Final = "string_agg({}, '')"
_ROWS: Final = 500


@compiles(json_elements, "postgresql")
def _elements(element: json_elements, compiler: Any, **kw: Any) -> str:
    return f"jsonb_array_elements_text(CAST({compiler.process(element.clauses, **kw)} AS jsonb))"


@compiles(collected, "postgresql")
def _collected(element: collected, compiler: Any, **kw: Any) -> str:
    return f"json_agg({compiler.process(element.clauses, **kw)})"


@compiles(alone, "postgresql")
def _alone(element: alone, compiler: Any, **kw: Any) -> str:
    return JOINED_ALONE.format(ALONE_CHARACTER.format(compiler.process(element.clauses, **kw)))


@compiles(text_under, "postgresql")
def _text_under(element: text_under, compiler: Any, **kw: Any) -> str:
    text, key = (compiler.process(part, **kw) for part in element.clauses)
    return f'((CAST({text} AS jsonb) ->> CAST({key} AS text)) COLLATE "C")'


@compiles(joined_lines, "postgresql")
def _joined_lines(element: joined_lines, compiler: Any, **kw: Any) -> str:
    # As in the index on the content of spans.
    parts = (f"coalesce(CAST({compiler.process(part, **kw)} AS text), '')" for part in element.clauses)
    return f"({LINE_BREAK.join(parts)})"


@compiles(no_pairs, "postgresql")
def _no_pairs(_element: no_pairs, _compiler: Any, **_kw: Any) -> str:
    return "CAST('{}' AS jsonb)"


@compiles(unindexed, "postgresql")
def _unindexed(element: unindexed, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


_JSON_NUMBER: Final = r"(-?[0-9]{1,100}(?:\.[0-9]{1,100})?(?:[eE][+-]?[0-9]{1,2})?)"
_WILD: Final = re.compile(r"[\\%_]")
_TIME_OF_SPAN: Final[ColumnClause[int]] = column("request_time", BigInteger, _selectable=spans)


def number_pattern(name: str) -> str:
    """The regular expression that finds the number under ``name`` in a JSON object."""
    return rf'^\s*\{{.*"{name}"\s*:\s*{_JSON_NUMBER}\s*[,}}]'


def _is_string(text: str) -> bool:
    """Whether an attribute with this text is a string, and no other JSON that is written so."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return True
    return False


def _is_plain(hint: Hint) -> bool:
    """Whether the hint's text is the same in JSON."""
    return all(to_json(text) == f'"{text}"' for text in hint[:2])


class PostgreSQLDialect:
    """The SQL of PostgreSQL; ``connection`` reads the values that regular expressions are matched with."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PostgreSQLDialect)

    def __hash__(self) -> int:
        return hash(PostgreSQLDialect)

    after_all_text = "\U0010ffff" * 4

    def probes(self, *, has_spans: bool) -> int:
        """At most one: the planner knows better than a further one whether to read from the newest trace on.

        It has statistics of the text of spans, whose index takes no less time for the newest than for all.
        """
        return 0 if has_spans else 1

    def at_once(self, connection: Connection) -> AbstractContextManager[Any]:
        """A pipeline: all statements of the block take one round trip."""
        driver: Any = connection.connection.dbapi_connection
        # Not by a libpq older than 14.
        return driver.pipeline() if Pipeline.is_supported() else nullcontext()

    def plain(self, column: Expression) -> Expression:
        """The column itself: PostgreSQL's planner may choose."""
        return column

    def pair(self, column: Expression, key: str, hint: Hint | None = None) -> Expression:  # noqa: ARG002
        """The text under ``key`` in a JSON object of strings."""
        return self.at(column, bindparam(None, key, type_=Text(), unique=True))

    def attribute(self, column: Expression, key: str) -> Expression:
        """The JSON value under ``key`` as text: a string unchanged, any other value as JSON."""
        return self.pair(column, key)

    def of_trace(self) -> Condition:
        """The condition for a span of the trace: only its partition is looked at."""
        return and_(spans.c.trace == traces.c.id, traces.c.request_time == _TIME_OF_SPAN)

    def may_have(self, key: str, hint: Hint | None) -> Condition:
        """That the text of the span has the key and the value, which the index of trigrams finds."""
        pieces = [f"{to_json(key)}:"]
        if hint is not None and hint.whole and _is_string(hint.start):
            pieces[0] += to_json(hint.start)
        elif hint is not None and _is_plain(hint):
            pieces += filter(None, hint[:2])
        pattern = "%".join(["", *(_WILD.sub(r"\\\g<0>", piece) for piece in pieces), ""])
        return SPAN_CONTENT.like(bindparam(None, StoredJson(pattern), type_=Text(), unique=True))

    def at(self, column: Expression, path: BindParameter[Any]) -> Expression:
        """The text at a path in a JSON object of strings."""
        value: Expression = column.op("->>", return_type=Text())(cast(path, Text())).self_group()
        return collate(value, "C")

    def path(self, key: str) -> str | None:
        """The path of a key for ``at``: the key."""
        return key

    def like(self, text: Expression, pattern: str) -> Condition:
        """``LIKE`` where case matters; nothing escapes ``%`` and ``_``."""
        return text.like(self.pattern(pattern))

    def ilike(self, text: Expression, pattern: str) -> Condition:
        """``LIKE`` where the case of ASCII letters does not matter: those of collation ``C``."""
        return text.ilike(self.pattern(pattern))

    def rlike(self, text: Expression, pattern: str) -> Condition:
        """Whether the regular expression matches anywhere in ``text``.

        PostgreSQL's expressions mean something else, and take more than linear time: the values are read and
        matched here.
        """
        is_found = compile_pattern(pattern)
        if text is traces.c.name:  # rollups have those of pruned traces too
            names = self._connection.scalars(select(traces.c.name).union(select(rollups.c.name)))
            matching = [name for name in names if name is not None and is_found(name)]
            return text == any_(bindparam(None, matching, type_=ARRAY(Text), unique=True))
        tables = {part.table for part in iterate(text) if isinstance(part, Column)}
        table = next((table for table in (spans, traces, sources) if table in tables), None)
        if table is None:
            values = self._connection.scalars(select(text))
            return text.in_([value for value in values if value is not None and is_found(value)])
        read = select(table.c.id, text).where(text.is_not(None)).execution_options(yield_per=_ROWS)
        found = [id_ for id_, value in self._connection.execute(read) if is_found(value)]
        return table.c.id == any_(bindparam(None, found, type_=ARRAY(BigInteger), unique=True))

    def matches(self, text: Expression, pattern: BindParameter[Any]) -> Condition:
        """``LIKE`` where case matters, with a pattern of ``pattern``."""
        return text.like(pattern)

    def pattern(self, like: str) -> str:
        r"""A pattern of ``LIKE`` in which ``\`` escapes itself."""
        return like.replace("\\", "\\\\")

    def to_number_of(self, text: Expression) -> Expression:
        """``text`` as a number, NULL if it is none."""
        is_number = text.bool_op("~")(bindparam(None, NUMBER, type_=Text(), unique=True))
        return case((is_number, cast(text, Double())))

    def number_in(self, text: Expression, name: str) -> Expression:
        """The number under ``name`` in a JSON object that is text; NULL if there is none.

        By a pattern, as a cast to JSON fails where the text is none, and a cast of too large a number.
        """
        found = func.substring(text, bindparam(None, number_pattern(name), type_=Text(), unique=True))
        return cast(found, Double())
