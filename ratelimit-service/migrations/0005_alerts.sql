-- Alerts that were given: each once for its period. Those of periods long over are deleted.
CREATE TABLE alerts (
    tenant            TEXT NOT NULL,
    limit_name        TEXT NOT NULL,
    period_start_ms   INTEGER NOT NULL,
    threshold_percent INTEGER NOT NULL,
    fired_at_ms       INTEGER NOT NULL,
    PRIMARY KEY (tenant, limit_name, period_start_ms, threshold_percent)
) STRICT, WITHOUT ROWID;

CREATE INDEX alerts_by_period ON alerts (period_start_ms);

-- Messages to webhooks that are not delivered yet, one row for each endpoint. An endpoint is a hash of its URL.
CREATE TABLE webhook_deliveries (
    id            INTEGER PRIMARY KEY,
    message_id    TEXT NOT NULL,
    endpoint      TEXT NOT NULL,
    body          TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    next_at_ms    INTEGER NOT NULL
) STRICT;

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint, next_at_ms);

-- Endpoints that want nothing more (410), until they are left out of the configuration once.
CREATE TABLE webhook_endpoints_disabled (
    endpoint TEXT PRIMARY KEY,
    at_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
