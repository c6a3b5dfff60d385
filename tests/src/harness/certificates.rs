//! Certificates for what listens on 127.0.0.1.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

/// A server's certificate by an authority of its own, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    /// What a client trusts.
    pub authority: PathBuf,
    /// The server's certificate, for 127.0.0.1 and `localhost`.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl ServerCertificate {
    /// Makes both, in `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn issue(dir: &Path) -> anyhow::Result<ServerCertificate> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let mut server = CertificateParams::new(["localhost".to_owned()])?;
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let key = KeyPair::generate()?;
        Ok(ServerCertificate {
            authority: write(dir, "authority.pem", &authority.pem())?,
            certificate: write(dir, "server.pem", &server.signed_by(&key, &authority)?.pem())?,
            key: write(dir, "server.key", &key.serialize_pem())?,
        })
    }
}

fn write(dir: &Path, name: &str, pem: &str) -> anyhow::Result<PathBuf> {
    let file = dir.join(name);
    fs::write(&file, pem).with_context(|| file.display().to_string())?;
    Ok(file)
}
