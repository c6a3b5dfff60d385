//! TLS and mTLS, and certificates that are renewed while the service runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Version};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tollgate::http::{ClientCertificate, Reach, client_with};
use tollgate_e2e::harness::certificates::{Authority, Issued};
use tollgate_e2e::harness::wait::{PATIENCE, eventually};
use tollgate_wire::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use tollgate_wire::proto::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::harness::{Folder, Service, tollgate};

/// An authority, and what it has issued, each in a file of its own.
struct Pki {
    folder: Folder,
    authority: Authority,
    server: Issued,
    client: Issued,
}

impl Pki {
    fn new() -> Pki {
        let folder = Folder::new();
        let authority = Authority::new(&folder.path(""), "authority").unwrap();
        let [server, client] = ["server", "client"].map(|name| authority.issue(&folder.path(""), name).unwrap());
        Pki { folder, authority, server, client }
    }

    /// As the configuration says it, for a listener that asks no client for a certificate.
    fn tls(&self) -> String {
        let Issued { certificate, key } = &self.server;
        format!("{{ certificate: {certificate:?}, private_key: {key:?} }}")
    }

    /// For one that asks every client.
    fn mtls(&self, authority: &Path) -> String {
        self.tls().replace(" }", &format!(", client_ca: {authority:?} }}"))
    }

    /// What `service` answers at `path` to a client with this certificate: the status and the body.
    async fn get(&self, service: &Service, own: Option<&Issued>, path: &str) -> anyhow::Result<(u16, String)> {
        let ca = fs::read(&self.authority.certificate)?;
        let own = own.map(|own| anyhow::Ok((fs::read(&own.certificate)?, fs::read(&own.key)?))).transpose()?;
        let own = own.as_ref().map(|(certificate, key)| ClientCertificate { certificate, key });
        let client = client_with(Reach::Any, PATIENCE, Some(&ca), own).map_err(anyhow::Error::msg)?;
        let answer = client.get(format!("https://{}{path}", service.rest())).send().await?;
        assert_eq!(answer.version(), Version::HTTP_11);
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Waits until the metrics of REST have a line.
    async fn told(&self, service: &Service, own: Option<&Issued>, line: &str) {
        let is_told = async || {
            let (_, metrics) = self.get(service, own, "/metrics").await?;
            ensure!(metrics.lines().any(|told| told == line), "{metrics}");
            Ok(())
        };
        eventually(line, PATIENCE, is_told).await.unwrap();
    }

    /// A connection to REST of a client that has no certificate, and the certificate that it was shown.
    async fn connect(&self, service: &Service) -> (SendRequest<Full<Bytes>>, CertificateDer<'static>) {
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.authority.certificate)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(service.rest()).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        (sender, shown)
    }

    /// Whether a limiter's client with this certificate is answered.
    async fn limits(&self, service: &Service, own: Option<&Issued>) -> bool {
        let pem = |file: &PathBuf| fs::read(file).unwrap();
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem(&self.authority.certificate)));
        let tls = match own {
            Some(Issued { certificate, key }) => tls.identity(Identity::from_pem(pem(certificate), pem(key))),
            None => tls,
        };
        let endpoint = Endpoint::from_shared(format!("https://{}", service.grpc())).unwrap().tls_config(tls).unwrap();
        // A client that is refused may hear of it with its first call.
        let mut limiter = RateLimitServiceClient::new(endpoint.timeout(PATIENCE).connect_lazy());
        limiter.should_rate_limit(RateLimitRequest::default()).await.is_ok()
    }
}

fn der(pem: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(&fs::read(pem).unwrap()).unwrap()
}

fn health() -> Request<Full<Bytes>> {
    Request::get("/health").header("host", "localhost").body(Full::default()).unwrap()
}

