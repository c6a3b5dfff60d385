//! What calls used, told to a rate limit service that reads no usage events: by a question that takes it, after the call.
//!
//! Calls of one kind are told together, by one question for the prompts' tokens and one for the answers': Limitador knows one amount
//! for a question. What was not taken is told again with what comes after it; a question that may have been taken and was not
//! answered is told again too, for its limits would rather count twice than not at all.

use tollgate_wire::admission::AdmissionRequest;
use tollgate_wire::usage_event::UsageEvent;

use crate::lease::{Kind, OwnedKind};
use crate::metric::{Counter, Recorder};

/// The most kinds of calls that wait to be told of; what further ones used is not told, and that is counted.
pub const MAX_REPORTS: usize = 4096;

/// What calls of a kind have used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    kind: OwnedKind,
    input_tokens: u64,
    output_tokens: u64,
}

impl Report {
    /// What `event` tells; `None` where nothing was used.
    pub(crate) fn of(event: &UsageEvent) -> Option<Report> {
        let tokens = &event.tokens;
        let input_tokens = tokens.input.saturating_add(tokens.extra_input);
        let output_tokens = tokens.output.saturating_add(tokens.extra_output);
        let UsageEvent { tenant, tier, request_model: model, api, key, .. } = event;
        let [model, api, key] = [model, api, key].map(Option::as_deref);
        let kind = Kind { tenant, tier, model, api, key }.into();
        (input_tokens > 0 || output_tokens > 0).then_some(Report { kind, input_tokens, output_tokens })
    }

    /// The encoded `RateLimitRequest` that takes it.
    pub(crate) fn encode(&self, domain: &str) -> Vec<u8> {
        let Kind { tenant, tier, model, api, key } = self.kind.borrowed();
        let [input_tokens, output_tokens] =
            [self.input_tokens, self.output_tokens].map(|tokens| Some(tokens).filter(|tokens| *tokens > 0));
        let (requests, images) = (None, None);
        AdmissionRequest { requests, domain, tenant, tier, model, api, key, input_tokens, output_tokens, images }
            .encode()
    }

    /// Its two sides, as far as there is something to tell.
    fn sides(self) -> impl Iterator<Item = Report> {
        let input = Report { output_tokens: 0, ..self.clone() };
        let output = Report { input_tokens: 0, ..self };
        [input, output].into_iter().filter(|side| side.input_tokens > 0 || side.output_tokens > 0)
    }
}

/// What a worker's calls have used and was not told yet.
#[derive(Debug, Default)]
pub(crate) struct Reports(Vec<Report>);

impl Reports {
    pub(crate) fn add(&mut self, report: Report, recorder: &impl Recorder) {
        if let Some(known) = self.0.iter_mut().find(|known| known.kind == report.kind) {
            known.input_tokens = known.input_tokens.saturating_add(report.input_tokens);
            known.output_tokens = known.output_tokens.saturating_add(report.output_tokens);
        } else if self.0.len() < MAX_REPORTS {
            self.0.push(report);
        } else {
            recorder.add(Counter::ReportsDropped, 1);
        }
    }

    /// What is to be told now, each of one side.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Report> + use<> {
        std::mem::take(&mut self.0).into_iter().flat_map(Report::sides)
    }
}
