-- Who pays, and by which terms. Each kind of record has a table, and all of these have the same first columns:
-- `document` is JSON and holds no secret; what is secret, large or looked for has a column of its own. Texts and
-- integers mean the same as in PostgreSQL's tables.

CREATE TABLE tenants (
    id            TEXT    NOT NULL PRIMARY KEY, -- as the tenant's header names it
    tenant        TEXT    NOT NULL CHECK (tenant = id),
    version       INTEGER NOT NULL, -- 1, and one more with each change
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    document      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE plans (
    id            TEXT    NOT NULL PRIMARY KEY, -- the tier's name
    tenant        TEXT    CHECK (tenant IS NULL),
    version       INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    document      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE limit_overrides (
    id            TEXT    NOT NULL PRIMARY KEY, -- the tenant's
    tenant        TEXT    NOT NULL CHECK (tenant = id) REFERENCES tenants (id),
    version       INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    document      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE budgets (
    id            TEXT    NOT NULL PRIMARY KEY,
    tenant        TEXT    NOT NULL REFERENCES tenants (id),
    version       INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    document      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id            TEXT    NOT NULL PRIMARY KEY, -- the key's public part
    tenant        TEXT    REFERENCES tenants (id), -- none: the operator's
    version       INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    document      TEXT    NOT NULL,
    hash          TEXT    NOT NULL -- SHA-256 of the whole key, in hex
) STRICT, WITHOUT ROWID;

-- When keys were used last, to about a minute. No change of the key itself.
CREATE TABLE api_key_uses (
    id     TEXT    NOT NULL PRIMARY KEY REFERENCES api_keys (id) ON DELETE CASCADE,
    tenant TEXT,
    at_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE webhook_endpoints (
    id            TEXT    NOT NULL PRIMARY KEY,
    tenant        TEXT    REFERENCES tenants (id), -- none: the operator's
    version       INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    document      TEXT    NOT NULL,
    url           TEXT    NOT NULL, -- its path may be a secret
    secret        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE prices (
    id            TEXT    NOT NULL PRIMARY KEY,
    tenant        TEXT    REFERENCES tenants (id), -- none: the operator's, for all
    version       INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    document      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Bills outlive their tenant.
CREATE TABLE invoices (
    id            TEXT    NOT NULL PRIMARY KEY,
    tenant        TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    document      TEXT    NOT NULL,
    first_day     TEXT    NOT NULL, -- this and the next four as in the document
    end_day       TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    status        TEXT    NOT NULL,
    content       TEXT    NOT NULL  -- JSON: its lines
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX invoices_once ON invoices (tenant, first_day, end_day, kind) WHERE status <> 'void';

CREATE INDEX limit_overrides_of_tenant ON limit_overrides (tenant, id);
CREATE INDEX budgets_of_tenant ON budgets (tenant, id);
CREATE INDEX api_keys_of_tenant ON api_keys (tenant, id);
CREATE INDEX webhook_endpoints_of_tenant ON webhook_endpoints (tenant, id);
CREATE INDEX prices_of_tenant ON prices (tenant, id);
CREATE INDEX invoices_of_tenant ON invoices (tenant, id);

-- How many changes there were. Who changes anything raises it first, and so waits for all who are at it.
CREATE TABLE revision (
    one   INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    value INTEGER NOT NULL
) STRICT;

INSERT INTO revision (one, value) VALUES (1, 0);

-- Every change, in the transaction that makes it.
CREATE TABLE audit (
    revision    INTEGER NOT NULL PRIMARY KEY,
    at_ms       INTEGER NOT NULL,
    actor       TEXT    NOT NULL,
    action      TEXT    NOT NULL,
    object_kind TEXT    NOT NULL,
    object_id   TEXT    NOT NULL,
    tenant      TEXT,
    was         TEXT, -- documents, as JSON
    became      TEXT
) STRICT;

CREATE INDEX audit_of_tenant ON audit (tenant, revision);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT raise(ABORT, 'audit is append-only');
END;

CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN
    SELECT raise(ABORT, 'audit is append-only');
END;

-- Requests that may come again, and what they were answered with.
CREATE TABLE idempotency_keys (
    actor        TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    tenant       TEXT,
    request_hash TEXT    NOT NULL,
    status       INTEGER NOT NULL, -- 0 until it is answered
    body         TEXT    NOT NULL,
    at_ms        INTEGER NOT NULL,
    PRIMARY KEY (actor, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (at_ms);

-- Who does what only one replica may do at a time.
CREATE TABLE leaders (
    name     TEXT    NOT NULL PRIMARY KEY,
    holder   TEXT    NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
