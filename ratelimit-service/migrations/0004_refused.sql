-- All calls that count, as before, and which of them were refused before anything was made of them: no limit counts these.
DROP VIEW calls;

CREATE VIEW calls AS
SELECT
    tenant, tier, request_model AS model, api, started_at_ms,
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
