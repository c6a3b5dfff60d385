//! Calls to a cluster: each goes to the node that has its slot.
//!
//! - Each node has a [`Link`] of its own, so that one which does not answer holds up calls to no other.
//! - Who has which slots is asked of all nodes at once, and the first answer holds: at the start, every
//!   [`LEARN_AGAIN_AFTER`], and when a call failed or was sent elsewhere.
//! - A redirection is followed also by a call that must not be made twice: who redirects has done nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{FromRedisValue, Value};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::Failure;
use super::link::{Attempt, Link, Refusal, Repeat};
use super::script::Invocation;
use super::target::{Address, Seeds};

/// The most nodes that are connected to: as many as a cluster should have.
const MAX_NODES: usize = 1_000;

/// How often a call is sent elsewhere in a row.
const MAX_REDIRECTIONS: usize = 8;

/// While a slot is being moved, no node has all keys of its tenants: they are asked again after this.
const MOVING_INTERVAL: Duration = Duration::from_millis(2);

/// How long a node may take to say who has which slots.
const LEARN_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two such questions at least.
const LEARN_INTERVAL: Duration = Duration::from_millis(100);

/// And at most.
const LEARN_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Connections to a cluster.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    learner: JoinHandle<()>,
}

struct Shared {
    seeds: Seeds,
    connections: usize,
    /// To each of the seeds one connection, to ask for the slots.
    seed_nodes: Vec<Arc<Node>>,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    slots: watch::Sender<Slots>,
    is_wanted: Notify,
}

struct Node {
    host: String,
    link: Link,
}

/// Who has which.
#[derive(Clone)]
enum Slots {
    /// It is being asked for the first time.
    Asked,
    /// In order.
    Known(Arc<[Range]>),
    /// Why not.
    Unknown(Arc<str>),
}

/// Slots in a row that one node has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: usize,
    last: usize,
    owner: Address,
}

impl Cluster {
    /// Connects in the background, so many times to each node.
    pub(super) fn new(seeds: Seeds, connections: usize) -> Cluster {
        let seed_nodes = seeds.servers().map(|(host, server)| Arc::new(Node { host, link: Link::new(server, 1) }));
        let shared = Arc::new(Shared {
            seed_nodes: seed_nodes.collect(),
            seeds,
            connections,
            nodes: Mutex::default(),
            slots: watch::Sender::new(Slots::Asked),
            is_wanted: Notify::new(),
        });
        Cluster { learner: tokio::spawn(keep_learning(Arc::clone(&shared))), shared }
    }

    /// Asks the node that has this slot, or whom that names.
    pub(super) async fn call(&self, mut attempt: Attempt<'_>, slot: usize) -> Result<Value, Failure> {
        let shared = &self.shared;
        let (mut redirected, mut redirections) = (None, 0);
        while redirections <= MAX_REDIRECTIONS {
            let (address, is_asking) = match redirected.take() {
                Some(redirected) => redirected,
                None => match shared.owner(slot, attempt.deadline).await {
                    Ok(owner) => (owner, false),
                    Err(why) => return Err(attempt.not_asked(why)),
                },
            };
            let node = shared.node(&address).map_err(|why| attempt.not_asked(why))?;
            match node.link.call(&mut attempt, is_asking).await {
                Ok(value) => return Ok(value),
                Err(Refusal::Failed(failure)) => {
                    shared.is_wanted.notify_one();
                    return Err(failure);
                }
                Err(Refusal::Moved(to)) => {
                    shared.is_wanted.notify_one();
                    redirected = Address::read(&to, &node.host).map(|to| (to, false));
                    redirections += 1;
                }
                Err(Refusal::Ask(to)) => {
                    redirected = Address::read(&to, &node.host).map(|to| (to, true));
                    redirections += 1;
                }
                Err(Refusal::Moving) if Instant::now() >= attempt.deadline => {
                    return Err(attempt.not_asked("the keys are being moved to another node of Redis"));
                }
                Err(Refusal::Moving) => {
                    sleep_until(attempt.deadline.min(Instant::now() + MOVING_INTERVAL)).await;
                    redirections = 0;
                }
            }
        }
        Err(attempt.not_asked("Redis's nodes do not agree on who has the keys"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.learner.abort();
    }
}

impl Shared {
    async fn owner(&self, slot: usize, deadline: Instant) -> Result<Address, String> {
        let known = |slots: &Slots| match slots {
            Slots::Asked => None,
            Slots::Known(ranges) => Some(owner(ranges, slot).ok_or_else(|| format!("no node has slot {slot}"))),
            Slots::Unknown(why) => Some(Err(why.to_string())),
        };
        if let Some(known) = known(&self.slots.borrow()) {
            return known;
        }
        let mut slots = self.slots.subscribe();
        let settled = timeout_at(deadline, slots.wait_for(|slots| known(slots).is_some())).await;
        let settled = settled.ok().and_then(Result::ok).and_then(|slots| known(&slots));
        settled.unwrap_or_else(|| Err("Redis's nodes have not told yet who has which keys".to_owned()))
    }

    /// The one there; it is connected to, should it be new.
    fn node(&self, address: &Address) -> Result<Arc<Node>, String> {
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.get(address) {
            return Ok(Arc::clone(node));
        }
        if nodes.len() >= MAX_NODES {
            return Err(format!("there are {MAX_NODES} nodes already; {address} is not connected to"));
        }
        let server = self.seeds.server(address).map_err(|error| format!("{address}: {error}"))?;
        let node = Arc::new(Node { host: address.host.clone(), link: Link::new(server, self.connections) });
        nodes.insert(address.clone(), Arc::clone(&node));
        Ok(node)
    }

    /// Asks all nodes who has which slots.
    async fn learn(&self) -> Result<Vec<Range>, String> {
        let mut asked = JoinSet::new();
        let known: Vec<_> = self.nodes.lock().values().map(Arc::clone).collect();
        for node in self.seed_nodes.iter().map(Arc::clone).chain(known) {
            asked.spawn(async move { node.slots().await });
        }
        let mut why = "Redis's nodes do not say who has which keys".to_owned();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(ranges)) => return Ok(ranges),
                Ok(Err(error)) => why = error,
                Err(_) => {}
            }
        }
        Err(why)
    }

    /// Connects to all that have slots, and to no others any more.
    fn take_over(&self, ranges: Vec<Range>) {
        let owners: BTreeSet<_> = ranges.iter().map(|range| range.owner.clone()).collect();
        self.nodes.lock().retain(|address, _| owners.contains(address));
        for owner in &owners {
            if let Err(error) = self.node(owner) {
                tracing::warn!("a node of Redis's cluster is not connected to: {error}");
            }
        }
        self.slots.send_replace(Slots::Known(ranges.into()));
    }

    fn fail(&self, why: String) {
        self.slots.send_if_modified(|slots| match slots {
            Slots::Known(_) => false,
            Slots::Unknown(known) if **known == *why => false,
            Slots::Asked | Slots::Unknown(_) => {
                *slots = Slots::Unknown(why.into());
                true
            }
        });
    }
}

