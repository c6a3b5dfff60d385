-- Calls without a price are few, and found without reading the others.
CREATE INDEX usage_events_unpriced ON usage_events (tenant, started_at_ms)
WHERE cost_nanousd IS NULL AND usage_source <> 'none';
