//! A sum over calls, the same in memory and in the ledger's tables.

/// One list of the sums: each is a field, and a column of the ledger's under the same name.
macro_rules! sums {
    ($($(#[$doc:meta])* $sum:ident,)+) => {
        /// A sum over calls.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Usage { $($(#[$doc])* pub $sum: u64,)+ }

        impl Usage {
            /// The sums' columns.
            pub(super) const COLUMNS: &[&str] = &[$(stringify!($sum)),+];

            /// Reads the sums from a row, column by column.
            pub(super) fn from_columns<E>(read: impl Fn(&str) -> Result<u64, E>) -> Result<Usage, E> {
                Ok(Usage { $($sum: read(stringify!($sum))?,)+ })
            }
        }

        impl std::iter::Sum for Usage {
            fn sum<I: Iterator<Item = Usage>>(usages: I) -> Usage {
                usages.fold(Usage::default(), |sum, usage| Usage { $($sum: sum.$sum.saturating_add(usage.$sum),)+ })
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
    /// The calls' durations together.
    duration_ms,
}

impl Usage {
    /// Input and output together.
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}
