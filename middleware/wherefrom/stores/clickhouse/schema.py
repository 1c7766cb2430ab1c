"""The tables as plain text, for one server and for a cluster.

A row of ``traces`` is wide: the metadata keys that most traces carry have columns of their own, the others
are in a map. A trace is read from its ``source`` and the map, in place of the columns that only filters read.
A trace that is written again replaces its row, and its spans replace theirs by id; both are read with
``FINAL``. Where several services record one trace, the row of the one that began it takes the place of the
others', which are ``dropped``; ``trace_ids`` has all their times. Tags that are edited later are in ``tags``,
over those of the row, and feedback is in ``assessments``. ``created`` is when the server first received a
trace, by its own clock: snapshots and cursors go by it.

On a cluster each table is a replicated ``..._local`` under a ``Distributed`` one, sharded by trace id, so
that all rows of a trace are on one shard and joins stay there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from ... import keys
from ...exceptions import StoreError

SCHEMA_VERSION: Final = 1

COLUMN_OF_KEY: Final = {
    keys.SOURCE_NAME: "source_name",
    keys.SOURCE_TYPE: "source_type",
    keys.GIT_COMMIT: "git_commit",
    keys.GIT_BRANCH: "git_branch",
    keys.GIT_REPO_URL: "git_repo_url",
    keys.GIT_DIRTY: "git_dirty",
    keys.OS_USER: "os_user",
    keys.MODEL_ID: "model_id",
    keys.SCHEMA_VERSION: "trace_schema_version",
    keys.ENVIRONMENT: "environment",
    keys.APP_VERSION: "app_version",
    keys.DEPLOYMENT_ID: "deployment_id",
    keys.REGION: "region",
    keys.INSTANCE_ID: "process",
    keys.TRACE_INPUTS: "trace_inputs",
    keys.TRACE_OUTPUTS: "trace_outputs",
    keys.TOKEN_USAGE: "token_usage",
    keys.COST: "cost",
    keys.SESSION: "session_id",
    keys.USER: "user_id",
}
"""The metadata keys with a column of their own."""

_NOW: Final = "UInt64 DEFAULT toUnixTimestamp64Nano(now64(9))"
_DAY: Final = "toDate(toDateTime(intDiv(request_time, 1000), 'UTC'), 'UTC')"
_AGE: Final = "toDateTime(intDiv(request_time, 1000), 'UTC')"
HOUR_MS: Final = 3_600_000
_IS_FLAG: Final = f"startsWith(key, '{keys.FEATURE_FLAG_PREFIX}')"
_FLAGS: Final = f"toJSONString(mapSort(mapFilter((key, value) -> {_IS_FLAG}, metadata)))"
_CONTENT: Final = frozenset({"trace_inputs", "trace_outputs", "token_usage", "cost", "session_id", "user_id"})
_KEY_COLUMNS: Final = "".join(
    f"    {column} {'Nullable(String)' if column in _CONTENT else 'LowCardinality(Nullable(String))'},\n"
    for column in COLUMN_OF_KEY.values()
)


SOURCE_COLUMNS: Final = tuple(
    column for column in COLUMN_OF_KEY.values() if column not in {*_CONTENT, "process"}
)
"""The columns of ``traces`` with the metadata that all traces of a process have."""
ROLLED_COLUMNS: Final = (*SOURCE_COLUMNS, "process")
"""The columns of ``traces`` by which rollups count, beside experiment, name, hour and flags."""
_ROLLED_COLUMNS: Final = "".join(
    f"    {column} LowCardinality(Nullable(String)),\n" for column in ROLLED_COLUMNS
)


def rolled(traces: str, sign: str = "") -> str:
    """The query for the rollups of some traces; with the sign ``-``, what takes them back."""
    one = f"toInt64({sign}1)" if sign else "toInt64(if(dropped, -1, 1))"
    counted = f"map(assumeNotNull(duration_bucket), {one})"
    timed = "isNotNull(duration_bucket)"
    return (
        f"SELECT experiment, name, {', '.join(ROLLED_COLUMNS)}, {_FLAGS} AS flags,"
        f" request_time - positiveModulo(request_time, {HOUR_MS}) AS hour,"
        f" sum({one}) AS traces, sumIf({one}, state = 'ERROR') AS errors,"
        " min(request_time) AS first, max(request_time) AS last,"
        f" sumMapIf({counted}, {timed} AND state != 'ERROR') AS succeeded,"
        f" sumMapIf({counted}, {timed} AND state = 'ERROR') AS failed"
        f" FROM {traces} GROUP BY experiment, name, {', '.join(ROLLED_COLUMNS)}, flags, hour"
    )


class Table(NamedTuple):
    """One table: its columns, engine, order, and what it is sharded by.

    ``aged`` is whether its rows have a ``request_time``, by which they are partitioned and expire.
    """

    columns: str
    engine: str
    order: str
    shard: str
    aged: bool = True
    settings: str = ""


# A page of traces is read from as many places as it has traces, and of each place a granule.
_GRANULARITY: Final = "index_granularity = 256"

TABLES: Final = {
    "traces": Table(
        f"""\
    trace_id String CODEC(ZSTD(1)),
    experiment LowCardinality(String),
    request_time Int64 CODEC(Delta, ZSTD(1)) COMMENT 'ms since the epoch',
    created {_NOW} CODEC(Delta, ZSTD(1)) COMMENT 'ns since the epoch',
    place UInt64 COMMENT 'orders the traces of one stamp: a hash of the batch, and the position',
    version {_NOW} CODEC(Delta, ZSTD(1)),
    source LowCardinality(String) COMMENT 'the metadata that all traces of a process have, as JSON',
    name LowCardinality(Nullable(String)),
    state LowCardinality(String),
    duration_us Nullable(Int64),
    duration_bucket Nullable(Int16) COMMENT 'floor(log(duration_us) / log(1.02))',
    client_request_id Nullable(String),
    request_preview Nullable(String),
    response_preview Nullable(String),
{_KEY_COLUMNS}    metadata Map(LowCardinality(String), String) COMMENT 'what source and columns do not say',
    tags Map(LowCardinality(String), String) COMMENT 'as written: later edits are in the table tags',
    changed UInt8 COMMENT 'written again: the writer corrects the rollups',
    dropped UInt8 COMMENT 'another record stands for the trace now, at another place',
    INDEX by_created created TYPE minmax GRANULARITY 1,
    INDEX by_duration duration_us TYPE minmax GRANULARITY 1,
    INDEX by_state state TYPE set(8) GRANULARITY 1,
    INDEX by_request client_request_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_session session_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_user user_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_process process TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_metadata_key mapKeys(metadata) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_metadata_value mapValues(metadata) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_tag_value mapValues(tags) TYPE bloom_filter(0.01) GRANULARITY 1""",
        "ReplacingMergeTree(version, dropped)",
        "(experiment, request_time, trace_id)",
        "cityHash64(trace_id)",
        settings=_GRANULARITY,
    ),
    "trace_ids": Table(
        """\
    trace_id String CODEC(ZSTD(1)),
    experiment LowCardinality(String),
    request_time Int64""",
        "ReplacingMergeTree",
        "(trace_id, experiment, request_time)",
        "cityHash64(trace_id)",
        settings=_GRANULARITY,
    ),
    "spans": Table(
        f"""\
    trace_id String CODEC(ZSTD(1)),
    span_id String,
    request_time Int64 CODEC(Delta, ZSTD(1)) COMMENT 'of the trace',
    version {_NOW} CODEC(Delta, ZSTD(1)),
    place UInt32 COMMENT 'the position in its record',
    parent_id Nullable(String),
    name LowCardinality(String),
    span_type LowCardinality(String),
    status_code LowCardinality(String),
    status_message String,
    start_ns Int64 CODEC(Delta, ZSTD(1)),
    end_ns Nullable(Int64),
    inputs Nullable(String) CODEC(ZSTD(1)) COMMENT 'JSON',
    outputs Nullable(String) CODEC(ZSTD(1)) COMMENT 'JSON',
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'each value is JSON',
    events Nullable(String) CODEC(ZSTD(1)) COMMENT 'JSON',
    links Nullable(String) CODEC(ZSTD(1)) COMMENT 'JSON',
    content String CODEC(ZSTD(3)) COMMENT 'all text of the span',
    INDEX by_name name TYPE set(100) GRANULARITY 1,
    INDEX by_attribute_value mapValues(attributes) TYPE bloom_filter(0.01) GRANULARITY 1""",
        "ReplacingMergeTree(version)",
        "(trace_id, span_id)",
        "cityHash64(trace_id)",
        settings=_GRANULARITY,
    ),
    "tags": Table(
        f"""\
    trace_id String,
    request_time Int64 COMMENT 'of the trace',
    key LowCardinality(String),
    value String,
    deleted UInt8,
    version {_NOW},
    INDEX by_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1""",
        "ReplacingMergeTree(version)",
        "(key, trace_id)",
        "cityHash64(trace_id)",
    ),
    "assessments": Table(
        f"""\
    trace_id String,
    assessment_id String,
    request_time Int64 COMMENT 'when it was made, in ms since the epoch: its trace may not be there yet',
    kind LowCardinality(String) COMMENT 'feedback or expectation',
    name LowCardinality(String),
    value String COMMENT 'JSON',
    text String COMMENT 'a string as it is, any other value as JSON',
    number Nullable(Float64),
    valid UInt8,
    covers_session UInt8 COMMENT 'holds for all traces of the session',
    content String COMMENT 'the rest, as JSON',
    version {_NOW}""",
        "ReplacingMergeTree(version)",
        "(trace_id, assessment_id)",
        "cityHash64(trace_id)",
    ),
    "rollups": Table(
        f"""\
    experiment LowCardinality(String),
    name LowCardinality(Nullable(String)),
{_ROLLED_COLUMNS}    flags String COMMENT 'the feature flags, as JSON',
    hour Int64 COMMENT 'ms since the epoch',
    traces SimpleAggregateFunction(sum, Int64),
    errors SimpleAggregateFunction(sum, Int64),
    first SimpleAggregateFunction(min, Int64) COMMENT 'the first request_time',
    last SimpleAggregateFunction(max, Int64),
    succeeded SimpleAggregateFunction(sumMap, Map(Int16, Int64)) COMMENT 'traces by duration_bucket',
    failed SimpleAggregateFunction(sumMap, Map(Int16, Int64))""",
        "AggregatingMergeTree",
        f"(experiment, hour, name, {', '.join(ROLLED_COLUMNS)}, flags)",
        "cityHash64(experiment, hour)",
        aged=False,
        settings="allow_nullable_key = 1",
    ),
    "known_keys": Table(
        """\
    family LowCardinality(String) COMMENT 'metadata, tag, span, feedback or expectation',
    key String,
    created SimpleAggregateFunction(min, UInt64) DEFAULT toUnixTimestamp64Nano(now64(9))""",
        "AggregatingMergeTree",
        "(family, key)",
        "cityHash64(key)",
        aged=False,
    ),
    "experiments": Table(
        """\
    name String,
    created SimpleAggregateFunction(min, UInt64) DEFAULT toUnixTimestamp64Nano(now64(9))""",
        "AggregatingMergeTree",
        "name",
        "cityHash64(name)",
        aged=False,
    ),
    "processes": Table(
        f"""\
    host String,
    pid UInt32,
    started Int64 COMMENT 'ms since the epoch',
    reported Int64 COMMENT 'ms since the epoch',
    report String COMMENT 'JSON',
    version {_NOW}""",
        "ReplacingMergeTree(version)",
        "(host, pid, started)",
        "cityHash64(host)",
        aged=False,
    ),
    "facts": Table(
        f"""\
    name String COMMENT 'schema_version or id',
    value UInt64,
    created {_NOW}""",
        "MergeTree",
        "(name, created)",
        "cityHash64(name)",
        aged=False,
    ),
}

# Materialised views: from, to, and the query.
_VIEWS: Final = {
    "trace_ids_of_traces": (
        "traces",
        "trace_ids",
        "SELECT trace_id, experiment, request_time FROM {source}",
    ),
    "rollups_of_traces": ("traces", "rollups", rolled("{source} WHERE changed = 0")),
}

# A view inserts without a token, and rows like those of before are no repetition.
_TARGETS: Final = frozenset(target for _, target, _ in _VIEWS.values())
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def checked_name(name: str, what: str) -> str:
    """The name of a database or a cluster, which DDL takes as text.

    Raises:
        StoreError: it holds more than letters, digits, ``_``, ``.`` and ``-``.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(f"{name!r} is not the name of a {what}: it takes letters, digits, _, . and -")
    return name


