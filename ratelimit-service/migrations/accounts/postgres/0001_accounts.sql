-- Who pays, and by which terms. Each kind of record has a table, and all of these have the same first columns:
-- `document` is JSON and holds no secret; what is secret, large or looked for has a column of its own. Texts and
-- integers mean the same as in SQLite's tables; texts are ordered by their bytes there and here.

CREATE TABLE tenants (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- as the tenant's header names it
    tenant        TEXT COLLATE "C" NOT NULL CHECK (tenant = id),
    version       BIGINT NOT NULL, -- 1, and one more with each change
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    document      TEXT NOT NULL
);

CREATE TABLE plans (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- the tier's name
    tenant        TEXT COLLATE "C" CHECK (tenant IS NULL),
    version       BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    document      TEXT NOT NULL
);

CREATE TABLE limit_overrides (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- the tenant's
    tenant        TEXT COLLATE "C" NOT NULL CHECK (tenant = id) REFERENCES tenants (id),
    version       BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    document      TEXT NOT NULL
);

CREATE TABLE budgets (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant        TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    version       BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    document      TEXT NOT NULL
);

CREATE TABLE api_keys (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- the key's public part
    tenant        TEXT COLLATE "C" REFERENCES tenants (id), -- none: the operator's
    version       BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    document      TEXT NOT NULL,
    hash          TEXT NOT NULL -- SHA-256 of the whole key, in hex
);

-- When keys were used last, to about a minute. No change of the key itself.
CREATE TABLE api_key_uses (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES api_keys (id) ON DELETE CASCADE,
    tenant        TEXT COLLATE "C",
    at_ms         BIGINT NOT NULL
);

CREATE TABLE webhook_endpoints (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant        TEXT COLLATE "C" REFERENCES tenants (id), -- none: the operator's
    version       BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    document      TEXT NOT NULL,
    url           TEXT NOT NULL, -- its path may be a secret
    secret        TEXT NOT NULL
);

CREATE TABLE prices (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant        TEXT COLLATE "C" REFERENCES tenants (id), -- none: the operator's, for all
    version       BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    document      TEXT NOT NULL
);

-- Bills outlive their tenant.
CREATE TABLE invoices (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant        TEXT COLLATE "C" NOT NULL,
    version       BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    document      TEXT NOT NULL,
    first_day     TEXT NOT NULL, -- this and the next four as in the document
    end_day       TEXT NOT NULL,
    kind          TEXT NOT NULL,
    status        TEXT NOT NULL,
    content       TEXT NOT NULL  -- JSON: its lines
);

CREATE UNIQUE INDEX invoices_once ON invoices (tenant, first_day, end_day, kind) WHERE status <> 'void';

CREATE INDEX limit_overrides_of_tenant ON limit_overrides (tenant, id);
CREATE INDEX budgets_of_tenant ON budgets (tenant, id);
CREATE INDEX api_keys_of_tenant ON api_keys (tenant, id);
CREATE INDEX webhook_endpoints_of_tenant ON webhook_endpoints (tenant, id);
CREATE INDEX prices_of_tenant ON prices (tenant, id);
CREATE INDEX invoices_of_tenant ON invoices (tenant, id);

-- How many changes there were. Who changes anything raises it first, and so waits for all who are at it.
CREATE TABLE revision (
    one           BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    value         BIGINT NOT NULL
);

INSERT INTO revision (one, value) VALUES (1, 0);

-- Every change, in the transaction that makes it.
CREATE TABLE audit (
    revision      BIGINT NOT NULL PRIMARY KEY,
    at_ms         BIGINT NOT NULL,
    actor         TEXT COLLATE "C" NOT NULL,
    action        TEXT NOT NULL,
    object_kind   TEXT NOT NULL,
    object_id     TEXT NOT NULL,
    tenant        TEXT COLLATE "C",
    was           TEXT, -- documents, as JSON
    became        TEXT
);

CREATE INDEX audit_of_tenant ON audit (tenant, revision);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit is append-only';
END;
$$;

CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

-- Tells every replica, whoever made the change.
CREATE FUNCTION tell_of_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tollgate_accounts', NEW.revision::text);
    RETURN NULL;
END;
$$;

CREATE TRIGGER audit_tells AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION tell_of_change();

-- Requests that may come again, and what they were answered with.
CREATE TABLE idempotency_keys (
    actor         TEXT COLLATE "C" NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    tenant        TEXT COLLATE "C",
    request_hash  TEXT NOT NULL,
    status        BIGINT NOT NULL, -- 0 until it is answered
    body          TEXT NOT NULL,
    at_ms         BIGINT NOT NULL,
    PRIMARY KEY (actor, name)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (at_ms);

-- Who does what only one replica may do at a time.
CREATE TABLE leaders (
    name          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    holder        TEXT NOT NULL,
    until_ms      BIGINT NOT NULL
);

-- Who sees what. A transaction says for whom it is: as the operator it sees all, for a tenant that tenant's rows alone.
-- One that says nothing sees nothing, and so does the tables' owner.
CREATE FUNCTION sees(row_tenant TEXT) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT current_setting('tollgate.role', true) = 'operator'
        OR (current_setting('tollgate.role', true) = 'tenant' AND row_tenant = current_setting('tollgate.tenant', true))
$$;

DO $$
DECLARE
    name TEXT;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'tenants', 'plans', 'limit_overrides', 'budgets', 'api_keys', 'api_key_uses', 'webhook_endpoints', 'prices',
        'invoices', 'audit', 'idempotency_keys'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_tenant ON %I USING (sees(tenant)) WITH CHECK (sees(tenant))', name);
    END LOOP;
END;
$$;

ALTER TABLE leaders ENABLE ROW LEVEL SECURITY;
ALTER TABLE leaders FORCE ROW LEVEL SECURITY;
CREATE POLICY of_operator ON leaders USING (sees(NULL)) WITH CHECK (sees(NULL));
