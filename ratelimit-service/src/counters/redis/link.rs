//! Calls to Redis within a deadline, and the connections for them.
//!
//! - A task keeps the connections: it makes them anew when one is lost, when the server turns out to be a replica, or when
//!   nothing was answered for a while.
//! - While there are none, calls fail at once; only a connection that was just lost is waited for, within the deadline.
//! - A call whose connection is lost is made again when it may be: within the deadline, with the same id.
//! - Where calls time out in a row, a [`Breaker`] refuses further ones. A cluster has one for each of [`PARTS`] parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Failure;
use super::breaker::Breaker;
use super::keys::HASH_SLOTS;
use super::script::Invocation;
use super::target::{Connection, Target};

/// How many parts of a cluster are told apart by whether they answer: slots in a row mostly lie on one server.
const PARTS: usize = 64;

/// Between attempts to connect.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// All connections have to be there within this.
const CONNECT_ALL_TIMEOUT: Duration = Duration::from_secs(3);

/// After so long without an answer, other connections are tried: these may lead nowhere.
const SILENCE_MS: u64 = 1_000;

/// Connections lost sooner than this were no good: calls do not wait for the next ones.
const PROVEN_AFTER: Duration = Duration::from_secs(1);

/// Whether a call may be made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The second does nothing.
    Harmless,
    /// It would count twice.
    Never,
}

/// Connections to Redis.
pub(super) struct Link {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
    breakers: Vec<Breaker>,
    next: AtomicUsize,
    timeout: Duration,
}

struct Shared {
    target: Target,
    state: watch::Sender<State>,
    is_wanted: Notify,
}

#[derive(Clone)]
enum State {
    /// There will be connections, or an error.
    Connecting,
    Up(Arc<Connections>),
    /// Why not.
    Down(Arc<str>),
}

struct Connections {
    generation: u64,
    since: Instant,
    all: Vec<Connection>,
}

/// What a failed call means to the connections.
enum Meaning {
    /// Nothing: the server's word, or the call is wrong.
    Answer,
    /// The script is not known there; nothing was done.
    Unknown,
    /// They are of no use.
    Lost,
}

impl Link {
    /// Connects in the background, so many times. Calls take `timeout` at most.
    pub(super) fn new(target: Target, connections: usize, timeout: Duration) -> Link {
        let parts = if target.is_cluster() { PARTS } else { 1 };
        let (state, is_wanted) = (watch::Sender::new(State::Connecting), Notify::new());
        let shared = Arc::new(Shared { target, state, is_wanted });
        let keeper = tokio::spawn(keep(Arc::clone(&shared), connections));
        let breakers = (0..parts).map(|_| Breaker::new()).collect();
        Link { shared, keeper, breakers, next: AtomicUsize::new(0), timeout }
    }

