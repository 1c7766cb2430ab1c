"""``known_keys`` and ``trace_values`` in SQLite: rows are added under the write lock, with ascending ids.

A process reads the rows of ``known_keys`` that are new to it by their id. The writer indexes the values of a
batch that it inserted, in one statement; triggers follow every change and deletion, whoever makes it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import orjson

from ..._capture.values import clean_text
from ..sql.known_keys import (
    ANY,
    CONTENT,
    LONG,
    MAX_LENGTH,
    OTHERS,
    admit,
    has_row,
    lists_key,
    lists_value,
)

# One row, however many are found: each that comes back costs the GIL once more.
_LATER_ROWS: Final = "SELECT json_group_array(json_array(id, family, key)) FROM known_keys WHERE id > ?"
_INSERT: Final = (
    "INSERT INTO known_keys (family, key, unlisted)"
    " SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
    " WHERE true ON CONFLICT DO NOTHING"
)


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
        rows = admit(new, self._counts[family], is_closed=(family, OTHERS) in self._seen)
        if rows:
            connection.execute(_INSERT, (family, orjson.dumps(rows).decode()))
            self.refresh(connection)


_FAMILIES: Final = {"metadata": "metadata", "tag": "tags"}

# The same in SQL, for a row of json_each named pair.
_LISTS_KEY: Final = (
    "pair.key GLOB '?*' AND NOT pair.key GLOB '*[^] !#-[^-~]*'"
    f" AND pair.key NOT IN ({', '.join(map(repr, sorted(CONTENT)))})"
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
