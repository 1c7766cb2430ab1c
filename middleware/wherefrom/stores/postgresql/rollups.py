"""Writing rollups: whole hours and days are counted once nobody writes to them any more.

As in SQLite, a change to a period that is rolled up forgets it, in the same transaction: the state of its row
in ``rollup_periods`` becomes ``PENDING``, which no mark is. One process at a time rolls up:

1. Hours that have ended get a row with a mark of its own.
2. The transactions that run then are waited for: they may have looked for the row before it was there.
3. The traces of each hour are counted. If the row has the same mark even then, the counts are stored.

Writers forget last, in the order of the periods, so that they do not wait for each other in a circle. Counts
of traces that are pruned are added to those kept of their hour, by one process at a time.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString

from psycopg import Connection, Rollback
from psycopg.types.numeric import Int8

from ... import keys
from ..._clock import monotonic
from ...model import TraceState
from ..sql.counts import MOST_TOKENS
from ..sql.rollup_counts import (
    BLOCK_COLUMNS,
    CLEAN,
    COLUMNS,
    HOUR_OF_BLOCK,
    HOURS_OF_DAY,
    HOURS_WITHOUT_BLOCKS,
    KEY,
    MOST_DETAILED,
    ONCE,
    ROLLUP,
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
    unpack,
    unpack_blocks,
)
from ..sql.schema import DAY_MS, DETAILED, HOUR_MS, IN_BLOCKS, PENDING, ROLLED_UP
from .dialect import ALONE_CHARACTER, JOINED_ALONE, number_pattern

_LOCK_ROLLING: Final = 0x77686572
_LOCK_KEPT: Final = 0x77686B70
_LONGEST_WAIT_S: Final = 10.0
_POLL_S: Final = 0.01
_LEAST_TIME: Final = -(1 << 62)  # its hour is an integer of 64 bits
_NAMED: Final = re.compile(r"(?<!:):([a-z_]+)")


def _bound(query: str) -> bytes:
    """The query with its parameters as the driver takes them."""
    return _NAMED.sub(r"%(\1)s", query).encode()


_TOKENS_FUNCTION: Final = "wherefrom_tokens"
# As ``read_tokens``: an object of numbers, otherwise NULL. PostgreSQL reads no JSON with a NUL.
FUNCTIONS: Final = rf"""
CREATE FUNCTION {_TOKENS_FUNCTION}(recorded text) RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE STRICT AS $body$
DECLARE
    kind text;
    used json;
    found json;
    tokens bigint[] := '{{}}';
BEGIN
    used := replace(recorded, '\u0000', '\ufffd');
    IF json_typeof(used) <> 'object' THEN
        RETURN NULL;
    END IF;
    FOREACH kind IN ARRAY ARRAY['{"', '".join(TOKENS)}'] LOOP
        found := used -> (kind || '_tokens');
        IF found IS NULL OR json_typeof(found) = 'null' THEN
            tokens := tokens || 0::bigint;
        ELSIF json_typeof(found) = 'number' AND abs(found::text::numeric) <= {MOST_TOKENS} THEN
            tokens := tokens || trunc(found::text::numeric)::bigint;
        ELSE
            RETURN NULL;
        END IF;
    END LOOP;
    RETURN tokens;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END $body$;
