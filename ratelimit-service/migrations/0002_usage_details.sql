-- What an event tells since: the rest of its counts, its error, what was asked for. Earlier events told nothing of it.
ALTER TABLE usage_events ADD COLUMN output_cap INTEGER;
ALTER TABLE usage_events ADD COLUMN input_estimate INTEGER;
ALTER TABLE usage_events ADD COLUMN error_type TEXT;
ALTER TABLE usage_events ADD COLUMN unreadable TEXT;
ALTER TABLE usage_events ADD COLUMN upstream_limits TEXT NOT NULL DEFAULT '[]'; -- a JSON array
ALTER TABLE usage_events ADD COLUMN cache_creation_5m_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN cache_creation_1h_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN audio_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN audio_output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN extra_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN extra_output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN billed_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN billed_output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN tool_requests INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_days ADD COLUMN cache_creation_5m_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN cache_creation_1h_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN audio_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN audio_output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN extra_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN extra_output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN billed_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN billed_output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN tool_requests INTEGER NOT NULL DEFAULT 0;
-- Of the requests, by how their tokens are known.
ALTER TABLE usage_days ADD COLUMN requests_reported INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN requests_partial INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN requests_estimated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN requests_unsettled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_days ADD COLUMN requests_none INTEGER NOT NULL DEFAULT 0;

UPDATE usage_days SET
    requests_reported = counted.reported,
    requests_partial = counted.partial,
    requests_estimated = counted.estimated,
    requests_unsettled = counted.unsettled,
    requests_none = counted.none
FROM (
    SELECT
        tenant,
        started_at_ms / 86400000 AS day,
        sum(usage_source = 'reported') AS reported,
        sum(usage_source = 'partial') AS partial,
        sum(usage_source = 'estimated') AS estimated,
        sum(usage_source = 'unsettled') AS unsettled,
        sum(usage_source = 'none') AS none
    FROM usage_events
    GROUP BY 1, 2
) AS counted
WHERE usage_days.tenant = counted.tenant AND usage_days.day = counted.day;

DROP TRIGGER usage_events_are_summed;

-- The sums change with the event, in its transaction; a duplicate is no insert and fires nothing.
CREATE TRIGGER usage_events_are_summed AFTER INSERT ON usage_events
BEGIN
    INSERT INTO usage_days (
        tenant, day, last_started_at_ms, last_tier, requests,
        succeeded,
        input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, reasoning_tokens, duration_ms,
        cache_creation_5m_tokens, cache_creation_1h_tokens, audio_input_tokens, audio_output_tokens,
        extra_input_tokens, extra_output_tokens, billed_input_tokens, billed_output_tokens, tool_requests,
        requests_reported, requests_partial, requests_estimated, requests_unsettled, requests_none
    )
    VALUES (
        NEW.tenant, NEW.started_at_ms / 86400000, NEW.started_at_ms, NEW.tier, 1,
        NEW.status BETWEEN 200 AND 299 AND NEW.finish IN ('complete', 'client_gone'),
        NEW.input_tokens, NEW.output_tokens, NEW.cache_read_tokens, NEW.cache_creation_tokens, NEW.reasoning_tokens,
        NEW.duration_ms,
        NEW.cache_creation_5m_tokens, NEW.cache_creation_1h_tokens, NEW.audio_input_tokens, NEW.audio_output_tokens,
        NEW.extra_input_tokens, NEW.extra_output_tokens, NEW.billed_input_tokens, NEW.billed_output_tokens,
        NEW.tool_requests,
        NEW.usage_source = 'reported', NEW.usage_source = 'partial', NEW.usage_source = 'estimated',
        NEW.usage_source = 'unsettled', NEW.usage_source = 'none'
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
        duration_ms = duration_ms + excluded.duration_ms,
        cache_creation_5m_tokens = cache_creation_5m_tokens + excluded.cache_creation_5m_tokens,
        cache_creation_1h_tokens = cache_creation_1h_tokens + excluded.cache_creation_1h_tokens,
        audio_input_tokens = audio_input_tokens + excluded.audio_input_tokens,
        audio_output_tokens = audio_output_tokens + excluded.audio_output_tokens,
        extra_input_tokens = extra_input_tokens + excluded.extra_input_tokens,
        extra_output_tokens = extra_output_tokens + excluded.extra_output_tokens,
        billed_input_tokens = billed_input_tokens + excluded.billed_input_tokens,
        billed_output_tokens = billed_output_tokens + excluded.billed_output_tokens,
        tool_requests = tool_requests + excluded.tool_requests,
        requests_reported = requests_reported + excluded.requests_reported,
        requests_partial = requests_partial + excluded.requests_partial,
        requests_estimated = requests_estimated + excluded.requests_estimated,
        requests_unsettled = requests_unsettled + excluded.requests_unsettled,
        requests_none = requests_none + excluded.requests_none;
END;
