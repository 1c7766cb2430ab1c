"""Traces as rows of a table: one column for what every trace has, and one for each known key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from .. import keys
from ..model import Trace

MOST_KEYS: Final = 200

TIMESTAMP: Final = "timestamp"  # in ms since the epoch
DURATION: Final = "execution_time_ms"
_FIXED: Final = (
    "trace_id", "experiment", TIMESTAMP, DURATION, "status", "name", "client_request_id",
    "session_id", "user", "request_preview", "response_preview",
)  # fmt: skip
_OTHER: Final = "other"
_NOT_PAIRS: Final = frozenset(
    {keys.SESSION, keys.USER, keys.TRACE_NAME_TAG, keys.SCHEMA_VERSION}  # they have a column, or say nothing
)

Pair = tuple[str, str]
"""metadata or tag, and the key."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns, named as a filter names them; ``other`` holds, as JSON, the pairs without a column."""

    pairs: tuple[Pair, ...]

    @classmethod
    def of(cls, metadata: Iterable[str], tags: Iterable[str]) -> Layout:
        """Columns for the keys that traces are known to carry, if they are not too many."""
        known = [("metadata", key) for key in metadata if key not in _NOT_PAIRS]
        known += [("tag", key) for key in tags if key not in _NOT_PAIRS]
        return cls(tuple(known[:MOST_KEYS]))

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return [*_FIXED, *(f"{family}.{key}" for family, key in self.pairs), _OTHER]

    def row(self, trace: Trace) -> list[Any]:
        """The values of one trace, ``None`` for what it lacks."""
        info = trace.info
        took = trace.duration_ns
        families = (("metadata", info.trace_metadata), ("tag", info.tags))
        pairs = {
            (family, key): value
            for family, found in families
            for key, value in found.items()
            if key not in _NOT_PAIRS
        }
        own = [pairs.pop(pair, None) for pair in self.pairs]
        others = {f"{family}.{key}": value for (family, key), value in pairs.items()}
        return [
            info.trace_id,
            info.experiment,
            info.request_time,
            None if took is None else round(took / 1e6, 3),
            info.state.value,
            info.name,
            info.client_request_id,
            info.trace_metadata.get(keys.SESSION),
            info.trace_metadata.get(keys.USER),
            info.request_preview,
            info.response_preview,
            *own,
            orjson.dumps(others).decode() if others else None,
        ]
