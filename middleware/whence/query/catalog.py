"""What a store knows about its own content: keys, sources and experiments, read before the traces are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, func, select

from ..stores.schema import experiments, known_keys, sources
from .dialects import Condition, Dialect, Expression, PostgreSQL, SQLite
from .fields import METADATA, SPAN_ATTRIBUTE, TAG
from .lookup import with_key
from .regex import compile_pattern
from .tree import format_field

MAX_SOURCES: Final = 500
# Writers stop learning keys about here, so that a longer list proves nothing about a key it lacks.
_COMPLETE_KEYS: Final = 10_000
_FAMILIES: Final = {"metadata": METADATA, "tag": TAG, "span": SPAN_ATTRIBUTE}

# Built once: SQLAlchemy takes as long to build a statement as SQLite does to answer it.
_SOURCES: Final = select(sources.c.id).limit(MAX_SOURCES + 1)
_EXPERIMENTS: Final = select(experiments.c.id, experiments.c.name)
_KEY: Final = select(known_keys.c.key).where(
    known_keys.c.family == bindparam("family"), known_keys.c.key == bindparam("key")
)
_KEYS: Final = select(func.count()).select_from(known_keys)

SourceIds = frozenset[int]


class Catalog:
    """Looks things up on one connection, each once; a search makes its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.is_sqlite = connection.dialect.name == "sqlite"
        self.dialect: Dialect = SQLite() if self.is_sqlite else PostgreSQL(self.matching)
        self._sources: SourceIds | None = None
        self._has_key: dict[tuple[str, str], bool] = {}
        self._complete: bool | None = None

    def has_key(self, family: str, key: str) -> bool:
        """Whether some trace may carry the key; ``family`` is metadata, tag or span."""
        place = (family, key)
        if place not in self._has_key:
            found = self._first(_KEY, {"family": family, "key": self.dialect.storable(key)})
            self._has_key[place] = found is not None or not self._is_complete()
        return self._has_key[place]

    def all_sources(self) -> SourceIds | None:
        """Every source; ``None`` where there are too many to list."""
        if self._sources is None:
            self._sources = frozenset(self._connection.scalars(_SOURCES))
        return self._sources if len(self._sources) <= MAX_SOURCES else None

    def sources_where(self, condition: Condition) -> SourceIds:
        """The sources for which the condition holds."""
        return frozenset(self._connection.scalars(select(sources.c.id).where(condition)))

    def experiment_ids(self, names: Sequence[str]) -> tuple[list[int], bool]:
        """Ids of experiments named so, or with that id where none is named so; and whether that is all."""
        rows = self._connection.execute(_EXPERIMENTS).all()
        by_name = {str(id_): id_ for id_, _ in rows} | {name: id_ for id_, name in rows}
        found = {by_name[name] for name in names if name in by_name}
        return sorted(found), len(found) == len(rows)

    def spelled_keys(self) -> Iterator[str]:
        """Every key that traces carry, as a filter spells it."""
        query = select(known_keys.c.family, known_keys.c.key).order_by(known_keys.c.family, known_keys.c.key)
        for family, key in self._connection.execute(query):
            yield format_field(with_key(_FAMILIES[family], key))

    def _is_complete(self) -> bool:
        if self._complete is None:
            self._complete = (self._first(_KEYS) or 0) < _COMPLETE_KEYS
        return self._complete

    def matching(self, text: Expression, pattern: str) -> list[str]:
        """The distinct values of a text in which the regular expression is found."""
        found = compile_pattern(pattern)
        query = select(text).distinct().execution_options(stream_results=True)
        return [value for value in self._connection.scalars(query) if value is not None and found(value)]

    def _first(self, query: Select[Any], values: dict[str, str] | None = None) -> Any:
        return self._connection.scalars(query, values).first()
