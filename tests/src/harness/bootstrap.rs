//! Envoy's bootstraps in `envoy/`, with ports and paths of the run's own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::{artifacts, merge};

const FILTER_CHAIN: &str = "/static_resources/listeners/0/filter_chains/0";
const HTTP_CONNECTION_MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const ROUTE: &str = "/route_config/virtual_hosts/0/routes/0/route";
const FILTER: &str = "/http_filters/0/typed_config/config";

/// A bootstrap, before it is written to a file.
#[derive(Debug, Clone)]
pub struct Bootstrap(Value);

impl Bootstrap {
    /// The reference bootstrap with the built filter, and every port chosen by the kernel.
    ///
    /// # Errors
    /// When the file is not there or no longer has the shape that is expected, or the filter is not built.
    pub fn reference() -> anyhow::Result<Bootstrap> {
        let mut bootstrap = Bootstrap::read("envoy/envoy.yaml")?;
        *bootstrap.filter("/vm_config/code/local/filename")? = path_text(&artifacts::filter_module()?);
        Ok(bootstrap)
    }

    /// The bootstrap of Envoy's own rate limit filter, with a timeout for busy machines, and every port chosen by the kernel.
    ///
    /// # Errors
    /// When the file is not there or no longer has the shape that is expected.
    pub fn native_ratelimit() -> anyhow::Result<Bootstrap> {
        let mut bootstrap = Bootstrap::read("envoy/native-ratelimit.yaml")?;
        let filters = bootstrap.http_filters()?;
        let filter = filters.iter_mut().find(|filter| filter["name"] == "envoy.filters.http.ratelimit");
        filter.context("the bootstrap has no rate limit filter")?["typed_config"]["timeout"] = "10s".into();
        Ok(bootstrap)
    }

    fn read(file: &str) -> anyhow::Result<Bootstrap> {
        let path = artifacts::repository().join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut bootstrap = Bootstrap(serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?);
        bootstrap.listen(0)?;
        bootstrap.admin(0)?;
        Ok(bootstrap)
    }

    /// Sets the port that clients call; 0 lets the kernel choose.
    ///
    /// # Errors
    /// When the bootstrap has no listener.
    pub fn listen(&mut self, port: u16) -> anyhow::Result<()> {
        *self.at("/static_resources/listeners/0/address/socket_address/port_value")? = port.into();
        Ok(())
    }

    /// Sets the admin port; 0 lets the kernel choose.
    ///
    /// # Errors
    /// When the bootstrap has no admin address.
    pub fn admin(&mut self, port: u16) -> anyhow::Result<()> {
        *self.at("/admin/address/socket_address/port_value")? = port.into();
        Ok(())
    }

    /// Points a cluster at `addr`.
    ///
    /// # Errors
    /// When the bootstrap has no such cluster.
    pub fn cluster(&mut self, name: &str, addr: SocketAddr) -> anyhow::Result<()> {
        *self
            .cluster_of(name)?
            .pointer_mut("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address")
            .with_context(|| format!("cluster {name:?} has no endpoint"))? =
            json!({"address": addr.ip().to_string(), "port_value": addr.port()});
        Ok(())
    }

    /// Merges `patch` into a cluster.
    ///
    /// # Errors
    /// When the bootstrap has no such cluster.
    pub fn configure_cluster(&mut self, name: &str, patch: &Value) -> anyhow::Result<()> {
        merge(self.cluster_of(name)?, patch);
        Ok(())
    }

    fn cluster_of(&mut self, name: &str) -> anyhow::Result<&mut Value> {
        let clusters = self.at("/static_resources/clusters")?.as_array_mut().context("clusters: not a list")?;
        let cluster = clusters.iter_mut().find(|cluster| cluster["name"] == name);
        cluster.with_context(|| format!("the bootstrap has no cluster {name:?}"))
    }

    /// Merges `patch` into the filter's own config.
    ///
    /// # Errors
    /// When the bootstrap has no such filter, or its config is no JSON.
    pub fn configure_filter(&mut self, patch: &Value) -> anyhow::Result<()> {
        let mut config = self.filter_config()?;
        merge(&mut config, patch);
        *self.filter("/configuration/value")? = Value::String(config.to_string());
        Ok(())
    }

    /// The filter's own config. Envoy hands it the text as it stands; the text is JSON.
    fn filter_config(&mut self) -> anyhow::Result<Value> {
        let text = self.filter("/configuration/value")?.as_str().context("the filter's config: no text")?;
        serde_json::from_str(text).context("the filter's config: no JSON")
    }

