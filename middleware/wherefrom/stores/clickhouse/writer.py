"""Writes batches: spans first, so that whoever sees a trace sees its spans."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Final, NamedTuple

from ..._capture.values import clean_text
from ...exceptions import StoreUnavailableError
from ...model import Assessment, AssessmentKind, Source
from ...model.record import Encoded, FactsTuple, Kind, Record, Shape, is_facts, kind_of, shape_of_facts
from ..assessments import COLUMNS, to_row
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
    place_of,
    rollup_of,
)
from .schema import ROLLED_COLUMNS

FAMILIES: Final = ("metadata", "tag", "span", *(kind.value for kind in AssessmentKind))
MAX_KEYS: Final = 10_000
"""So many keys of a family are listed."""
MAX_KEY_LENGTH: Final = 250
_MAX_KNOWN: Final = 1_000
_ASSESSMENT_COLUMNS: Final = tuple("request_time" if name == "created" else name for name in COLUMNS)
_STEP: Final = 1_000  # traces that are looked up at once: servers refuse values of more than 128 KiB
_KEPT: Final = (*TRACE_COLUMNS, "created")
_CHANGED: Final = (*_KEPT, "changed", "dropped")
_COUNTED: Final = ("name", "state", "duration_bucket", "metadata", *ROLLED_COLUMNS)


_PLACES: Final = (
    "SELECT experiment, request_time, trace_id FROM trace_ids WHERE trace_id IN {ids:Array(String)}"
)
_AT_PLACES: Final = (
    f"SELECT {', '.join(_KEPT)} FROM traces FINAL"
    " WHERE (experiment, request_time, trace_id) IN {places:Array(Tuple(String, Int64, String))}"
)
_DOUBLED: Final = (
    "SELECT trace_id FROM trace_ids WHERE trace_id IN {ids:Array(String)}"
    " GROUP BY trace_id HAVING uniqExact(experiment, request_time) > 1"
)


class _Changes(NamedTuple):
    """Rows to insert for traces that are stored, and what they change in the rollups."""

    rows: bytes
    rollups: bytes


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
        self._keys: dict[str, set[str]] = {family: set() for family in FAMILIES}
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
        changes = self._merge(rows, self._stored(list(rows)))
        new = [row for row in rows.values() if "created" not in row]
        of_spans = to_lines([trace_id, rows[trace_id]["request_time"], *span] for trace_id, span in spans)
        # Not by chance: a batch that is sent again is the same one.
        content = hashlib.sha256(of_spans + "".join(rows).encode())
        for place, row in enumerate(new, int.from_bytes(content.digest()[:5], "big") << 20):
            row["place"] = place
        of_new = to_lines(listed(new, TRACE_COLUMNS))
        token = self._token(of_spans, of_new, changes.rows)
        self._insert("spans", SPAN_COLUMNS, of_spans, f"{token}-spans")
        self._insert("traces", TRACE_COLUMNS, of_new, token)
        self._insert("traces", _CHANGED, changes.rows, f"{token}-changed")
        self._owed = changes.rollups, f"{token}-rollups"
        self._pay()
        self._unsure = None
        self._settle([row["trace_id"] for row in new])

    def _merge(self, rows: dict[str, Row], stored: Mapping[str, Sequence[Row]]) -> _Changes:
        """Merge rows with those that are stored; return what that changes in the store.

        Of rows at other places than that of the result there is nothing left.
        """
        changed: list[Row] = []
        corrected: list[Row] = []
        for trace_id, known in stored.items():
            first = min(known, key=lambda row: (row["created"], row["place"]))
            given = [rows[trace_id]] if trace_id in rows else []
            # Cursors have passed the trace already: it stays where they met it.
            row = reduce(merged, (*known, *given)) | {name: first[name] for name in ("created", "place")}
            rows[trace_id] = row
            here = [old for old in known if place_of(old) == place_of(row)]
            if not here:
                changed.append(row | {"changed": 0, "dropped": 0})
            for old in here:
                if old != row:
                    changed.append(row | {"changed": 1, "dropped": 0})
                if any(old[column] != row[column] for column in _COUNTED):
                    corrected += rollup_of(old, -1), rollup_of(row, 1)
            changed += (old | {"changed": 0, "dropped": 1} for old in known if old not in here)
        return _Changes(to_lines(listed(changed, _CHANGED)), to_lines(listed(corrected, ROLLUP_COLUMNS)))

    def _settle(self, trace_ids: Sequence[str]) -> None:
        """Merge new traces with those that another process has inserted meanwhile at another place.

        Each process looks after it has inserted, so the last one sees all. If several do, they insert the
        same under the same name, which counts once.
        """
        doubled = [
            id_ for some in _steps(trace_ids) for (id_,) in self._connection.rows(_DOUBLED, {"ids": some})
        ]
        groups: dict[tuple[int, ...], dict[str, list[Row]]] = {}
        for trace_id, known in self._stored(doubled).items():
            if len(known) > 1:
                batches = tuple(sorted(row["created"] for row in known))
                groups.setdefault(batches, {})[trace_id] = known
        for stored in groups.values():
            changes = self._merge({}, dict(sorted(stored.items())))
            token = hashlib.sha256(changes.rows).hexdigest()
            self._connection.insert("traces", _CHANGED, changes.rows, token, alone=True)
            self._owed = changes.rollups, f"{token}-rollups"
            self._pay()

    def write_assessments(self, assessments: Sequence[Assessment]) -> None:
        """Store feedback and expectations."""
        for kind in AssessmentKind:
            self.learn(kind.value, [one.name for one in assessments if one.kind is kind])
        self._insert("assessments", _ASSESSMENT_COLUMNS, to_lines(map(to_row, assessments)), new_token())

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

    def _stored(self, trace_ids: Sequence[str]) -> dict[str, list[Row]]:
        """The rows of those traces that are stored already: mostly one for each."""
        found: dict[str, list[Row]] = {}
        for some in _steps(trace_ids):
            places = self._connection.rows(_PLACES, {"ids": some})
            if places:
                for values in self._connection.rows(_AT_PLACES, {"places": list(map(tuple, places))}):
                    row = dict(zip(_KEPT, values, strict=True))
                    found.setdefault(row["trace_id"], []).append(row)
        return found

    def _token(self, *parts: bytes) -> str:
        digest = hashlib.sha256(b"\0".join(parts)).digest()
        if self._unsure is None or self._unsure[0] != digest:
            self._unsure = digest, new_token()
        return self._unsure[1]


def _steps(trace_ids: Sequence[str]) -> Iterator[list[str]]:
    return (list(trace_ids[start : start + _STEP]) for start in range(0, len(trace_ids), _STEP))


def _remember(known: set[Any], item: Any) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    known.add(item)