"""


def _amount(key: str, name: str) -> str:
    """As ``PostgreSQLDialect.number_in`` of a pair."""
    return f"CAST(substring(metadata ->> '{key}', '{number_pattern(name)}') AS double precision)"


def _given(**numbers: int) -> dict[str, Int8]:
    """Parameters, whose sums are not to overflow where they are small."""
    return {name: Int8(number) for name, number in numbers.items()}


def _each(column: str) -> str:
    return f"jsonb_each_text(CAST({column} AS jsonb)) AS counted (key, value)"


def _buckets(condition: str) -> str:
    counted = f"jsonb_object_agg(CAST(bucket AS text), traces) FILTER (WHERE {condition})"
    return f"CAST(coalesce({counted}, '{{}}') AS text)"


_FLAGS: Final = f"""coalesce((
    SELECT jsonb_object_agg(pair.key, pair.value) FROM jsonb_each(metadata) AS pair
    WHERE starts_with(pair.key, '{keys.FEATURE_FLAG_PREFIX}')
), '{{}}')"""


def _count_traces(table: str, where: str = "true") -> str:
    """SQL that counts the traces for which ``where`` holds, by hour."""
    sums = ", ".join(f"coalesce(sum(tokens[{place}]), 0)" for place in (1, 2, 3))
    return f"""
    SELECT start, {KEY}, failed, bucket, count(*), min(request_time), max(request_time), count(tokens), {sums}
    FROM (
        SELECT {start_of("request_time", HOUR_MS)} AS start, experiment_id, source_id, name,
            {_FLAGS} AS flags, CAST(state = '{TraceState.ERROR.value}' AS integer) AS failed,
            duration_bucket AS bucket, request_time,
            {_TOKENS_FUNCTION}(metadata ->> '{keys.TOKEN_USAGE}') AS tokens
        FROM {table} WHERE {where} LIMIT {ONCE}
    ) AS each_trace
    GROUP BY start, {KEY}, failed, bucket
    """


def _with_counts(counts: str, *before: str) -> str:
    return f"WITH {''.join(f'{part}, ' for part in before)}counted ({COLUMNS}) AS MATERIALIZED ({counts})"


def _with_blocks(counts: str) -> str:
    return f"counted_blocks ({BLOCK_COLUMNS}) AS MATERIALIZED ({counts})"


def _codes_of(column: str) -> str:
    return f"jsonb_array_elements_text(CAST({column} AS jsonb)) AS counted (value)"


_WORDS: Final = Words(
    "string_agg", "json_agg", "CAST({} AS text)", JOINED_ALONE.format(ALONE_CHARACTER), JOINED_ALONE
)
_INSERT_BLOCKS: Final = store_blocks("counted_blocks", _WORDS)


_STORE: Final = f"INSERT INTO rollups ({ROLLUP}) " + " UNION ALL ".join(
    store("counted", _buckets, is_detailed=is_detailed) for is_detailed in (False, True)
)
_OF_HOUR: Final = f"request_time >= :start AND request_time < :start + {HOUR_MS}"
_STORE_PERIOD: Final = {
    HOUR_MS: _bound(_with_counts(_count_traces("traces", _OF_HOUR)) + _STORE),
    DAY_MS: _bound(_with_counts(unpack(":start", HOURS_OF_DAY, _each)) + _STORE),
}
_STORE_BLOCKS: Final = {
    width: _bound(f"WITH {_with_blocks(counts)} {insert}")
    for width, counts, insert in (
        (HOUR_MS, count_blocks("traces", _OF_HOUR, _amount), _INSERT_BLOCKS),
        (
            DAY_MS,
            unpack_blocks(HOUR_OF_BLOCK, blocks_within(DAY_MS), _codes_of),
            store_day("counted_blocks", _WORDS),
        ),
    )
}
_HOURS_WITHOUT_BLOCKS: Final = _bound(HOURS_WITHOUT_BLOCKS)
_DELETE_PERIOD: Final = _bound(
    "DELETE FROM rollups WHERE is_kept = 0 AND is_detailed IN (0, 1) AND width = :width AND start = :start"
)
_DELETE_BLOCKS: Final = {
    HOUR_MS: _bound("DELETE FROM blocks WHERE is_kept = 0 AND hour = :start"),
    DAY_MS: _bound("DELETE FROM block_days WHERE start = :start"),
}
# Without a wait for a writer who is just forgetting it.
_FINISH_PERIOD: Final = _bound(f"""
UPDATE rollup_periods SET state = CASE WHEN NOT EXISTS (
    SELECT FROM rollups WHERE is_kept = 0 AND is_detailed = 1 AND width = :width AND start = :start
) THEN {ROLLED_UP} WHEN EXISTS (
    SELECT FROM blocks WHERE :width = {HOUR_MS} AND is_kept = 0 AND hour = :start
    UNION ALL SELECT FROM block_days WHERE :width = {DAY_MS} AND start = :start
) THEN {IN_BLOCKS} ELSE {DETAILED} END
WHERE (start, width) IN (
    SELECT start, width FROM rollup_periods WHERE start = :start AND width = :width AND state = :mark
    FOR UPDATE SKIP LOCKED
)
""")
_MARK: Final = {HOUR_MS: _bound(mark_hours("trace_ids")), DAY_MS: _bound(mark_days("trace_ids"))}
_PENDING: Final = _bound(f"""
SELECT start, state FROM rollup_periods
WHERE width = :width AND state < {PENDING} AND start + :width <= :now_ms ORDER BY start
""")


def roll_up(
    connection: Connection[Any], now_ms: int, stop: threading.Event, *, only_quiet: bool = False
) -> int:
    """Roll up hours and days that have ended by ``now_ms``; return how many, 0 while another process does so.

    ``only_quiet``: only hours that nobody has written to since the last call.
    """
    done = 0
    with _alone(connection) as is_alone:
        for width in (HOUR_MS, DAY_MS) if is_alone else ():
            periods = _mark(connection, width, now_ms)
            if width == DAY_MS or not only_quiet:
                periods = _pending(connection, width, now_ms)
            if periods and _have_ended(connection, stop):
                for start, mark in periods:
                    done += not stop.is_set() and _roll_up_period(connection, start, width, mark)
    return done


def may_roll_up(connection: Connection[Any]) -> bool:
    """Whether this role may replace rollups."""
    row = connection.execute(
        "SELECT bool_and(has_table_privilege(name, 'DELETE'))"
        " FROM unnest(ARRAY['rollups', 'blocks', 'block_days']) AS name"
    ).fetchone()
    return row == (True,)


@contextmanager
def _alone(connection: Connection[Any]) -> Iterator[bool]:
    """Whether no other process rolls up this store in the meantime."""
    given = (_LOCK_ROLLING, _store_id(connection))
    row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", given).fetchone()
    try:
        yield row == (True,)
    finally:
        if row == (True,) and not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", given)


def _store_id(connection: Connection[Any]) -> int:
    row = connection.execute("SELECT store_id FROM schema_version").fetchone()
    return 0 if row is None else int(row[0])


def _mark(connection: Connection[Any], width: int, now_ms: int) -> list[tuple[int, int]]:
    """Mark the hours or days to roll up; return those that were marked before, with their marks."""
    with connection.transaction():
        marked = _pending(connection, width, now_ms)
        connection.execute("DELETE FROM rollup_periods WHERE state = %s", (PENDING,))
        for statement in CLEAN[width]:
            connection.execute(statement.encode())
        # Another one each time: a period that was forgotten and marked again is another one.
        mark = PENDING - 1 - secrets.randbits(62)
        connection.execute(_MARK[width], _given(mark=mark, now_ms=now_ms))
    return marked


def _pending(connection: Connection[Any], width: int, now_ms: int) -> list[tuple[int, int]]:
    return connection.execute(_PENDING, _given(width=width, now_ms=now_ms)).fetchall()


def _have_ended(connection: Connection[Any], stop: threading.Event) -> bool:
    """Wait for all transactions that are running now; whether they have ended within some seconds."""
    last = _number(connection, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    deadline = monotonic() + _LONGEST_WAIT_S
    while _number(connection, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint") < last:
        if monotonic() > deadline or stop.wait(_POLL_S):
            return False
    return True


def _number(connection: Connection[Any], query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    return 0 if row is None else int(row[0])


def _roll_up_period(connection: Connection[Any], start: int, width: int, mark: int) -> bool:
    """Count one hour or day; return whether it was stored, as it has not changed meanwhile."""
    given = _given(start=start, width=width, is_kept=0, mark=mark)
    with connection.transaction():
        for statement in (_DELETE_PERIOD, _DELETE_BLOCKS[width], _STORE_PERIOD[width]):
            connection.execute(statement, given)
        if width == HOUR_MS or connection.execute(_HOURS_WITHOUT_BLOCKS, given).fetchone() is None:
            connection.execute(_STORE_BLOCKS[width], given)
        if connection.execute(_FINISH_PERIOD, given).rowcount:
            return True
        raise Rollback
    return False


_FORGOTTEN: Final = b"""
SELECT start, width FROM rollup_periods WHERE state <> %(pending)s AND (
    (width = %(hour)s AND start = ANY (%(hours)s)) OR (width = %(day)s AND start = ANY (%(days)s))
) ORDER BY start, width FOR UPDATE
"""
_FORGET: Final = b"""
UPDATE rollup_periods SET state = %(pending)s
WHERE (start, width) IN (SELECT * FROM unnest(%(starts)s::bigint[], %(widths)s::integer[]))
"""


def forget(connection: Connection[Any], times_ms: Iterable[int]) -> None:
    """Forget the periods of traces that have changed; the caller commits next, and has written already."""
    hours = {max(time, _LEAST_TIME) // HOUR_MS * HOUR_MS for time in times_ms}
    days = {hour // DAY_MS * DAY_MS for hour in hours}
    _forget(connection, hours, days)


def _forget(connection: Connection[Any], hours: Iterable[int], days: Iterable[int]) -> None:
    given = {
        "pending": PENDING,
        "hour": HOUR_MS,
        "hours": [*hours],
        "day": DAY_MS,
        "days": [*days],
    }
    if found := connection.execute(_FORGOTTEN, given).fetchall():
        starts, widths = zip(*found, strict=True)
        connection.execute(_FORGET, {"pending": PENDING, "starts": [*starts], "widths": [*widths]})


# Counts of pruned traces

_IS_KEPT: Final = f"rollups.is_kept = 1 AND rollups.is_detailed IN (0, 1) AND rollups.width = {HOUR_MS}"


def _keep(hours: str, table: str, where: str, *before: str) -> str:
    """SQL that adds counts of traces to those kept of their hours, ``hours`` being a query for these."""
    kept, kept_blocks = (
        f"{_IS_KEPT} AND rollups.start IN ({hours})",
        f"blocks.is_kept = 1 AND blocks.hour IN ({hours})",
    )
    of_rollups = unpack("rollups.start", f"{kept} AND {MOST_DETAILED}", _each)
    counts = f"{_count_traces(table, where)} UNION ALL {of_rollups}"
    # Not of hours of which other traces were kept before, but no blocks.
    without = (
        f"SELECT start FROM rollups WHERE {kept} AND NOT EXISTS"
        " (SELECT FROM blocks WHERE blocks.is_kept = 1 AND blocks.hour = rollups.start)"
    )
    countable = f"{where} AND {start_of('request_time', HOUR_MS)} NOT IN ({without})"
    of_blocks = unpack_blocks("blocks.start", kept_blocks, _codes_of)
    blocks = f"{count_blocks(table, countable, _amount)} UNION ALL {of_blocks}"
    removed = f"removed AS (DELETE FROM rollups WHERE {kept})"
    removed_blocks = f"removed_blocks AS (DELETE FROM blocks WHERE {kept_blocks})"
    before = *before, removed, removed_blocks, _with_blocks(blocks)
    return f"{_with_counts(counts, *before)}, stored AS ({_STORE}), stored_blocks AS ({_INSERT_BLOCKS})"


_DELETE_AND_KEEP: Final = _bound(
    _keep(
        f"SELECT {start_of('request_time', HOUR_MS)} FROM gone",
        "gone",
        "true",
        """gone AS (
            DELETE FROM traces USING unnest(:ids::bigint[], :times::bigint[]) AS doomed (id, request_time)
            WHERE traces.id = doomed.id AND traces.request_time = doomed.request_time RETURNING traces.*
        )""",
    )
    + " SELECT count(*) FROM gone"
)
_KEEP_HOUR: Final = _bound(_keep("SELECT :start", "traces", _OF_HOUR) + " SELECT 1")
_WHOLE: Final = _bound(f"""
SELECT start FROM rollup_periods WHERE width = {HOUR_MS} AND state > {PENDING}
    AND start >= :begin AND start < :end
    AND NOT EXISTS (SELECT FROM rollups WHERE {_IS_KEPT} AND rollups.start = rollup_periods.start)
