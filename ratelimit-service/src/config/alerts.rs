//! Alerts, and whom webhooks tell, as they are written.

use serde::Deserialize;

use super::FIELD;
use super::scalar::Within;
use super::secrets::{self, Given, InEnvironment, InFile};
use crate::http::Reach;
use crate::webhooks::EndpointSettings;

/// The most webhooks.
pub const MAX_ENDPOINTS: usize = 16;

/// The most thresholds of alerts.
pub const MAX_THRESHOLDS: usize = 16;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Alerts {
    pub(super) thresholds: Thresholds,
}

/// Shares of a limit, in percent, rising. None at all is no alerts.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<Within<1, 1000>>")]
pub(super) struct Thresholds(pub(super) Vec<u16>);

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds(vec![80, 95, 100])
    }
}

impl TryFrom<Vec<Within<1, 1000>>> for Thresholds {
    type Error = String;

    fn try_from(given: Vec<Within<1, 1000>>) -> Result<Thresholds, String> {
        if given.len() > MAX_THRESHOLDS {
            return Err(format!("{} thresholds; at most {MAX_THRESHOLDS} are looked at", given.len()));
        }
        let thresholds: Vec<u16> = given.iter().filter_map(|percent| u16::try_from(percent.get()).ok()).collect();
        match thresholds.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => Err(format!("{} does not come before {}; give them rising, each once", pair[0], pair[1])),
            None => Ok(Thresholds(thresholds)),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndpoint {
    url: Given,
    secret: Option<Given>,
    secret_file: Option<InFile>,
    secret_env: Option<InEnvironment>,
    #[serde(default)]
    allow_private_addresses: bool,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "RawEndpoint")]
struct OneEndpoint(EndpointSettings);

impl TryFrom<RawEndpoint> for OneEndpoint {
    type Error = String;

    fn try_from(raw: RawEndpoint) -> Result<OneEndpoint, String> {
        let RawEndpoint { url: Given(url), secret, secret_file, secret_env, allow_private_addresses } = raw;
        let secret = secrets::one_of("secret", secret, secret_file, secret_env)?;
        let secret =
            secret.ok_or_else(|| format!("{FIELD}secret: is missing; give it, or secret_file, or secret_env"))?;
        let reach = if allow_private_addresses { Reach::Any } else { Reach::Public };
        EndpointSettings::new(url.expose(), secret, reach).map(OneEndpoint).map_err(|error| format!("{FIELD}{error}"))
    }
}

/// At most [`MAX_ENDPOINTS`], each of another URL.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<OneEndpoint>")]
pub(super) struct Webhooks(pub(super) Vec<EndpointSettings>);

impl TryFrom<Vec<OneEndpoint>> for Webhooks {
    type Error = String;

    fn try_from(given: Vec<OneEndpoint>) -> Result<Webhooks, String> {
        if given.len() > MAX_ENDPOINTS {
            return Err(format!("{} webhooks; at most {MAX_ENDPOINTS} are called", given.len()));
        }
        let ids: Vec<String> = given.iter().map(|OneEndpoint(endpoint)| endpoint.id()).collect();
        if let Some(second) = (0..ids.len()).find(|second| ids[..*second].contains(&ids[*second])) {
            return Err(format!("[{second}] has the URL of one before it; keep one of them"));
        }
        Ok(Webhooks(given.into_iter().map(|OneEndpoint(endpoint)| endpoint).collect()))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, "t.yaml").map_err(|error| error.to_string())
    }

    #[test]
    fn alerts_are_given_at_80_95_and_100_percent_or_as_configured() {
        let thresholds = |text| parse(text).unwrap().alert_thresholds;
        assert_eq!(thresholds("{}"), [80, 95, 100]);
        assert_eq!(thresholds("alerts: { thresholds: [50, 1000] }"), [50, 1000]);
        assert!(thresholds("alerts: { thresholds: [] }").is_empty());
        for (given, expected) in [
            ("[0]", "alerts.thresholds[0]: 0 is not between 1 and 1000"),
            ("[1001]", "alerts.thresholds[0]: 1001 is not between 1 and 1000"),
            ("[95, 80]", "alerts.thresholds: 95 does not come before 80"),
            ("[80, 80]", "alerts.thresholds: 80 does not come before 80"),
        ] {
            let error = parse(&format!("alerts: {{ thresholds: {given} }}")).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let many: Vec<_> = (1..=17).map(|percent| percent.to_string()).collect();
        let error = parse(&format!("alerts: {{ thresholds: [{}] }}", many.join(", "))).unwrap_err();
        assert!(error.contains("17 thresholds; at most 16"), "{error}");
    }

    #[test]
    fn webhooks_are_checked_and_show_neither_path_nor_secret() {
        const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let webhooks = |text: &str| parse(&format!("webhooks: {text}")).map(|config| config.webhooks);
        let one = webhooks(&format!("[{{ url: 'https://a.example/s3cret', secret: {SECRET} }}]")).unwrap();
        assert_eq!(format!("{one:?}"), r#"[EndpointSettings { origin: "https://a.example", reach: Public }]"#);
        let private = "url: 'http://127.0.0.1/s3cret', allow_private_addresses: true";
        assert_eq!(webhooks(&format!("[{{ {private}, secret: {SECRET} }}]")).unwrap().len(), 1);
        for (given, expected) in [
            ("{ url: 'https://a.example/s3cret' }", "webhooks[0].secret: is missing"),
            (
                "{ url: 'https://a.example/s3cret', secret: s3cret }",
                "webhooks[0].secret: is no secret of Standard Webhooks",
            ),
            ("{ url: 's3cret', secret: SECRET }", "webhooks[0].url: is no URL"),
            ("{ url: 'http://10.0.0.1/s3cret', secret: SECRET }", "webhooks[0].url: 10.0.0.1 is no public address"),
            ("{ url: 'http://[::1]/s3cret', secret: SECRET }", "webhooks[0].url: ::1 is no public address"),
            (
                "{ url: 'http://a', secret: SECRET }, { url: 'http://a/', secret: SECRET }",
                "webhooks: [1] has the URL of",
            ),
        ] {
            let error = webhooks(&format!("[{}]", given.replace("SECRET", SECRET))).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}\n{expected}");
        }
    }
}
