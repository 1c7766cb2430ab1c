"""``known_keys`` and ``trace_values``: the keys that traces carry, and an index of their values.

``known_keys`` serves hints and completion, and says which keys ``trace_values`` indexes. It is bounded. For a
key that does not fit, its family gets a row under ``OTHERS`` in the same transaction. So each key of a stored
trace has a row, or its family has that one. In the second case a key that gets a row later may occur in older
traces, whose values are not indexed.

Rows are added under the write lock, are never deleted, and have ascending ids: a process reads the rows that
are new to it by their id.

``trace_values`` has the traces with a value under a key of their own metadata or tags, by time. It indexes
values of at most 128 characters, under keys of at most 250 characters that need no JSON escapes and have a
row in ``known_keys``. ``known_keys.unlisted`` says what the index lacks: with ``LONG`` it lacks long values,
so it serves equality with a short text but no pattern; with ``ANY`` it may lack any value and is not used.

The writer indexes the values of a batch that it inserted, in one statement; triggers follow every change and
deletion, whoever makes it.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import orjson

from ... import keys
from ..._capture.values import clean_text

MAX_KEYS: Final = 10_000
"""So many keys of a family have a row."""
MAX_NEW_KEYS: Final = 1_000
"""So many more may have one after a trace, or after the spans of a batch."""
OTHERS: Final = ""
"""The key of the row that marks a family in which some keys have no row."""

# One row, however many are found: each that comes back costs the GIL once more.
_LATER_ROWS: Final = "SELECT json_group_array(json_array(id, family, key)) FROM known_keys WHERE id > ?"
_INSERT: Final = (
    "INSERT INTO known_keys (family, key, unlisted)"
    " SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
    " WHERE true ON CONFLICT DO NOTHING"
)


def has_row(key: str) -> bool:
    """Whether the key gets a row if there is room."""
    return 0 < len(key) <= MAX_KEY_LENGTH and "\0" not in key


class KnownKeys:
    """A process's copy of the table. Discard it when a transaction that added to it fails."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()
        self._counts: Counter[str] = Counter()
        self._last = 0

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Read the rows that were added since; the caller holds the transaction."""
        (text,) = connection.execute(_LATER_ROWS, (self._last,)).fetchone()
        for id_, family, key in orjson.loads(text):
            self._seen.add((family, key))
            self._counts[family] += 1
            self._last = max(self._last, id_)

    def learn(self, connection: sqlite3.Connection, family: str, names: Iterable[str]) -> None:
        """Give a row to each key that has none yet, as far as there is room."""
        unseen = [name for name in names if (family, name) not in self._seen]
        if not unseen:
            return
        cleaned = dict.fromkeys(map(clean_text, unseen))
        new = [key for key in cleaned if (family, key) not in self._seen and has_row(key)]
        rows = _admit(new, self._counts[family], is_closed=(family, OTHERS) in self._seen)
        if rows:
            connection.execute(_INSERT, (family, orjson.dumps(rows).decode()))
            self.refresh(connection)


def _admit(new: Sequence[str], count: int, *, is_closed: bool) -> list[tuple[str, int]]:
    """The rows to add for new keys of a family with ``count`` rows."""
    room = max(0, min(MAX_KEYS - count, MAX_NEW_KEYS))
    rows = [(key, ANY if is_closed else WHOLE) for key in new[:room]]
    if len(new) > room and not is_closed:
        rows.append((OTHERS, ANY))
    return rows


MAX_LENGTH: Final = 128
MAX_KEY_LENGTH: Final = 250

WHOLE: Final = 0
LONG: Final = 1
ANY: Final = 2
"""What a key's list lacks: nothing, values that are too long or hold a NUL, or unknown values."""

# Keys that need no JSON escapes and can be quoted in SQLite's JSON paths.
_PLAIN_KEY: Final = re.compile(r"[ !#-\[\]-~]+")
# Content, which differs from trace to trace: an index would only cost space.
_CONTENT: Final = frozenset(
    {
        keys.TRACE_INPUTS,
        keys.TRACE_OUTPUTS,
        keys.TOKEN_USAGE,
        "mlflow.trace.cost",
        "mlflow.trace.sizeBytes",
        "mlflow.trace.sizeStats",
    }
)
_FAMILIES: Final = {"metadata": "metadata", "tag": "tags"}


def is_plain(key: str) -> bool:
    """Whether the key needs no JSON escapes and can be quoted in a JSON path."""
    return _PLAIN_KEY.fullmatch(key) is not None


@lru_cache(maxsize=1024)
def lists_key(key: str) -> bool:
    """Whether values under the key are indexed."""
    return is_plain(key) and len(key) <= MAX_KEY_LENGTH and key not in _CONTENT


def lists_value(value: str) -> bool:
    """Whether the value is indexed, if its key is."""
    return len(value) <= MAX_LENGTH and "\0" not in value


