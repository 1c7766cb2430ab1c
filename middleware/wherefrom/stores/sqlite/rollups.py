"""Writing rollups: whole hours and days are counted once nobody writes to them any more.

What a batch costs is one look-up: a change to a period that is rolled up deletes its row in
``rollup_periods``, in the same transaction, whoever makes the change. The period is then counted from its
traces until it is rolled up again:

1. Hours that have ended get a row that is pending, with a mark of its own.
2. Some time later, the traces of each hour whose row is still there are counted, without the write lock.
3. If the row has the same mark even then, nothing has changed meanwhile, and the counts are stored.

Days are counted from their hours in the same way. Counts of traces that are pruned are added to those kept of
their hour, in the transaction that deletes the traces.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from ... import keys
from ...model import TraceState
from ..base import ALONE
from ..sql.counts import MOST_TOKENS
from ..sql.rollup_counts import (
    BLOCK_COLUMNS,
    BLOCK_KEY,
    CLEAN,
    COLUMNS,
    HOUR_OF_BLOCK,
    HOURS_OF_DAY,
    HOURS_WITHOUT_BLOCKS,
    KEY,
    MOST_BLOCKS,
    MOST_DETAILED,
    ONCE,
    ROLLUP,
    SUMS_OF_AMOUNTS,
    TOKENS,
    Words,
    blocks_within,
    count_blocks,
    mark_days,
    mark_hours,
    start_of,
    store,
    store_blocks,
    store_day,
    too_many_blocks,
    unpack,
    unpack_blocks,
    with_details,
)
from ..sql.schema import DAY_MS, DETAILED, HOUR_MS, IN_BLOCKS, PENDING, ROLLED_UP

# So many traces are counted at once, or those of so much time: other threads wait for the connection.
AT_ONCE: Final = 20_000
_SLICE_MS: Final = 60_000


def triggers() -> Iterator[str]:
    """The SQL of the triggers that notice a change of what is rolled up."""
    forget, forget_new = (
        " ".join(
            f"DELETE FROM rollup_periods WHERE start = {start_of(time, width)} AND width = {width};"
            for width in (HOUR_MS, DAY_MS)
        )
        for time in ("OLD.request_time", "NEW.request_time")
    )
    counted = ("experiment_id", "source_id", "name", "state", "duration_bucket", "metadata", "request_time")
    has_changed = " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in counted)
    yield f"CREATE TRIGGER rollups_after_delete AFTER DELETE ON traces BEGIN {forget} END"
    yield (
        f"CREATE TRIGGER rollups_after_update AFTER UPDATE OF {', '.join(counted)} ON traces"
        f" WHEN {has_changed} BEGIN {forget} {forget_new} END"
    )


# EXISTS is evaluated for periods that are rolled up alone, and the hours of a batch seldom are.
FORGET_INSERTED: Final = f"""
WITH hours AS (
    SELECT DISTINCT {start_of("request_time", HOUR_MS)} AS start FROM traces WHERE id > :last
)
DELETE FROM rollup_periods
WHERE start IN (SELECT start FROM hours UNION SELECT {start_of("start", DAY_MS)} FROM hours) AND EXISTS (
    SELECT 1 FROM traces
    WHERE id > :last AND +request_time >= rollup_periods.start
        AND +request_time < rollup_periods.start + rollup_periods.width
)
"""
"""Forgets the periods that traces with an id above ``last`` were added to."""

MAKE: Final = (
    "CREATE TEMP TABLE IF NOT EXISTS {table} (" + COLUMNS + ")",
    "CREATE TEMP TABLE IF NOT EXISTS {table}_blocks (" + BLOCK_COLUMNS + ")",
)

_FLAGS: Final = f"""CASE
    WHEN instr(metadata, '"{keys.FEATURE_FLAG_PREFIX}') = 0 THEN '{{}}'
    WHEN instr(metadata, '\\u0000') > 0 THEN NULL
    ELSE (SELECT json_group_object(key, value) FROM (
        SELECT key, value FROM json_each(metadata) WHERE key GLOB '{keys.FEATURE_FLAG_PREFIX}*' ORDER BY key
    ))
