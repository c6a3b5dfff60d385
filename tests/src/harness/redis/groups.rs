//! Servers that belong together.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, ensure};
use tokio::try_join;

use super::{Access, Builder, Redis, Role, Settings};
use crate::harness::wait::{PATIENCE, eventually};

/// How many hash slots a cluster has.
const SLOTS: usize = 16_384;
/// How many masters a cluster has.
const MASTERS: usize = 3;

/// The name under which a sentinel knows the master.
pub const MASTER_NAME: &str = "tollgate";

/// A cluster of three masters without replicas.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes, in the order of their slots.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts it with its files in folders below `dir`, and waits until all nodes agree that it is complete.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(dir: &Path) -> anyhow::Result<Cluster> {
        let mut nodes = Vec::new();
        for _ in 0..MASTERS {
            nodes.push(Builder(Settings { role: Role::ClusterNode, ..Settings::default() }).start(dir).await?);
        }
        for (index, node) in nodes.iter().enumerate() {
            // Nodes that meet with the same epoch first have to quarrel about it.
            node.expect_ok(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await?;
            let (first, end) = (index * SLOTS / MASTERS, (index + 1) * SLOTS / MASTERS);
            node.expect_ok(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]).await?;
            let [port, bus_port] = [node.addr().port().to_string(), node.cluster_port().await?];
            nodes[0].expect_ok(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]).await?;
        }
        let cluster = Cluster { nodes };
        cluster.wait_until_complete().await?;
        Ok(cluster)
    }

    /// Which of the nodes has a key's slot at the start; asks the last one.
    ///
    /// # Errors
    /// As [`Redis::cli`].
    pub async fn owner(&self, key: &str) -> anyhow::Result<usize> {
        let slot: usize = self.nodes[MASTERS - 1].cli(&["CLUSTER", "KEYSLOT", key]).await?.parse()?;
        Ok((0..MASTERS).rfind(|index| index * SLOTS / MASTERS <= slot).unwrap_or(0))
    }

    /// Gives a key's slot, which has to be empty, to another node; `in_part` so that the first sends on who asks for keys
    /// that it has not, as while a slot is being moved.
    ///
    /// # Errors
    /// As [`Redis::cli`].
    pub async fn move_slot(&self, key: &str, to: usize, in_part: bool) -> anyhow::Result<()> {
        let from = self.owner(key).await?;
        let slot = self.nodes[from].cli(&["CLUSTER", "KEYSLOT", key]).await?;
        let [from_id, to_id] =
            [self.nodes[from].cli(&["CLUSTER", "MYID"]).await?, self.nodes[to].cli(&["CLUSTER", "MYID"]).await?];
        let states = if in_part { [("IMPORTING", &from_id), ("MIGRATING", &to_id)] } else { [("NODE", &to_id); 2] };
        for (node, (state, id)) in [to, from].into_iter().zip(states) {
            self.nodes[node].expect_ok(&["CLUSTER", "SETSLOT", &slot, state, id]).await?;
        }
        Ok(())
    }

    /// The URLs of its nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// Waits until each node knows all others and that every slot is served.
    ///
    /// # Errors
    /// When that takes longer than [`PATIENCE`].
    pub async fn wait_until_complete(&self) -> anyhow::Result<()> {
        eventually("the cluster's nodes to agree", PATIENCE, async || {
            for node in &self.nodes {
                let info = node.cli(&["CLUSTER", "INFO"]).await?;
                let complete = ["cluster_state:ok".to_owned(), format!("cluster_known_nodes:{MASTERS}")];
                ensure!(complete.iter().all(|fact| info.lines().any(|line| line.trim_end() == fact)), "{info}");
            }
            Ok(())
        })
        .await
    }
}

impl Redis {
    async fn cluster_port(&self) -> anyhow::Result<String> {
        let answer = self.cli(&["CONFIG", "GET", "cluster-port"]).await?;
        Ok(answer.lines().nth(1).context("Redis tells no cluster-port: it is older than 7.0")?.to_owned())
    }
}

/// What makes a server a cluster's node. The timeout is long enough for a machine that does much else.
pub(super) fn cluster_config(bus_port: u16) -> String {
    format!("cluster-enabled yes\ncluster-port {bus_port}\ncluster-node-timeout 3000")
}

/// A master and its replica, which a sentinel makes the master when it loses that.
#[derive(Debug)]
pub struct Sentinel {
    /// The master at the start.
    pub master: Redis,
    /// Its replica at the start.
    pub replica: Redis,
    /// Who watches both, alone (a quorum of 1), under [`MASTER_NAME`].
    pub sentinel: Redis,
}

impl Sentinel {
    /// Starts them with their files in folders below `dir`, and waits until the sentinel could fail over.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn start(dir: &Path) -> anyhow::Result<Sentinel> {
        Sentinel::start_with(dir, Access::Open).await
    }

    /// As [`Sentinel::start`], but the sentinel talks to this user of its access control list alone.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn start_for_user(dir: &Path, name: &str, password: &str) -> anyhow::Result<Sentinel> {
        Sentinel::start_with(dir, Access::User { name: name.to_owned(), password: password.to_owned() }).await
    }

    async fn start_with(dir: &Path, access: Access) -> anyhow::Result<Sentinel> {
        let master = Redis::start(dir).await?;
        let role = Role::Sentinel { watched: master.port };
        let watching = Builder(Settings { role, access, ..Settings::default() });
        let (replica, sentinel) = try_join!(Redis::builder().replica_of(&master).start(dir), watching.start(dir))?;
        eventually("the sentinel's knowledge of the replica", PATIENCE, async || {
            let replicas = sentinel.cli(&["SENTINEL", "REPLICAS", MASTER_NAME]).await?;
            let lines: Vec<_> = replicas.lines().collect();
            ensure!(lines.windows(2).any(|pair| pair == ["master-link-status", "ok"]), "{replicas}");
            Ok(())
        })
        .await?;
        Ok(Sentinel { master, replica, sentinel })
    }

    /// Who is the master now, as the sentinel says.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn current_master(&self) -> anyhow::Result<SocketAddr> {
        let answer = self.sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME]).await?;
        answer.replace('\n', ":").parse().with_context(|| format!("the master's address: {answer}"))
    }

    /// Waits until the sentinel has made the replica the master.
    ///
    /// # Errors
    /// When that takes longer than [`PATIENCE`].
    pub async fn wait_for_failover(&self) -> anyhow::Result<()> {
        eventually("the failover", PATIENCE, async || {
            let master = self.current_master().await?;
            ensure!(master == self.replica.addr(), "{master} is the master still");
            Ok(())
        })
        .await
    }
}

/// What makes a server a sentinel of the master on this port.
pub(super) fn sentinel_config(watched: u16) -> String {
    format!(
        "sentinel monitor {MASTER_NAME} 127.0.0.1 {watched} 1\n\
         sentinel down-after-milliseconds {MASTER_NAME} 1000\n\
         sentinel failover-timeout {MASTER_NAME} 5000"
    )
}
