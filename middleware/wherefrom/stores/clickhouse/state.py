"""Sizes, counts and health of a ClickHouse database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ...exceptions import StoreError
from ..base import Health, StoreState
from .connection import Connection, Target, is_missing
from .schema import SCHEMA_VERSION

Ask = Callable[[str], list[list[Any]]]

_SIZE: Final = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()"
_FREE: Final = "SELECT min(unreserved_space) FROM system.disks"
_TRACES: Final = "SELECT count(), uniqExact(source), min(request_time), max(request_time) FROM traces FINAL"
_EXPERIMENTS: Final = "SELECT uniqExact(name) FROM experiments"
_SPANS: Final = "SELECT count() FROM spans FINAL"
_VERSION: Final = "SELECT max(value) FROM facts WHERE name = 'schema_version'"
_MADE: Final = "SELECT count() FROM facts WHERE name = 'schema_version'"
_READ_ONLY: Final = "SELECT value FROM system.settings WHERE name = 'readonly'"


def read_state(ask: Ask, target: Target, counted: Sequence[Any]) -> StoreState:
    """Sizes and counts of the store; ``counted`` are its traces and sources, the first and the last time."""
    traces, sources, oldest, newest = counted
    return StoreState(
        kind="chdb" if target.host is None else "clickhouse",
        location=target.url,
        size=ask(_SIZE)[0][0],
        free=None,
        disk_free=ask(_FREE)[0][0],
        schema_version=ask(_VERSION)[0][0],
        traces=traces,
        sources=sources,
        experiments=ask(_EXPERIMENTS)[0][0],
        oldest=oldest if traces else None,
        newest=newest if traces else None,
    )


def missing(connection: Connection) -> str | None:
    """A sentence if the tables do not exist yet, ``None`` if they do. Creates nothing."""
    try:
        if connection.rows(_MADE)[0][0]:
            return None
    except StoreError as error:
        if not is_missing(error):
            raise
    url = connection.target.url
    return f"nothing is stored in {url} yet: an app creates the tables when it writes its first trace"


def examine(connection: Connection) -> Health:
    """The state of the store, without creating or changing it."""
    health = Health(connection.target.url)
    try:
        if (problem := missing(connection)) is not None:
            health.problems.append(problem)
            return health
        health.schema_version = connection.rows(_VERSION)[0][0]
        if health.schema_version is not None and health.schema_version > SCHEMA_VERSION:
            health.problems.append(newer(health.schema_version))
            return health
        state = read_state(connection.rows, connection.target, connection.rows(_TRACES)[0])
        health.size, health.traces, health.sources = state.size, state.traces, state.sources
        health.oldest, health.newest = state.oldest, state.newest
        health.spans = connection.rows(_SPANS)[0][0]
        health.writable = connection.rows(_READ_ONLY)[0][0] == "0"
    except StoreError as error:
        health.problems.append(str(error))
    return health


def newer(found: int) -> str:
    """A sentence for a database that a newer Wherefrom wrote."""
    return (
        f"the store has schema version {found}, and this Wherefrom knows versions up to {SCHEMA_VERSION}:"
        " upgrade Wherefrom"
    )
