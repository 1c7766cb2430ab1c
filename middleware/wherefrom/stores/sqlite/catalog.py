"""What a store knows about its own content: keys, sources and experiments, read before the traces are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from ...query.fields import METADATA, SPAN_ATTRIBUTE, TAG, with_key
from ...query.tree import format_field
from .expressions import Condition, pair
from .known_keys import OTHERS, has_row, is_plain
from .reader import Prepared
from .schema import experiments, known_keys, sources

MAX_SOURCES: Final = 500
_FAMILIES: Final = {"metadata": METADATA, "tag": TAG, "span": SPAN_ATTRIBUTE}

_SOURCES: Final = Prepared(select(sources.c.id).limit(MAX_SOURCES + 1))
_SOURCE_VALUES: Final = Prepared(
    select(sources.c.id, func.json_extract(sources.c.metadata, bindparam("path")))
)
_EXPERIMENTS: Final = Prepared(select(experiments.c.id, experiments.c.name))
_KEY: Final = Prepared(
    select(known_keys.c.id, known_keys.c.unlisted).where(
        known_keys.c.family == bindparam("family"), known_keys.c.key == bindparam("key")
    )
)

SourceIds = frozenset[int]


class KnownKey(NamedTuple):
    """A key that traces carry; ``unlisted`` says what ``trace_values`` lacks under it."""

    id: int
    unlisted: int


class Catalog:
    """Looks things up on one connection, each once; a search makes its own."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._sources: SourceIds | None = None
        self._known: dict[tuple[str, str], KnownKey | None] = {}

    def known_key(self, family: str, key: str) -> KnownKey | None:
        """What is known of a key; ``family`` is metadata, tag or span."""
        place = (family, key)
        if place not in self._known:
            rows = _KEY.rows(self.connection, {"family": family, "key": key})
            self._known[place] = KnownKey(*rows[0]) if rows else None
        return self._known[place]

    def has_key(self, family: str, key: str) -> bool:
        """Whether some trace may carry the key."""
        if not has_row(key) or self.known_key(family, key) is not None:
            return True
        return self.known_key(family, OTHERS) is not None

    def all_sources(self) -> SourceIds | None:
        """Every source; ``None`` where there are too many to list."""
        if self._sources is None:
            self._sources = frozenset(_SOURCES.values(self.connection))
        return self._sources if len(self._sources) <= MAX_SOURCES else None

    def sources_where(self, condition: Condition) -> SourceIds:
        """The sources for which the condition holds."""
        return frozenset(self.connection.scalars(select(sources.c.id).where(condition)))

    def source_values(self, key: str) -> Mapping[int, str]:
        """What each source has under a key of its metadata, those left out that have nothing."""
        if is_plain(key):
            rows: Any = _SOURCE_VALUES.rows(self.connection, {"path": f'$."{key}"'})
        else:
            of_source = pair(sources.c.metadata, key)
            rows = self.connection.execute(select(sources.c.id, of_source))
        return {id_: value for id_, value in rows if value is not None}

    def experiments(self) -> list[tuple[int, str]]:
        """Ids and names of all experiments."""
        return [(id_, name) for id_, name in _EXPERIMENTS.rows(self.connection)]

    def experiment_ids(self, names: Sequence[str]) -> tuple[list[int], bool]:
        """Ids of experiments named so, or with that id where none is named so; and whether that is all."""
        rows = self.experiments()
        by_name = {str(id_): id_ for id_, _ in rows} | {name: id_ for id_, name in rows}
        found = {by_name[name] for name in names if name in by_name}
        return sorted(found), len(found) == len(rows)

    def spelled_keys(self) -> Iterator[str]:
        """The known keys that traces carry, as a filter spells them."""
        query = select(known_keys.c.family, known_keys.c.key).where(known_keys.c.key != OTHERS)
        for family, key in self.connection.execute(query.order_by(known_keys.c.family, known_keys.c.key)):
            yield format_field(with_key(_FAMILIES[family], key))
