//! A sum over calls, the same in memory and in the ledger's tables.

use tollgate_wire::usage_event::{Finish, UsageEvent, UsageSource};

use super::{Histogram, MAX_COST_NANOUSD, MAX_COUNT};

/// One list of the sums: each is a field, and a column of the ledger's under the same name.
macro_rules! sums {
    ($($(#[$doc:meta])* $sum:ident,)+) => {
        /// A sum over calls.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Usage {
            $($(#[$doc])* pub $sum: u64,)+
            /// How long calls took; not of unsettled ones, of which it is not known.
            pub durations: Histogram,
            /// How long calls waited for the first token, of those that got one.
            pub first_tokens: Histogram,
        }

        impl Usage {
            /// The sums' columns.
            pub(super) const COLUMNS: &[&str] = &[$(stringify!($sum)),+];

            /// The sums, in the columns' order.
            pub(super) fn columns(&self) -> [u64; Usage::COLUMNS.len()] {
                [$(self.$sum),+]
            }

            /// Reads the sums from a row, column by column. The histograms are empty.
            pub(super) fn from_columns<E>(read: impl Fn(&str) -> Result<u64, E>) -> Result<Usage, E> {
                Ok(Usage { $($sum: read(stringify!($sum))?,)+ ..Usage::default() })
            }

            /// Adds what others used.
            pub fn add(&mut self, other: &Usage) {
                $(self.$sum = self.$sum.saturating_add(other.$sum);)+
                self.durations.add(&other.durations);
                self.first_tokens.add(&other.first_tokens);
            }
        }

        impl<'a> std::iter::Sum<&'a Usage> for Usage {
            fn sum<I: Iterator<Item = &'a Usage>>(usages: I) -> Usage {
                let mut sum = Usage::default();
                usages.for_each(|usage| sum.add(usage));
                sum
            }
        }
    };
}

sums! {
    /// Calls.
    requests,
    /// Of them, those that were answered 2xx and not broken off by the upstream.
    succeeded,
    /// As in [`tollgate_wire::usage_event::TokenCounts`], like the other counts.
    input_tokens,
    /// All output.
    output_tokens,
    /// Of the input.
    cache_read_tokens,
    /// Of the input.
    cache_creation_tokens,
    /// Of the cache writes.
    cache_creation_5m_tokens,
    /// Of the cache writes.
    cache_creation_1h_tokens,
    /// Of the output.
    reasoning_tokens,
    /// Of the input.
    audio_input_tokens,
    /// Of the output.
    audio_output_tokens,
    /// Beside the input: passes that it leaves out.
    extra_input_tokens,
    /// Beside the output: passes that it leaves out.
    extra_output_tokens,
    /// The input as the provider bills it, where it says so.
    billed_input_tokens,
    /// The output as the provider bills it, where it says so.
    billed_output_tokens,
    /// Uses of the providers' own tools.
    tool_requests,
    /// Images that were made.
    images,
    /// Calls whose tokens are the provider's final report; this and those below as in
    /// [`tollgate_wire::usage_event::UsageSource`].
    requests_reported,
    /// Calls that were cut off: a report so far, and an estimate of the rest.
    requests_partial,
    /// Calls whose tokens are an estimate.
    requests_estimated,
    /// Calls that expired unsettled.
    requests_unsettled,
    /// Calls that used nothing.
    requests_none,
    /// Calls that were refused before anything was made of them: no limit counts these.
    requests_refused,
    /// Calls answered by a stream of events.
    requests_streaming,
    /// Calls that used something for whose model there was no price.
    requests_without_cost,
    /// What the others cost, in billionths of a US dollar.
    cost_nanousd,
    /// The calls' durations together; of unsettled ones nothing is known.
    duration_ms,
    /// Calls whose answer began.
    requests_with_first_token,
    /// How long these waited for its beginning, together.
    time_to_first_token_ms,
}

impl Usage {
    /// What one call adds to the sums. Counts past [`MAX_COUNT`] add that, costs past [`MAX_COST_NANOUSD`] that.
    pub fn of(event: &UsageEvent) -> Usage {
        let (source, tokens) = (event.usage_source, &event.tokens);
        let one = u64::from;
        let bounded = |count: u64| count.min(MAX_COUNT);
        let is_unsettled = source == UsageSource::Unsettled;
        let duration_ms = if is_unsettled { 0 } else { bounded(event.duration_ms) };
        let is_without_cost = source != UsageSource::None && event.cost_nanousd.is_none();
        let mut usage = Usage {
            requests: 1,
            succeeded: one(
                (200..300).contains(&event.status) && matches!(event.finish, Finish::Complete | Finish::ClientGone)
            ),
            input_tokens: bounded(tokens.input),
            output_tokens: bounded(tokens.output),
            cache_read_tokens: bounded(tokens.cache_read),
            cache_creation_tokens: bounded(tokens.cache_creation),
            cache_creation_5m_tokens: bounded(tokens.cache_creation_5m),
            cache_creation_1h_tokens: bounded(tokens.cache_creation_1h),
            reasoning_tokens: bounded(tokens.reasoning),
            audio_input_tokens: bounded(tokens.audio_input),
            audio_output_tokens: bounded(tokens.audio_output),
            extra_input_tokens: bounded(tokens.extra_input),
            extra_output_tokens: bounded(tokens.extra_output),
            billed_input_tokens: bounded(tokens.billed_input),
            billed_output_tokens: bounded(tokens.billed_output),
            tool_requests: bounded(tokens.tool_requests),
            images: bounded(tokens.images),
            requests_reported: one(source == UsageSource::Reported),
            requests_partial: one(source == UsageSource::Partial),
            requests_estimated: one(source == UsageSource::Estimated),
            requests_unsettled: one(is_unsettled),
            requests_none: one(source == UsageSource::None),
            requests_refused: one(source == UsageSource::None && event.finish == Finish::LocalReply),
            requests_streaming: one(event.streaming),
            requests_without_cost: one(is_without_cost),
            cost_nanousd: event.cost_nanousd.map_or(0, |cost| cost.min(MAX_COST_NANOUSD)),
            duration_ms,
            requests_with_first_token: one(event.time_to_first_token_ms.is_some()),
            time_to_first_token_ms: event.time_to_first_token_ms.map_or(0, bounded),
            ..Usage::default()
        };
        if !is_unsettled {
            usage.durations.record(duration_ms);
        }
        if let Some(waited_ms) = event.time_to_first_token_ms {
            usage.first_tokens.record(bounded(waited_ms));
        }
        usage
    }

    /// Input and output together.
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}