#[tokio::test]
async fn rest_over_tls_knows_who_asks() {
    let pki = Pki::new();
    let service = Service::start_over_tls(&pki.folder, None, Some(&pki.tls()));
    // Who connects from this machine needs no key: the address is known behind TLS too.
    let (status, tenants) = pki.get(&service, None, "/api/v1/tenants").await.unwrap();
    assert_eq!((status, tenants.as_str()), (200, r#"{"items":[]}"#));
    let mut plain = TcpStream::connect(service.rest()).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // It may be told by a reset.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
    let refused = r#"tollgate_tls_handshakes_failed_total{listener="rest",reason="refused"} 1"#;
    pki.told(&service, None, refused).await;
    // gRPC says nothing of TLS, and is as it was.
    service.limiter().await.should_rate_limit(RateLimitRequest::default()).await.unwrap();
}

#[tokio::test]
async fn rest_over_mtls_is_for_clients_of_its_authority_and_asks_for_their_keys() {
    let pki = Pki::new();
    let mtls = pki.mtls(&pki.authority.certificate);
    let stranger = Authority::new(&pki.folder.path(""), "stranger").unwrap();
    let stranger = stranger.issue(&pki.folder.path(""), "strangers").unwrap();
    let service = Service::start_over_tls(&pki.folder, None, Some(&format!("{mtls}, open_to: nobody")));
    for own in [None, Some(&stranger)] {
        assert!(pki.get(&service, own, "/health").await.is_err(), "{own:?}");
    }
    assert_eq!(pki.get(&service, Some(&pki.client), "/health").await.unwrap().0, 200);
    assert_eq!(pki.get(&service, Some(&pki.client), "/api/v1/tenants").await.unwrap().0, 401);
}

#[tokio::test]
async fn grpc_over_mtls_is_for_clients_of_its_authority() {
    let pki = Pki::new();
    let stranger = Authority::new(&pki.folder.path(""), "stranger").unwrap();
    let stranger = stranger.issue(&pki.folder.path(""), "strangers").unwrap();
    let service = Service::start_over_tls(&pki.folder, Some(&pki.mtls(&pki.authority.certificate)), None);
    assert!(pki.limits(&service, Some(&pki.client)).await);
    assert!(!pki.limits(&service, None).await);
    assert!(!pki.limits(&service, Some(&stranger)).await);
    assert!(service.metrics().await.contains("tollgate_tls_valid{listener=\"grpc\"} 1\n"));
}

#[tokio::test]
async fn a_renewed_certificate_is_served_and_a_bad_one_is_not() {
    let pki = Pki::new();
    let service = Service::start_over_tls(&pki.folder, None, Some(&pki.tls()));
    let (mut early, first) = pki.connect(&service).await;
    assert_eq!(first, der(&pki.server.certificate));
    pki.told(&service, None, r#"tollgate_tls_not_after_timestamp_seconds{listener="rest"} 4102444800"#).await;

    pki.authority.issue_until(&pki.folder.path(""), "server", 2101).unwrap();
    pki.told(&service, None, r#"tollgate_tls_renewals_total{listener="rest",result="applied"} 1"#).await;
    let second = der(&pki.server.certificate);
    assert!(first != second && pki.connect(&service).await.1 == second);
    pki.told(&service, None, r#"tollgate_tls_not_after_timestamp_seconds{listener="rest"} 4133980800"#).await;
    let answer = early.send_request(health()).await.unwrap();
    assert_eq!(answer.status(), 200, "a connection outlives its certificate");
    answer.into_body().collect().await.unwrap();

    let key = fs::read(&pki.server.key).unwrap();
    fs::copy(&pki.client.key, &pki.server.key).unwrap();
    pki.told(&service, None, r#"tollgate_tls_renewals_total{listener="rest",result="refused"} 1"#).await;
    pki.told(&service, None, r#"tollgate_tls_valid{listener="rest"} 0"#).await;
    fs::remove_file(&pki.server.key).unwrap();
    pki.told(&service, None, r#"tollgate_tls_renewals_total{listener="rest",result="refused"} 2"#).await;
    assert_eq!(pki.connect(&service).await.1, second);

    fs::write(&pki.server.key, key).unwrap();
    pki.told(&service, None, r#"tollgate_tls_valid{listener="rest"} 1"#).await;
    assert_eq!(early.send_request(health()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_hangup_takes_over_what_the_files_say() {
    let pki = Pki::new();
    let service = Service::start_over_tls(&pki.folder, None, Some(&pki.tls()));
    pki.authority.issue(&pki.folder.path(""), "server").unwrap();
    service.signal("HUP");
    pki.told(&service, None, r#"tollgate_tls_renewals_total{listener="rest",result="applied"} 1"#).await;
    assert_eq!(pki.connect(&service).await.1, der(&pki.server.certificate));
}

#[tokio::test]
async fn whose_clients_are_served_changes_without_a_restart() {
    let pki = Pki::new();
    let folder = pki.folder.path("");
    let trusted = folder.join("trusted.pem");
    fs::copy(&pki.authority.certificate, &trusted).unwrap();
    let service = Service::start_over_tls(&pki.folder, Some(&pki.mtls(&trusted)), None);
    let next = Authority::new(&folder, "next").unwrap();
    let newcomer = next.issue(&folder, "newcomer").unwrap();
    assert!(pki.limits(&service, Some(&pki.client)).await && !pki.limits(&service, Some(&newcomer)).await);
    fs::copy(&next.certificate, &trusted).unwrap();
    let is_admitted = async || {
        ensure!(pki.limits(&service, Some(&newcomer)).await, "not yet");
        Ok(())
    };
    eventually("clients of the next authority", PATIENCE, is_admitted).await.unwrap();
    assert!(!pki.limits(&service, Some(&pki.client)).await);
}

#[tokio::test]
async fn who_connects_and_is_silent_holds_up_nobody_and_is_sent_away() {
    let pki = Pki::new();
    let service = Service::start_over_tls(&pki.folder, None, Some(&pki.tls()));
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(service.rest()).await.unwrap());
    }
    assert_eq!(pki.get(&service, None, "/health").await.unwrap().0, 200);
    pki.told(&service, None, r#"tollgate_tls_handshakes_failed_total{listener="rest",reason="timeout"} 50"#).await;
    for mut silent in silent {
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    }
}

#[test]
fn what_cannot_be_served_is_told_at_the_start() {
    let pki = Pki::new();
    let tls = pki.tls().replace("server.key", "client.key");
    let file = pki.folder.write("tollgate.yaml", &format!("grpc: {{ tls: {tls} }}\n"));
    for args in [["check-config"].as_slice(), &["serve", "--config"]] {
        let output = tollgate(args).arg(&file).stderr(Stdio::piped()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        let expected =
            format!("tollgate: {}:1:14: grpc.tls.private_key: is not the key of the certificate\n", file.display());
        assert_eq!((output.status.code(), told), (Some(1), expected), "{args:?}");
    }
}

#[tokio::test]
async fn the_command_line_trusts_and_shows_what_it_is_told_to() {
    let pki = Pki::new();
    let service = Service::start_over_tls(&pki.folder, None, Some(&pki.mtls(&pki.authority.certificate)));
    let url = format!("https://{}", service.rest());
    let ask = async |more: &[(&str, &Path)]| {
        let mut command = tollgate(&["tenants", "list", "--json", "--service", &url]);
        command.envs(more.iter().map(|(name, file)| (name.to_owned(), file)));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let ca = ("TOLLGATE_CA", pki.authority.certificate.as_path());
    let certificate = ("TOLLGATE_CLIENT_CERTIFICATE", pki.client.certificate.as_path());
    let key = ("TOLLGATE_CLIENT_KEY", pki.client.key.as_path());
    assert_eq!(ask(&[ca, certificate, key]).await, (Some(0), String::new()));
    for (given, told) in [
        (&[certificate, key][..], "does not answer"),
        (&[ca], "does not answer"),
        (&[ca, certificate], "--client-key is missing: a certificate needs its key"),
        (&[ca, key], "--client-certificate is missing: a key needs its certificate"),
        (&[ca, certificate, ("TOLLGATE_CLIENT_KEY", &pki.server.key)], "the client's certificate and key: "),
        (&[("TOLLGATE_CA", &pki.client.key)], "holds no certificate, as PEM"),
        (&[("TOLLGATE_CA", Path::new("/none"))], "cannot read /none"),
    ] {
        let (code, stderr) = ask(given).await;
        assert!(code == Some(1) && stderr.contains(told), "{told}: {stderr}");
    }
}
