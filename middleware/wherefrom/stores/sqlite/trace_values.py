"""``trace_values``: which traces have a value under a key of their own metadata or tags, by time.

Only what is worth finding again is listed: values of at most 128 characters, under keys of at most 250 that
JSON writes as they are and that have a row in ``known_keys``. What a list lacks, ``known_keys.unlisted``
says: ``LONG`` where a pattern may match what is not in it, though a short text that is asked for is found
there or nowhere; ``ANY`` where it is of no use.

The writer lists what it inserts; triggers follow every change and deletion, whoever makes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from ... import keys

MAX_LENGTH: Final = 128
MAX_KEY_LENGTH: Final = 250

WHOLE: Final = 0
LONG: Final = 1
ANY: Final = 2
"""What a key's list lacks: nothing, what is too long or holds a NUL, or nobody knows what."""

# Keys that JSON writes as they are and that SQLite's JSON paths can quote.
_PLAIN_KEY: Final = re.compile(r"[ !#-\[\]-~]+")
# Content, which differs from trace to trace.
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
    """Whether JSON writes the key as it is, and a JSON path can quote it."""
    return _PLAIN_KEY.fullmatch(key) is not None


@lru_cache(maxsize=1024)
def lists_key(key: str) -> bool:
    """Whether values under the key are listed."""
    return is_plain(key) and len(key) <= MAX_KEY_LENGTH and key not in _CONTENT


def lists_value(value: str) -> bool:
    """Whether the value is listed, under a key that is."""
    return len(value) <= MAX_LENGTH and "\0" not in value


# The same in SQL, of a row of json_each named pair.
_LISTS_KEY: Final = (
    "pair.key GLOB '?*' AND NOT pair.key GLOB '*[^] !#-[^-~]*'"
    f" AND pair.key NOT IN ({', '.join(map(repr, sorted(_CONTENT)))})"
)
_LISTS_VALUE: Final = f"length(pair.value) <= {MAX_LENGTH}"


def list_all() -> Iterator[str]:
    """SQL that lists what the traces in a file hold: for one from before there was a list."""
    for family, column in _FAMILIES.items():
        yield from _list_pairs(family, column, "traces", f"traces, json_each(traces.{column})")


def triggers() -> Iterator[str]:
    """SQL for the triggers that keep the list true, in the place of those that a file has."""
    yield "DROP TRIGGER IF EXISTS values_after_delete"
    yield "DROP TRIGGER IF EXISTS values_after_update"
    yield "DROP VIEW IF EXISTS gone_values"
    # One row at a time, by equality: for (a, b) IN (SELECT ...) SQLite before 3.41 reads all of a key's list.
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
        for statement in _list_pairs(family, column, "NEW", f"json_each(NEW.{column})")
    )
    has_pairs = " OR ".join(f"OLD.{column} <> '{{}}'" for column in _FAMILIES.values())
    has_changed = " OR ".join(f"OLD.{column} <> NEW.{column}" for column in _FAMILIES.values())
    yield f"CREATE TRIGGER values_after_delete AFTER DELETE ON traces WHEN {has_pairs} BEGIN {forget} END"
    yield (
        "CREATE TRIGGER values_after_update AFTER UPDATE OF metadata, tags ON traces"
        f" WHEN {has_changed} BEGIN {forget} {again} END"
    )


def _list_pairs(family: str, column: str, row: str, pairs: str) -> Iterator[str]:
    # SQLite reads JSON's strings up to their first NUL.
    is_readable = f"instr({row}.{column}, '\\u0000') = 0"
    yield (
        "INSERT OR IGNORE INTO trace_values (key, value, request_time, trace)"
        f" SELECT known.id, pair.value, {row}.request_time, {row}.id FROM {pairs} AS pair"
        f" CROSS JOIN known_keys AS known ON known.family = '{family}' AND known.key = pair.key"
        f" WHERE {is_readable} AND {_LISTS_KEY} AND {_LISTS_VALUE};"
    )
    for unlisted, left_out in ((LONG, f"NOT ({_LISTS_VALUE})"), (ANY, f"NOT ({is_readable})")):
        yield (
            f"UPDATE known_keys SET unlisted = {unlisted}"
            f" WHERE family = '{family}' AND unlisted < {unlisted}"
            f" AND key IN (SELECT pair.key FROM {pairs} AS pair WHERE {left_out});"
        )


def _forget_pairs(family: str, column: str) -> str:
    return (
        "INSERT INTO gone_values (key, value, request_time, trace)"
        f" SELECT known.id, pair.value, OLD.request_time, OLD.id FROM json_each(OLD.{column}) AS pair"
        f" CROSS JOIN known_keys AS known ON known.family = '{family}' AND known.key = pair.key;"
    )