def local(table: str, cluster: str | None) -> str:
    """The table that holds the rows: what ``ALTER`` and ``DELETE`` speak of."""
    return f"{table}_local ON CLUSTER '{cluster}'" if cluster else table


def statements(
    database: str, *, cluster: str | None = None, retention_days: float | None = None
) -> Iterator[str]:
    """The statements that create the database and its tables where they do not exist.

    ``database`` and ``cluster`` are checked names.
    """
    on_cluster = f" ON CLUSTER '{cluster}'" if cluster else ""
    suffix = "_local" if cluster else ""
    yield f"CREATE DATABASE IF NOT EXISTS `{database}`{on_cluster}"
    for name, table in TABLES.items():
        lines = [
            f"CREATE TABLE IF NOT EXISTS `{database}`.{name}{suffix}{on_cluster} (\n{table.columns}\n)",
            f"ENGINE = {_replicated(table.engine) if cluster else table.engine}",
        ]
        if table.aged:
            lines.append(f"PARTITION BY {_DAY}")
        lines.append(f"ORDER BY {table.order}")
        if table.aged and retention_days is not None:
            lines.append(f"TTL {time_to_live(retention_days)}")
        settings = [table.settings] if table.settings else []
        if table.aged:
            settings.append("ttl_only_drop_parts = 1")
        kind = "replicated" if cluster else "non_replicated"
        settings.append(f"{kind}_deduplication_window = {1000 if name not in _TARGETS else 0}")
        lines.append(f"SETTINGS {', '.join(settings)}")
        yield "\n".join(lines)
        if cluster:
            yield (
                f"CREATE TABLE IF NOT EXISTS `{database}`.{name}{on_cluster} AS `{database}`.{name}_local\n"
                f"ENGINE = Distributed('{cluster}', '{database}', '{name}_local', {table.shard})"
            )
    for name, (source, target, query) in _VIEWS.items():
        yield (
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS `{database}`.{name}{on_cluster}"
            f" TO `{database}`.{target}{suffix}\n"
            f"AS {query.format(source=f'`{database}`.{source}{suffix}')}"
        )


def time_to_live(retention_days: float) -> str:
    """The clause after ``TTL``: rows expire so many days after the request."""
    return f"{_AGE} + toIntervalSecond({int(retention_days * 86_400)})"


def _replicated(engine: str) -> str:
    name, _, arguments = engine.rstrip(")").partition("(")
    place = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
    return f"Replicated{name}({', '.join(part for part in (place, arguments) if part)})"
