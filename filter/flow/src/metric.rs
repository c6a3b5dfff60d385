//! What the filter counts, by the names under which Envoy's `/stats/prometheus` shows it.

/// Takes what is counted. The shell hands it to Envoy.
pub trait Recorder {
    /// Adds to a counter.
    fn add(&self, counter: Counter, amount: u64);
    /// Records one value of a distribution.
    fn observe(&self, histogram: Histogram, value: u64);
    /// Moves a gauge up or down.
    fn shift(&self, gauge: Gauge, by: i64);
}

macro_rules! metrics {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every one, in the order of their discriminants.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The name in Envoy's statistics.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => concat!("tollgate_filter_", $text),)+ }
            }
        }
    };
}

metrics! {
    /// Monotonic counts.
    Counter {
        /// Requests outside the metered paths, or that are no `POST`.
        CallsUnmetered = "calls_unmetered_total",
        /// Metered requests to an endpoint that no format claims.
        CallsUnclaimed = "calls_unclaimed_total",
        /// Calls without a usable tenant: answered with 401 or 400.
        CallsUnidentified = "calls_unidentified_total",
        /// Calls recorded without a key, for what stands in its place is no name.
        KeysInvalid = "keys_invalid_total",
        /// Calls that the limiter was asked about, and admitted.
        CallsAdmitted = "calls_admitted_total",
        /// Calls that went on by a lease.
        CallsLeased = "calls_leased_total",
        /// Calls that a limit denied: answered with 429.
        CallsDenied = "calls_denied_total",
        /// Those among them that the limiter was not asked about, as it had denied such calls a moment ago.
        CallsDeniedFromCache = "calls_denied_from_cache_total",
        /// Calls that leases were for.
        CallsLent = "calls_lent_total",
        /// Those among them that were given back.
        CallsReturned = "calls_returned_total",
        /// Calls let through because the limiter gave no answer.
        CallsFailedOpen = "calls_failed_open_total",
        /// Calls answered with 503 because the limiter gave no answer.
        CallsFailedClosed = "calls_failed_closed_total",
        /// Calls whose denial came after their answer had begun: they were too long to be held.
        DenialsTooLate = "denials_too_late_total",
        /// Questions to the limiter that ran into their timeout.
        AdmissionTimeouts = "admission_timeouts_total",
        /// Questions to the limiter that failed in another way.
        AdmissionErrors = "admission_errors_total",
        /// Calls whose usage the provider reported.
        UsageReported = "usage_reported_total",
        /// Calls whose usage was estimated: their answer reported none, or was not read to its end.
        UsageEstimated = "usage_estimated_total",
        /// Successful calls that were recorded without usage.
        UsageMissing = "usage_missing_total",
        /// Answers that could not be read: compressed in another way than was asked for, or broken.
        ResponsesUnreadable = "responses_unreadable_total",
        /// Input tokens, as recorded.
        InputTokens = "input_tokens_total",
        /// Output tokens, as recorded.
        OutputTokens = "output_tokens_total",
        /// Events that the collector took.
        EventsDelivered = "events_delivered_total",
        /// Events that the collector refused for good.
        EventsRejected = "events_rejected_total",
        /// Events lost because the queue was full.
        EventsDropped = "events_dropped_total",
        /// Reports of used tokens to the rate limit service that are told again, as they failed.
        ReportFailures = "report_failures_total",
        /// Calls whose used tokens are not told, as too many kinds of calls wait to be told of.
        ReportsDropped = "reports_dropped_total",
        /// Batches that have to be sent again.
        DeliveryFailures = "delivery_failures_total",
    }
}

metrics! {
    /// Values that go up and down, over all workers.
    Gauge {
        /// Events that wait to be delivered.
        EventsQueued = "events_queued",
        /// Calls that leases still have.
        CallsStranded = "calls_stranded",
        /// The memory of the filter's VMs, in bytes. It never shrinks.
        MemoryBytes = "memory_bytes",
    }
}

metrics! {
    /// Distributions, in milliseconds.
    Histogram {
        /// From a question to the limiter until its answer.
        AdmissionMs = "admission_duration_milliseconds",
        /// From a metered call's first byte to its end.
        CallMs = "call_duration_milliseconds",
        /// From a metered call's first byte to the first of the response's body.
        TimeToFirstTokenMs = "time_to_first_token_milliseconds",
    }
}
