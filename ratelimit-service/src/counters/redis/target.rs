//! Where Redis is: one server, one that sentinels name, or a cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisResult, TlsCertificates, TlsMode,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;

/// A connection is given up when it is not there after so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The most commands that wait for a place in a connection's pipeline; further ones wait for that in turn, each until its
/// own deadline.
const PIPELINE_MAX_COMMANDS: usize = 1024;

/// Where Redis is, and how to log in there. Shows no password.
#[derive(Clone)]
pub struct Target {
    pub(super) kind: Kind,
    shown: String,
    url: String,
    tls: Tls,
}

#[derive(Clone)]
pub(super) enum Kind {
    One(Server),
    Cluster(Seeds),
}

/// Files for TLS, as PEM. Shows none of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// What to trust, instead of the system's authorities.
    pub ca: Option<Vec<u8>>,
    /// Who we are, to a Redis that asks.
    pub client: Option<ClientCertificate>,
}

/// A certificate, with the authorities between it and the one that Redis trusts, and its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// As PEM.
    pub certificate: Vec<u8>,
    /// As PEM.
    pub key: Vec<u8>,
}

/// One server to connect to.
#[derive(Clone)]
pub(super) struct Server {
    place: Place,
    shown: Arc<str>,
}

#[derive(Clone)]
enum Place {
    Node(Client),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        node: ConnectionInfo,
        certificates: Option<TlsCertificates>,
    },
}

/// Nodes of a cluster that are asked for the others, and how to connect to any.
#[derive(Clone)]
pub(super) struct Seeds {
    nodes: Vec<(Address, Server)>,
    login: ConnectionInfo,
    certificates: Option<TlsCertificates>,
}

/// Where a node of a cluster is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// What is wrong with a URL. Holds no part of it, as that may be the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(String);

impl Target {
    /// Reads a URL:
    /// - `redis://[user:password@]host[:6379][/database]`, or `rediss://` for TLS;
    /// - `redis+sentinel://[user:password@]host[:26379],…/service[/database][?sentinel_user=…&sentinel_password=…]`, where
    ///   the login before the hosts is Redis's own;
    /// - `redis+cluster://[user:password@]host[:6379],…`; `rediss+sentinel` and `rediss+cluster` likewise.
    ///
    /// Users and passwords are percent-encoded.
    ///
    /// # Errors
    /// When it is none of them, or `tls` has what is no certificate, or no key.
    pub fn new(url: &str, tls: &Tls) -> Result<Target, TargetError> {
        let parsed = Url::parse(url).ok_or_else(|| TargetError(FORMS.to_owned()))?;
        if *tls != Tls::default() && parsed.scheme != "rediss" {
            return Err(TargetError("certificates are of use with rediss:// only".to_owned()));
        }
        tls.check().map_err(|what| TargetError(what.to_owned()))?;
        let kind = parsed.kind(tls.certificates()).map_err(|error| TargetError(error.to_string()))?;
        Ok(Target { kind, shown: parsed.shown(), url: url.to_owned(), tls: tls.clone() })
    }
}

impl Tls {
    /// What is wrong with the files: the client library takes empty ones too.
    fn check(&self) -> Result<(), &'static str> {
        let has_certificate = |pem: &[u8]| matches!(CertificateDer::pem_slice_iter(pem).next(), Some(Ok(_)));
        if self.ca.as_ref().is_some_and(|ca| !has_certificate(ca)) {
            return Err("holds no certificate, as PEM");
        }
        match &self.client {
            Some(client) if !has_certificate(&client.certificate) => Err("the first holds no certificate, as PEM"),
            Some(client) if PrivateKeyDer::from_pem_slice(&client.key).is_err() => {
                Err("the second holds no private key, as PEM")
            }
            _ => Ok(()),
        }
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        let client_tls = self
            .client
            .as_ref()
            .map(|client| ClientTlsConfig { client_cert: client.certificate.clone(), client_key: client.key.clone() });
        (*self != Tls::default()).then(|| TlsCertificates { client_tls, root_cert: self.ca.clone() })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate")
    }
}

