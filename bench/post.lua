-- POSTs the same bytes again and again: BODY names the file, HEADER_BYTES the length of its JSON part; 0: it is all JSON.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/octet-stream"
if os.getenv("HEADER_BYTES") ~= "0" then
    wrk.headers["Inference-Header-Content-Length"] = os.getenv("HEADER_BYTES")
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        'RESULT {"requests": %d, "seconds": %.6f, "p50_us": %.1f, "p99_us": %.1f, "failed": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
