-- Calls whose reservation expired before their event came: what was reserved stands for what was used. Append-only.
CREATE TABLE unsettled_events (
    event_id      TEXT    NOT NULL PRIMARY KEY, -- the reservation's id, and that of the event if one still comes
    tenant        TEXT    NOT NULL,
    tier          TEXT    NOT NULL,
    started_at_ms INTEGER NOT NULL,
    api           TEXT,
    request_model TEXT,
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX unsettled_events_by_time ON unsettled_events (started_at_ms);
CREATE INDEX unsettled_events_by_tenant ON unsettled_events (tenant, started_at_ms);

-- What was taken out of the sums again, because the event came after all. Append-only.
CREATE TABLE corrections (
    event_id      TEXT    NOT NULL PRIMARY KEY,
    tenant        TEXT    NOT NULL,
    day           INTEGER NOT NULL, -- the one that the unsettled event was counted in
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The event is known already: there is nothing to stand in for.
CREATE TRIGGER unsettled_events_yield BEFORE INSERT ON unsettled_events
WHEN EXISTS (SELECT 1 FROM usage_events WHERE event_id = NEW.event_id)
BEGIN
    SELECT raise(IGNORE);
END;

-- The day's latest call stays the latest one with an event: what is corrected may never have begun then. -1: there is none.
CREATE TRIGGER unsettled_events_are_summed AFTER INSERT ON unsettled_events
BEGIN
    INSERT INTO usage_days (
        tenant, day, last_started_at_ms, last_tier, requests, succeeded, input_tokens, output_tokens,
        cache_read_tokens, cache_creation_tokens, reasoning_tokens, duration_ms, requests_unsettled
    )
    VALUES (
        NEW.tenant, NEW.started_at_ms / 86400000, -1, '', 1, 0, NEW.input_tokens, NEW.output_tokens,
        0, 0, 0, 0, 1
    )
    ON CONFLICT (tenant, day) DO UPDATE SET
        requests = requests + 1,
        requests_unsettled = requests_unsettled + 1,
        input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens;
END;

-- Every event asks, and next to none has a row: WHEN is the cheapest way to find none.
CREATE TRIGGER usage_events_correct AFTER INSERT ON usage_events
WHEN EXISTS (SELECT 1 FROM unsettled_events WHERE event_id = NEW.event_id)
BEGIN
    INSERT INTO corrections
    SELECT event_id, tenant, started_at_ms / 86400000, input_tokens, output_tokens
    FROM unsettled_events WHERE event_id = NEW.event_id;
END;

CREATE TRIGGER corrections_are_summed AFTER INSERT ON corrections
BEGIN
    UPDATE usage_days SET
        requests = requests - 1,
        requests_unsettled = requests_unsettled - 1,
        input_tokens = input_tokens - NEW.input_tokens,
        output_tokens = output_tokens - NEW.output_tokens
    WHERE tenant = NEW.tenant AND day = NEW.day;
END;

-- All calls that count, with the sums' columns.
CREATE VIEW calls AS
SELECT
    tenant, tier, request_model AS model, api, started_at_ms,
    -- Before anything was made of them: no limit counts these.
    usage_source = 'none' AND finish = 'local_reply' AS refused,
    1 AS requests,
    status BETWEEN 200 AND 299 AND finish IN ('complete', 'client_gone') AS succeeded,
    input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
    cache_creation_5m_tokens, cache_creation_1h_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens,
    extra_input_tokens, extra_output_tokens, billed_input_tokens, billed_output_tokens, tool_requests,
    usage_source = 'reported' AS requests_reported,
    usage_source = 'partial' AS requests_partial,
    usage_source = 'estimated' AS requests_estimated,
    usage_source = 'unsettled' AS requests_unsettled,
    usage_source = 'none' AS requests_none,
    duration_ms
FROM usage_events
UNION ALL
SELECT
    tenant, tier, request_model, api, started_at_ms,
    0,
    1, 0,
    input_tokens, output_tokens, 0, 0,
    0, 0, 0, 0, 0,
    0, 0, 0, 0, 0,
    0, 0, 0, 1, 0,
    0
FROM unsettled_events
WHERE NOT EXISTS (SELECT 1 FROM corrections WHERE corrections.event_id = unsettled_events.event_id);

-- Time first: entries come at its end, all on few pages. The tenant spares the rows of the others.
CREATE INDEX usage_events_by_time ON usage_events (started_at_ms, tenant);

-- Who changed what by hand.
CREATE TABLE audit_log (
    id     INTEGER PRIMARY KEY,
    at_ms  INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    action TEXT    NOT NULL,
    tenant TEXT,
    detail TEXT    NOT NULL -- JSON
) STRICT;

CREATE INDEX audit_log_by_tenant ON audit_log (tenant);

CREATE TRIGGER unsettled_events_are_not_changed BEFORE UPDATE ON unsettled_events
BEGIN
    SELECT raise(ABORT, 'unsettled_events is append-only');
END;

CREATE TRIGGER unsettled_events_are_not_deleted BEFORE DELETE ON unsettled_events
BEGIN
    SELECT raise(ABORT, 'unsettled_events is append-only');
END;

CREATE TRIGGER corrections_are_not_changed BEFORE UPDATE ON corrections
BEGIN
    SELECT raise(ABORT, 'corrections is append-only');
END;

CREATE TRIGGER corrections_are_not_deleted BEFORE DELETE ON corrections
BEGIN
    SELECT raise(ABORT, 'corrections is append-only');
END;

CREATE TRIGGER audit_log_is_not_changed BEFORE UPDATE ON audit_log
BEGIN
    SELECT raise(ABORT, 'audit_log is append-only');
END;

CREATE TRIGGER audit_log_is_not_deleted BEFORE DELETE ON audit_log
BEGIN
    SELECT raise(ABORT, 'audit_log is append-only');
END;
