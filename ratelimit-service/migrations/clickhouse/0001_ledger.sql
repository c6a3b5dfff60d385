-- The ledger's tables. Statements end with `;` at a line's end, and may be run again: ClickHouse has no transaction over them.
--
-- usage_events   one row for each call that is known: `real` (its event), `unsettled` (what was reserved, when that expired), or
--                `correction` (takes an unsettled one out again, as its real event has come): any sum is sum(x * sign).
-- tracked_events one row for each tracked event.
-- entry_ids      what is stored, by id: kept as long as the sums, so that a replay counts once however late it is.
-- usage_hours, usage_days, usage_months, tracked_days
--                the sums, made of the rows by the views beside them.
--
-- A row's month is that of its beginning; times past 2106 count to the last month that ClickHouse's DateTime has. A table's
-- TTL is set at each start, from the configuration.

CREATE TABLE IF NOT EXISTS usage_events
(
    event_id String CODEC(ZSTD(1)),
    reservation_id Nullable(String) CODEC(ZSTD(1)),
    request_id Nullable(String) CODEC(ZSTD(1)),
    tenant LowCardinality(String),
    tier LowCardinality(String),
    key LowCardinality(Nullable(String)),
    started_at_ms UInt64 CODEC(Delta, ZSTD(1)),
    duration_ms UInt64 CODEC(T64, ZSTD(1)),
    time_to_first_token_ms Nullable(UInt64) CODEC(ZSTD(1)),
    api LowCardinality(Nullable(String)),
    operation LowCardinality(Nullable(String)),
    provider LowCardinality(Nullable(String)),
    request_model LowCardinality(Nullable(String)),
    output_cap Nullable(UInt64) CODEC(ZSTD(1)),
    input_estimate Nullable(UInt64) CODEC(ZSTD(1)),
    response_model LowCardinality(Nullable(String)),
    response_id Nullable(String) CODEC(ZSTD(1)),
    finish_reasons Array(LowCardinality(String)),
    streaming Bool,
    status UInt32 CODEC(ZSTD(1)),
    error_type LowCardinality(Nullable(String)),
    unreadable LowCardinality(Nullable(String)),
    upstream_limits Array(String) CODEC(ZSTD(1)),
    input_tokens UInt64 CODEC(T64, ZSTD(1)),
    output_tokens UInt64 CODEC(T64, ZSTD(1)),
    cache_read_tokens UInt64 CODEC(T64, ZSTD(1)),
    cache_creation_tokens UInt64 CODEC(T64, ZSTD(1)),
    cache_creation_5m_tokens UInt64 CODEC(T64, ZSTD(1)),
    cache_creation_1h_tokens UInt64 CODEC(T64, ZSTD(1)),
    reasoning_tokens UInt64 CODEC(T64, ZSTD(1)),
    audio_input_tokens UInt64 CODEC(T64, ZSTD(1)),
    audio_output_tokens UInt64 CODEC(T64, ZSTD(1)),
    extra_input_tokens UInt64 CODEC(T64, ZSTD(1)),
    extra_output_tokens UInt64 CODEC(T64, ZSTD(1)),
    billed_input_tokens UInt64 CODEC(T64, ZSTD(1)),
    billed_output_tokens UInt64 CODEC(T64, ZSTD(1)),
    tool_requests UInt64 CODEC(T64, ZSTD(1)),
    cost_nanousd Nullable(UInt64) CODEC(ZSTD(1)),
    usage_source LowCardinality(String),
    finish LowCardinality(String),
    request_bytes UInt64 CODEC(T64, ZSTD(1)),
    response_bytes UInt64 CODEC(T64, ZSTD(1)),
    kind Enum8('real' = 1, 'unsettled' = 2, 'correction' = 3),
    sign Int8,
    duration_bucket UInt8 COMMENT 'the histograms'' bucket of duration_ms',
    first_token_bucket UInt8 COMMENT 'that of time_to_first_token_ms, where there is one'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(toDateTime(least(intDiv(started_at_ms, 1000), 4294967295), 'UTC'))
ORDER BY (tenant, started_at_ms, event_id)
SETTINGS non_replicated_deduplication_window = 4096, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS tracked_events
(
    id String CODEC(ZSTD(1)),
    tenant LowCardinality(String),
    event_type LowCardinality(String),
    at_ms UInt64 CODEC(Delta, ZSTD(1)),
    quantity_micros UInt64 CODEC(T64, ZSTD(1)),
    metadata String CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(toDateTime(least(intDiv(at_ms, 1000), 4294967295), 'UTC'))
ORDER BY (tenant, at_ms, id)
SETTINGS non_replicated_deduplication_window = 4096, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS entry_ids
(
    id String CODEC(ZSTD(1)),
    kind Enum8('real' = 1, 'unsettled' = 2, 'correction' = 3, 'tracked' = 4),
    tenant LowCardinality(String),
    at_ms UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(toDateTime(least(intDiv(at_ms, 1000), 4294967295), 'UTC'))
ORDER BY (id, kind)
SETTINGS index_granularity = 256, non_replicated_deduplication_window = 4096, fsync_after_insert = 1, fsync_part_directory = 1,
    ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_ids_view TO entry_ids AS
SELECT event_id AS id, toString(kind) AS kind, tenant, started_at_ms AS at_ms
FROM usage_events;

CREATE MATERIALIZED VIEW IF NOT EXISTS tracked_ids_view TO entry_ids AS
SELECT id, 'tracked' AS kind, tenant, at_ms
FROM tracked_events;

CREATE TABLE IF NOT EXISTS usage_hours
(
    tenant LowCardinality(String),
    start_ms UInt64 CODEC(Delta, ZSTD(1)),
    tier LowCardinality(String),
    model LowCardinality(Nullable(String)) COMMENT 'the one asked for, or else the one that answered',
    provider LowCardinality(Nullable(String)),
    api LowCardinality(Nullable(String)),
    key LowCardinality(Nullable(String)),
    streaming Bool,
    status UInt32,
    requests SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    succeeded SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_read_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_creation_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_creation_5m_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_creation_1h_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    reasoning_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    audio_input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    audio_output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    extra_input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    extra_output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    billed_input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    billed_output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    tool_requests SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_reported SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_partial SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_estimated SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_unsettled SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_none SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_refused SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_streaming SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_without_cost SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cost_nanousd SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    duration_ms SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_with_first_token SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    time_to_first_token_ms SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    durations SimpleAggregateFunction(sumMap, Map(UInt8, Int64)) COMMENT 'calls by bucket',
    first_tokens SimpleAggregateFunction(sumMap, Map(UInt8, Int64)) COMMENT 'calls by bucket'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(toDateTime(least(intDiv(start_ms, 1000), 4294967295), 'UTC'))
ORDER BY (tenant, start_ms, tier, model, provider, api, key, streaming, status)
SETTINGS allow_nullable_key = 1, index_granularity = 512, non_replicated_deduplication_window = 4096, fsync_after_insert = 1,
    fsync_part_directory = 1, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_hours_view TO usage_hours AS
SELECT
    tenant,
    intDiv(started_at_ms, 3600000) * 3600000 AS start_ms,
    tier,
    coalesce(request_model, response_model) AS model,
    provider,
    api,
    key,
    streaming,
    status,
    sum(sign) AS requests,
    sumIf(sign, status BETWEEN 200 AND 299 AND finish IN ('complete', 'client_gone')) AS succeeded,
    sum(sign * toInt64(usage_events.input_tokens)) AS input_tokens,
    sum(sign * toInt64(usage_events.output_tokens)) AS output_tokens,
    sum(sign * toInt64(usage_events.cache_read_tokens)) AS cache_read_tokens,
    sum(sign * toInt64(usage_events.cache_creation_tokens)) AS cache_creation_tokens,
    sum(sign * toInt64(usage_events.cache_creation_5m_tokens)) AS cache_creation_5m_tokens,
    sum(sign * toInt64(usage_events.cache_creation_1h_tokens)) AS cache_creation_1h_tokens,
    sum(sign * toInt64(usage_events.reasoning_tokens)) AS reasoning_tokens,
    sum(sign * toInt64(usage_events.audio_input_tokens)) AS audio_input_tokens,
    sum(sign * toInt64(usage_events.audio_output_tokens)) AS audio_output_tokens,
    sum(sign * toInt64(usage_events.extra_input_tokens)) AS extra_input_tokens,
    sum(sign * toInt64(usage_events.extra_output_tokens)) AS extra_output_tokens,
    sum(sign * toInt64(usage_events.billed_input_tokens)) AS billed_input_tokens,
    sum(sign * toInt64(usage_events.billed_output_tokens)) AS billed_output_tokens,
    sum(sign * toInt64(usage_events.tool_requests)) AS tool_requests,
    sumIf(sign, usage_source = 'reported') AS requests_reported,
    sumIf(sign, usage_source = 'partial') AS requests_partial,
    sumIf(sign, usage_source = 'estimated') AS requests_estimated,
    sumIf(sign, usage_source = 'unsettled') AS requests_unsettled,
    sumIf(sign, usage_source = 'none') AS requests_none,
    sumIf(sign, usage_source = 'none' AND finish = 'local_reply') AS requests_refused,
    sumIf(sign, streaming) AS requests_streaming,
    sumIf(sign, usage_source != 'none' AND isNull(usage_events.cost_nanousd)) AS requests_without_cost,
    sum(sign * toInt64(least(ifNull(usage_events.cost_nanousd, 0), 1000000000000000))) AS cost_nanousd,
    sumIf(sign * toInt64(usage_events.duration_ms), usage_source != 'unsettled') AS duration_ms,
    sumIf(sign, isNotNull(usage_events.time_to_first_token_ms)) AS requests_with_first_token,
    sum(sign * toInt64(ifNull(usage_events.time_to_first_token_ms, 0))) AS time_to_first_token_ms,
    sumMapIf(map(duration_bucket, toInt64(sign)), usage_source != 'unsettled') AS durations,
    sumMapIf(map(first_token_bucket, toInt64(sign)), isNotNull(usage_events.time_to_first_token_ms)) AS first_tokens
FROM usage_events
GROUP BY tenant, start_ms, tier, model, provider, api, key, streaming, status;

CREATE TABLE IF NOT EXISTS usage_days
(
    tenant LowCardinality(String),
    start_ms UInt64 CODEC(Delta, ZSTD(1)),
    tier LowCardinality(String),
    model LowCardinality(Nullable(String)) COMMENT 'the one asked for, or else the one that answered',
    provider LowCardinality(Nullable(String)),
    api LowCardinality(Nullable(String)),
    key LowCardinality(Nullable(String)),
    streaming Bool,
    status UInt32,
    requests SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    succeeded SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_read_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_creation_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_creation_5m_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_creation_1h_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    reasoning_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    audio_input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    audio_output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    extra_input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    extra_output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    billed_input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    billed_output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    tool_requests SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_reported SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_partial SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_estimated SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_unsettled SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_none SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_refused SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_streaming SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_without_cost SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cost_nanousd SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    duration_ms SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_with_first_token SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    time_to_first_token_ms SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    durations SimpleAggregateFunction(sumMap, Map(UInt8, Int64)) COMMENT 'calls by bucket',
    first_tokens SimpleAggregateFunction(sumMap, Map(UInt8, Int64)) COMMENT 'calls by bucket'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(toDateTime(least(intDiv(start_ms, 1000), 4294967295), 'UTC'))
ORDER BY (tenant, start_ms, tier, model, provider, api, key, streaming, status)
SETTINGS allow_nullable_key = 1, index_granularity = 512, non_replicated_deduplication_window = 4096, fsync_after_insert = 1,
    fsync_part_directory = 1, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_days_view TO usage_days AS
SELECT
    tenant,
    intDiv(started_at_ms, 86400000) * 86400000 AS start_ms,
    tier,
    coalesce(request_model, response_model) AS model,
    provider,
    api,
    key,
    streaming,
    status,
    sum(sign) AS requests,
    sumIf(sign, status BETWEEN 200 AND 299 AND finish IN ('complete', 'client_gone')) AS succeeded,
    sum(sign * toInt64(usage_events.input_tokens)) AS input_tokens,
    sum(sign * toInt64(usage_events.output_tokens)) AS output_tokens,
    sum(sign * toInt64(usage_events.cache_read_tokens)) AS cache_read_tokens,
    sum(sign * toInt64(usage_events.cache_creation_tokens)) AS cache_creation_tokens,
    sum(sign * toInt64(usage_events.cache_creation_5m_tokens)) AS cache_creation_5m_tokens,
    sum(sign * toInt64(usage_events.cache_creation_1h_tokens)) AS cache_creation_1h_tokens,
    sum(sign * toInt64(usage_events.reasoning_tokens)) AS reasoning_tokens,
    sum(sign * toInt64(usage_events.audio_input_tokens)) AS audio_input_tokens,
    sum(sign * toInt64(usage_events.audio_output_tokens)) AS audio_output_tokens,
    sum(sign * toInt64(usage_events.extra_input_tokens)) AS extra_input_tokens,
    sum(sign * toInt64(usage_events.extra_output_tokens)) AS extra_output_tokens,
    sum(sign * toInt64(usage_events.billed_input_tokens)) AS billed_input_tokens,
    sum(sign * toInt64(usage_events.billed_output_tokens)) AS billed_output_tokens,
    sum(sign * toInt64(usage_events.tool_requests)) AS tool_requests,
    sumIf(sign, usage_source = 'reported') AS requests_reported,
    sumIf(sign, usage_source = 'partial') AS requests_partial,
    sumIf(sign, usage_source = 'estimated') AS requests_estimated,
    sumIf(sign, usage_source = 'unsettled') AS requests_unsettled,
    sumIf(sign, usage_source = 'none') AS requests_none,
    sumIf(sign, usage_source = 'none' AND finish = 'local_reply') AS requests_refused,
    sumIf(sign, streaming) AS requests_streaming,
    sumIf(sign, usage_source != 'none' AND isNull(usage_events.cost_nanousd)) AS requests_without_cost,
    sum(sign * toInt64(least(ifNull(usage_events.cost_nanousd, 0), 1000000000000000))) AS cost_nanousd,
    sumIf(sign * toInt64(usage_events.duration_ms), usage_source != 'unsettled') AS duration_ms,
    sumIf(sign, isNotNull(usage_events.time_to_first_token_ms)) AS requests_with_first_token,
    sum(sign * toInt64(ifNull(usage_events.time_to_first_token_ms, 0))) AS time_to_first_token_ms,
    sumMapIf(map(duration_bucket, toInt64(sign)), usage_source != 'unsettled') AS durations,
    sumMapIf(map(first_token_bucket, toInt64(sign)), isNotNull(usage_events.time_to_first_token_ms)) AS first_tokens
FROM usage_events
GROUP BY tenant, start_ms, tier, model, provider, api, key, streaming, status;

CREATE TABLE IF NOT EXISTS usage_months
(
    tenant LowCardinality(String),
    start_ms UInt64 CODEC(Delta, ZSTD(1)),
    tier LowCardinality(String),
    model LowCardinality(Nullable(String)) COMMENT 'the one asked for, or else the one that answered',
    provider LowCardinality(Nullable(String)),
    api LowCardinality(Nullable(String)),
    key LowCardinality(Nullable(String)),
    streaming Bool,
    status UInt32,
    requests SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    succeeded SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_read_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_creation_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_creation_5m_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cache_creation_1h_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    reasoning_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    audio_input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    audio_output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    extra_input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    extra_output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    billed_input_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    billed_output_tokens SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    tool_requests SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_reported SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_partial SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_estimated SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_unsettled SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_none SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_refused SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_streaming SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_without_cost SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    cost_nanousd SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    duration_ms SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    requests_with_first_token SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    time_to_first_token_ms SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    durations SimpleAggregateFunction(sumMap, Map(UInt8, Int64)) COMMENT 'calls by bucket',
    first_tokens SimpleAggregateFunction(sumMap, Map(UInt8, Int64)) COMMENT 'calls by bucket'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(toDateTime(least(intDiv(start_ms, 1000), 4294967295), 'UTC'))
ORDER BY (tenant, start_ms, tier, model, provider, api, key, streaming, status)
SETTINGS allow_nullable_key = 1, index_granularity = 512, non_replicated_deduplication_window = 4096, fsync_after_insert = 1,
    fsync_part_directory = 1, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_months_view TO usage_months AS
SELECT
    tenant,
    toUInt64(toUnixTimestamp(toDateTime(toStartOfMonth(toDateTime(least(intDiv(started_at_ms, 1000), 4294967295), 'UTC')), 'UTC'))) * 1000 AS start_ms,
    tier,
    coalesce(request_model, response_model) AS model,
    provider,
    api,
    key,
    streaming,
    status,
    sum(sign) AS requests,
    sumIf(sign, status BETWEEN 200 AND 299 AND finish IN ('complete', 'client_gone')) AS succeeded,
    sum(sign * toInt64(usage_events.input_tokens)) AS input_tokens,
    sum(sign * toInt64(usage_events.output_tokens)) AS output_tokens,
    sum(sign * toInt64(usage_events.cache_read_tokens)) AS cache_read_tokens,
    sum(sign * toInt64(usage_events.cache_creation_tokens)) AS cache_creation_tokens,
    sum(sign * toInt64(usage_events.cache_creation_5m_tokens)) AS cache_creation_5m_tokens,
    sum(sign * toInt64(usage_events.cache_creation_1h_tokens)) AS cache_creation_1h_tokens,
    sum(sign * toInt64(usage_events.reasoning_tokens)) AS reasoning_tokens,
    sum(sign * toInt64(usage_events.audio_input_tokens)) AS audio_input_tokens,
    sum(sign * toInt64(usage_events.audio_output_tokens)) AS audio_output_tokens,
    sum(sign * toInt64(usage_events.extra_input_tokens)) AS extra_input_tokens,
    sum(sign * toInt64(usage_events.extra_output_tokens)) AS extra_output_tokens,
    sum(sign * toInt64(usage_events.billed_input_tokens)) AS billed_input_tokens,
    sum(sign * toInt64(usage_events.billed_output_tokens)) AS billed_output_tokens,
    sum(sign * toInt64(usage_events.tool_requests)) AS tool_requests,
    sumIf(sign, usage_source = 'reported') AS requests_reported,
    sumIf(sign, usage_source = 'partial') AS requests_partial,
    sumIf(sign, usage_source = 'estimated') AS requests_estimated,
    sumIf(sign, usage_source = 'unsettled') AS requests_unsettled,
    sumIf(sign, usage_source = 'none') AS requests_none,
    sumIf(sign, usage_source = 'none' AND finish = 'local_reply') AS requests_refused,
    sumIf(sign, streaming) AS requests_streaming,
    sumIf(sign, usage_source != 'none' AND isNull(usage_events.cost_nanousd)) AS requests_without_cost,
    sum(sign * toInt64(least(ifNull(usage_events.cost_nanousd, 0), 1000000000000000))) AS cost_nanousd,
    sumIf(sign * toInt64(usage_events.duration_ms), usage_source != 'unsettled') AS duration_ms,
    sumIf(sign, isNotNull(usage_events.time_to_first_token_ms)) AS requests_with_first_token,
    sum(sign * toInt64(ifNull(usage_events.time_to_first_token_ms, 0))) AS time_to_first_token_ms,
    sumMapIf(map(duration_bucket, toInt64(sign)), usage_source != 'unsettled') AS durations,
    sumMapIf(map(first_token_bucket, toInt64(sign)), isNotNull(usage_events.time_to_first_token_ms)) AS first_tokens
FROM usage_events
GROUP BY tenant, start_ms, tier, model, provider, api, key, streaming, status;

CREATE TABLE IF NOT EXISTS tracked_days
(
    tenant LowCardinality(String),
    start_ms UInt64 CODEC(Delta, ZSTD(1)),
    event_type LowCardinality(String),
    events SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    quantity_micros SimpleAggregateFunction(sum, Int128) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(toDateTime(least(intDiv(start_ms, 1000), 4294967295), 'UTC'))
ORDER BY (tenant, start_ms, event_type)
SETTINGS index_granularity = 512, non_replicated_deduplication_window = 4096, fsync_after_insert = 1, fsync_part_directory = 1,
    ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS tracked_days_view TO tracked_days AS
SELECT
    tenant,
    intDiv(at_ms, 86400000) * 86400000 AS start_ms,
    event_type,
    count() AS events,
    sum(toInt128(tracked_events.quantity_micros)) AS quantity_micros
FROM tracked_events
GROUP BY tenant, start_ms, event_type;
