//! What is known of a metered call, and what follows from it.

use std::rc::Rc;

use tollgate_usage::{Endpoint, Hints, Reader, Strip};
use tollgate_wire::admission::{AdmissionRequest, AdmissionResponse, Decision};
use tollgate_wire::usage_event::{TokenCounts, UsageEvent};

use crate::config::{Config, LimitHeaders, Settle};
use crate::headers::{HeaderEdit, Headers, text};
use crate::lease::{Amounts, Denied, Kind};
use crate::limit_headers::{self, Limits};
use crate::outbox::Haste;
use crate::reply::{Dialect, Reply};
use crate::request::RequestBody;
use crate::settle::in_headers;
use crate::step::Ask;

/// Whether a call's answer can tell what the call used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It can.
    Own,
    /// It shows an earlier call's answer again, with the usage that was counted then.
    Earlier,
}

/// What is known of a metered call so far.
#[derive(Debug)]
pub(super) struct Metered {
    /// The event, as far as it can be told.
    pub(super) event: UsageEvent,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) answer: Answer,
    pub(super) request: RequestBody,
    pub(super) asked_at_ms: u64,
    /// What the limiter is to decide about, once that is known.
    pub(super) question: Question,
    pub(super) told: Told,
    pub(super) response: Option<Response>,
}

/// What the limiter is to decide about.
#[derive(Debug, Default)]
pub(super) struct Question {
    model: Option<String>,
    pub(super) amounts: Amounts,
}

/// What the limiter told; nothing until it has.
#[derive(Debug, Default)]
pub(super) struct Told {
    limits: Rc<Limits>,
    /// What it wants set on the response.
    headers: Vec<(String, String)>,
}

/// What a request asks for.
pub(super) struct Asked {
    pub(super) model: Option<String>,
    /// The most output tokens, of all choices together.
    pub(super) output_cap: Option<u64>,
    /// Whether the answer has tokens of its own.
    pub(super) generates: bool,
    /// How many images are to be made.
    pub(super) images: u64,
    /// The prompt's tokens, as estimated.
    pub(super) input_tokens: u64,
    /// The answer is fetched later, by another request.
    pub(super) background: bool,
}

/// A response that is being read.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) reader: Reader,
    /// Takes out what the client did not ask for.
    pub(super) strip: Option<Strip>,
    /// The usage that its headers report.
    pub(super) in_headers: Option<TokenCounts>,
    /// Bytes that came at once with the first.
    pub(super) first_bytes: u64,
    /// Whether its body has come to its end.
    pub(super) has_ended: bool,
}

impl Metered {
    pub(super) fn dialect(&self) -> Dialect {
        Dialect::of(self.endpoint.as_ref().map(|endpoint| endpoint.format))
    }

    /// What the request asks for, as far as it was read.
    pub(super) fn asked(&self) -> Asked {
        let facts = self.request.facts();
        let input_tokens = self.request.input_estimate(facts.as_ref());
        match facts {
            Some(facts) => Asked {
                output_cap: facts.output_cap.map(|cap| cap.saturating_mul(facts.choices)),
                model: facts.model,
                generates: facts.generates,
                images: facts.images,
                input_tokens,
                background: facts.background,
            },
            None => Asked {
                model: self.endpoint.as_ref().and_then(|endpoint| endpoint.model.clone()),
                output_cap: None,
                generates: true,
                images: self.endpoint.as_ref().map_or(0, |endpoint| endpoint.format.default_images()),
                input_tokens,
                background: false,
            },
        }
    }

    /// The call is to be decided on, with what is known of the request by now.
    pub(super) fn settle_question(&mut self, asked: Asked) {
        let Asked { model, output_cap, generates, images, input_tokens, .. } = asked;
        self.event.input_estimate = Some(input_tokens).filter(|estimate| *estimate > 0);
        let output_tokens = generates.then_some(output_cap.unwrap_or(0));
        let amounts = Amounts { input_tokens, output_tokens, images };
        self.question = Question { model, amounts };
    }

