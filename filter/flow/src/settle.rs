//! What a call used, when it is over: the provider's report where there is one, an estimate of what passed where there is
//! not, and nothing where nothing was generated.

use tollgate_usage::{End, Report, TokenUsage};
use tollgate_wire::usage_event::{Finish, TokenCounts, UsageEvent, UsageSource};

use crate::BYTES_PER_TOKEN;
use crate::config::UnclaimedEndpoints;
use crate::headers::{Headers, text};
use crate::metric::{Counter, Recorder};

/// What is known of a call beside its response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The tokens of the prompt, as estimated.
    pub(crate) input_estimate: u64,
    /// The images that were asked for.
    pub(crate) images: u64,
    /// What to do about a response without usage.
    pub(crate) unreported: Unreported,
    /// What the response's headers reported.
    pub(crate) in_headers: Option<TokenCounts>,
}

/// What to do about a successful response that reports no usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreported {
    /// Its endpoint is known to cost tokens: they are estimated.
    Estimate,
    /// It may be anything: if it has no format, nothing is counted.
    Ignore,
}

impl Unreported {
    pub(crate) fn new(is_claimed: bool, policy: UnclaimedEndpoints) -> Unreported {
        match policy {
            _ if is_claimed => Unreported::Estimate,
            UnclaimedEndpoints::Estimate => Unreported::Estimate,
            UnclaimedEndpoints::Pass | UnclaimedEndpoints::Deny => Unreported::Ignore,
        }
    }
}

/// Completes the event with what the response told. Its status, bytes and way to end are there already.
pub(crate) fn settle(event: &mut UsageEvent, report: Report, known: Known, recorder: &impl Recorder) {
    if let Some(format) = report.format {
        event.api = Some(format.as_str().to_owned());
        event.operation.get_or_insert_with(|| format.operation().to_owned());
    }
    let is_success = is_success(event);
    event.error_type = report.error.clone().or_else(|| (event.status >= 400).then(|| event.status.to_string()));
    if event.finish == Finish::Complete && event.error_type.is_some() {
        event.finish = Finish::UpstreamError;
    }
    if let Some(reason) = report.unreadable {
        event.unreadable = Some(reason.to_string());
        recorder.add(Counter::ResponsesUnreadable, 1);
    }
    (event.tokens, event.usage_source) = match (report.usage, known.in_headers) {
        (Some(usage), _) if is_told(&report) && has_all_images(event, usage, known) => {
            (counts(usage), UsageSource::Reported)
        }
        (Some(usage), _) => {
            // What a provider says of a stream as it begins is not what it will charge for the whole.
            let (output, images) = (usage.output.max(report.output_estimate), usage.images.max(known.images));
            (TokenCounts { output, images, ..counts(usage) }, UsageSource::Partial)
        }
        (None, Some(tokens)) if is_success => (tokens, UsageSource::Reported),
        (None, _) if is_success => estimate(event, &report, known),
        (None, _) => (TokenCounts::default(), UsageSource::None),
    };
    event.response_model = report.model;
    event.response_id = report.response_id;
    event.finish_reasons = report.finish_reasons;
    count(event, is_success, recorder);
}

/// Whether the upstream took the call.
pub(crate) fn is_success(event: &UsageEvent) -> bool {
    (200..300).contains(&event.status)
}

/// Whether the response told its usage, and to its end.
pub(crate) fn is_told(report: &Report) -> bool {
    report.usage.is_some() && report.end == End::Complete
}

/// Whether no image was still to come. A stream's events tell of one each, and none that it is the last.
fn has_all_images(event: &UsageEvent, usage: TokenUsage, known: Known) -> bool {
    matches!(event.finish, Finish::Complete | Finish::UpstreamError) || usage.images >= known.images
}

/// The tokens of a successful response that reported none.
fn estimate(event: &UsageEvent, report: &Report, known: Known) -> (TokenCounts, UsageSource) {
    let is_whole = event.finish == Finish::Complete && report.end == End::Complete;
    let has_no_format = report.format.is_none();
    // Something in front of the upstream has answered, or it is an answer of which nobody knows what it costs.
    let is_free = has_no_format && (event.finish == Finish::LocalReply || known.unreported == Unreported::Ignore);
    if known.images > 0 && !is_free {
        // Their bytes are no text. Where the first of them came, they were made.
        if event.response_bytes == 0 || event.error_type.is_some() {
            return (TokenCounts::default(), UsageSource::None);
        }
        let (input, images) = (known.input_estimate, known.images);
        return (TokenCounts { input, images, ..TokenCounts::default() }, UsageSource::Estimated);
    }
    let is_opaque = has_no_format || (report.unreadable.is_some() && report.output_estimate == 0);
    let generated = match is_opaque {
        true => report.output_estimate.max(event.response_bytes.div_ceil(BYTES_PER_TOKEN)),
        false => report.output_estimate,
    };
    if is_free || (generated == 0 && !is_whole) {
        return (TokenCounts::default(), UsageSource::None);
    }
    // Vectors and ranks are no output.
    let has_output = !matches!(event.operation.as_deref(), Some("embeddings" | "rerank"));
    let output = if has_output { generated } else { 0 };
    (TokenCounts { input: known.input_estimate, output, ..TokenCounts::default() }, UsageSource::Estimated)
}

/// The tokens of a Bedrock `InvokeModel` answer, which has them in headers whatever its body is (Amazon Bedrock user guide,
/// "Submit a single prompt with InvokeModel").
pub(crate) fn in_headers(headers: &impl Headers) -> Option<TokenCounts> {
    let read = |name| text(headers, name)?.parse().ok();
    let (input, output) = (read("x-amzn-bedrock-input-token-count"), read("x-amzn-bedrock-output-token-count"));
    input.or(output)?;
    Some(TokenCounts { input: input.unwrap_or(0), output: output.unwrap_or(0), ..TokenCounts::default() })
}

fn count(event: &UsageEvent, is_success: bool, recorder: &impl Recorder) {
    match event.usage_source {
        UsageSource::Reported | UsageSource::Partial => recorder.add(Counter::UsageReported, 1),
        UsageSource::Estimated => recorder.add(Counter::UsageEstimated, 1),
        _ if is_success => recorder.add(Counter::UsageMissing, 1),
        _ => {}
    }
    recorder.add(Counter::InputTokens, event.tokens.input);
    recorder.add(Counter::OutputTokens, event.tokens.output);
}

fn counts(usage: TokenUsage) -> TokenCounts {
    TokenCounts {
        input: usage.input,
        output: usage.output,
        cache_read: usage.cache_read,
        cache_creation: usage.cache_creation,
        cache_creation_5m: usage.cache_creation_5m,
        cache_creation_1h: usage.cache_creation_1h,
        reasoning: usage.reasoning,
        audio_input: usage.audio_input,
        audio_output: usage.audio_output,
        extra_input: usage.extra_input,
        extra_output: usage.extra_output,
        billed_input: usage.billed_input,
        billed_output: usage.billed_output,
        tool_requests: usage.tool_requests,
        images: usage.images,
    }
}

/// How a call ended, by Envoy's response code details
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/response_code_details>).
pub(crate) fn finish(details: &str) -> Finish {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| details.starts_with(prefix));
    if details == "via_upstream" {
        Finish::Complete
    } else if details.contains("timeout") || details.contains("max_stream_duration") {
        Finish::UpstreamTimeout
    } else if begins(&["downstream_", "http1.", "http2.", "http3."]) || details.is_empty() {
        Finish::ClientGone
    } else if begins(&["upstream_reset"]) {
        Finish::UpstreamReset
    } else {
        Finish::LocalReply
    }
}
