//! Sinks as they are written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::FIELD;
use super::counters::Bytes;
use super::scalar::Within;
use super::secrets::{self, Given, InEnvironment, InFile};
use crate::secret::Secret;
use crate::sinks::{HecSettings, JsonlSettings, OtlpSettings, SinkSettings};

/// The most sinks: each reads the spool by itself.
pub const MAX_SINKS: usize = 16;

/// The longest name of a sink, in bytes.
const MAX_NAME_BYTES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    SplunkHec,
    Otlp,
    Jsonl,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::SplunkHec => "splunk_hec",
            Kind::Otlp => "otlp",
            Kind::Jsonl => "jsonl",
        }
    }
}

/// Every key of every kind; those that are of no use for its kind are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSink {
    #[serde(rename = "type")]
    kind: Kind,
    url: Option<String>,
    token: Option<Given>,
    token_file: Option<InFile>,
    token_env: Option<InEnvironment>,
    headers: Option<BTreeMap<String, Given>>,
    index: Option<String>,
    host: Option<String>,
    source: Option<String>,
    sourcetype: Option<String>,
    tracked_sourcetype: Option<String>,
    gzip: Option<bool>,
    timeout_s: Option<Within<1, 600>>,
    ack_timeout_s: Option<Within<1, 3600>>,
    ca_file: Option<Bytes>,
    path: Option<PathBuf>,
    max_bytes: Option<Within<1_048_576, 1_099_511_627_776>>,
    keep: Option<Within<0, 1000>>,
}

impl RawSink {
    /// The keys that are given, each with the kinds that have it.
    fn given(&self) -> impl Iterator<Item = (&'static str, &'static [Kind])> {
        const SENT: &[Kind] = &[Kind::SplunkHec, Kind::Otlp];
        const HEC: &[Kind] = &[Kind::SplunkHec];
        const OTLP: &[Kind] = &[Kind::Otlp];
        const FILE: &[Kind] = &[Kind::Jsonl];
        [
            ("url", SENT, self.url.is_some()),
            ("token", SENT, self.token.is_some()),
            ("token_file", SENT, self.token_file.is_some()),
            ("token_env", SENT, self.token_env.is_some()),
            ("headers", OTLP, self.headers.is_some()),
            ("index", HEC, self.index.is_some()),
            ("host", HEC, self.host.is_some()),
            ("source", HEC, self.source.is_some()),
            ("sourcetype", HEC, self.sourcetype.is_some()),
            ("tracked_sourcetype", HEC, self.tracked_sourcetype.is_some()),
            ("gzip", SENT, self.gzip.is_some()),
            ("timeout_s", SENT, self.timeout_s.is_some()),
            ("ack_timeout_s", HEC, self.ack_timeout_s.is_some()),
            ("ca_file", SENT, self.ca_file.is_some()),
            ("path", FILE, self.path.is_some()),
            ("max_bytes", FILE, self.max_bytes.is_some()),
            ("keep", FILE, self.keep.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, kinds, is_given)| is_given.then_some((key, kinds)))
    }

    fn token(&mut self) -> Result<Option<Secret>, String> {
        secrets::one_of("token", self.token.take(), self.token_file.take(), self.token_env.take())
    }

    fn hec(mut self) -> Result<HecSettings, String> {
        let token = self.token()?.ok_or_else(|| missing("token", "or token_file, or token_env"))?;
        let usual = HecSettings::new(self.url.ok_or_else(|| missing("url", "such as https://splunk:8088"))?, token);
        Ok(HecSettings {
            index: self.index,
            host: self.host.unwrap_or(usual.host),
            source: self.source.unwrap_or(usual.source),
            sourcetype: self.sourcetype.unwrap_or(usual.sourcetype),
            tracked_sourcetype: self.tracked_sourcetype.unwrap_or(usual.tracked_sourcetype),
            gzip: self.gzip.unwrap_or(usual.gzip),
            timeout: self.timeout_s.map_or(usual.timeout, seconds),
            ack_timeout: self.ack_timeout_s.map_or(usual.ack_timeout, seconds),
            ca: self.ca_file.map(|Bytes(pem)| pem),
            url: usual.url,
            token: usual.token,
        })
    }

