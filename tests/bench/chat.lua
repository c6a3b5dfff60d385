-- For wrk: one chat completion over and over. After `--` on wrk's command line stands `json` or `sse50`, and the tenant and
-- tier that call.

function init(args)
  local stream = args[1] == "sse50"
  wrk.method = "POST"
  wrk.headers["content-type"] = "application/json"
  wrk.headers["x-tenant-id"] = args[2]
  wrk.headers["x-plan-tier"] = args[2]
  if stream then
    wrk.headers["x-standin-chunks"] = "50"
  end
  wrk.body = '{"model":"gpt-4o-mini","messages":[{"role":"system","content":"Answer in one sentence."},'
    .. '{"role":"user","content":"How does a tollgate count what passes through it?"}]'
    .. (stream and ',"stream":true,"stream_options":{"include_usage":true}' or "") .. "}"
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"status_errors":%d,"io_errors":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
