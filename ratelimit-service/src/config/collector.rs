//! What is looked for in what comes in, what becomes of what is not taken, and what metrics tell of the rest.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::scalar::{Name, Within};
use crate::collector::{DeadLetterSettings, IntakeSettings};
use crate::usage_metrics::LabelCaps;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Collector {
    tenant_attributes: Vec<Name>,
    dead_letters: DeadLetters,
}

impl Default for Collector {
    fn default() -> Collector {
        Collector { tenant_attributes: vec![Name("tenant.id".to_owned())], dead_letters: DeadLetters::default() }
    }
}

impl Collector {
    pub(super) fn settings(self, sqlite: &Path) -> IntakeSettings {
        IntakeSettings {
            tenant_attributes: self.tenant_attributes.into_iter().map(|Name(name)| name).collect(),
            dead_letters: self.dead_letters.settings(sqlite),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DeadLetters {
    file: Option<PathBuf>,
    max_mib: Within<1, 4096>,
}

impl Default for DeadLetters {
    fn default() -> DeadLetters {
        DeadLetters { file: None, max_mib: Within(16) }
    }
}

impl DeadLetters {
    /// Beside the database, unless it is said where.
    fn settings(self, sqlite: &Path) -> DeadLetterSettings {
        let beside = || sqlite.with_extension("rejected.jsonl");
        DeadLetterSettings { file: self.file.unwrap_or_else(beside), max_bytes: self.max_mib.get() << 20 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Metrics {
    max_tenants: Within<0, 100_000>,
    max_models: Within<0, 10_000>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { max_tenants: Within(1000), max_models: Within(200) }
    }
}

impl Metrics {
    pub(super) fn caps(&self) -> LabelCaps {
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        LabelCaps { tenants: count(self.max_tenants.get()), models: count(self.max_models.get()) }
    }
}
