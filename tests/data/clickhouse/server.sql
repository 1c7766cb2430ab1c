CREATE DATABASE IF NOT EXISTS `traces`;

CREATE TABLE IF NOT EXISTS `traces`.traces (
    trace_id String CODEC(ZSTD(1)),
    experiment LowCardinality(String),
    request_time Int64 CODEC(Delta, ZSTD(1)) COMMENT 'ms since the epoch',
    created UInt64 DEFAULT toUnixTimestamp64Nano(now64(9)) CODEC(Delta, ZSTD(1)) COMMENT 'ns since the epoch',
    place UInt64 COMMENT 'orders the traces of one stamp: a hash of the batch, and the position',
    version UInt64 DEFAULT toUnixTimestamp64Nano(now64(9)) CODEC(Delta, ZSTD(1)),
    source LowCardinality(String) COMMENT 'the metadata that all traces of a process have, as JSON',
    name LowCardinality(Nullable(String)),
    state LowCardinality(String),
    duration_us Nullable(Int64),
    duration_bucket Nullable(Int16) COMMENT 'floor(log(duration_us) / log(1.02))',
    client_request_id Nullable(String),
    request_preview Nullable(String),
    response_preview Nullable(String),
    source_name LowCardinality(Nullable(String)),
    source_type LowCardinality(Nullable(String)),
    git_commit LowCardinality(Nullable(String)),
    git_branch LowCardinality(Nullable(String)),
    git_repo_url LowCardinality(Nullable(String)),
    git_dirty LowCardinality(Nullable(String)),
    os_user LowCardinality(Nullable(String)),
    model_id LowCardinality(Nullable(String)),
    trace_schema_version LowCardinality(Nullable(String)),
    environment LowCardinality(Nullable(String)),
    app_version LowCardinality(Nullable(String)),
    deployment_id LowCardinality(Nullable(String)),
    region LowCardinality(Nullable(String)),
    process LowCardinality(Nullable(String)),
    trace_inputs Nullable(String),
    trace_outputs Nullable(String),
    token_usage Nullable(String),
    cost Nullable(String),
    session_id Nullable(String),
    user_id Nullable(String),
    metadata Map(LowCardinality(String), String) COMMENT 'what source and columns do not say',
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
    INDEX by_tag_value mapValues(tags) TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version, dropped)
