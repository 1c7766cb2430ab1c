"""What a search has to know of a store, read by the statement that begins its transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, LiteralString

import orjson
from sqlalchemy import Connection

from ...model import Source
from ..sql.conditions import Catalog, KnownKey
from .dialect import PostgreSQLDialect

Facts = Sequence[str | None]
"""The row that ``BEGIN`` returns."""
_MOST: Final = 100
"""So many experiments, sources and keys are read at once; of more, those that are needed are looked up."""
_MOST_REMEMBERED: Final = 1_000

_BY_ID: Final[LiteralString] = "(SELECT json_object_agg(id, {}) FROM (SELECT * FROM {} LIMIT {}) AS listed)"
# From this statement on no partition is dropped that a later one may read.
_LOCK: Final[LiteralString] = "(SELECT 1 FROM traces LIMIT 0)"
PREPARE: Final[LiteralString] = "PREPARE wherefrom_facts AS SELECT {}, {}, {}, {}".format(
    _BY_ID.format("name", "experiments", _MOST + 1),
    _BY_ID.format("digest", "sources", _MOST + 1),
    _BY_ID.format("json_build_array(family, key, unlisted)", "known_keys", _MOST + 1),
    _LOCK,
)
BEGIN: Final[LiteralString] = "BEGIN; EXECUTE wherefrom_facts"


class LoadedCatalog(Catalog):
    """A catalog that has experiments, sources and keys already, unless they are many.

    ``remembered`` has the sources that this process has read, by digest: what one stands for does not change.
    """

    def __init__(self, connection: Connection, facts: Facts, remembered: dict[str, Source]) -> None:
        super().__init__(connection, PostgreSQLDialect(connection))
        experiments, sources, known = ({} if fact is None else orjson.loads(fact) for fact in facts[:3])
        self._remembered = remembered
        self._digests: dict[int, str] = {int(id_): digest for id_, digest in sources.items()}
        self._has_all_known = len(known) <= _MOST
        self._known = {
            (family, key): KnownKey(int(id_), unlisted) for id_, (family, key, unlisted) in known.items()
        }
        if len(experiments) <= _MOST:
            self._experiments = [(int(id_), name) for id_, name in experiments.items()]
        if len(sources) <= _MOST:
            self._sources = frozenset(self._digests)

    def known_key(self, family: str, key: str) -> KnownKey | None:
        """The row of a key, ``None`` if there is none."""
        return self._known.get((family, key)) if self._has_all_known else super().known_key(family, key)

    def source_values(self, key: str) -> Mapping[int, str]:
        """The value of each source for a metadata key; sources without one are left out."""
        if len(self._digests) > _MOST:
            return super().source_values(key)
        read = self.sources_by_id(set(self._digests))
        return {id_: read[id_][key] for id_ in self._digests if key in read[id_]}

    def sources_by_id(self, ids: set[int]) -> Mapping[int, Source]:
        """The sources with these row ids, and those that were read before."""
        missing = ids - self._read.keys()
        digests = [(id_, self._digests[id_]) for id_ in missing if id_ in self._digests]
        for id_, digest in digests:
            if (source := self._remembered.get(digest)) is not None:  # another thread may forget it
                self._read[id_] = source
        read = super().sources_by_id(ids)
        if len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered.update((digest, read[id_]) for id_, digest in digests)
        return read
