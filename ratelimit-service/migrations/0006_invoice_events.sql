-- What webhooks were told of invoices: each once. Old ones are deleted.
CREATE TABLE invoice_events (
    message_id TEXT    NOT NULL PRIMARY KEY,
    at_ms      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX invoice_events_by_time ON invoice_events (at_ms);