    /// Calls a script on keys of this hash slot.
    pub(super) async fn call(&self, invocation: &Invocation, slot: usize, repeat: Repeat) -> Result<Value, Failure> {
        let breaker = &self.breakers[slot * self.breakers.len() / HASH_SLOTS];
        if !breaker.lets_pass() {
            return Err(Failure::NotAsked("Redis has not answered for a while".to_owned()));
        }
        let deadline = Instant::now() + self.timeout;
        let (mut taught, mut doubt) = (None, None);
        loop {
            let connections = match (self.connections(deadline).await, doubt.take()) {
                (Ok(connections), _) => connections,
                (Err(_), Some(doubt)) => return Err(doubt),
                (Err(failure), None) => return Err(failure),
            };
            let cmd = taught.as_ref().unwrap_or(&invocation.cmd);
            let Ok(answer) = timeout_at(deadline, self.ask(&connections, cmd, repeat)).await else {
                if breaker.timed_out() >= SILENCE_MS && connections.since.elapsed() >= PROVEN_AFTER {
                    self.shared.is_wanted.notify_one();
                }
                return Err(Failure::InDoubt(format!("no answer from Redis within {} ms", self.timeout.as_millis())));
            };
            breaker.answered();
            let error = match answer {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match meaning(&error) {
                Meaning::Unknown if taught.is_none() => taught = Some(invocation.taught()),
                Meaning::Lost => {
                    self.shared.lose(&connections);
                    if repeat == Repeat::Never || !error.is_connection_dropped() {
                        return Err(failed(&error));
                    }
                    doubt = Some(failed(&error));
                }
                Meaning::Unknown | Meaning::Answer => return Err(failed(&error)),
            }
        }
    }

    async fn ask(&self, connections: &Connections, cmd: &Cmd, repeat: Repeat) -> Result<Value, RedisError> {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % connections.all.len().max(1);
        match (connections.all.get(place), repeat) {
            (Some(Connection::Node(node)), _) => cmd.query_async(&mut node.clone()).await,
            (Some(Connection::Cluster { repeating, .. }), Repeat::Harmless) => {
                cmd.query_async(&mut repeating.clone()).await
            }
            (Some(Connection::Cluster { once, .. }), Repeat::Never) => cmd.query_async(&mut once.clone()).await,
            (None, _) => Err((ErrorKind::Client, "there are no connections").into()),
        }
    }

    async fn connections(&self, deadline: Instant) -> Result<Arc<Connections>, Failure> {
        let known = |state: &State| match state {
            State::Connecting => None,
            State::Up(connections) => Some(Ok(Arc::clone(connections))),
            State::Down(why) => Some(Err(Failure::NotAsked(why.to_string()))),
        };
        if let Some(known) = known(&self.shared.state.borrow()) {
            return known;
        }
        let mut state = self.shared.state.subscribe();
        let settled = timeout_at(deadline, state.wait_for(|state| known(state).is_some())).await;
        let still = || Err(Failure::NotAsked(format!("no connection to {} yet", self.shared.target)));
        settled.ok().and_then(Result::ok).and_then(|state| known(&state)).unwrap_or_else(still)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    /// These connections are of no use. Calls that are under way on them may still end well.
    fn lose(&self, lost: &Connections) {
        let changed = self.state.send_if_modified(|state| {
            let is_current = matches!(state, State::Up(current) if current.generation == lost.generation);
            if is_current {
                *state = match lost.since.elapsed() >= PROVEN_AFTER {
                    true => State::Connecting,
                    false => State::Down("the connection to Redis was lost".into()),
                };
            }
            is_current
        });
        if changed {
            self.is_wanted.notify_one();
        }
    }
}

/// Connects whenever that is wanted, until it succeeds. Connections that are in use stay so until there are others.
async fn keep(shared: Arc<Shared>, connections: usize) {
    for generation in 0.. {
        loop {
            let began = Instant::now();
            let connected = timeout(CONNECT_ALL_TIMEOUT, shared.target.connect(connections)).await;
            let why = match connected {
                Ok(Ok(all)) => {
                    tracing::info!(redis = %shared.target, "connected");
                    shared.state.send_replace(State::Up(Arc::new(Connections {
                        generation,
                        since: Instant::now(),
                        all,
                    })));
                    break;
                }
                Ok(Err(error)) => format!("cannot connect to {}: {error}", shared.target),
                Err(_) => format!("cannot connect to {} within {CONNECT_ALL_TIMEOUT:?}", shared.target),
            };
            shared.fail(why);
            sleep(RECONNECT_INTERVAL.saturating_sub(began.elapsed())).await;
        }
        // Not more often than this, whatever is wrong with them.
        sleep(RECONNECT_INTERVAL).await;
        shared.is_wanted.notified().await;
    }
}

impl Shared {
    fn fail(&self, why: String) {
        self.state.send_if_modified(|state| match state {
            State::Up(_) => false,
            State::Down(known) if **known == *why => false,
            State::Connecting | State::Down(_) => {
                tracing::warn!("{why}");
                *state = State::Down(why.into());
                true
            }
        });
    }
}

fn meaning(error: &RedisError) -> Meaning {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoScript) => Meaning::Unknown,
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => Meaning::Lost,
        ErrorKind::Io | ErrorKind::AuthenticationFailed | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound => {
            Meaning::Lost
        }
        _ => Meaning::Answer,
    }
}

fn failed(error: &RedisError) -> Failure {
    Failure::InDoubt(format!("Redis: {error}"))
}