PARTITION BY toDate(toDateTime(intDiv(request_time, 1000), 'UTC'), 'UTC')
ORDER BY (experiment, request_time, trace_id)
SETTINGS index_granularity = 256, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `traces`.trace_ids (
    trace_id String CODEC(ZSTD(1)),
    experiment LowCardinality(String),
    request_time Int64
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(toDateTime(intDiv(request_time, 1000), 'UTC'), 'UTC')
ORDER BY (trace_id, experiment, request_time)
SETTINGS index_granularity = 256, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS `traces`.spans (
    trace_id String CODEC(ZSTD(1)),
    span_id String,
    request_time Int64 CODEC(Delta, ZSTD(1)) COMMENT 'of the trace',
    version UInt64 DEFAULT toUnixTimestamp64Nano(now64(9)) CODEC(Delta, ZSTD(1)),
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
    INDEX by_attribute_value mapValues(attributes) TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toDate(toDateTime(intDiv(request_time, 1000), 'UTC'), 'UTC')
ORDER BY (trace_id, span_id)
SETTINGS index_granularity = 256, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `traces`.tags (
    trace_id String,
    request_time Int64 COMMENT 'of the trace',
    key LowCardinality(String),
    value String,
    deleted UInt8,
    version UInt64 DEFAULT toUnixTimestamp64Nano(now64(9)),
    INDEX by_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toDate(toDateTime(intDiv(request_time, 1000), 'UTC'), 'UTC')
ORDER BY (key, trace_id)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `traces`.assessments (
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
    version UInt64 DEFAULT toUnixTimestamp64Nano(now64(9))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toDate(toDateTime(intDiv(request_time, 1000), 'UTC'), 'UTC')
ORDER BY (trace_id, assessment_id)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `traces`.rollups (
    experiment LowCardinality(String),
    name LowCardinality(Nullable(String)),
    source_name LowCardinality(Nullable(String)),
    source_type LowCardinality(Nullable(String)),
    git_commit LowCardinality(Nullable(String)),
    git_branch LowCardinality(Nullable(String)),
    git_repo_url LowCardinality(Nullable(String)),
    git_dirty LowCardinality(Nullable(String)),
    os_user LowCardinality(Nullable(String)),
    model_id LowCardinality(Nullable(String)),
    trace_schema_version LowCardinality(Nullable(String)),
    environment LowCardinality(Nullable(String)),
    app_version LowCardinality(Nullable(String)),
    deployment_id LowCardinality(Nullable(String)),
    region LowCardinality(Nullable(String)),
    process LowCardinality(Nullable(String)),
    flags String COMMENT 'the feature flags, as JSON',
    hour Int64 COMMENT 'ms since the epoch',
    traces SimpleAggregateFunction(sum, Int64),
    errors SimpleAggregateFunction(sum, Int64),
    first SimpleAggregateFunction(min, Int64) COMMENT 'the first request_time',
    last SimpleAggregateFunction(max, Int64),
    succeeded SimpleAggregateFunction(sumMap, Map(Int16, Int64)) COMMENT 'traces by duration_bucket',
    failed SimpleAggregateFunction(sumMap, Map(Int16, Int64))
)
ENGINE = AggregatingMergeTree
ORDER BY (experiment, hour, name, source_name, source_type, git_commit, git_branch, git_repo_url, git_dirty, os_user, model_id, trace_schema_version, environment, app_version, deployment_id, region, process, flags)
SETTINGS allow_nullable_key = 1, non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS `traces`.known_keys (
    family LowCardinality(String) COMMENT 'metadata, tag, span, feedback or expectation',
    key String,
    created SimpleAggregateFunction(min, UInt64) DEFAULT toUnixTimestamp64Nano(now64(9))
)
ENGINE = AggregatingMergeTree
ORDER BY (family, key)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `traces`.experiments (
    name String,
    created SimpleAggregateFunction(min, UInt64) DEFAULT toUnixTimestamp64Nano(now64(9))
)
ENGINE = AggregatingMergeTree
ORDER BY name
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `traces`.processes (
    host String,
    pid UInt32,
    started Int64 COMMENT 'ms since the epoch',
    reported Int64 COMMENT 'ms since the epoch',
    report String COMMENT 'JSON',
    version UInt64 DEFAULT toUnixTimestamp64Nano(now64(9))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (host, pid, started)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS `traces`.facts (
    name String COMMENT 'schema_version or id',
    value UInt64,
    created UInt64 DEFAULT toUnixTimestamp64Nano(now64(9))
)
ENGINE = MergeTree
ORDER BY (name, created)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS `traces`.trace_ids_of_traces TO `traces`.trace_ids
AS SELECT trace_id, experiment, request_time FROM `traces`.traces;

CREATE MATERIALIZED VIEW IF NOT EXISTS `traces`.rollups_of_traces TO `traces`.rollups
AS SELECT experiment, name, source_name, source_type, git_commit, git_branch, git_repo_url, git_dirty, os_user, model_id, trace_schema_version, environment, app_version, deployment_id, region, process, toJSONString(mapSort(mapFilter((key, value) -> startsWith(key, 'feature_flag_'), metadata))) AS flags, request_time - positiveModulo(request_time, 3600000) AS hour, sum(toInt64(if(dropped, -1, 1))) AS traces, sumIf(toInt64(if(dropped, -1, 1)), state = 'ERROR') AS errors, min(request_time) AS first, max(request_time) AS last, sumMapIf(map(assumeNotNull(duration_bucket), toInt64(if(dropped, -1, 1))), isNotNull(duration_bucket) AND state != 'ERROR') AS succeeded, sumMapIf(map(assumeNotNull(duration_bucket), toInt64(if(dropped, -1, 1))), isNotNull(duration_bucket) AND state = 'ERROR') AS failed FROM `traces`.traces WHERE changed = 0 GROUP BY experiment, name, source_name, source_type, git_commit, git_branch, git_repo_url, git_dirty, os_user, model_id, trace_schema_version, environment, app_version, deployment_id, region, process, flags, hour;
