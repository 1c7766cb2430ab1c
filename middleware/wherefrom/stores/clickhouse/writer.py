"""Writes batches: spans first, so that whoever sees a trace sees its spans."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..._capture.values import clean_text
from ...exceptions import StoreUnavailableError
from ...model import Source
from ...model.record import Encoded, FactsTuple, Kind, Record, Shape, is_facts, kind_of, shape_of_facts
from .connection import Connection, to_lines
from .rows import (
    ROLLUP_COLUMNS,
    SPAN_COLUMNS,
    TRACE_COLUMNS,
    Row,
    from_encoded,
    from_facts,
    listed,
    merged,
    rollup_of,
)
from .schema import ROLLED_COLUMNS

MAX_KEYS: Final = 10_000
"""So many keys of a family are listed."""
MAX_KEY_LENGTH: Final = 250
_MAX_KNOWN: Final = 1_000
_STEP: Final = 1_000  # traces that are looked up at once: servers refuse values of more than 128 KiB
_KEPT: Final = (*TRACE_COLUMNS, "created")
_CHANGED: Final = (*_KEPT, "changed")
_COUNTED: Final = ("name", "state", "duration_bucket", "metadata", *ROLLED_COLUMNS)


def new_id() -> int:
    """The id of a new database, by which cursors know it."""
    return secrets.randbits(60)


def new_token() -> str:
    """What names one insert: sent twice under one name, it is taken once."""
    return uuid.uuid4().hex


def is_listed(key: str) -> bool:
    """Whether a key is listed if there is room."""
    return 0 < len(key) <= MAX_KEY_LENGTH and "\0" not in key


class Writer:
    """Writes to one database. It remembers which keys and experiments it has announced."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # Of a batch that may or may not have arrived: sent again, the server takes it for the same.
        self._unsure: tuple[bytes, str] | None = None
        self.forget()

    def forget(self) -> None:
        """Announce all keys and experiments again, as for a new database."""
        self._keys: dict[str, set[str]] = {"metadata": set(), "tag": set(), "span": set()}
        self._experiments: set[str] = set()
        self._shapes: set[Shape] = set()
        self._kinds: set[Kind] = set()
        self._owed: tuple[bytes, str] | None = None

    def write(self, records: Sequence[Record], sources: Mapping[str, Source]) -> None:
        """Write records; ``sources`` are those of facts, by digest."""
        self._pay()
        rows: dict[str, Row] = {}
        spans: list[tuple[str, list[Any]]] = []
        for record in records:
            row, of_trace = self._read(record, sources)
            trace_id = row["trace_id"]
            spans += ((trace_id, span) for span in of_trace)
            rows[trace_id] = merged(rows[trace_id], row) if trace_id in rows else row
        if not rows:
            return
        stored = self._stored(list(rows))
        again = [merged(old, rows[old["trace_id"]]) for old in stored]
        for row in again:
            rows[row["trace_id"]] = row
        known = {row["trace_id"] for row in again}
        of_spans = to_lines([trace_id, rows[trace_id]["request_time"], *span] for trace_id, span in spans)
        new_rows = [row for id_, row in rows.items() if id_ not in known]
        # Not by chance: a batch that is sent again is the same one.
        content = hashlib.sha256(of_spans + "".join(rows).encode())
        for place, row in enumerate(new_rows, int.from_bytes(content.digest()[:5], "big") << 20):
            row["place"] = place
        new = to_lines(listed(new_rows, TRACE_COLUMNS))
        changed = to_lines(listed(({**row, "changed": 1} for row in again), _CHANGED))
        corrected = [
            rollup_of(row, sign)
            for old, row in zip(stored, again, strict=True)
            if any(old[column] != row[column] for column in _COUNTED)
            for sign, row in ((-1, old), (1, row))
        ]
        token = self._token(of_spans, new, changed)
        self._insert("spans", SPAN_COLUMNS, of_spans, f"{token}-spans")
        self._insert("traces", TRACE_COLUMNS, new, token)
        self._insert("traces", _CHANGED, changed, f"{token}-changed")
        self._owed = to_lines(listed(corrected, ROLLUP_COLUMNS)), f"{token}-rollups"
        self._pay()
        self._unsure = None

    def learn(self, family: str, names: Iterable[str]) -> None:
        """List each key that is not listed yet, as far as there is room."""
        known = self._keys[family]
        unseen = dict.fromkeys(clean_text(key) for key in names if key not in known)
        new = [key for key in unseen if key not in known and is_listed(key)][: MAX_KEYS - len(known)]
        if new:
            data = to_lines([family, key] for key in new)
            self._insert("known_keys", ("family", "key"), data, new_token())
            known.update(new)

    def _pay(self) -> None:
        """Correct rollups by what was changed before: the changed rows do not say any more what they were."""
        owed, self._owed = self._owed, None
        if owed is None:
            return
        try:
            self._insert("rollups", ROLLUP_COLUMNS, *owed)
        except StoreUnavailableError:
            self._owed = owed
            raise

    def _insert(self, table: str, columns: Sequence[str], data: bytes, token: str) -> None:
        if data:
            self._connection.insert(table, columns, data, token)

    def _read(self, record: Record, sources: Mapping[str, Source]) -> tuple[Row, list[list[Any]]]:
        if is_facts(record):
            facts: FactsTuple = record
            kind = kind_of(facts)
            if kind not in self._kinds:
                self._announce(shape_of_facts(facts, sources))
                _remember(self._kinds, kind)
            return from_facts(facts, sources)
        encoded: Encoded = record
        shape = encoded[1]
        if shape not in self._shapes:
            self._announce(shape)
            _remember(self._shapes, shape)
        return from_encoded(encoded)

    def _announce(self, shape: Shape) -> None:
        if shape.experiment not in self._experiments:
            data = to_lines([[shape.experiment]])
            self._insert("experiments", ("name",), data, new_token())
            _remember(self._experiments, shape.experiment)
        self.learn("metadata", (*sorted(shape.metadata), *shape.source))
        self.learn("tag", sorted(shape.tags))
        self.learn("span", sorted(shape.attributes))

    def _stored(self, trace_ids: Sequence[str]) -> list[Row]:
        """The rows of those traces that are stored already."""
        steps = range(0, len(trace_ids), _STEP)
        return [row for start in steps for row in self._stored_at_once(trace_ids[start : start + _STEP])]

    def _stored_at_once(self, trace_ids: Sequence[str]) -> list[Row]:
        values: dict[str, Any] = {"ids": list(trace_ids)}
        places = self._connection.rows(
            "SELECT experiment, request_time, trace_id FROM trace_ids WHERE trace_id IN {ids:Array(String)}",
            values,
        )
        if not places:
            return []
        values["places"] = list(map(tuple, places))
        found = self._connection.rows(
            f"SELECT {', '.join(_KEPT)} FROM traces FINAL"
            " WHERE (experiment, request_time, trace_id) IN {places:Array(Tuple(String, Int64, String))}",
            values,
        )
        return [dict(zip(_KEPT, row, strict=True)) for row in found]

    def _token(self, *parts: bytes) -> str:
        digest = hashlib.sha256(b"\0".join(parts)).digest()
        if self._unsure is None or self._unsure[0] != digest:
            self._unsure = digest, new_token()
        return self._unsure[1]


def _remember(known: set[Any], item: Any) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    known.add(item)
