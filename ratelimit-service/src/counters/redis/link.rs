//! Calls to one server within a deadline, and the connections for them.
//!
//! - A task keeps the connections: it makes them anew when one is lost, when the server turns out to be a replica, or when
//!   nothing was answered for a while.
//! - While there are none, calls fail at once; only a connection that was just lost is waited for, within the deadline.
//! - A call whose connection is lost is made again when it may be: within the deadline, with the same id.
//! - Where calls time out in a row, a [`Breaker`] refuses further ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Failure;
use super::breaker::{Breaker, Silence};
use super::script::Invocation;
use super::target::Server;

/// Between attempts to connect.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// All connections have to be there within this: longer than some sentinels that do not answer and a server that does take.
const CONNECT_ALL_TIMEOUT: Duration = Duration::from_secs(10);

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

/// A call that is being made.
pub(super) struct Attempt<'a> {
    invocation: &'a Invocation,
    repeat: Repeat,
    timeout: Duration,
    pub(super) deadline: Instant,
    /// With the script's text, once a server did not know it.
    taught: Option<Cmd>,
    /// Why what was asked may have been done already.
    doubt: Option<Failure>,
}

impl<'a> Attempt<'a> {
    /// It takes `timeout` at most.
    pub(super) fn new(invocation: &'a Invocation, repeat: Repeat, timeout: Duration) -> Attempt<'a> {
        let deadline = Instant::now() + timeout;
        Attempt { invocation, repeat, timeout, deadline, taught: None, doubt: None }
    }

    /// What is to be said of it when it ends so.
    pub(super) fn failed(&mut self, failure: Failure) -> Failure {
        self.doubt.take().unwrap_or(failure)
    }

    /// Nothing was done this time.
    pub(super) fn not_asked(&mut self, why: impl Into<String>) -> Failure {
        self.failed(Failure::NotAsked(why.into()))
    }
}

/// Why a server did not answer a call.
pub(super) enum Refusal {
    Failed(Failure),
    /// Another node of its cluster has the keys, or has these while all are being moved: nothing was done.
    Moved(String),
    Ask(String),
    /// The keys are being moved, and not all of them are here: nothing was done.
    Moving,
}

/// Connections to a server.
pub(super) struct Link {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
    breaker: Breaker,
    next: AtomicUsize,
}

struct Shared {
    server: Server,
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
    all: Vec<MultiplexedConnection>,
}

/// What a failed call means.
enum Meaning {
    /// The server's word, or the call is wrong.
    Answer(Refusal),
    /// The script is not known there; nothing was done.
    Unknown,
    /// The connections are of no use.
    Lost,
}

impl Link {
    /// Connects in the background, so many times.
    pub(super) fn new(server: Server, connections: usize) -> Link {
        let (state, is_wanted) = (watch::Sender::new(State::Connecting), Notify::new());
        let shared = Arc::new(Shared { server, state, is_wanted });
        let keeper = tokio::spawn(keep(Arc::clone(&shared), connections));
        Link { shared, keeper, breaker: Breaker::new(), next: AtomicUsize::new(0) }
    }

    /// Asks the server, once or as often as needed. `is_asking` where another node said that it would answer, once.
    pub(super) async fn call(&self, attempt: &mut Attempt<'_>, is_asking: bool) -> Result<Value, Refusal> {
        if !self.breaker.lets_pass() {
            let silence = format!("{} has not answered for a while", self.shared.server);
            return Err(Refusal::Failed(attempt.not_asked(silence)));
        }
        loop {
            let connections = match self.connections(attempt.deadline).await {
                Ok(connections) => connections,
                Err(failure) => return Err(Refusal::Failed(attempt.failed(failure))),
            };
            let cmd = attempt.taught.as_ref().unwrap_or(&attempt.invocation.cmd);
            let Ok(answer) = timeout_at(attempt.deadline, self.ask(&connections, cmd, is_asking)).await else {
                self.timed_out(&connections);
                let why = format!("no answer from {} within {} ms", self.shared.server, attempt.timeout.as_millis());
                return Err(Refusal::Failed(Failure::InDoubt(why)));
            };
            let was_silent = self.breaker.answered();
            let error = match answer {
                Ok(value) => {
                    if was_silent {
                        tracing::info!(redis = %self.shared.server, "answers again");
                    }
                    return Ok(value);
                }
                Err(error) => error,
            };
            match meaning(&error) {
                Meaning::Unknown if attempt.taught.is_none() => attempt.taught = attempt.invocation.taught(),
                Meaning::Lost => {
                    self.shared.lose(&connections, &error);
                    if attempt.repeat == Repeat::Never || !error.is_connection_dropped() {
                        return Err(Refusal::Failed(in_doubt(&error)));
                    }
                    attempt.doubt = Some(in_doubt(&error));
                }
                Meaning::Answer(refusal) => return Err(refusal),
                Meaning::Unknown => return Err(Refusal::Failed(in_doubt(&error))),
            }
        }
    }

