//! A request whose body is sent piece by piece.

use anyhow::Context;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wait::patiently;

/// A chunked `POST` that is under way.
#[derive(Debug)]
pub struct Upload {
    stream: TcpStream,
}

impl Upload {
    /// Sends the headers.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn begin(addr: std::net::SocketAddr, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Upload> {
        let mut stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        Ok(Upload { stream })
    }

    /// Sends a piece of the body.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn send(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
        self.stream.write_all(piece).await?;
        Ok(self.stream.write_all(b"\r\n").await?)
    }

    /// Ends the body, and gives the whole answer as it came: status line, headers, body in its framing.
    ///
    /// # Errors
    /// When no answer comes in time.
    pub async fn finish(mut self) -> anyhow::Result<Bytes> {
        self.stream.write_all(b"0\r\n\r\n").await?;
        let mut answer = Vec::new();
        patiently("the answer", self.stream.read_to_end(&mut answer)).await?.context("the answer broke off")?;
        Ok(answer.into())
    }
}