# The same in SQL, for a row of json_each named pair.
_LISTS_KEY: Final = (
    "pair.key GLOB '?*' AND NOT pair.key GLOB '*[^] !#-[^-~]*'"
    f" AND pair.key NOT IN ({', '.join(map(repr, sorted(_CONTENT)))})"
)
_LISTS_VALUE: Final = f"length(pair.value) <= {MAX_LENGTH}"


def triggers() -> Iterator[str]:
    """The SQL of the triggers that keep the index consistent; each replaces an existing one."""
    yield "DROP TRIGGER IF EXISTS values_after_delete"
    yield "DROP TRIGGER IF EXISTS values_after_update"
    yield "DROP VIEW IF EXISTS gone_values"
    # One row at a time, by equality: for (a, b) IN (SELECT ...) SQLite before 3.41 scans a key's entries.
    yield "CREATE VIEW gone_values AS SELECT key, value, request_time, trace FROM trace_values"
    yield (
        "CREATE TRIGGER values_gone INSTEAD OF INSERT ON gone_values BEGIN"
        " DELETE FROM trace_values WHERE key = NEW.key AND value = NEW.value"
        " AND request_time = NEW.request_time AND trace = NEW.trace; END"
    )
    forget = " ".join(_forget_pairs(family, column) for family, column in _FAMILIES.items())
    again = " ".join(
        statement
        for family, column in _FAMILIES.items()
        for statement in (
            *_list_pairs(family, column, "NEW", f"json_each(NEW.{column})", "true"),
            _mark(ANY, family, f"json_each(NEW.{column})", f"NOT {_is_readable('NEW', column)}"),
        )
    )
    has_pairs = " OR ".join(f"OLD.{column} <> '{{}}'" for column in _FAMILIES.values())
    has_changed = " OR ".join(f"OLD.{column} <> NEW.{column}" for column in _FAMILIES.values())
    yield f"CREATE TRIGGER values_after_delete AFTER DELETE ON traces WHEN {has_pairs} BEGIN {forget} END"
    yield (
        "CREATE TRIGGER values_after_update AFTER UPDATE OF metadata, tags ON traces"
        f" WHEN {has_changed} BEGIN {forget} {again} END"
    )


def _list_pairs(family: str, column: str, row: str, pairs: str, where: str) -> Iterator[str]:
    # In the order of the table, so that each page of it is visited once.
    yield (
        "INSERT OR IGNORE INTO trace_values (key, value, request_time, trace)"
        f" SELECT known.id, pair.value, {row}.request_time, {row}.id FROM {pairs} AS pair"
        f" CROSS JOIN known_keys AS known ON known.family = '{family}' AND known.key = pair.key"
        f" WHERE {where} AND {_is_readable(row, column)} AND known.unlisted < {ANY}"
        f" AND {_LISTS_KEY} AND {_LISTS_VALUE} ORDER BY 1, 2, 3, 4;"
    )
    yield _mark(LONG, family, pairs, f"{where} AND {_is_readable(row, column)} AND NOT ({_LISTS_VALUE})")


def _mark(unlisted: int, family: str, pairs: str, where: str) -> str:
    return (
        f"UPDATE known_keys SET unlisted = {unlisted} WHERE family = '{family}' AND unlisted < {unlisted}"
        f" AND key IN (SELECT pair.key FROM {pairs} AS pair WHERE {where});"
    )


def _is_readable(row: str, column: str) -> str:
    # SQLite reads JSON's strings up to their first NUL.
    return f"instr({row}.{column}, '\\u0000') = 0"


def listing(where: str) -> Iterator[str]:
    """SQL that lists the values of the traces for which ``where`` holds, but of those that hold a NUL."""
    for family, column in _FAMILIES.items():
        pairs = f"traces CROSS JOIN json_each(traces.{column})"
        yield from _list_pairs(family, column, "traces", pairs, f"{where} AND traces.{column} <> '{{}}'")


_LIST_ONE: Final = (
    "INSERT OR IGNORE INTO trace_values (key, value, request_time, trace)"
    " SELECT known_keys.id, ?, traces.request_time, traces.id FROM traces CROSS JOIN known_keys"
    f" WHERE traces.trace_id = ? AND family = ? AND key = ? AND unlisted < {ANY}"
)
_MARK_LONG: Final = (
    f"UPDATE known_keys SET unlisted = {LONG} WHERE family = ? AND key = ? AND unlisted < {LONG}"
)


def list_pairs(connection: sqlite3.Connection, trace_id: str, family: str, pairs: Mapping[str, str]) -> None:
    """List the values of a new trace that holds a NUL: SQL reads it only in part."""
    for key, value in pairs.items():
        if lists_key(key):
            if lists_value(value):
                connection.execute(_LIST_ONE, (value, trace_id, family, key))
            else:
                connection.execute(_MARK_LONG, (family, key))


def _forget_pairs(family: str, column: str) -> str:
    return (
        "INSERT INTO gone_values (key, value, request_time, trace)"
        f" SELECT known.id, pair.value, OLD.request_time, OLD.id FROM json_each(OLD.{column}) AS pair"
        f" CROSS JOIN known_keys AS known ON known.family = '{family}' AND known.key = pair.key;"
    )
