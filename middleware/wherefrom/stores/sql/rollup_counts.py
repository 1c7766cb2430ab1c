"""SQL that makes rollups, as far as SQLite and PostgreSQL say it alike. Parameters are written ``:name``.

A table of counts has a row for each hour, ``KEY``, outcome (``failed``) and bucket, with the columns
``COLUMNS``. The bucket is NULL for traces without a duration, and for the sums of tokens of a rollup that is
unpacked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from ... import keys
from ...model import TraceState
from ..base import CODE, MOST, STRETCH_MS
from .schema import DAY_MS, HOUR_MS, IN_BLOCKS, PENDING

ONCE: Final = 2**63 - 1
"""The limit of a subquery whose columns are computed once for each row, not once for each use outside."""
MOST_DETAILS: Final = 1_000
"""A period with more combinations of source, name and flags is rolled up by source alone."""

KEY: Final = "experiment_id, source_id, name, flags"
TOKENS: Final = ("input", "output", "total")
SUMS: Final = "token_traces, input_tokens, output_tokens, total_tokens"
COLUMNS: Final = f"start, {KEY}, failed, bucket, traces, first_seen, last_seen, {SUMS}"
# The most negative times are rounded up: down, they would be no integer of 64 bits.
_LEAST: Final = -(1 << 62)


def start_of(time: str, width: int) -> str:
    """The start of the period of a time; division alone would round times before 1970 up."""
    is_above = f"{time} / {width} * {width} > {time} AND {time} > {_LEAST}"
    return f"(({time} / {width} - CASE WHEN {is_above} THEN 1 ELSE 0 END) * {width})"


def unpack(start: str, where: str, each: Callable[[str], str]) -> str:
    """Rollups as counts: a row for each bucket, and one for each sum of what has no duration.

    ``each`` is what to read the pairs of a JSON object from, as ``key`` and ``value`` of ``counted``.
    """
    key = ", ".join(f"rollups.{column}" for column in KEY.split(", "))
    sums = ", ".join(f"rollups.{column}" for column in SUMS.split(", "))
    seen, none = "rollups.first_seen, rollups.last_seen", "0, 0, 0, 0"
    outcomes = (
        ("rollups.succeeded", "rollups.traces - rollups.errors", sums),
        ("rollups.failed", "rollups.errors", none),
    )
    value = "CAST(counted.value AS bigint)"
    rows: list[str] = []
    for failed, (column, total, others) in enumerate(outcomes):
        timed = f"SELECT coalesce(sum({value}), 0) FROM {each(column)}"
        by_bucket = f"SELECT {start}, {key}, {failed}, CAST(counted.key AS integer), {value}, {seen}, {none}"
        rows.append(f"{by_bucket} FROM rollups CROSS JOIN {each(column)} WHERE {where}")
        without = f"SELECT {start}, {key}, {failed}, NULL, {total} - ({timed}), {seen}, {others}"
        rows.append(f"{without} FROM rollups WHERE {where}")
    return " UNION ALL ".join(rows)


# The rows with the most detail that there is: without it, flags are NULL.
MOST_DETAILED: Final = """rollups.is_detailed = (
    SELECT max(other.is_detailed) FROM rollups AS other WHERE other.is_kept = rollups.is_kept
        AND other.is_detailed IN (0, 1) AND other.width = rollups.width AND other.start = rollups.start
)"""
HOURS_OF_DAY: Final = f"""rollups.is_kept IN (0, 1) AND rollups.is_detailed IN (0, 1)
    AND rollups.width = {HOUR_MS} AND rollups.start >= :start AND rollups.start < :start + {DAY_MS}
    AND {MOST_DETAILED} AND (rollups.is_kept = 1 OR EXISTS (
        SELECT 1 FROM rollup_periods AS hour
        WHERE hour.start = rollups.start AND hour.width = {HOUR_MS} AND hour.state > {PENDING}
    ))"""


def with_details(table: str) -> str:
    """The periods in a table of counts that can be rolled up with details."""
    return f"""
    SELECT start FROM (SELECT DISTINCT start, {KEY} FROM {table}) AS combinations
    GROUP BY start HAVING count(*) <= {MOST_DETAILS} AND count(flags) = count(*)
    """


def store(table: str, buckets: Callable[[str], str], *, is_detailed: bool) -> str:
    """The rollups of a table of counts, for the parameters ``width`` and ``is_kept``; see ``ROLLUP``.

    ``buckets`` is the JSON object of the buckets and the traces of those rows for which a condition holds.
    """
    key = KEY if is_detailed else "experiment_id, source_id"
    stored_key = KEY if is_detailed else "experiment_id, source_id, NULL, NULL"
    where = f"WHERE start IN ({with_details(table)})" if is_detailed else ""
    sums = ", ".join(f"sum({column})" for column in SUMS.split(", "))
    named = ", ".join(f"sum({column}) AS {column}" for column in SUMS.split(", "))
    outcomes = ", ".join(buckets(f"failed = {failed} AND bucket IS NOT NULL") for failed in (0, 1))
    return f"""
    SELECT :width, :is_kept, {int(is_detailed)}, start, {stored_key}, sum(traces), sum(traces * failed),
        min(first_seen), max(last_seen), {sums}, {outcomes}
    FROM (
        SELECT start, {key}, failed, bucket, sum(traces) AS traces, min(first_seen) AS first_seen,
            max(last_seen) AS last_seen, {named}
        FROM {table} {where} GROUP BY start, {key}, failed, bucket
    ) AS by_bucket
    GROUP BY start, {key}
    """


BLOCK_KEY: Final = "experiment_id, source_id, name, process"
AMOUNTS: Final = "token_sum, token_squares, priced, cost_sum, cost_squares"
SUMS_OF_AMOUNTS: Final = ", ".join(f"sum({column}) AS {column}" for column in AMOUNTS.split(", "))
BLOCK_COLUMNS: Final = f"start, {BLOCK_KEY}, bucket, traces, errors, {AMOUNTS}"
"""The columns of a table of counts by block.

