//! What is looked for in what comes in, and what becomes of what is not taken.

use super::dead_letters::{DeadLetterSettings, DeadLetters};
use crate::metrics::Metrics;

/// How what comes in is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntakeSettings {
    /// Where the tenant stands, beside `tollgate.tenant`: attributes of a record or of its resource, in this order.
    pub tenant_attributes: Vec<String>,
    /// Where rejected records are kept.
    pub dead_letters: DeadLetterSettings,
}

/// [`IntakeSettings`] at work. The default one knows `tollgate.tenant` alone and keeps no rejected records.
#[derive(Debug, Default)]
pub struct Intake {
    pub(super) tenant_attributes: Vec<String>,
    pub(super) dead_letters: DeadLetters,
}

impl Intake {
    /// Opens the file of dead letters.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn open(settings: IntakeSettings, metrics: &Metrics) -> anyhow::Result<Intake> {
        let IntakeSettings { tenant_attributes, dead_letters } = settings;
        Ok(Intake { tenant_attributes, dead_letters: DeadLetters::open(dead_letters, metrics)? })
    }
}
