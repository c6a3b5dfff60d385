//! Where Redis is: one server, one that sentinels name, or a cluster.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisResult, TlsCertificates,
    TlsMode,
};

/// A connection is given up when it is not there after so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The most commands that wait for a place in a connection's pipeline; further ones wait for that in turn, each until its
/// own deadline.
const PIPELINE_MAX_COMMANDS: usize = 1024;

/// How often a cluster's redirection is followed, and a call that may be repeated is.
const CLUSTER_RETRIES: u32 = 4;
/// Between such retries.
const CLUSTER_RETRY_MS: [u64; 2] = [2, 20];

/// Where Redis is, and how to log in there. Shows no password.
#[derive(Clone)]
pub struct Target {
    kind: Kind,
    shown: String,
    url: String,
    ca: Option<Vec<u8>>,
}

#[derive(Clone)]
enum Kind {
    Node(Client),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        node: ConnectionInfo,
        ca: Option<TlsCertificates>,
    },
    /// One that repeats what failed, and one that does not.
    Cluster(Box<[ClusterClient; 2]>),
}

/// Connections to one place.
#[derive(Clone)]
pub(super) enum Connection {
    Node(MultiplexedConnection),
    /// One that repeats what failed, and one that does not.
    Cluster {
        repeating: ClusterConnection,
        once: ClusterConnection,
    },
}

/// What is wrong with a URL. Holds no part of it, as that may be the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(String);

impl Target {
    /// Reads a URL:
    /// - `redis://[user:password@]host[:6379][/database]`, or `rediss://` for TLS;
    /// - `redis+sentinel://[user:password@]host[:26379],…/service[/database][?sentinel_password=…]`, where the login is
    ///   Redis's own;
    /// - `redis+cluster://[user:password@]host[:6379],…`; `rediss+sentinel` and `rediss+cluster` likewise.
    ///
    /// User and password are percent-encoded. `ca` is what to trust with TLS, as PEM, instead of the system's authorities.
    ///
    /// # Errors
    /// When it is none of them, or `ca` is no certificate.
    pub fn new(url: &str, ca: Option<&[u8]>) -> Result<Target, TargetError> {
        let parsed = Url::parse(url).ok_or_else(|| TargetError(FORMS.to_owned()))?;
        let certificates = ca.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) });
        if certificates.is_some() && parsed.scheme != "rediss" {
            return Err(TargetError("a CA file is of use with rediss:// only".to_owned()));
        }
        let kind = parsed.kind(certificates).map_err(|error| TargetError(error.to_string()))?;
        Ok(Target { kind, shown: parsed.shown(), url: url.to_owned(), ca: ca.map(<[u8]>::to_vec) })
    }

    /// Whether the tenants lie on several servers.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster(_))
    }

    /// Connects so many times.
    pub(super) async fn connect(&self, connections: usize) -> RedisResult<Vec<Connection>> {
        let client = match &self.kind {
            Kind::Node(client) => client.clone(),
            Kind::Sentinel { sentinels, service, node, ca } => {
                sentinel(sentinels, service, node, ca)?.build()?.async_get_client().await?
            }
            Kind::Cluster(clients) => {
                let [repeating, once] = &**clients;
                let mut all = Vec::with_capacity(connections);
                for _ in 0..connections {
                    let repeating = repeating.get_async_connection().await?;
                    all.push(Connection::Cluster { repeating, once: once.get_async_connection().await? });
                }
                return Ok(all);
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_MAX_COMMANDS);
        let mut all = Vec::with_capacity(connections);
        for _ in 0..connections {
            all.push(Connection::Node(client.get_multiplexed_async_connection_with_config(&config).await?));
        }
        Ok(all)
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Target) -> bool {
        self.url == other.url && self.ca == other.ca
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
                Ok(Kind::Node(match certificates {
                    Some(certificates) => Client::build_with_tls(node, certificates)?,
                    None => Client::open(node)?,
                }))
            }
            Some(Group::Sentinel) => {
                let (service, database) = self.path.split_once('/').unwrap_or((self.path, ""));
                let node = self.node(self.login, self.hosts[0], database)?;
                let password = self.query.split('&').find_map(|pair| pair.strip_prefix("sentinel_password="));
                let login = password.map_or_else(String::new, |password| format!(":{password}@"));
                let sentinels = self.hosts.iter().map(|host| {
                    let port = if has_port(host) { "" } else { ":26379" };
                    self.node(&login, &format!("{host}{port}"), "")
                });
                let sentinels: Vec<_> = sentinels.collect::<RedisResult<_>>()?;
                sentinel(&sentinels, service, &node, &certificates)?.build()?;
                Ok(Kind::Sentinel { sentinels, service: service.to_owned(), node, ca: certificates })
            }
            Some(Group::Cluster) => {
                let nodes: Vec<_> =
                    self.hosts.iter().map(|host| self.node(self.login, host, "")).collect::<RedisResult<_>>()?;
                let client = |retries| {
                    let [min, max] = CLUSTER_RETRY_MS;
                    let builder = ClusterClient::builder(nodes.clone()).retries(retries);
                    let builder = builder.min_retry_wait(min).max_retry_wait(max).connection_timeout(CONNECT_TIMEOUT);
                    let builder = builder.tcp_settings(tcp());
                    certificates.iter().fold(builder, |builder, ca| builder.certs(ca.clone())).build()
                };
                Ok(Kind::Cluster(Box::new([client(CLUSTER_RETRIES)?, client(0)?])))
            }
        }
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
    ca: &Option<TlsCertificates>,
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
    if let Some(password) = sentinels.first().and_then(|sentinel| sentinel.redis_settings().password()) {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if matches!(node.addr(), ConnectionAddr::TcpTls { .. }) {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(ca) = ca {
        let (to_redis, to_sentinel) = (ca.clone(), ca.clone());
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
            ("redis+sentinel://:s3cret@a,b:7/main/1?sentinel_password=s3cret", "redis+sentinel://a,b:7/main/1"),
            ("rediss+cluster://user:s3cret@a:1,b:2", "rediss+cluster://a:1,b:2/"),
        ] {
            let target = Target::new(url, None).unwrap();
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
            let error = Target::new(url, None).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains("s3cret"), "{url}: {error}");
        }
        assert!(Target::new("redis://a", Some(b"")).is_err());
    }
}