    /// Which calls share its leases.
    pub(super) fn kind(&self) -> Kind<'_> {
        let (event, model) = (&self.event, self.question.model.as_deref());
        Kind { tenant: &event.tenant, tier: &event.tier, model, api: event.api.as_deref(), key: event.key.as_deref() }
    }

    /// What the limiter is asked.
    pub(super) fn ask(&mut self, config: &Config, lease: Option<String>, now_ms: u64) -> Ask {
        self.asked_at_ms = now_ms;
        let Amounts { input_tokens, output_tokens, images } = match config.admission.settle {
            Settle::Events => {
                self.event.reservation_id = Some(self.event.event_id.clone());
                self.question.amounts
            }
            // Its tokens are told when they are known; until then they are only asked whether there are any.
            Settle::Rls => {
                Amounts { input_tokens: 0, output_tokens: self.question.amounts.output_tokens.map(|_| 0), images: 0 }
            }
        };
        let Kind { tenant, tier, model, api, key } = self.kind();
        let message = AdmissionRequest {
            requests: Some(1),
            domain: &config.admission.domain,
            tenant,
            tier,
            model,
            api,
            key,
            input_tokens: Some(input_tokens),
            output_tokens,
            images: Some(images).filter(|images| *images > 0),
        };
        Ask { message: message.encode(), reservation_id: self.event.reservation_id.clone(), lease }
    }

    /// The call goes on by a lease: under this id, which is reserved for.
    pub(super) fn go_on_by_lease(&mut self, id: String, limits: Rc<Limits>) {
        self.event.reservation_id = Some(id.clone());
        self.event.event_id = id;
        self.told = Told { limits, headers: Vec::new() };
    }

    /// The limiter answered. Gives what the client gets where it denied.
    pub(super) fn hear(&mut self, answer: AdmissionResponse, now_ms: u64, told: &[LimitHeaders]) -> Option<Reply> {
        let refusal = (answer.decision == Decision::Denied).then(|| {
            // A denial takes nothing.
            self.event.reservation_id = None;
            Reply::denied(self.dialect(), &self.event.tier, &answer, now_ms, told)
        });
        let limits = Rc::new(Limits::new(answer.limits, now_ms));
        self.told = Told { limits, headers: answer.response_headers };
        refusal
    }

    /// Such calls were denied a moment ago. Gives what the client gets.
    pub(super) fn hear_again(&mut self, denied: &Denied, now_ms: u64, told: &[LimitHeaders]) -> Reply {
        let (dialect, tier) = (self.dialect(), &self.event.tier);
        let reply = denied.reply(dialect, || Reply::denied(dialect, tier, &denied.answer, now_ms, told));
        self.told = Told { headers: denied.answer.response_headers.clone(), ..Told::default() };
        reply
    }

    /// When the answer's last byte came, where that is known.
    pub(super) fn ended_at_ms(&self) -> Option<u64> {
        let event = &self.event;
        let is_in_one_piece = |response: &&Response| response.has_ended && response.first_bytes == event.response_bytes;
        self.response.as_ref().filter(is_in_one_piece)?;
        Some(event.started_at_ms.saturating_add(event.time_to_first_token_ms?))
    }

    /// Whether others wait for what the call holds: slots come free by events alone, and the limiter tells of slots where
    /// they are the scarcest.
    pub(super) fn haste(&self) -> Haste {
        if self.told.limits.tell_of_slots() { Haste::Soon } else { Haste::Batched }
    }

    /// The upstream's answer begins. Gives what is to change on its headers.
    pub(super) fn on_response_headers(&mut self, headers: &impl Headers, told: &[LimitHeaders]) -> Vec<HeaderEdit> {
        let content_type = text(headers, "content-type");
        let content_encoding = text(headers, "content-encoding");
        let begins = |prefix: &str| content_type.is_some_and(|value| value.starts_with(prefix));
        let is_sse = begins("text/event-stream");
        self.event.streaming = is_sse
            || begins("application/vnd.amazon.eventstream")
            || begins("application/x-ndjson")
            || self.request.asks_for_stream();
        let upstream = limit_headers::upstream(headers);
        self.event.upstream_limits = upstream.told;
        let strip = (is_sse && content_encoding.is_none() && self.request.usage_is_ours()).then(Strip::new);
        let limits = Rc::clone(&self.told.limits);
        let ours = limits.headers(told);
        let mut edits: Vec<HeaderEdit> = Vec::with_capacity(ours.len());
        if strip.is_some() && headers.get("content-length").is_some() {
            edits.push(("content-length".into(), None));
        }
        let format = self.endpoint.as_ref().map(|endpoint| endpoint.format);
        let hints = Hints { content_type, content_encoding, format };
        self.response = (self.answer == Answer::Own).then(|| Response {
            reader: Reader::new(hints),
            strip,
            in_headers: in_headers(headers),
            first_bytes: 0,
            has_ended: false,
        });
        let is_theirs = |name: &&str| ours.iter().all(|(set, _)| set != name) && headers.get(name).is_some();
        if upstream.may_have_ours {
            edits.extend(limit_headers::NAMES.into_iter().filter(is_theirs).map(|name| (name.into(), None)));
        }
        edits.extend(ours.iter().map(|(name, value)| ((*name).into(), Some(value.clone()))));
        // Last, so that the limiter's own word holds where both tell of limits.
        edits.extend(self.added_headers());
        edits
    }

    /// Whether [`Metered::added_headers`] has any.
    pub(super) fn has_added_headers(&self) -> bool {
        !self.told.headers.is_empty()
    }

    /// What the limiter wants set on the response, once.
    pub(super) fn added_headers(&mut self) -> impl Iterator<Item = HeaderEdit> {
        std::mem::take(&mut self.told.headers).into_iter().map(|(name, value)| (name.into(), Some(value)))
    }
}
