//! Where certificates are, as it is written.

use std::path::PathBuf;

use serde::Deserialize;

use super::FIELD;
use crate::tls::TlsSettings;

/// Files that can be served.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Tls(pub(super) TlsSettings);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    certificate: PathBuf,
    private_key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl TryFrom<Written> for Tls {
    type Error = String;

    fn try_from(Written { certificate, private_key, client_ca }: Written) -> Result<Tls, String> {
        let settings = TlsSettings { certificate, private_key, client_ca };
        settings.check().map_err(|error| format!("{FIELD}{error}"))?;
        Ok(Tls(settings))
    }
}

#[cfg(test)]
mod tests {
    use tollgate_e2e::harness::certificates::ServerCertificate;

    use crate::config::Config;

    /// What is wrong with such files, or who is served by them.
    fn parse(key: &str, [certificate, private_key, client_ca]: [&std::path::Path; 3]) -> Result<Config, String> {
        let text = format!(
            "{key}: {{ tls: {{ certificate: {certificate:?}, private_key: {private_key:?}, client_ca: {client_ca:?} }} }}"
        );
        Config::parse(&text, "t.yaml").map_err(|error| error.to_string())
    }

    #[test]
    fn files_that_cannot_be_served_are_told_by_their_paths() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ServerCertificate { authority, certificate, key } = ServerCertificate::issue(folder.path()).unwrap();
        let other = ServerCertificate::issue(other.path()).unwrap();
        let [missing, text, mixed] = ["missing", "text", "mixed"].map(|name| folder.path().join(name));
        std::fs::write(&text, "no PEM").unwrap();
        std::fs::write(&mixed, "-----BEGIN CERTIFICATE-----\nbm8gREVS\n-----END CERTIFICATE-----\n").unwrap();

        let config = parse("rest", [&certificate, &key, &authority]).unwrap();
        assert_eq!((config.grpc_tls, config.rest_tls.unwrap().client_ca), (None, Some(authority.clone())));
        for (files, expected) in [
            (
                [&missing, &key, &authority],
                "certificate: ".to_owned() + &missing.display().to_string() + " cannot be read: ",
            ),
            ([&text, &key, &authority], "certificate: holds no certificate, as PEM".to_owned()),
            ([&mixed, &key, &authority], "certificate: holds no X.509 certificate".to_owned()),
            ([&certificate, &text, &authority], "private_key: holds no private key, as PEM".to_owned()),
            ([&certificate, &certificate, &authority], "private_key: holds no private key, as PEM".to_owned()),
            ([&certificate, &other.key, &authority], "private_key: is not the key of the certificate".to_owned()),
            ([&certificate, &key, &text], "client_ca: holds no certificate, as PEM".to_owned()),
            ([&certificate, &key, &mixed], "client_ca: holds no authority: ".to_owned()),
        ] {
            for key in ["grpc", "rest"] {
                let error = parse(key, files.map(|file| file.as_path())).unwrap_err();
                assert!(error.starts_with("t.yaml:1:") && error.contains(&format!(" {key}.tls.{expected}")), "{error}");
            }
        }
        let error = Config::parse("grpc: { tls: { certificate: a.pem } }", "t.yaml").unwrap_err().to_string();
        assert!(error.contains("grpc.tls: missing field `private_key`"), "{error}");
    }
}