impl Node {
    /// Who has which slots, as this one says.
    async fn slots(&self) -> Result<Vec<Range>, String> {
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("SLOTS");
        let call = Invocation::plain(cmd);
        let mut attempt = Attempt::new(&call, Repeat::Harmless, LEARN_TIMEOUT);
        match self.link.call(&mut attempt, false).await {
            Ok(answer) => ranges(answer, &self.host).ok_or_else(|| "no node of Redis's cluster has slots".to_owned()),
            Err(Refusal::Failed(failure)) => Err(failure.to_string()),
            Err(Refusal::Moved(_) | Refusal::Ask(_) | Refusal::Moving) => {
                Err("Redis redirects what it should not".into())
            }
        }
    }
}

async fn keep_learning(shared: Arc<Shared>) {
    loop {
        match shared.learn().await {
            Ok(ranges) => shared.take_over(ranges),
            Err(why) => {
                shared.fail(why);
                // Until one is found.
                shared.is_wanted.notify_one();
            }
        }
        sleep(LEARN_INTERVAL).await;
        // It is the same whether it was wanted or is due.
        let _ = timeout(LEARN_AGAIN_AFTER, shared.is_wanted.notified()).await;
    }
}

fn owner(ranges: &[Range], slot: usize) -> Option<Address> {
    let range = ranges.get(ranges.partition_point(|range| range.last < slot))?;
    (range.first <= slot).then(|| range.owner.clone())
}

/// What `CLUSTER SLOTS` says, in order, where it was asked of `host`; `None` where it says nothing of use.
fn ranges(answer: Value, host: &str) -> Option<Vec<Range>> {
    let rows = Vec::<Vec<Value>>::from_redis_value(answer).ok()?;
    let mut ranges: Vec<_> = rows.into_iter().filter_map(|row| range(row, host)).collect();
    ranges.sort_by_key(|range| range.last);
    (!ranges.is_empty()).then_some(ranges)
}

/// First and last slot, then the master, then its replicas.
fn range(row: Vec<Value>, asked: &str) -> Option<Range> {
    let [first, last, master, ..] = <[Value; 3]>::try_from(row.into_iter().take(3).collect::<Vec<_>>()).ok()?;
    let mut master = Vec::<Value>::from_redis_value(master).ok()?.into_iter();
    let host = Option::<String>::from_redis_value(master.next()?).ok()?;
    // Empty: the host that was asked; `?`: one that has no name.
    let host = match host.as_deref() {
        None | Some("") => asked,
        Some("?") => return None,
        Some(host) => host,
    };
    let owner = Address { host: host.to_owned(), port: u16::from_redis_value(master.next()?).ok()? };
    Some(Range { first: usize::from_redis_value(first).ok()?, last: usize::from_redis_value(last).ok()?, owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn row(first: i64, last: i64, host: Value) -> Value {
        let master = Value::Array(vec![host, Value::Int(7000), text("id"), Value::Array(Vec::new())]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master.clone(), master])
    }

    #[test]
    fn each_slot_is_at_its_owner_and_a_gap_at_none() {
        let rows = vec![row(8192, 16_383, text("b")), row(0, 99, Value::Nil), row(100, 200, text("?"))];
        let ranges = ranges(Value::Array(rows), "asked").unwrap();
        let host = |slot| owner(&ranges, slot).map(|address| address.host);
        assert_eq!([0, 99].map(host), [Some("asked".to_owned()), Some("asked".to_owned())]);
        assert_eq!([100, 8191].map(host), [None, None]);
        assert_eq!([8192, 16_383].map(host), [Some("b".to_owned()), Some("b".to_owned())]);
    }

    #[test]
    fn an_answer_that_says_nothing_is_none() {
        for answer in [Value::Nil, Value::Array(Vec::new()), Value::Array(vec![Value::Array(vec![Value::Int(1)])])] {
            assert_eq!(ranges(answer, "asked"), None);
        }
    }
}