The bucket is NULL for traces without a duration, and for the amounts of a block that is unpacked.
"""
MOST_BLOCKS: Final = 6_000
"""An hour with more blocks has none: they would be read no faster than its traces."""


def count_blocks(table: str, where: str, number: Callable[[str, str], str]) -> str:
    """Counts by block of the traces for which ``where`` holds.

    ``number`` is the number under a name in the JSON that a trace's own metadata has under a key, or NULL.
    """
    key = f"start, {BLOCK_KEY}, bucket"
    tokens, cost = (
        f"CASE WHEN {name} BETWEEN 0 AND {MOST:.0f} THEN {name} END" for name in ("tokens", "cost")
    )
    return f"""
    SELECT {key}, count(*), sum(failed), {_sums_of(tokens)},
        count(CASE WHEN {tokens} IS NULL OR {cost} IS NOT NULL THEN 1 END), {_sums_of(cost)}
    FROM (
        SELECT {start_of("request_time", STRETCH_MS)} AS start, {BLOCK_KEY}, duration_bucket AS bucket,
            CASE WHEN state = '{TraceState.ERROR.value}' THEN 1 ELSE 0 END AS failed,
            {number(keys.TOKEN_USAGE, "total_tokens")} AS tokens, {number(keys.COST, "total_cost")} AS cost
        FROM {table} WHERE {where} LIMIT {ONCE}
    ) AS each_trace GROUP BY {key}
    """


def _sums_of(amount: str) -> str:
    return f"coalesce(sum({amount}), 0), coalesce(sum({amount} * {amount}), 0)"


def unpack_blocks(start: str, where: str, each: Callable[[str], str]) -> str:
    """Blocks as counts by block; ``each`` is what to read the elements of a JSON array from, as ``value``."""
    key = ", ".join(f"blocks.{column}" for column in BLOCK_KEY.split(", "))
    code = "CAST(counted.value AS bigint)"
    bucket, number = f"({code} & {CODE - 1}) - 1", f"({code} >> {CODE.bit_length() - 1})"
    codes, failed = each("blocks.codes"), each("blocks.failed_codes")
    timed, timed_errors = (f"(SELECT coalesce(sum({number}), 0) FROM {some})" for some in (codes, failed))
    none = "0, 0, 0, 0, 0"
    return f"""
    SELECT {start}, {key}, {bucket}, {number}, 0, {none} FROM blocks CROSS JOIN {codes} WHERE {where}
    UNION ALL
    SELECT {start}, {key}, {bucket}, 0, {number}, {none} FROM blocks CROSS JOIN {failed} WHERE {where}
    UNION ALL
    SELECT {start}, {key}, NULL, blocks.traces - {timed}, blocks.errors - {timed_errors}, {AMOUNTS}
    FROM blocks WHERE {where}
    """


class Words(NamedTuple):
    """What SQLite and PostgreSQL call by different names; ``{}`` stands for a column."""

    join: str
    """The aggregate that joins text."""
    texts: str
    """The aggregate that makes a JSON array of text."""
    real: str
    """A number as text with all its digits."""
    alone: str
    """The aggregate of buckets that makes ``Durations.alone``."""
    join_alone: str
    """The aggregate that joins what ``alone`` makes."""


def _by_bucket(table: str, where: str = "") -> str:
    return f"""(
        SELECT start, {BLOCK_KEY}, bucket, sum(traces) AS traces, sum(errors) AS errors, {SUMS_OF_AMOUNTS}
        FROM {table} {where} GROUP BY start, {BLOCK_KEY}, bucket
    ) AS by_bucket"""


def _codes(words: Words, column: str, least: int) -> str:
    """The codes of those rows with a bucket of which a column is at least ``least``, joined by commas."""
    code = f"CAST({column} * {CODE} + bucket + 1 AS text)"
    return f"{words.join}({code}, ',') FILTER (WHERE bucket IS NOT NULL AND {column} >= {least})"


def _in_array(joined: str) -> str:
    return f"'[' || coalesce({joined}, '') || ']'"


def store_blocks(table: str, words: Words) -> str:
    """Store the blocks of the hours in a table of counts by block, for the parameter ``is_kept``.

    Of an hour that has too many, none is stored.
    """
    hour = start_of("start", HOUR_MS)
    codes = ", ".join(_in_array(_codes(words, column, 1)) for column in ("traces", "errors"))
    return f"""
    INSERT INTO blocks (
        is_kept, hour, start, {BLOCK_KEY}, traces, errors, {AMOUNTS}, codes, failed_codes
    )
    SELECT :is_kept, {hour}, start, {BLOCK_KEY}, sum(traces), sum(errors), {SUMS_OF_AMOUNTS}, {codes}
    FROM {_by_bucket(table, f"WHERE {hour} NOT IN ({too_many_blocks(table)})")}
    GROUP BY start, {BLOCK_KEY}
    """


def store_day(table: str, words: Words) -> str:
    """Store the blocks of the day that begins at ``start``, from a table of counts by block and hour.

    The lists of a source are parallel: all aggregates of a group see its rows in the same order.
    """
    numbers = {"starts": "start"} | {name: f"sum({name})" for name in ("traces", "errors", "priced")}
    reals = {
        f"{of}_{power}": f"sum({of}_{one})"
        for of in ("token", "cost")
        for power, one in (("sums", "sum"), ("squares", "squares"))
    }
    alone: dict[str, str] = {}
    codes: dict[str, str] = {}
    for of, column in (("", "traces"), ("failed_", "errors")):
        for several, count in ((alone, "alone"), (codes, "codes")):
            is_so = f"{column} = 1" if several is alone else f"{column} > 1"
            numbers[f"{of}{count}_each"] = f"count(*) FILTER (WHERE bucket IS NOT NULL AND {is_so})"
        is_alone = f"bucket IS NOT NULL AND {column} = 1"
        alone[f"{of}alone"] = f"{words.alone.format('bucket')} FILTER (WHERE {is_alone})"
        codes[f"{of}codes"] = _codes(words, column, 2)
    of_block = ", ".join(f"{sql} AS {name}" for name, sql in (numbers | reals | alone | codes).items())
    columns = {"blocks": "count(*)", "names": f"{words.texts}(name)", "processes": f"{words.texts}(process)"}
    columns |= {name: _in_array(f"{words.join}(CAST({name} AS text), ',')") for name in numbers}
    columns |= {name: _in_array(f"{words.join}({words.real.format(name)}, ',')") for name in reals}
    columns |= {name: f"coalesce({words.join_alone.format(name)}, '')" for name in alone}
    columns |= {name: _in_array(f"{words.join}({name}, ',')") for name in codes}
    return f"""
    INSERT INTO block_days (start, experiment_id, source_id, {", ".join(columns)})
    SELECT :start, experiment_id, source_id, {", ".join(columns.values())}
    FROM (
        SELECT {BLOCK_KEY}, {of_block} FROM {_by_bucket(table)} GROUP BY start, {BLOCK_KEY}
    ) AS each_block
    GROUP BY experiment_id, source_id
    """


def too_many_blocks(table: str) -> str:
    """The hours in a table of counts by block that have more than ``MOST_BLOCKS``."""
    hour = start_of("start", HOUR_MS)
    return f"""
    SELECT {hour} FROM (SELECT DISTINCT start, {BLOCK_KEY} FROM {table}) AS counted
    GROUP BY {hour} HAVING count(*) > {MOST_BLOCKS}
    """


_HOUR_IN_DAY: Final = f"start >= :start AND start < :start + {DAY_MS}"
HOURS_WITHOUT_BLOCKS: Final = f"""
SELECT start FROM rollup_periods WHERE width = {HOUR_MS} AND {_HOUR_IN_DAY}
    AND state > {PENDING} AND state < {IN_BLOCKS}
