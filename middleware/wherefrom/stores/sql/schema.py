"""The tables, as SQLAlchemy Core: a row for each trace, each span and each distinct source.

A trace's metadata is ``sources.metadata`` (shared by all traces of a process, stored once), updated with
``traces.metadata`` (the trace's own pairs) and with the columns ``session_id`` and ``user_id`` under MLflow's
keys. Its tags are ``traces.tags`` and ``name``, which is MLflow's tag ``mlflow.traceName``.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Computed,
    Double,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    cast,
    func,
    literal_column,
    select,
    text,
)

from ... import keys
from ...query.fields import Family, Field
from .. import base
from .expressions import joined_lines
from .types import Json

SCHEMA_VERSION: Final = 1
HOUR_MS: Final = base.HOUR_MS
DAY_MS: Final = 24 * HOUR_MS

LONGEST_PROCESS: Final = 128
_PROCESS: Final = f"""substr(json_extract(metadata, '$."{keys.INSTANCE_ID}"'), 1, {LONGEST_PROCESS})"""

metadata = MetaData()


# Only a primary key of type INTEGER is the rowid, which needs no index of its own.
_Id = Integer
_Json = Json()

schema_version = Table("schema_version", metadata, Column("version", Integer, nullable=False))

experiments = Table(
    "experiments",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

sources = Table(
    "sources",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("metadata", _Json, nullable=False),
)

# Bounded for each family: see known_keys.py.
known_keys = Table(
    "known_keys",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("family", Text, nullable=False),  # metadata, tag or span
    Column("key", Text, nullable=False),
    Column("unlisted", Integer, nullable=False, server_default=text("0")),  # see known_keys.py
    UniqueConstraint("family", "key"),
)

traces = Table(
    "traces",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("trace_id", Text, nullable=False, unique=True),
    Column("experiment_id", _Id, ForeignKey("experiments.id"), nullable=False),
    Column("source_id", _Id, ForeignKey("sources.id"), nullable=False),
    Column("name", Text),
    Column("state", Text, nullable=False),
    Column("request_time", BigInteger, nullable=False),  # ms since the epoch
    Column("duration_us", BigInteger),
    Column("duration_bucket", Integer),  # what comparisons count: see _buckets.py
    Column("client_request_id", Text),
    Column("session_id", Text),
    Column("user_id", Text),
    Column("request_preview", Text),
    Column("response_preview", Text),
    Column("metadata", _Json, nullable=False),
    Column("tags", _Json, nullable=False),
    # Cut, because it is in an index.
    Column("process", Text, Computed(_PROCESS, persisted=False)),
    # Ids are never reused, so that a higher id means "stored later", whatever was deleted.
    sqlite_autoincrement=True,
)

Index("ix_traces_request_time", traces.c.request_time)
Index("ix_traces_state", traces.c.state, traces.c.request_time)
Index("ix_traces_source", traces.c.source_id, traces.c.request_time, traces.c.state)
# Covers the columns that comparisons read, in the order in which they count: no row of the table is read, and
# nothing is sorted.
HOUR_OF_TRACE: Final = traces.c.request_time // literal_column(str(HOUR_MS), BigInteger)
Index(
    "ix_traces_blocks",
    traces.c.source_id,
    HOUR_OF_TRACE,
    traces.c.name,
    traces.c.process,
    traces.c.request_time,
    traces.c.state,
    traces.c.duration_bucket,
    traces.c.duration_us,
)
for _column in (traces.c.name, traces.c.session_id, traces.c.user_id, traces.c.client_request_id):
    Index(
        f"ix_traces_{_column.name}",
        _column,
        traces.c.request_time,
        sqlite_where=_column.is_not(None),
    )

# An index over traces.metadata and traces.tags, maintained by the writer and by triggers: see known_keys.py.
trace_values = Table(
    "trace_values",
    metadata,
    Column("key", _Id, ForeignKey("known_keys.id"), primary_key=True),
    Column("value", Text, primary_key=True),
    Column("request_time", BigInteger, primary_key=True),
    Column("trace", _Id, primary_key=True),
    sqlite_with_rowid=False,
)

PENDING: Final = 0
ROLLED_UP: Final = 1
DETAILED: Final = 2
IN_BLOCKS: Final = 3
"""The state of a period. Up to ``PENDING``: it is about to be rolled up, and below it is the mark by which
it is known again. ``DETAILED``: its traces are rolled up by name and flags too. ``IN_BLOCKS``: and counted by
block."""

# The hours and days whose traces are rolled up, or are about to be: see sql/rollups.py. Whoever changes what
# a rollup of a period counts deletes the period's row in the same transaction.
rollup_periods = Table(
    "rollup_periods",
    metadata,
    Column("start", BigInteger, primary_key=True),  # ms since the epoch
    Column("width", Integer, primary_key=True),  # HOUR_MS or DAY_MS
    Column("state", Integer, nullable=False),
    sqlite_with_rowid=False,
)

rollups = Table(
    "rollups",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("width", Integer, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("is_kept", Integer, nullable=False),  # of traces that have been pruned
    Column("is_detailed", Integer, nullable=False),  # by name and flags, otherwise by source alone
    Column("experiment_id", _Id, nullable=False),
    Column("source_id", _Id, nullable=False),
    Column("name", Text),
    Column("flags", Text),  # the traces' own metadata, reduced to feature flags
    Column("traces", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("token_traces", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("succeeded", Text, nullable=False),  # bucket of duration -> traces, as JSON
    Column("failed", Text, nullable=False),
)
Index("ix_rollups_start", rollups.c.is_kept, rollups.c.is_detailed, rollups.c.width, rollups.c.start)
Index("ix_rollups_source", rollups.c.source_id, sqlite_where=rollups.c.is_kept == 1)

# The traces of an hour by source, name, process and stretch of time, which is ``STRETCH_MS``.
blocks = Table(
    "blocks",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("hour", BigInteger, nullable=False),
    Column("start", BigInteger, nullable=False),  # of the stretch
    Column("is_kept", Integer, nullable=False),  # of traces that have been pruned
    Column("experiment_id", _Id, nullable=False),
    Column("source_id", _Id, nullable=False),
    Column("name", Text),
    Column("process", Text),
    Column("traces", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("token_sum", Double, nullable=False),  # see BlockAmount; one without tokens or cost adds 0
    Column("token_squares", Double, nullable=False),
    Column("priced", BigInteger, nullable=False),  # how many have a cost
    Column("cost_sum", Double, nullable=False),
    Column("cost_squares", Double, nullable=False),
    Column("codes", Text, nullable=False),  # as JSON: see Durations
    Column("failed_codes", Text, nullable=False),
)
Index("ix_blocks_hour", blocks.c.is_kept, blocks.c.hour)

# The traces of a day by source. Each list has an element for each name, process and hour.
block_days = Table(
    "block_days",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("start", BigInteger, nullable=False),
    Column("experiment_id", _Id, nullable=False),
    Column("source_id", _Id, nullable=False),
    Column("blocks", Integer, nullable=False),  # how many
    *(
        Column(name, Text, nullable=False)  # a list as JSON
        for name in (
            *("starts", "names", "processes", "traces", "errors"),
            *("token_sums", "token_squares", "priced", "cost_sums", "cost_squares"),
        )
    ),
    *(
        Column(f"{of}{name}", Text, nullable=False)  # see Durations
        for of in ("", "failed_")
        for name in ("alone", "alone_each", "codes", "codes_each")
    ),
)
Index("ix_block_days_start", block_days.c.start)

# Without a foreign key: feedback may come before its trace has been written.
assessments = Table(
    "assessments",
    metadata,
    Column("trace_id", Text, primary_key=True),
    Column("assessment_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # feedback or expectation
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),  # JSON
    Column("text", Text, nullable=False),
    Column("number", Double),
    Column("valid", Integer, nullable=False),
    Column("covers_session", Integer, nullable=False),
    Column("created", BigInteger, nullable=False),  # ms since the epoch
    Column("content", Text, nullable=False),  # the rest, as JSON
    sqlite_with_rowid=False,
)
Index("ix_assessments_name", assessments.c.kind, assessments.c.name, assessments.c.trace_id)
Index("ix_assessments_created", assessments.c.created)

# The last report of each process that writes here.
processes = Table(
    "processes",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", BigInteger, nullable=False),  # ms since the epoch
    Column("reported", BigInteger, nullable=False),
    Column("report", _Json, nullable=False),
    UniqueConstraint("host", "pid", "started"),
)

spans = Table(
    "spans",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("trace", _Id, ForeignKey("traces.id", ondelete="CASCADE"), nullable=False),
    Column("span_id", Text, nullable=False),
    Column("parent_id", Text),
    Column("name", Text, nullable=False),
    Column("span_type", Text, nullable=False),
    Column("status_code", Text, nullable=False),
    Column("status_message", Text, nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger),
    Column("inputs", _Json),
    Column("outputs", _Json),
    Column("attributes", _Json, nullable=False),
    Column("events", _Json),
    Column("links", _Json),
    UniqueConstraint("trace", "span_id"),
)


SPAN_CONTENT: Final = joined_lines(
    spans.c.name,
    spans.c.span_type,
    spans.c.status_message,
    spans.c.inputs,
    spans.c.outputs,
    spans.c.attributes,
    spans.c.events,
)
_COLUMNS: Final[dict[str, ColumnElement[Any]]] = {
    "name": traces.c.name,
    "status": traces.c.state,
    "request_id": traces.c.trace_id,
    "client_request_id": traces.c.client_request_id,
    "request_preview": traces.c.request_preview,
    "response_preview": traces.c.response_preview,
    "session_id": traces.c.session_id,
    "user": traces.c.user_id,
    "timestamp": traces.c.request_time,
    "execution_time": traces.c.duration_us // 1000,
    "end_time": traces.c.request_time + func.coalesce(traces.c.duration_us, 0) // 1000,
    "experiment_id": select(experiments.c.name)
    .where(experiments.c.id == traces.c.experiment_id)
    .correlate(traces)
    .scalar_subquery(),
    "span.name": spans.c.name,
    "span.type": spans.c.span_type,
    "span.status": spans.c.status_code,
    "span.message": spans.c.status_message,
    "span.content": SPAN_CONTENT,
}
_KEY_COLUMNS: Final[dict[tuple[str, str], ColumnElement[Any]]] = {
    (Family.METADATA, keys.SESSION): traces.c.session_id,
    (Family.METADATA, keys.USER): traces.c.user_id,
    (Family.TAG, keys.TRACE_NAME_TAG): traces.c.name,
    (Family.SPAN, keys.SPAN_TYPE): spans.c.span_type,
    (Family.SPAN, keys.SPAN_INPUTS): cast(spans.c.inputs, Text),
    (Family.SPAN, keys.SPAN_OUTPUTS): cast(spans.c.outputs, Text),
}


def is_root(span: FromClause) -> ColumnElement[bool]:
    """Whether a span is the root of its trace: its parent, if it has one, is not in the trace."""
    parent = spans.alias()
    found = select(parent.c.id).where(parent.c.trace == span.c.trace, parent.c.span_id == span.c.parent_id)
    return ~found.correlate(span).exists()


def column_of(field: Field) -> ColumnElement[Any] | None:
    """The column of a field; ``None`` for one that is looked up by key in its family's JSON."""
    if field.key is None:
        return _COLUMNS.get(field.name)
    return _KEY_COLUMNS.get((field.family, field.key))
