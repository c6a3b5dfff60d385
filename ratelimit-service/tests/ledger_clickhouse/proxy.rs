//! A proxy before ClickHouse that breaks off inserts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What an insert's request has in its first line.
const INSERT: &[u8] = b"query=INSERT";

/// What becomes of an insert's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is closed after so many bytes of the request.
    CutRequest(usize),
    /// It is closed once the answer begins.
    CutAnswer,
}

/// Passes on all that comes, but for inserts that are to be broken off.
pub(crate) struct Proxy {
    addr: SocketAddr,
    faults: Arc<Mutex<Vec<Fault>>>,
}

impl Proxy {
    pub(crate) async fn start(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, faults) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let shared = Arc::clone(&faults);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(to).await {
                    tokio::spawn(pass(client, server, Arc::clone(&shared)));
                }
            }
        });
        Proxy { addr, faults }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Breaks off so many inserts from the next one on, the last given first.
    pub(crate) fn inject(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend_from_slice(faults);
    }

    /// How many are still to come.
    pub(crate) fn pending(&self) -> usize {
        self.faults.lock().unwrap().len()
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, faults: Arc<Mutex<Vec<Fault>>>) {
    let (mut question, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut fault, mut sent) = (None, 0);
    loop {
        tokio::select! {
            read = client.read(&mut question) => {
                let Ok(length @ 1..) = read else { return };
                let mut part = &question[..length];
                if part.windows(INSERT.len()).any(|window| window == INSERT) {
                    (fault, sent) = (faults.lock().unwrap().pop(), 0);
                }
                if let Some(Fault::CutRequest(after)) = fault {
                    part = &part[..part.len().min(after - sent)];
                }
                sent += part.len();
                if server.write_all(part).await.is_err() || fault == Some(Fault::CutRequest(sent)) {
                    return;
                }
            }
            read = server.read(&mut answer) => {
                let Ok(length @ 1..) = read else { return };
                if fault == Some(Fault::CutAnswer) || client.write_all(&answer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