    async fn ask(&self, connections: &Connections, cmd: &Cmd, is_asking: bool) -> Result<Value, RedisError> {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % connections.all.len().max(1);
        let none = || RedisError::from((ErrorKind::Client, "there are no connections"));
        let mut connection = connections.all.get(place).ok_or_else(none)?.clone();
        if !is_asking {
            return cmd.query_async(&mut connection).await;
        }
        // One write, so that nothing comes between the two.
        let mut both = redis::pipe();
        both.cmd("ASKING").add_command(cmd.clone());
        let answers = connection.req_packed_commands(&both, 1, 1).await?;
        answers.into_iter().next().ok_or_else(none)?.extract_error()
    }

    fn timed_out(&self, connections: &Connections) {
        match self.breaker.timed_out() {
            Silence::Short => {}
            Silence::Begun => {
                tracing::warn!(redis = %self.shared.server, "does not answer; few calls are made until it does")
            }
            Silence::Since(ms) => {
                if ms >= SILENCE_MS && connections.since.elapsed() >= PROVEN_AFTER {
                    self.shared.is_wanted.notify_one();
                }
            }
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
        let still = || Err(Failure::NotAsked(format!("no connection to {} yet", self.shared.server)));
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
    fn lose(&self, lost: &Connections, error: &RedisError) {
        let changed = self.state.send_if_modified(|state| {
            let is_current = matches!(state, State::Up(current) if current.generation == lost.generation);
            if is_current {
                *state = match lost.since.elapsed() >= PROVEN_AFTER {
                    true => State::Connecting,
                    false => State::Down(format!("the connection to {} was lost: {error}", self.server).into()),
                };
            }
            is_current
        });
        if changed {
            tracing::warn!(redis = %self.server, %error, "the connection was lost");
            self.is_wanted.notify_one();
        }
    }

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

/// Connects whenever that is wanted, until it succeeds. Connections that are in use stay so until there are others.
async fn keep(shared: Arc<Shared>, connections: usize) {
    for generation in 0.. {
        loop {
            let began = Instant::now();
            let connected = timeout(CONNECT_ALL_TIMEOUT, shared.server.connect(connections)).await;
            let why = match connected {
                Ok(Ok(all)) => {
                    tracing::info!(redis = %shared.server, "connected");
                    shared.state.send_replace(State::Up(Arc::new(Connections {
                        generation,
                        since: Instant::now(),
                        all,
                    })));
                    break;
                }
                Ok(Err(error)) => format!("cannot connect to {}: {error}", shared.server),
                Err(_) => format!("cannot connect to {} within {CONNECT_ALL_TIMEOUT:?}", shared.server),
            };
            shared.fail(why);
            sleep(RECONNECT_INTERVAL.saturating_sub(began.elapsed())).await;
        }
        // Not more often than this, whatever is wrong with them.
        sleep(RECONNECT_INTERVAL).await;
        shared.is_wanted.notified().await;
    }
}

fn meaning(error: &RedisError) -> Meaning {
    let to = || error.redirect_node().map(|(node, _)| node.to_owned()).unwrap_or_default();
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoScript) => Meaning::Unknown,
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => Meaning::Lost,
        ErrorKind::Io | ErrorKind::AuthenticationFailed | ErrorKind::Parse => Meaning::Lost,
        ErrorKind::Server(ServerErrorKind::Moved) => Meaning::Answer(Refusal::Moved(to())),
        ErrorKind::Server(ServerErrorKind::Ask) => Meaning::Answer(Refusal::Ask(to())),
        ErrorKind::Server(ServerErrorKind::TryAgain) => Meaning::Answer(Refusal::Moving),
        _ if is_final(error) => Meaning::Answer(Refusal::Failed(Failure::Refused(format!("Redis: {error}")))),
        _ => Meaning::Answer(Refusal::Failed(in_doubt(error))),
    }
}

/// Whether the same call would be answered so again: it is wrong, or what is kept is.
fn is_final(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::CrossSlot) => true,
        _ => error.code() == Some("WRONGTYPE"),
    }
}

fn in_doubt(error: &RedisError) -> Failure {
    Failure::InDoubt(format!("Redis: {error}"))
}
