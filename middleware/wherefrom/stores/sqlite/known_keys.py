"""``known_keys``: the keys that traces carry, for hints, for completion, and for the list of their values.

The table is bounded. A key that finds no room in it has no row, and then, in the same transaction, its family
has one under ``OTHERS``. So whichever process wrote a trace: each of its keys has a row, or its family has
that one. Where it has, a key that gets a row later may be in older traces, of which nothing is listed.

Rows are added while the write lock is held, are never deleted, and get ascending ids: what is new to a
process is what has a larger id.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import orjson
from sqlalchemy import Connection, func, insert, select

from ..._capture.values import clean_text
from .schema import known_keys
from .trace_values import ANY, MAX_KEY_LENGTH, WHOLE, list_all

MAX_KEYS: Final = 10_000
"""So many keys of a family have a row."""
MAX_NEW_KEYS: Final = 1_000
"""So many more may have one after a trace, or after the spans of a batch."""
OTHERS: Final = ""
"""The key of the row that says that a family has keys without a row."""

# One row, however many are found: see rows._execute.
_LATER_ROWS: Final = (
    "SELECT json_group_array(json_array(id, family, key, unlisted)) FROM known_keys WHERE id > ?"
)
_INSERT: Final = (
    "INSERT INTO known_keys (family, key, unlisted)"
    " SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
    " WHERE true ON CONFLICT DO NOTHING"
)


def has_row(key: str) -> bool:
    """Whether the key gets a row, where there is room."""
    return 0 < len(key) <= MAX_KEY_LENGTH and "\0" not in key


class KnownKeys:
    """The table as a process knows it: of no use once a transaction has failed that added to it."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], int | None] = {}
        self._counts: Counter[str] = Counter()
        self._last = 0

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Read what was added since; the caller holds the transaction."""
        (text,) = connection.execute(_LATER_ROWS, (self._last,)).fetchone()
        for id_, family, key, unlisted in orjson.loads(text):
            self._ids[family, key] = None if unlisted == ANY else id_
            self._counts[family] += 1
            self._last = max(self._last, id_)

    def learn(self, connection: sqlite3.Connection, family: str, names: Iterable[str]) -> None:
        """Give a row to each key that has none yet, as far as there is room."""
        unseen = [name for name in names if (family, name) not in self._ids]
        if not unseen:
            return
        cleaned = dict.fromkeys(map(clean_text, unseen))
        new = [key for key in cleaned if (family, key) not in self._ids and has_row(key)]
        rows = _admit(new, self._counts[family], is_closed=(family, OTHERS) in self._ids)
        if rows:
            connection.execute(_INSERT, (family, orjson.dumps(rows).decode()))
            self.refresh(connection)

    def listing_id(self, family: str, key: str) -> int | None:
        """The id under which values of a key are listed, if they are."""
        return self._ids.get((family, key))


def learn_key(connection: Connection, family: str, key: str) -> None:
    """Give a row to one key; the caller holds the transaction."""
    of_family = known_keys.c.family == family
    found = set(
        connection.scalars(select(known_keys.c.key).where(of_family, known_keys.c.key.in_((key, OTHERS))))
    )
    if key in found or not has_row(key):
        return
    count = connection.scalar(select(func.count()).where(of_family)) or 0
    for name, unlisted in _admit([key], count, is_closed=OTHERS in found):
        connection.execute(insert(known_keys).values(family=family, key=name, unlisted=unlisted))


def bound_all() -> Iterator[str]:
    """SQL for a file whose writers may have left out keys without a word."""
    ranked = "SELECT id, row_number() OVER (PARTITION BY family ORDER BY id) AS place FROM known_keys"
    beyond = f"SELECT id FROM ({ranked}) WHERE place > {MAX_KEYS}"  # noqa: S608
    yield f"DELETE FROM trace_values WHERE key IN ({beyond})"  # noqa: S608
    yield f"DELETE FROM known_keys WHERE id IN ({beyond})"  # noqa: S608
    for family in ("metadata", "tag", "span"):
        yield f"INSERT INTO known_keys (family, key, unlisted) VALUES ('{family}', '{OTHERS}', {ANY})"  # noqa: S608
    yield from list_all()


def _admit(new: Sequence[str], count: int, *, is_closed: bool) -> list[tuple[str, int]]:
    """The rows to add for new keys of a family that has ``count``."""
    room = max(0, min(MAX_KEYS - count, MAX_NEW_KEYS))
    rows = [(key, ANY if is_closed else WHOLE) for key in new[:room]]
    if len(new) > room and not is_closed:
        rows.append((OTHERS, ANY))
    return rows