    fn otlp(mut self) -> Result<OtlpSettings, String> {
        let token = self.token()?;
        let usual = OtlpSettings::new(self.url.ok_or_else(|| missing("url", "such as http://collector:4317"))?);
        let headers = self.headers.unwrap_or_default().into_iter().map(|(name, Given(value))| (name, value));
        let bearer = token.map(|token| ("authorization".to_owned(), Secret::new(format!("Bearer {}", token.expose()))));
        Ok(OtlpSettings {
            headers: headers.chain(bearer).collect(),
            gzip: self.gzip.unwrap_or(usual.gzip),
            timeout: self.timeout_s.map_or(usual.timeout, seconds),
            ca: self.ca_file.map(|Bytes(pem)| pem),
            url: usual.url,
        })
    }

    fn jsonl(self) -> Result<JsonlSettings, String> {
        let usual = JsonlSettings::new(self.path.ok_or_else(|| missing("path", "such as usage.jsonl"))?);
        Ok(JsonlSettings {
            max_bytes: self.max_bytes.map_or(usual.max_bytes, Within::get),
            keep: self.keep.map_or(usual.keep, |Within(number)| u32::try_from(number).unwrap_or(usual.keep)),
            path: usual.path,
        })
    }
}

fn missing(key: &str, hint: &str) -> String {
    format!("{FIELD}{key}: is missing; give it, {hint}")
}

fn seconds<const MIN: u64, const MAX: u64>(seconds: Within<MIN, MAX>) -> Duration {
    Duration::from_secs(seconds.get())
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "RawSink")]
struct OneSink(SinkSettings);

impl TryFrom<RawSink> for OneSink {
    type Error = String;

    fn try_from(raw: RawSink) -> Result<OneSink, String> {
        let kind = raw.kind;
        if let Some((key, kinds)) = raw.given().find(|(_, kinds)| !kinds.contains(&kind)) {
            let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
            let kinds = kinds.join(", ");
            return Err(format!("{FIELD}{key}: is of no use for {}, only for {kinds}; leave it out", kind.as_str()));
        }
        let settings = match kind {
            Kind::SplunkHec => SinkSettings::SplunkHec(raw.hec()?),
            Kind::Otlp => SinkSettings::Otlp(raw.otlp()?),
            Kind::Jsonl => SinkSettings::Jsonl(raw.jsonl()?),
        };
        settings.check().map_err(|error| format!("{FIELD}{error}"))?;
        Ok(OneSink(settings))
    }
}

/// A label in metrics, and part of a file's name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct SinkName(String);

impl TryFrom<String> for SinkName {
    type Error = String;

    fn try_from(name: String) -> Result<SinkName, String> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_allowed) {
            return Ok(SinkName(name));
        }
        Err(format!("`{}` is no name of a sink: 1 to {MAX_NAME_BYTES} of a-z, 0-9, - and _", name.escape_default()))
    }
}

/// At most [`MAX_SINKS`], each to a file of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "BTreeMap<SinkName, OneSink>")]
pub(super) struct Sinks(pub(super) BTreeMap<String, SinkSettings>);

impl TryFrom<BTreeMap<SinkName, OneSink>> for Sinks {
    type Error = String;