""")
_KEEP_WHOLE: Final = tuple(
    _bound(f"UPDATE {table} SET is_kept = 1 WHERE is_kept = 0 AND {hour} = ANY (:hours)")
    for table, hour in (("rollups", f"width = {HOUR_MS} AND start"), ("blocks", "hour"))
)
_TIMES_WITHIN: Final = _bound(f"""
WITH RECURSIVE times(time) AS (
    SELECT min(request_time) FROM traces WHERE request_time >= :begin AND request_time < :end
    UNION ALL
    SELECT (
        SELECT min(request_time) FROM traces
        WHERE request_time >= {start_of("times.time", HOUR_MS)} + {HOUR_MS} AND request_time < :end
    )
    FROM times WHERE times.time IS NOT NULL
)
SELECT {start_of("time", HOUR_MS)} FROM times WHERE time IS NOT NULL
""")


def lock_kept(connection: Connection[Any]) -> None:
    """Wait until no other transaction changes what is kept of pruned traces; the caller holds one."""
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_LOCK_KEPT, _store_id(connection)))


def delete_and_keep(connection: Connection[Any], ids: Sequence[int], times_ms: Sequence[int]) -> int:
    """Delete traces and keep their counts; return how many there were. Call ``lock_kept`` before."""
    given = {"ids": [*ids], "times": [*times_ms], **_given(width=HOUR_MS, is_kept=1)}
    row = connection.execute(_DELETE_AND_KEEP, given).fetchone()
    return 0 if row is None else int(row[0])


def keep_all(connection: Connection[Any], begin_ms: int, end_ms: int) -> None:
    """Keep the counts of all traces of whole days, which the caller is about to drop; nobody else writes.

    Days that are rolled up stay so: their counts include those that are kept. The caller has called
    ``lock_kept``.
    """
    within = _given(begin=begin_ms, end=end_ms)
    whole = {start for (start,) in connection.execute(_WHOLE, within)}
    hours = {start for (start,) in connection.execute(_TIMES_WITHIN, within)}
    for statement in _KEEP_WHOLE:
        connection.execute(statement, {"hours": [*whole]})
    for start in sorted(hours - whole):
        connection.execute(_KEEP_HOUR, _given(start=start, width=HOUR_MS, is_kept=1))
    _forget(connection, whole | hours, [])


def forget_kept(
    connection: Connection[Any], experiment: LiteralString, given: dict[str, Any], until_ms: int
) -> None:
    """Delete what is kept of an experiment's pruned traces, of the hours that end by ``until_ms``.

    ``experiment`` is a query for its id with the parameters ``given``.
    """
    delete, delete_blocks = (
        f"DELETE FROM {table} WHERE {is_kept} AND {start} + {HOUR_MS} - 1 <= %(until_ms)s"
        f" AND experiment_id IN ({experiment}) RETURNING {start}".encode()
        for table, is_kept, start in (("rollups", _IS_KEPT, "start"), ("blocks", "is_kept = 1", "hour"))
    )
    with connection.transaction():
        lock_kept(connection)
        deleted = connection.execute(delete, {**given, "until_ms": until_ms}).fetchall()
        connection.execute(delete_blocks, {**given, "until_ms": until_ms})
        _forget(connection, [], {start // DAY_MS * DAY_MS for (start,) in deleted})