END"""
# As ``read_tokens``: an object of numbers.
_USAGE: Final = f"""CASE WHEN instr(metadata, '"{keys.TOKEN_USAGE}"') > 0
    THEN json_extract(metadata, '$."{keys.TOKEN_USAGE}"') END"""


def _is_count(kind: str) -> str:
    path = f"'$.{kind}_tokens'"
    return (
        f"(json_extract(use, {path}) IS NULL OR (json_type(use, {path}) IN ('integer', 'real')"
        f" AND json_extract(use, {path}) BETWEEN {-MOST_TOKENS} AND {MOST_TOKENS}))"
    )


_HAS_TOKENS: Final = (
    "CASE WHEN use IS NULL OR NOT json_valid(use) THEN 0 WHEN json_type(use) <> 'object' THEN 0"
    f" ELSE {' AND '.join(map(_is_count, TOKENS))} END"
)
_TOKEN_SUMS: Final = ", ".join(
    f"coalesce(sum(CAST(json_extract(use, '$.{kind}_tokens') AS INTEGER)) FILTER (WHERE told), 0)"
    for kind in TOKENS
)


def _count_traces(table: str, where: str) -> str:
    """SQL that counts the traces for which ``where`` holds, by hour."""
    return f"""
    INSERT INTO temp.{table}
    SELECT start, {KEY}, failed, bucket, count(*), min(request_time), max(request_time),
        coalesce(sum(told), 0), {_TOKEN_SUMS}
    FROM (
        SELECT *, {_HAS_TOKENS} AS told FROM (
            SELECT {start_of("request_time", HOUR_MS)} AS start, experiment_id, source_id, name,
                {_FLAGS} AS flags, state = '{TraceState.ERROR.value}' AS failed, duration_bucket AS bucket,
                request_time, {_USAGE} AS use
            FROM traces WHERE {where} LIMIT {ONCE}
        )
    )
    GROUP BY start, {KEY}, failed, bucket
    """


def _amount(key: str, name: str) -> str:
    """As ``SQLiteDialect.number_in`` of a pair."""
    text = f"""CASE WHEN instr(metadata, '"{key}":') > 0 THEN json_extract(metadata, '$."{key}"') END"""
    path = f"'$.{name}'"
    is_number = f"json_type({text}, {path}) IN ('integer', 'real')"
    number = f"CASE WHEN {is_number} THEN CAST(json_extract({text}, {path}) AS REAL) END"
    return f"CASE WHEN json_valid({text}) THEN {number} END"


_COUNT_UP_TO: Final = """
SELECT count(*) FROM (SELECT 1 FROM traces WHERE request_time >= ? AND request_time < ? LIMIT ?)
"""
_OF_SLICE: Final = "request_time >= ? AND request_time < ?"
_COUNT_SLICE: Final = (
    _count_traces("rolled", _OF_SLICE),
    f"INSERT INTO temp.rolled_blocks {count_blocks('traces', _OF_SLICE, _amount)}",
)


def _each(column: str) -> str:
    return f"json_each({column}) AS counted"


_COUNT_HOURS: Final = f"INSERT INTO temp.rolled {unpack(':start', HOURS_OF_DAY, _each)}"
# Added up here, where no write lock is held, and not when they are stored.
_COUNT_BLOCKS: Final = f"""
WITH unpacked ({BLOCK_COLUMNS}) AS ({unpack_blocks(HOUR_OF_BLOCK, blocks_within(HOUR_MS), _each)})
INSERT INTO temp.rolled_blocks
SELECT start, {BLOCK_KEY}, bucket, sum(traces), sum(errors), {SUMS_OF_AMOUNTS}
FROM unpacked GROUP BY start, {BLOCK_KEY}, bucket
"""
_KEPT: Final = f"""rollups.is_kept = 1 AND rollups.is_detailed IN (0, 1) AND rollups.width = {HOUR_MS}
    AND rollups.start IN (SELECT start FROM temp.pruned)"""
# Through a list: the table that is read is the one that grows.
_ADD_KEPT: Final = f"INSERT INTO temp.pruned {unpack('rollups.start', f'{_KEPT} AND {MOST_DETAILED}', _each)}"


_KEPT_IN_HOURS: Final = "blocks.is_kept = 1 AND blocks.hour IN (SELECT start FROM temp.pruned)"
# Those of other stretches stay as they are: a step may prune few of the traces of an hour.
_KEPT_BLOCKS: Final = f"{_KEPT_IN_HOURS} AND blocks.start IN (SELECT start FROM temp.pruned_blocks)"
# Without the hours of which other traces were kept before, but no blocks.
_NOT_KEPT: Final = f"""
DELETE FROM temp.pruned_blocks WHERE {start_of("start", HOUR_MS)} IN (
    SELECT start FROM rollups WHERE {_KEPT} AND NOT EXISTS (
        SELECT 1 FROM blocks WHERE blocks.is_kept = 1 AND blocks.hour = rollups.start
    )
)
"""
_ADD_KEPT_BLOCKS: Final = (
    f"INSERT INTO temp.pruned_blocks {unpack_blocks('blocks.start', _KEPT_BLOCKS, _each)}"
)
_DROP_MANY: Final = f"""
DELETE FROM blocks WHERE is_kept = 1 AND hour IN (
    SELECT hour FROM blocks WHERE {_KEPT_IN_HOURS} GROUP BY hour HAVING count(*) > {MOST_BLOCKS}
)
"""


_WORDS: Final = Words(
    "group_concat",
    "json_group_array",
    "printf('%!.17g', {})",
    f"group_concat(char({{}} + {ALONE}), '')",
    "group_concat({}, '')",
)
_KEEP_BLOCKS: Final = store_blocks("temp.pruned_blocks", _WORDS)
_STORE_BLOCKS: Final = {
    HOUR_MS: store_blocks("temp.rolled_blocks", _WORDS),
    DAY_MS: store_day("temp.rolled_blocks", _WORDS),
}
_DELETE_BLOCKS: Final = {
    HOUR_MS: "DELETE FROM blocks WHERE is_kept = 0 AND hour = ?",
    DAY_MS: "DELETE FROM block_days WHERE start = ?",
}


def _buckets(condition: str) -> str:
    return f"json_group_object(CAST(bucket AS TEXT), traces) FILTER (WHERE {condition})"


_STORE: Final = {
    table: [
        f"INSERT INTO rollups ({ROLLUP}) {store(f'temp.{table}', _buckets, is_detailed=is_detailed)}"
        for is_detailed in (False, True)
    ]
    for table in ("rolled", "pruned")
}


def keep_pruned(connection: sqlite3.Connection, doomed: str, values: tuple[Any, ...]) -> None:
    """Add the traces that are about to be pruned to the counts kept of their hours.

    ``doomed`` is a query for their ids, ``values`` are its parameters. The caller holds the transaction.
    """
    for statement in MAKE:
        connection.execute(statement.format(table="pruned"))
    of_doomed = f"id IN ({doomed})"
    connection.execute(_count_traces("pruned", of_doomed), values)
    connection.execute(f"INSERT INTO temp.pruned_blocks {count_blocks('traces', of_doomed, _amount)}", values)
    connection.execute(_NOT_KEPT)
    connection.execute(_ADD_KEPT_BLOCKS)
    connection.execute(_ADD_KEPT)
    connection.execute(f"DELETE FROM rollups WHERE {_KEPT}")
    connection.execute(f"DELETE FROM blocks WHERE {_KEPT_BLOCKS}")
    for statement in (*_STORE["pruned"], _KEEP_BLOCKS):
        connection.execute(statement, {"width": HOUR_MS, "is_kept": 1})
    connection.execute(_DROP_MANY)
    connection.execute("DELETE FROM temp.pruned")
    connection.execute("DELETE FROM temp.pruned_blocks")


def forget_kept(
    connection: sqlite3.Connection, experiment: str, values: tuple[Any, ...], until_ms: int
) -> None:
    """Delete what is kept of an experiment's pruned traces, of the hours that end by ``until_ms``.

    ``experiment`` is a query for its id, ``values`` are its parameters. The caller holds the transaction.
    """
    where = f"is_kept = 1 AND is_detailed IN (0, 1) AND width = {HOUR_MS} AND start + {HOUR_MS} - 1 <= ?"
    where += f" AND experiment_id IN ({experiment})"
    parameters = (until_ms, *values)
    days = f"SELECT {start_of('start', DAY_MS)} FROM rollups WHERE {where}"
    connection.execute(f"DELETE FROM rollup_periods WHERE width = {DAY_MS} AND start IN ({days})", parameters)
    connection.execute(f"DELETE FROM rollups WHERE {where}", parameters)
    of_blocks = f"is_kept = 1 AND hour + {HOUR_MS} - 1 <= ? AND experiment_id IN ({experiment})"
    connection.execute(f"DELETE FROM blocks WHERE {of_blocks}", parameters)


_LISTED: Final = f"""
SELECT start, width FROM rollup_periods WHERE width = ? AND state <= {PENDING} ORDER BY start
"""
_MARK_OF: Final = f"SELECT state FROM rollup_periods WHERE start = ? AND width = ? AND state <= {PENDING}"


def mark(connection: sqlite3.Connection, width: int, now_ms: int) -> None:
    """Mark the periods that have ended and are not rolled up as pending; the caller holds the transaction."""
    for statement in CLEAN[width]:
        connection.execute(statement)
    # Another one each time: a period that was forgotten and marked again is another one.
    mark = PENDING - 1 - secrets.randbits(62)
    mark_all = mark_hours if width == HOUR_MS else mark_days
    connection.execute(mark_all("traces"), {"now_ms": now_ms, "mark": mark})


def pending(connection: sqlite3.Connection, width: int) -> list[int]:
    """The starts of the periods that are marked as pending."""
    return [start for start, _ in connection.execute(_LISTED, (width,))]


def mark_of(connection: sqlite3.Connection, start: int, width: int) -> int | None:
    """What a period that is pending was marked with; ``None`` if it is not pending."""
    found = connection.execute(_MARK_OF, (start, width)).fetchone()
    return None if found is None else int(found[0])


def count_period(connection: sqlite3.Connection, start: int, width: int) -> Iterator[None]:
    """Count a period in several steps, without the write lock; another transaction may come after each."""
    for statement in MAKE:
        connection.execute(statement.format(table="rolled"))
    connection.execute("DELETE FROM temp.rolled")
    connection.execute("DELETE FROM temp.rolled_blocks")
    if width == DAY_MS:
        connection.execute(_COUNT_HOURS, {"start": start})
        yield
        for hour in range(start, start + DAY_MS, HOUR_MS):
            connection.execute(_COUNT_BLOCKS, {"start": hour})
            yield
        return
    (count,) = connection.execute(_COUNT_UP_TO, (start, start + width, AT_ONCE)).fetchone()
    step = width if count < AT_ONCE else _SLICE_MS
    for begin in range(start, start + width, step):
        for statement in _COUNT_SLICE:
            connection.execute(statement, (begin, begin + step))
        yield


def store_period(connection: sqlite3.Connection, start: int, width: int, mark: int) -> bool:
    """Store what ``count_period`` counted, unless the period has changed; the caller holds the transaction.

    ``mark`` is what it was marked with before it was counted. Return whether it was stored.
    """
    period = (start, width)
    if mark_of(connection, *period) != mark:
        return False
    old = "is_kept = 0 AND is_detailed IN (0, 1) AND start = ? AND width = ?"
    connection.execute(f"DELETE FROM rollups WHERE {old}", period)
    # Slices and hours of one day count under the same start.
    connection.execute("UPDATE temp.rolled SET start = ?", (start,))
    for statement in _STORE["rolled"]:
        connection.execute(statement, {"width": width, "is_kept": 0})
    is_detailed = connection.execute(with_details("temp.rolled")).fetchone() is not None
    state = _store_blocks(connection, *period) if is_detailed else ROLLED_UP
    connection.execute("UPDATE rollup_periods SET state = ? WHERE start = ? AND width = ?", (state, *period))
    return True


def _store_blocks(connection: sqlite3.Connection, start: int, width: int) -> int:
    """Store the blocks of a period, unless they are too many or not those of all its traces; its state."""
    connection.execute(_DELETE_BLOCKS[width], (start,))
    query = HOURS_WITHOUT_BLOCKS if width == DAY_MS else too_many_blocks("temp.rolled_blocks")
    if connection.execute(query, {"start": start}).fetchone() is not None:
        return DETAILED
    connection.execute(_STORE_BLOCKS[width], {"start": start, "is_kept": 0})
    return IN_BLOCKS