UNION ALL SELECT start FROM rollups
WHERE is_kept = 1 AND is_detailed = 0 AND width = {HOUR_MS} AND {_HOUR_IN_DAY} AND NOT EXISTS (
    SELECT 1 FROM blocks
    WHERE blocks.is_kept = 1 AND blocks.hour = rollups.start
)
"""
"""The hours of a day that are counted, but not by block."""


def blocks_within(width: int) -> str:
    """The condition for blocks of the hours within ``width`` ms from ``:start``."""
    return f"""blocks.is_kept IN (0, 1) AND blocks.hour >= :start AND blocks.hour < :start + {width}
    AND (blocks.is_kept = 1 OR EXISTS (
        SELECT 1 FROM rollup_periods AS period
        WHERE period.start = blocks.hour AND period.width = {HOUR_MS} AND period.state = {IN_BLOCKS}
    ))"""


HOUR_OF_BLOCK: Final = start_of("blocks.start", HOUR_MS)


ROLLUP: Final = (
    f"width, is_kept, is_detailed, start, {KEY}, traces, errors, first_seen, last_seen, {SUMS},"
    " succeeded, failed"
)


def hours_of(table: str) -> str:
    """The hours with a trace that started before ``now_ms``, as ``WITH hours(start)``.

    From hour to hour by the index on ``request_time``: each step is one look-up.
    """
    return f"""
    WITH RECURSIVE times(time) AS (
        SELECT min(request_time) FROM {table}
        UNION ALL
        SELECT (
            SELECT min(request_time) FROM {table}
            WHERE request_time >= {start_of("times.time", HOUR_MS)} + {HOUR_MS}
        )
        FROM times WHERE times.time < :now_ms
    ), hours AS (
        SELECT {start_of("time", HOUR_MS)} AS start FROM times WHERE time < :now_ms
    )
    """


def mark_hours(table: str) -> str:
    """Gives the hours of a table that have ended the state ``mark``, if they have none."""
    return f"""
    INSERT INTO rollup_periods (start, width, state)
    SELECT * FROM (
        {hours_of(table)} SELECT start, {HOUR_MS}, :mark FROM hours WHERE start + {HOUR_MS} <= :now_ms
    ) AS ended WHERE true
    ON CONFLICT DO NOTHING
    """


def mark_days(table: str) -> str:
    """Gives the state ``mark`` to the days that have ended and all of whose hours are rolled up, or kept."""
    return f"""
    INSERT INTO rollup_periods (start, width, state)
    SELECT * FROM (
        {hours_of(table)}, there AS (
            SELECT DISTINCT {start_of("start", DAY_MS)} AS start FROM rollups
            WHERE is_kept IN (0, 1) AND is_detailed = 0 AND width = {HOUR_MS}
        )
        SELECT start, {DAY_MS}, :mark FROM there
        WHERE start + {DAY_MS} <= :now_ms AND start NOT IN (
            SELECT {start_of("hours.start", DAY_MS)} FROM hours LEFT JOIN rollup_periods AS hour
                ON hour.start = hours.start AND hour.width = {HOUR_MS} AND hour.state > {PENDING}
            WHERE hour.start IS NULL
        )
    ) AS whole WHERE true
    ON CONFLICT DO NOTHING
    """


def _clean(table: str, start: str, where: str, width: int) -> str:
    return f"""
    WITH RECURSIVE stored(start) AS (
        SELECT min({start}) FROM {table} WHERE {where}
        UNION ALL
        SELECT (SELECT min({start}) FROM {table} WHERE {where} AND {start} > stored.start)
        FROM stored WHERE stored.start IS NOT NULL
    )
    DELETE FROM {table} WHERE {where} AND {start} IN (
        SELECT start FROM stored WHERE NOT EXISTS (
            SELECT 1 FROM rollup_periods AS period
            WHERE period.start = stored.start AND period.width = {width}
        )
    )
    """


CLEAN: Final = {
    width: tuple(
        _clean(table, start, where, width)
        for table, start, where in (
            ("rollups", "start", f"is_kept = 0 AND is_detailed = 0 AND width = {width}"),
            ("rollups", "start", f"is_kept = 0 AND is_detailed = 1 AND width = {width}"),
            blocks,
        )
    )
    for width, blocks in (
        (HOUR_MS, ("blocks", "hour", "is_kept = 0")),
        (DAY_MS, ("block_days", "start", "true")),
    )
}
"""Deletes the counts of hours or days that were forgotten; each step to the next is one look-up again."""
