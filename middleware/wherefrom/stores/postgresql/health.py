"""Examines a store in PostgreSQL without creating or changing it."""

from __future__ import annotations

from typing import Any, Final

from psycopg import Connection as DriverConnection
from sqlalchemy import Connection

from ..base import Health, StoreState
from ..sql.schema import SCHEMA_VERSION
from .address import Address
from .schema import newer, version

_SIZE: Final = (
    "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class"
    " WHERE relkind IN ('r', 'm') AND relnamespace ="
    " (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('traces'))"
    " AND (relname IN ('schema_version', 'experiments', 'sources', 'known_keys', 'processes', 'trace_ids',"
    " 'rollups', 'rollup_periods', 'blocks', 'block_days')"
    " OR relname ~ '^(traces|spans|trace_values)_(other|[0-9]+_[0-9]+)$')"
)
_COUNTS: Final = (
    "SELECT (SELECT max(version) FROM schema_version), (SELECT count(*) FROM traces),"
    " (SELECT count(*) FROM sources), (SELECT count(*) FROM experiments),"
    " (SELECT min(request_time) FROM traces), (SELECT max(request_time) FROM traces)"
)
_MAY_WRITE: Final = (
    "SELECT bool_and(has_table_privilege(name, 'INSERT')) AND NOT pg_is_in_recovery()"
    " FROM unnest(ARRAY['traces', 'spans', 'trace_values', 'trace_ids', 'sources', 'known_keys']) AS name"
)
_TRIGRAMS: Final = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'"
_OTHERS: Final = "SELECT EXISTS (SELECT FROM traces_other WHERE request_time >= %s)"
_NO_TRIGRAMS: Final = (
    "the extension pg_trgm is missing: patterns over the text of spans are slower."
    " An administrator creates it before the tables: CREATE EXTENSION pg_trgm"
)
_READ_ONLY: Final = "this role can read {place} and cannot write traces to it"


def read_state(connection: Connection, address: Address) -> StoreState:
    """Sizes and counts of a store."""
    schema_version, *counts = connection.exec_driver_sql(_COUNTS).one()
    size = connection.exec_driver_sql(_SIZE).scalar_one()
    traces, sources, experiments, oldest, newest = counts
    return StoreState(
        kind="postgresql",
        location=address.place,
        size=size,
        free=None,
        disk_free=None,
        schema_version=schema_version,
        traces=traces,
        sources=sources,
        experiments=experiments,
        oldest=oldest,
        newest=newest,
    )


def examine(connection: DriverConnection[Any], address: Address) -> Health:
    """The health of a store whose server answers."""
    health = Health(address.url)
    health.schema_version = found = version(connection)
    if found is None:
        health.problems.append(missing(address))
        return health
    if found > SCHEMA_VERSION:
        health.problems.append(newer(address.place, found))
        return health
    _, health.traces, health.sources, _, health.oldest, health.newest = _row(connection, _COUNTS)
    health.size = size(connection)
    (health.spans,) = _row(connection, "SELECT count(*) FROM spans")
    (health.writable,) = _row(connection, _MAY_WRITE)
    if not health.writable:
        health.warnings.append(_READ_ONLY.format(place=address.place))
    if _row(connection, _TRIGRAMS) == (0,):
        health.warnings.append(_NO_TRIGRAMS)
    return health


def size(connection: DriverConnection[Any]) -> int:
    """The size of all tables and indexes in bytes."""
    return int(_row(connection, _SIZE)[0])


def missing(address: Address) -> str:
    """A sentence about a database without tables."""
    where = f" in the schema {address.schema}" if address.schema else ""
    return (
        f"there is no store{where} in {address.place}; an app creates it when it records its first trace,"
        " or `wherefrom db upgrade`"
    )


def _row(connection: DriverConnection[Any], query: Any) -> Any:
    return connection.execute(query).fetchone()
