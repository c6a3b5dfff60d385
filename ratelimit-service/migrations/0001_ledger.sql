-- Every usage event, as it came. Append-only: an event that is here is never changed.
CREATE TABLE usage_events (
    event_id               TEXT    NOT NULL PRIMARY KEY,
    reservation_id         TEXT,
    request_id             TEXT,
    tenant                 TEXT    NOT NULL,
    tier                   TEXT    NOT NULL,
    started_at_ms          INTEGER NOT NULL,
    duration_ms            INTEGER NOT NULL,
    time_to_first_token_ms INTEGER,
    api                    TEXT,
    operation              TEXT,
    provider               TEXT,
    request_model          TEXT,
    response_model         TEXT,
    response_id            TEXT,
    finish_reasons         TEXT    NOT NULL, -- a JSON array
    streaming              INTEGER NOT NULL,
    status                 INTEGER NOT NULL,
    input_tokens           INTEGER NOT NULL,
    output_tokens          INTEGER NOT NULL,
    cache_read_tokens      INTEGER NOT NULL,
    cache_creation_tokens  INTEGER NOT NULL,
    reasoning_tokens       INTEGER NOT NULL,
    usage_source           TEXT    NOT NULL,
    finish                 TEXT    NOT NULL,
    request_bytes          INTEGER NOT NULL,
    response_bytes         INTEGER NOT NULL
) STRICT;

-- Their sums for each tenant and UTC day: what is read.
CREATE TABLE usage_days (
    tenant                TEXT    NOT NULL,
    day                   INTEGER NOT NULL, -- days since 1970-01-01
    last_started_at_ms    INTEGER NOT NULL, -- of the latest call,
    last_tier             TEXT    NOT NULL, -- and its tier
    requests              INTEGER NOT NULL,
    succeeded             INTEGER NOT NULL, -- answered 2xx and not broken off by the upstream
    input_tokens          INTEGER NOT NULL,
    output_tokens         INTEGER NOT NULL,
    cache_read_tokens     INTEGER NOT NULL,
    cache_creation_tokens INTEGER NOT NULL,
    reasoning_tokens      INTEGER NOT NULL,
    duration_ms           INTEGER NOT NULL,
    PRIMARY KEY (tenant, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_days_by_day ON usage_days (day);

-- The sums change with the event, in its transaction; a duplicate is no insert and fires nothing.
CREATE TRIGGER usage_events_are_summed AFTER INSERT ON usage_events
BEGIN
    INSERT INTO usage_days VALUES (
        NEW.tenant, NEW.started_at_ms / 86400000, NEW.started_at_ms, NEW.tier, 1,
        NEW.status BETWEEN 200 AND 299 AND NEW.finish IN ('complete', 'client_gone'),
        NEW.input_tokens, NEW.output_tokens, NEW.cache_read_tokens, NEW.cache_creation_tokens, NEW.reasoning_tokens,
        NEW.duration_ms
    )
    ON CONFLICT (tenant, day) DO UPDATE SET
        last_tier = iif(excluded.last_started_at_ms >= last_started_at_ms, excluded.last_tier, last_tier),
        last_started_at_ms = max(last_started_at_ms, excluded.last_started_at_ms),
        requests = requests + excluded.requests,
        succeeded = succeeded + excluded.succeeded,
        input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,
        cache_creation_tokens = cache_creation_tokens + excluded.cache_creation_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        duration_ms = duration_ms + excluded.duration_ms;
END;

CREATE TRIGGER usage_events_are_not_changed BEFORE UPDATE ON usage_events
BEGIN
    SELECT raise(ABORT, 'usage_events is append-only');
END;

CREATE TRIGGER usage_events_are_not_deleted BEFORE DELETE ON usage_events
BEGIN
    SELECT raise(ABORT, 'usage_events is append-only');
END;