    /// Lets request bodies wait for their headers to go on, as Envoy does by default.
    ///
    /// # Errors
    /// When the bootstrap has no such filter.
    pub fn hold_bodies_back(&mut self) -> anyhow::Result<()> {
        let plugin = self.filter("")?.as_object_mut().context("the filter's plugin: no object")?;
        plugin.remove("allow_on_headers_stop_iteration").context("the reference does not hand bodies over")?;
        Ok(())
    }

    /// Merges `patch` into the route's action.
    ///
    /// # Errors
    /// When the bootstrap has no route.
    pub fn configure_route(&mut self, patch: &Value) -> anyhow::Result<()> {
        merge(self.at(&format!("{HTTP_CONNECTION_MANAGER}{ROUTE}"))?, patch);
        Ok(())
    }

    /// Merges `patch` into the HTTP connection manager.
    ///
    /// # Errors
    /// When the bootstrap has none.
    pub fn configure_connection_manager(&mut self, patch: &Value) -> anyhow::Result<()> {
        merge(self.at(HTTP_CONNECTION_MANAGER)?, patch);
        Ok(())
    }

    /// Lets clients speak TLS, by this `common_tls_context`, and each must have a certificate.
    ///
    /// # Errors
    /// When the bootstrap has no listener.
    pub fn require_client_certificates(&mut self, common_tls_context: &Value) -> anyhow::Result<()> {
        self.at(FILTER_CHAIN)?["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": common_tls_context,
            },
        });
        Ok(())
    }

    /// Puts HTTP filters in front of ours and behind it.
    ///
    /// # Errors
    /// When the bootstrap has no HTTP filters.
    pub fn surround_filter(&mut self, before: &[Value], behind: &[Value]) -> anyhow::Result<()> {
        let filters = self.http_filters()?;
        filters.splice(1..1, behind.iter().cloned());
        filters.splice(0..0, before.iter().cloned());
        Ok(())
    }

    /// Takes the filter out: plain Envoy.
    ///
    /// # Errors
    /// When the bootstrap has no HTTP filters.
    pub fn remove_filter(&mut self) -> anyhow::Result<()> {
        self.http_filters()?.remove(0);
        Ok(())
    }

    /// Has another module in our filter's place, which gets its configuration too.
    ///
    /// # Errors
    /// When the bootstrap has another shape than is expected.
    pub fn use_module(&mut self, wasm: &Path) -> anyhow::Result<()> {
        *self.filter("/vm_config/code/local/filename")? = path_text(wasm);
        Ok(())
    }

    /// Puts Envoy's own rate limit filter in the filter's place, with the service and timeout that it was configured with. It
    /// tells clients where limits stand, as ours does.
    ///
    /// # Errors
    /// When the bootstrap has another shape than is expected.
    pub fn use_native_ratelimit(&mut self) -> anyhow::Result<()> {
        let admission = &self.filter_config()?["admission"];
        let timeout_ms = admission["timeout_ms"].as_u64().context("admission.timeout_ms: no number")?;
        self.http_filters()?[0] = json!({
            "name": "envoy.filters.http.ratelimit",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                "domain": "tollgate",
                "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
                "timeout": format!("{}.{:03}s", timeout_ms / 1000, timeout_ms % 1000),
                "rate_limit_service": {
                    "transport_api_version": "V3",
                    "grpc_service": { "envoy_grpc": { "cluster_name": admission["cluster"] } },
                },
            },
        });
        let from_header =
            |header: &str, key: &str| json!({"request_headers": {"header_name": header, "descriptor_key": key}});
        self.at(&format!("{HTTP_CONNECTION_MANAGER}{ROUTE}"))?["rate_limits"] =
            json!([{"actions": [from_header("x-tenant-id", "tenant"), from_header("x-plan-tier", "tier")]}]);
        Ok(())
    }

    /// Writes it where Envoy reads it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, serde_json::to_string_pretty(&self.0)?).with_context(|| path.display().to_string())
    }

    fn http_filters(&mut self) -> anyhow::Result<&mut Vec<Value>> {
        self.at(&format!("{HTTP_CONNECTION_MANAGER}/http_filters"))?.as_array_mut().context("http_filters: not a list")
    }

    fn filter(&mut self, pointer: &str) -> anyhow::Result<&mut Value> {
        self.at(&format!("{HTTP_CONNECTION_MANAGER}{FILTER}{pointer}"))
    }

    fn at(&mut self, pointer: &str) -> anyhow::Result<&mut Value> {
        self.0.pointer_mut(pointer).with_context(|| format!("the bootstrap has nothing at {pointer}"))
    }
}

fn path_text(path: &Path) -> Value {
    Value::String(path.display().to_string())
}
