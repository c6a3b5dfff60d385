//! Connections as they come, over TLS or not, for tonic and for axum.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::certificates::Certificates;
use super::{HANDSHAKE_TIMEOUT, MAX_HANDSHAKES};

/// How long nobody is accepted after that failed for want of something: of file descriptors, say.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A bound port, and who is about to be served.
pub struct Incoming {
    tcp: TcpListener,
    certificates: Option<Certificates>,
    handshakes: JoinSet<Option<(Stream, SocketAddr)>>,
    max_handshakes: usize,
}

/// A connection that is ready to be read from.
pub enum Stream {
    /// As it came.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Incoming {
    /// Of `tcp`; with certificates, over TLS alone.
    pub fn new(tcp: TcpListener, certificates: Option<Certificates>) -> Incoming {
        Incoming { tcp, certificates, handshakes: JoinSet::new(), max_handshakes: MAX_HANDSHAKES }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection, and whose it is. Nothing is lost where this is dropped before it is done.
    pub async fn next(&mut self) -> (Stream, SocketAddr) {
        loop {
            let (tcp, peer) = tokio::select! {
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(connection)) => return connection,
                    Ok(None) | Err(_) => continue,
                },
                accepted = self.tcp.accept(), if self.handshakes.len() < self.max_handshakes => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        wait_after(&error).await;
                        continue;
                    }
                },
            };
            // Messages are small, and each is waited for.
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!(%error, %peer, "a connection has no TCP_NODELAY");
            }
            let Some(certificates) = &self.certificates else { return (Stream::Plain(tcp), peer) };
            self.handshakes.spawn(handshake(certificates.clone(), tcp, peer));
            if self.handshakes.len() == self.max_handshakes {
                certificates.metrics().full.inc();
            }
        }
    }

    /// All of them, as tonic takes them.
    pub fn streams(self) -> impl futures_util::Stream<Item = io::Result<Stream>> {
        futures_util::stream::unfold(self, async |mut incoming| {
            let (stream, _) = incoming.next().await;
            Some((Ok(stream), incoming))
        })
    }
}

/// The connection, unless its client does not do its part.
async fn handshake(certificates: Certificates, tcp: TcpStream, peer: SocketAddr) -> Option<(Stream, SocketAddr)> {
    let handshake = TlsAcceptor::from(certificates.now()).accept(tcp);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => return Some((Stream::Tls(Box::new(stream)), peer)),
        Ok(Err(error)) => {
            certificates.metrics().failed.inc();
            tracing::debug!(%error, %peer, "a TLS handshake failed");
        }
        Err(_) => {
            certificates.metrics().timed_out.inc();
            tracing::debug!(%peer, "a TLS handshake took too long");
        }
    }
    None
}

/// A client that left is of no account; what else fails will fail again at once.
async fn wait_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        tracing::error!(%error, "no connection can be accepted");
        tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
    }
}

impl Listener for Incoming {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address()
    }
}

impl Connected for Stream {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match self {
            Stream::Plain(tcp) => tcp.connect_info(),
            Stream::Tls(tls) => tls.get_ref().0.connect_info(),
        }
    }
}

/// Calls a method of whichever it is.
macro_rules! either {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).$method($($argument),*),
            Stream::Tls(tls) => Pin::new(tls.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(tcp) => tcp.is_write_vectored(),
            Stream::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use prometheus_client::registry::Registry;
    use tollgate_e2e::harness::certificates::ServerCertificate;
    use tollgate_e2e::harness::wait::patiently;

    use super::*;
    use crate::tls::{Protocol, TlsMetrics, TlsSettings};

    #[tokio::test]
    async fn who_comes_while_all_handshakes_are_taken_waits() {
        let folder = tempfile::tempdir().unwrap();
        let ServerCertificate { certificate, key, .. } = ServerCertificate::issue(folder.path()).unwrap();
        let settings = TlsSettings { certificate, private_key: key, client_ca: None };
        let metrics = TlsMetrics::new(&mut Registry::default()).of("rest");
        let opened = Certificates::open("rest.tls", settings, Protocol::Http1, metrics.clone()).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut incoming = Incoming { max_handshakes: 2, ..Incoming::new(tcp, Some(opened.0)) };
        let mut silent = Vec::new();
        for _ in 0..5 {
            silent.push(TcpStream::connect(incoming.address().unwrap()).await.unwrap());
        }
        {
            let mut next = pin!(incoming.next());
            let is_full = async {
                while metrics.full.get() == 0 {
                    assert!(next.as_mut().now_or_never().is_none());
                    tokio::task::yield_now().await;
                }
                // What is ready would be accepted with the next look.
                assert!(next.as_mut().now_or_never().is_none());
            };
            patiently("all handshakes are taken", is_full).await.unwrap();
        }
        assert_eq!(incoming.handshakes.len(), 2);
        // One leaves, and another is let in.
        drop(silent.remove(0));
        let mut next = pin!(incoming.next());
        let is_full_again = async {
            while metrics.full.get() == 1 {
                assert!(next.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
        };
        patiently("another handshake", is_full_again).await.unwrap();
        assert_eq!((metrics.failed.get(), metrics.full.get()), (1, 2));
    }
}