    fn try_from(given: BTreeMap<SinkName, OneSink>) -> Result<Sinks, String> {
        if given.len() > MAX_SINKS {
            return Err(format!("{} sinks; at most {MAX_SINKS} are run", given.len()));
        }
        let mut files = BTreeMap::new();
        for (SinkName(name), OneSink(settings)) in &given {
            if let SinkSettings::Jsonl(JsonlSettings { path, .. }) = settings
                && let Some(other) = files.insert(path, name)
            {
                return Err(format!("{FIELD}{name}.path: {other} writes to {}, too", path.display()));
            }
        }
        Ok(Sinks(given.into_iter().map(|(SinkName(name), OneSink(settings))| (name, settings)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use crate::config::Config;
    use crate::sinks::{JsonlSettings, SinkSettings};

    fn parse(sinks: &str) -> Result<Config, String> {
        Config::parse(&format!("sinks: {sinks}"), "t.yaml").map_err(|error| error.to_string())
    }

    #[test]
    fn sinks_are_as_configured_and_show_no_token() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, " s3cret ").unwrap();
        let text = format!(
            "{{ splunk: {{ type: splunk_hec, url: 'https://s:8088', token_file: {}, index: llm, ack_timeout_s: 7 }}, \
             onward: {{ type: otlp, url: 'http://c:4317', token: s3cret, headers: {{ x-scope: s3cret }} }}, \
             file: {{ type: jsonl, path: u.jsonl, keep: 3 }} }}",
            file.path().display()
        );
        let sinks = parse(&text).unwrap().sinks;
        let SinkSettings::SplunkHec(hec) = &sinks["splunk"] else { panic!("{sinks:?}") };
        assert_eq!((hec.token.expose(), hec.index.as_deref()), ("s3cret", Some("llm")));
        assert_eq!((hec.ack_timeout, hec.gzip, hec.sourcetype.as_str()), (Duration::from_secs(7), true, "llm:usage"));
        let SinkSettings::Otlp(otlp) = &sinks["onward"] else { panic!("{sinks:?}") };
        let headers: Vec<_> = otlp.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(headers, [("x-scope", "s3cret"), ("authorization", "Bearer s3cret")]);
        let expected = JsonlSettings { keep: 3, ..JsonlSettings::new("u.jsonl") };
        assert_eq!(sinks["file"], SinkSettings::Jsonl(expected));
        assert!(!format!("{sinks:?}").contains("s3cret"), "{sinks:?}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_without_the_token() {
        for (sinks, expected) in [
            ("{ a: { type: splunk_hec, url: 'http://s' } }", "t.yaml:1:13: sinks.a.token: is missing"),
            ("{ a: { type: splunk_hec, token: s3cret } }", "sinks.a.url: is missing"),
            ("{ a: { type: splunk_hec, url: 's3cret', token: s3cret } }", "sinks.a.url: is no URL"),
            ("{ a: { type: splunk_hec, url: 'http://s', token: \"s3cret\\n\" } }", "sinks.a.token: has characters"),
            (
                "{ a: { type: splunk_hec, url: 'http://s', token: s3cret, token_env: PATH } }",
                "sinks.a.token: is given more",
            ),
            (
                "{ a: { type: splunk_hec, url: 'http://s', token_env: 'NO_SUCH=' } }",
                "sinks.a.token_env: the environment has no",
            ),
            (
                "{ a: { type: splunk_hec, url: 'http://s', token_file: /dev/null } }",
                "sinks.a.token_file: /dev/null has nothing",
            ),
            (
                "{ a: { type: splunk_hec, url: 'https://s', token: s, ca_file: /dev/null } }",
                "sinks.a.ca_file: holds no",
            ),
            ("{ a: { type: otlp, url: 'http://c', ca_file: /dev/null } }", "sinks.a.ca_file: certificates are of use"),
            ("{ a: { type: otlp, url: 'http://c', headers: { 'a b': s3cret } } }", "sinks.a.headers: `a b` is no"),
            ("{ a: { type: otlp } }", "sinks.a.url: is missing"),
            ("{ a: { type: jsonl } }", "sinks.a.path: is missing"),
            ("{ a: { type: jsonl, path: u, index: x } }", "sinks.a.index: is of no use for jsonl, only for splunk_hec"),
            ("{ a: { type: jsonl, path: u, max_bytes: 1 } }", "sinks.a.max_bytes: 1 is not between"),
            ("{ a: { type: jsonl, path: u }, b: { type: jsonl, path: u } }", "sinks.b.path: a writes to u, too"),
            ("{ 'A b': { type: jsonl, path: u } }", "`A b` is no name of a sink"),
            ("{ a: { type: kafka } }", "sinks.a.type: "),
            ("{ a: { type: jsonl, paht: u } }", "sinks.a.paht: "),
        ] {
            let error = parse(sinks).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}\n{expected}");
        }
        let many: Vec<_> = (0..17).map(|n| format!("s{n}: {{ type: jsonl, path: u{n} }}")).collect();
        assert!(parse(&format!("{{ {} }}", many.join(", "))).unwrap_err().contains("17 sinks; at most 16"));
    }
}
