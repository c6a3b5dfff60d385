-- Events get what they cost and who called; sums are kept by hour, day and month, and by what calls are told apart by.

DROP VIEW calls;
DROP TRIGGER usage_events_are_summed;
DROP TRIGGER usage_events_correct;
DROP TRIGGER unsettled_events_yield;
DROP TRIGGER unsettled_events_are_summed;
DROP TRIGGER corrections_are_summed;
DROP TABLE usage_days;

-- In the order of their ids, which is nearly that of their coming: no second tree has the ids.
CREATE TABLE events (
    event_id                 TEXT    NOT NULL PRIMARY KEY,
    reservation_id           TEXT,
    request_id               TEXT,
    tenant                   TEXT    NOT NULL,
    tier                     TEXT    NOT NULL,
    key                      TEXT,             -- the name of who called
    started_at_ms            INTEGER NOT NULL,
    duration_ms              INTEGER NOT NULL,
    time_to_first_token_ms   INTEGER,
    api                      TEXT,
    operation                TEXT,
    provider                 TEXT,
    request_model            TEXT,
    output_cap               INTEGER,
    input_estimate           INTEGER,
    response_model           TEXT,
    response_id              TEXT,
    finish_reasons           TEXT    NOT NULL, -- a JSON array
    streaming                INTEGER NOT NULL,
    status                   INTEGER NOT NULL,
    error_type               TEXT,
    unreadable               TEXT,
    upstream_limits          TEXT    NOT NULL, -- a JSON array
    input_tokens             INTEGER NOT NULL,
    output_tokens            INTEGER NOT NULL,
    cache_read_tokens        INTEGER NOT NULL,
    cache_creation_tokens    INTEGER NOT NULL,
    cache_creation_5m_tokens INTEGER NOT NULL,
    cache_creation_1h_tokens INTEGER NOT NULL,
    reasoning_tokens         INTEGER NOT NULL,
    audio_input_tokens       INTEGER NOT NULL,
    audio_output_tokens      INTEGER NOT NULL,
    extra_input_tokens       INTEGER NOT NULL,
    extra_output_tokens      INTEGER NOT NULL,
    billed_input_tokens      INTEGER NOT NULL,
    billed_output_tokens     INTEGER NOT NULL,
    tool_requests            INTEGER NOT NULL,
    cost_nanousd             INTEGER,          -- NULL where there was no price
    usage_source             TEXT    NOT NULL,
    finish                   TEXT    NOT NULL,
    request_bytes            INTEGER NOT NULL,
    response_bytes           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO events
SELECT
    event_id, reservation_id, request_id, tenant, tier, NULL, started_at_ms, duration_ms, time_to_first_token_ms,
    api, operation, provider, request_model, output_cap, input_estimate, response_model, response_id, finish_reasons,
    streaming, status, error_type, unreadable, upstream_limits, input_tokens, output_tokens, cache_read_tokens,
    cache_creation_tokens, cache_creation_5m_tokens, cache_creation_1h_tokens, reasoning_tokens, audio_input_tokens,
    audio_output_tokens, extra_input_tokens, extra_output_tokens, billed_input_tokens, billed_output_tokens,
    tool_requests, NULL, usage_source, finish, request_bytes, response_bytes
FROM usage_events ORDER BY event_id;

DROP TRIGGER usage_events_are_not_deleted;
DROP TABLE usage_events;
ALTER TABLE events RENAME TO usage_events;

CREATE INDEX usage_events_by_tenant ON usage_events (tenant, started_at_ms);

ALTER TABLE unsettled_events ADD COLUMN cost_nanousd INTEGER;
ALTER TABLE corrections ADD COLUMN cost_nanousd INTEGER;

-- Their sums: what is read. A column without a value has ''.
CREATE TABLE usage_sums (
    grain     INTEGER NOT NULL, -- 0 hours, 1 days, 2 months, of UTC
    tenant    TEXT    NOT NULL,
    start_ms  INTEGER NOT NULL,
    tier      TEXT    NOT NULL,
    model     TEXT    NOT NULL,
    provider  TEXT    NOT NULL,
    api       TEXT    NOT NULL,
    key       TEXT    NOT NULL,
    streaming INTEGER NOT NULL,
    status    INTEGER NOT NULL,
    requests                  INTEGER NOT NULL,
    succeeded                 INTEGER NOT NULL,
    input_tokens              INTEGER NOT NULL,
    output_tokens             INTEGER NOT NULL,
    cache_read_tokens         INTEGER NOT NULL,
    cache_creation_tokens     INTEGER NOT NULL,
    cache_creation_5m_tokens  INTEGER NOT NULL,
    cache_creation_1h_tokens  INTEGER NOT NULL,
    reasoning_tokens          INTEGER NOT NULL,
    audio_input_tokens        INTEGER NOT NULL,
    audio_output_tokens       INTEGER NOT NULL,
    extra_input_tokens        INTEGER NOT NULL,
    extra_output_tokens       INTEGER NOT NULL,
    billed_input_tokens       INTEGER NOT NULL,
    billed_output_tokens      INTEGER NOT NULL,
    tool_requests             INTEGER NOT NULL,
    requests_reported         INTEGER NOT NULL,
    requests_partial          INTEGER NOT NULL,
    requests_estimated        INTEGER NOT NULL,
    requests_unsettled        INTEGER NOT NULL,
    requests_none             INTEGER NOT NULL,
    requests_refused          INTEGER NOT NULL,
    requests_streaming        INTEGER NOT NULL,
    requests_without_cost     INTEGER NOT NULL,
    cost_nanousd              INTEGER NOT NULL,
    duration_ms               INTEGER NOT NULL,
    requests_with_first_token INTEGER NOT NULL,
    time_to_first_token_ms    INTEGER NOT NULL,
    durations    BLOB NOT NULL, -- histograms, see src/ledger/histogram.rs
    first_tokens BLOB NOT NULL,
    PRIMARY KEY (grain, tenant, start_ms, tier, model, provider, api, key, streaming, status)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_sums_by_time ON usage_sums (grain, start_ms);

-- Other things that are billed. Append-only.
CREATE TABLE tracked_events (
    id              TEXT    NOT NULL,
    tenant          TEXT    NOT NULL,
    event_type      TEXT    NOT NULL,
    at_ms           INTEGER NOT NULL,
    quantity_micros INTEGER NOT NULL, -- millionths
    metadata        TEXT    NOT NULL, -- a JSON object
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX tracked_events_by_time ON tracked_events (tenant, at_ms);

CREATE TABLE tracked_sums (
    tenant          TEXT    NOT NULL,
    start_ms        INTEGER NOT NULL, -- of the UTC day
    event_type      TEXT    NOT NULL,
    events          INTEGER NOT NULL,
    quantity_micros INTEGER NOT NULL,
    PRIMARY KEY (tenant, start_ms, event_type)
) STRICT, WITHOUT ROWID;

-- The tenant that is being erased: the one whose entries may be deleted. It is empty outside of that transaction.
CREATE TABLE purging (tenant TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;

CREATE TRIGGER usage_events_are_not_changed BEFORE UPDATE ON usage_events
BEGIN
    SELECT raise(ABORT, 'usage_events is append-only');
END;

CREATE TRIGGER usage_events_are_not_deleted BEFORE DELETE ON usage_events
WHEN NOT EXISTS (SELECT 1 FROM purging WHERE tenant = OLD.tenant)
BEGIN
    SELECT raise(ABORT, 'usage_events is append-only');
END;

DROP TRIGGER unsettled_events_are_not_deleted;

CREATE TRIGGER unsettled_events_are_not_deleted BEFORE DELETE ON unsettled_events
WHEN NOT EXISTS (SELECT 1 FROM purging WHERE tenant = OLD.tenant)
BEGIN
    SELECT raise(ABORT, 'unsettled_events is append-only');
END;

DROP TRIGGER corrections_are_not_deleted;

CREATE TRIGGER corrections_are_not_deleted BEFORE DELETE ON corrections
WHEN NOT EXISTS (SELECT 1 FROM purging WHERE tenant = OLD.tenant)
BEGIN
    SELECT raise(ABORT, 'corrections is append-only');
END;

CREATE TRIGGER tracked_events_are_not_changed BEFORE UPDATE ON tracked_events
BEGIN
    SELECT raise(ABORT, 'tracked_events is append-only');
END;

CREATE TRIGGER tracked_events_are_not_deleted BEFORE DELETE ON tracked_events
WHEN NOT EXISTS (SELECT 1 FROM purging WHERE tenant = OLD.tenant)
BEGIN
    SELECT raise(ABORT, 'tracked_events is append-only');
END;

DROP TABLE IF EXISTS _sqlx_migrations; -- the version stands in `user_version` now
