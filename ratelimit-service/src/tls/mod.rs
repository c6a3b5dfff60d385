//! TLS for those who connect to us.
//!
//! Invariants:
//! - What is served is a certificate with the key that belongs to it, and the authorities of clients that were read with them:
//!   all of it is replaced together, or none.
//! - The files are read again while the service runs, for others renew them. What can't be served changes nothing, and is told
//!   by the log and by metrics until it is right again.
//! - A connection keeps what it was begun with.
//! - Whoever connects and says nothing holds up nobody: handshakes go on beside each other, [`MAX_HANDSHAKES`] at most,
//!   and each for [`HANDSHAKE_TIMEOUT`] at most.

mod certificates;
mod files;
mod incoming;
mod metrics;

use std::path::PathBuf;
use std::time::Duration;

pub use certificates::{Certificates, Renewal};
pub use incoming::{Incoming, Stream};
pub use metrics::{OfListener, TlsMetrics};

/// The most handshakes of one listener at once. Who comes beyond waits to be accepted.
pub const MAX_HANDSHAKES: usize = 1024;

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest file of certificates or a key, in bytes.
pub const MAX_PEM_BYTES: u64 = 1 << 20;

/// How often the files are looked at.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Where what is served is, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Our certificate, and behind it those that lead to an authority.
    pub certificate: PathBuf,
    /// Its key: PKCS#8, PKCS#1 or SEC1.
    pub private_key: PathBuf,
    /// The authorities of which every client must have a certificate; `None`: no client is asked.
    pub client_ca: Option<PathBuf>,
}

impl TlsSettings {
    /// Whether the files can be served as they are now.
    ///
    /// # Errors
    /// What is wrong, and with which of them.
    pub fn check(&self) -> Result<(), TlsError> {
        files::Files::read(self)?.identity(Protocol::Http1).map(drop)
    }
}

/// What is spoken over TLS; clients that ask for something else by ALPN are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, of gRPC.
    Http2,
}

impl Protocol {
    /// As ALPN calls it.
    fn alpn(self) -> Vec<u8> {
        match self {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }
    }
}

/// What cannot be served. It quotes nothing of the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct TlsError {
    /// The key of the configuration that names the file.
    pub field: &'static str,
    /// What is wrong with it.
    pub what: String,
}
