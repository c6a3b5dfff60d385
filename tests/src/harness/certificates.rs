//! Certificates for what listens on 127.0.0.1, and for who connects to it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd};

/// The year with whose beginning certificates end, unless said otherwise.
const LAST_YEAR: i32 = 2100;

/// Issues certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own certificate, as a PEM file: whom those trust that trust it.
    pub certificate: PathBuf,
}

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one, with its certificate in `dir` as `NAME.pem`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(dir: &Path, name: &str) -> anyhow::Result<Authority> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let certificate = write(dir, &format!("{name}.pem"), &issuer.pem())?;
        Ok(Authority { issuer, certificate })
    }

    /// A certificate for 127.0.0.1 and `localhost`, be it as a server or as a client: `NAME.pem` and `NAME.key` in `dir`,
    /// which are replaced when they are there.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn issue(&self, dir: &Path, name: &str) -> anyhow::Result<Issued> {
        self.issue_until(dir, name, LAST_YEAR)
    }

    /// The same, of a certificate that ends when `year` begins.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn issue_until(&self, dir: &Path, name: &str, year: i32) -> anyhow::Result<Issued> {
        let mut params = CertificateParams::new(["localhost".to_owned()])?;
        params.not_after = date_time_ymd(year, 1, 1);
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let key = KeyPair::generate()?;
        Ok(Issued {
            certificate: write(dir, &format!("{name}.pem"), &params.signed_by(&key, &self.issuer)?.pem())?,
            key: write(dir, &format!("{name}.key"), &key.serialize_pem())?,
        })
    }
}

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
        let authority = Authority::new(dir, "authority")?;
        let Issued { certificate, key } = authority.issue(dir, "server")?;
        Ok(ServerCertificate { authority: authority.certificate, certificate, key })
    }
}

fn write(dir: &Path, name: &str, pem: &str) -> anyhow::Result<PathBuf> {
    let file = dir.join(name);
    fs::write(&file, pem).with_context(|| file.display().to_string())?;
    Ok(file)
}