impl Server {
    fn node(info: ConnectionInfo, certificates: Option<&TlsCertificates>) -> RedisResult<Server> {
        let shown = info.addr().to_string().into();
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
            None => Client::open(info)?,
        };
        Ok(Server { place: Place::Node(client), shown })
    }

    /// Connects so many times, at once.
    pub(super) async fn connect(&self, connections: usize) -> RedisResult<Vec<MultiplexedConnection>> {
        let client = match &self.place {
            Place::Node(client) => client.clone(),
            Place::Sentinel { sentinels, service, node, certificates } => {
                sentinel(sentinels, service, node, certificates)?.build()?.async_get_client().await?
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_MAX_COMMANDS);
        let mut connecting = JoinSet::new();
        for _ in 0..connections {
            let (client, config) = (client.clone(), config.clone());
            connecting.spawn(async move { client.get_multiplexed_async_connection_with_config(&config).await });
        }
        connecting.join_all().await.into_iter().collect()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Seeds {
    /// The configured nodes, each with its host.
    pub(super) fn servers(&self) -> impl Iterator<Item = (String, Server)> {
        self.nodes.iter().map(|(address, server)| (address.host.clone(), server.clone()))
    }

    /// Another node of the cluster.
    pub(super) fn server(&self, Address { host, port }: &Address) -> RedisResult<Server> {
        let (host, port) = (host.clone(), *port);
        let addr = match self.login.addr() {
            ConnectionAddr::TcpTls { insecure, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Server::node(self.login.clone().set_addr(addr), self.certificates.as_ref())
    }
}

impl Address {
    /// Reads `host:port`; without a host it is the one that was `asked`. Redis writes no brackets.
    pub(super) fn read(text: &str, asked: &str) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { asked } else { host };
        Some(Address { host: host.to_owned(), port: port.parse().ok()? })
    }

    fn of(addr: &ConnectionAddr) -> Option<Address> {
        match addr {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Address { host: host.clone(), port: *port })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Target) -> bool {
        self.url == other.url && self.tls == other.tls
    }
}

impl Eq for Target {}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const FORMS: &str = "is no URL of Redis: redis://host:6379, redis+sentinel://host,host/service and redis+cluster://host,host \
     are, also with rediss, and with user:password@ before the host";

/// A URL of one or more hosts, which is more than general parsers take.
struct Url<'a> {
    /// `redis` or `rediss`.
    scheme: &'a str,
    group: Option<Group>,
    /// With the `@`, or empty.
    login: &'a str,
    hosts: Vec<&'a str>,
    /// Without the first slash.
    path: &'a str,
    query: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Sentinel,
    Cluster,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Option<Url<'a>> {
        let (scheme, rest) = url.trim().split_once("://")?;
        let (scheme, group) = match scheme.split_once('+') {
            None => (scheme, None),
            Some((scheme, "sentinel")) => (scheme, Some(Group::Sentinel)),
            Some((scheme, "cluster")) => (scheme, Some(Group::Cluster)),
            Some(_) => return None,
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let hosts: Vec<_> = hosts.split(',').collect();
        let is_known = matches!(scheme, "redis" | "rediss") && hosts.iter().all(|host| !host.is_empty());
        let fits = match group {
            None => hosts.len() == 1,
            Some(Group::Sentinel) => !path.is_empty(),
            Some(Group::Cluster) => path.is_empty(),
        };
        (is_known && fits).then_some(Url { scheme, group, login, hosts, path, query })
    }

    fn node(&self, login: &str, host: &str, path: &str) -> RedisResult<ConnectionInfo> {
        let node = format!("{}://{login}{host}/{path}", self.scheme).into_connection_info()?;
        Ok(node.set_tcp_settings(tcp()))
    }

    fn kind(&self, certificates: Option<TlsCertificates>) -> RedisResult<Kind> {
        match self.group {
            None => {
                let node = self.node(self.login, self.hosts[0], self.path)?;
                Ok(Kind::One(Server::node(node, certificates.as_ref())?))
            }
            Some(Group::Sentinel) => {
                let (service, database) = self.path.split_once('/').unwrap_or((self.path, ""));
                let node = self.node(self.login, self.hosts[0], database)?;
                let login = match (self.parameter("sentinel_user"), self.parameter("sentinel_password")) {
                    (None, None) => String::new(),
                    (user, password) => format!("{}:{}@", user.unwrap_or(""), password.unwrap_or("")),
                };
                let sentinels = self.hosts.iter().map(|host| {
                    let port = if has_port(host) { "" } else { ":26379" };
                    self.node(&login, &format!("{host}{port}"), "")
                });
                let sentinels: Vec<_> = sentinels.collect::<RedisResult<_>>()?;
                sentinel(&sentinels, service, &node, &certificates)?.build()?;
                let service = service.to_owned();
                let shown = self.shown().into();
                Ok(Kind::One(Server { place: Place::Sentinel { sentinels, service, node, certificates }, shown }))
            }
            Some(Group::Cluster) => {
                let login = self.node(self.login, self.hosts[0], "")?;
                let node = |host: &&str| {
                    let info = self.node(self.login, host, "")?;
                    let address = Address::of(info.addr()).ok_or((ErrorKind::InvalidClientConfig, FORMS))?;
                    Ok((address, Server::node(info, certificates.as_ref())?))
                };
                let nodes = self.hosts.iter().map(node).collect::<RedisResult<_>>()?;
                Ok(Kind::Cluster(Seeds { nodes, login, certificates }))
            }
        }
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    fn shown(&self) -> String {
        let group = match self.group {
            None => "",
            Some(Group::Sentinel) => "+sentinel",
            Some(Group::Cluster) => "+cluster",
        };
        format!("{}{group}://{}/{}", self.scheme, self.hosts.join(","), self.path)
    }
}

/// What is asked is sent at once.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'))
}

fn sentinel(
    sentinels: &[ConnectionInfo],
    service: &str,
    node: &ConnectionInfo,
    certificates: &Option<TlsCertificates>,
) -> RedisResult<SentinelClientBuilder> {
    let addresses = sentinels.iter().map(|sentinel| sentinel.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, service, SentinelServerType::Master)?;
    let login = node.redis_settings();
    builder = builder.set_client_to_redis_db(login.db()).set_client_to_redis_tcp_settings(tcp());
    if let Some(username) = login.username() {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = login.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    let login = sentinels.first().map(ConnectionInfo::redis_settings);
    if let Some(username) = login.and_then(RedisConnectionInfo::username) {
        builder = builder.set_client_to_sentinel_username(username);
    }
    if let Some(password) = login.and_then(RedisConnectionInfo::password) {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if matches!(node.addr(), ConnectionAddr::TcpTls { .. }) {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        let (to_redis, to_sentinel) = (certificates.clone(), certificates.clone());
        builder = builder.set_client_to_redis_certificates(to_redis).set_client_to_sentinel_certificates(to_sentinel);
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_taken_and_shows_no_password() {
        for (url, shown) in [
            ("redis://127.0.0.1", "redis://127.0.0.1/"),
            ("redis://user:p%40ss@[::1]:7000/2", "redis://[::1]:7000/2"),
            ("rediss://:s3cret@redis.example:6380", "rediss://redis.example:6380/"),
            (
                "redis+sentinel://:s3cret@a,b:7/main/1?sentinel_user=u&sentinel_password=s3cret",
                "redis+sentinel://a,b:7/main/1",
            ),
            ("rediss+cluster://user:s3cret@a:1,b:2", "rediss+cluster://a:1,b:2/"),
        ] {
            let target = Target::new(url, &Tls::default()).unwrap();
            assert_eq!((target.to_string(), format!("{target:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_telling_it() {
        for url in [
            "",
            "s3cret",
            "http://s3cret@a",
            "redis://",
            "redis://:s3cret@a,b",
            "redis+sentinel://:s3cret@a,b",
            "redis+cluster://:s3cret@a,/0",
            "redis+other://:s3cret@a",
            "redis://:s3cret@a/database",
            "redis://:s3cret@a:port",
        ] {
            let error = Target::new(url, &Tls::default()).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains("s3cret"), "{url}: {error}");
        }
    }

    #[test]
    fn certificates_belong_to_tls_and_are_not_shown() {
        let client = ClientCertificate { certificate: b"s3cret".to_vec(), key: b"s3cret".to_vec() };
        for tls in [Tls { ca: Some(b"s3cret".to_vec()), client: None }, Tls { ca: None, client: Some(client) }] {
            assert!(!format!("{tls:?} {:?}", tls.client).contains("s3cret"));
            for url in ["redis://a", "redis+cluster://a"] {
                assert!(Target::new(url, &tls).unwrap_err().to_string().contains("rediss://"));
            }
            for url in ["rediss://a", "rediss+cluster://a"] {
                let error = Target::new(url, &tls).unwrap_err().to_string();
                assert!(!error.contains("s3cret"), "{error}");
            }
        }
    }

    #[test]
    fn a_node_is_where_another_says() {
        let read = |text| Address::read(text, "asked").map(|address| address.to_string());
        assert_eq!(read("a.example:7000"), Some("a.example:7000".to_owned()));
        assert_eq!(read(":7000"), Some("asked:7000".to_owned()));
        assert_eq!(Address::read("::1:7000", "asked"), Some(Address { host: "::1".to_owned(), port: 7000 }));
        assert_eq!([read(""), read("a"), read("a:b")], [None, None, None]);
    }
}
