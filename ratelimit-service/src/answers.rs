//! How long each tenant's answers by each model were lately, as far as this replica was told.

use std::hash::{BuildHasher, RandomState};

use quick_cache::sync::Cache;
use tollgate_domain::AnswerLengths;

/// The most pairs of tenant and model that are remembered; those not used for longest give way.
const MAX_PAIRS: usize = 1 << 16;

/// Recent answers' lengths.
pub(crate) struct Answers {
    lengths: Cache<u64, AnswerLengths>,
    hasher: RandomState,
}

impl Answers {
    pub(crate) fn new() -> Answers {
        Answers { lengths: Cache::new(MAX_PAIRS), hasher: RandomState::new() }
    }

    /// An answer had so many tokens.
    pub(crate) fn record(&self, tenant: &str, model: Option<&str>, tokens: u64) {
        let pair = self.pair(tenant, model);
        let mut lengths = self.lengths.get(&pair).unwrap_or_default();
        lengths.record(tokens);
        // Of two that are recorded at once, one may be lost: it is an estimate.
        self.lengths.insert(pair, lengths);
    }

    /// See [`AnswerLengths::quantile`].
    pub(crate) fn percentile(&self, tenant: &str, model: Option<&str>, percent: u8) -> Option<u64> {
        self.lengths.get(&self.pair(tenant, model))?.quantile(percent)
    }

    /// Two pairs that share a hash share an estimate.
    fn pair(&self, tenant: &str, model: Option<&str>) -> u64 {
        self.hasher.hash_one((tenant, model))
    }
}
