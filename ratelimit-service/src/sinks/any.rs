//! Whatever sink a configuration names.

use super::{Hec, HecSettings, Jsonl, JsonlSettings, Otlp, OtlpSettings, Sink, SinkError, Taken};
use crate::entry::Entry;

/// Which sink, and how it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkSettings {
    /// Splunk's HTTP Event Collector.
    SplunkHec(HecSettings),
    /// Another collector, by OTLP over gRPC.
    Otlp(OtlpSettings),
    /// A file of JSON lines.
    Jsonl(JsonlSettings),
}

/// A sink of any kind.
pub enum AnySink {
    /// See [`Hec`].
    Hec(Box<Hec>),
    /// See [`Otlp`].
    Otlp(Otlp),
    /// See [`Jsonl`].
    Jsonl(Jsonl),
}

impl SinkSettings {
    /// Whether a sink can be made of them.
    ///
    /// # Errors
    /// What is wrong, beginning with the field.
    pub fn check(&self) -> Result<(), String> {
        match self {
            SinkSettings::SplunkHec(settings) => Hec::new(settings.clone()).map(drop),
            SinkSettings::Otlp(settings) => settings.check(),
            SinkSettings::Jsonl(_) => Ok(()),
        }
    }

    /// The sink. It connects, or opens its file, once it has something to send. Needs a Tokio runtime.
    ///
    /// # Errors
    /// As [`SinkSettings::check`].
    pub fn open(self) -> Result<AnySink, String> {
        Ok(match self {
            SinkSettings::SplunkHec(settings) => AnySink::Hec(Box::new(Hec::new(settings)?)),
            SinkSettings::Otlp(settings) => AnySink::Otlp(Otlp::new(settings)?),
            SinkSettings::Jsonl(settings) => AnySink::Jsonl(Jsonl::new(settings)),
        })
    }
}

impl Sink for AnySink {
    async fn send(&mut self, entries: &[&Entry]) -> Result<Taken, SinkError> {
        match self {
            AnySink::Hec(sink) => sink.send(entries).await,
            AnySink::Otlp(sink) => sink.send(entries).await,
            AnySink::Jsonl(sink) => sink.send(entries).await,
        }
    }
}
