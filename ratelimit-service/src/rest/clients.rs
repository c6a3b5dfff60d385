//! How often one client may ask: a bucket of requests for each address, refilled as time goes by.
//!
//! - A client is an IPv4 address, or the 64 bits of an IPv6 address that name a network. Forwarding headers are not looked
//!   at: anybody can write them.
//! - At most [`MAX_CLIENTS`] are remembered; those that asked longest ago give way, and begin with a full bucket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Extension;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use quick_cache::sync::Cache;

use super::Shared;
use super::problem::Problem;
use crate::clock;

/// The most clients that are remembered at once.
const MAX_CLIENTS: usize = 1 << 14;

/// The highest rate that can be configured, in requests a second, and the most requests at once.
pub const MAX_RATE: u64 = 100_000;

const SECOND_NS: u64 = 1_000_000_000;

/// How often one client may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run; from 1 to [`MAX_RATE`].
    pub per_second: u64,
    /// At once, after a time without requests; from 1 to [`MAX_RATE`].
    pub burst: u64,
}

impl Rate {
    /// What one request takes, in nanoseconds.
    fn interval_ns(self) -> u64 {
        SECOND_NS / self.per_second.clamp(1, MAX_RATE)
    }

    /// When a bucket is full again once a request has been taken out of it at `now_ns`.
    ///
    /// # Errors
    /// When it is empty: how long it is until there is one, in nanoseconds.
    fn take(self, full_at_ns: u64, now_ns: u64) -> Result<u64, u64> {
        let empty_ns = self.interval_ns() * self.burst.clamp(1, MAX_RATE);
        // One that is further from full than an empty one: the clock was set back.
        let missing_ns = Some(full_at_ns.saturating_sub(now_ns)).filter(|missing_ns| *missing_ns <= empty_ns);
        let missing_ns = missing_ns.unwrap_or(0) + self.interval_ns();
        match missing_ns.checked_sub(empty_ns) {
            None | Some(0) => Ok(now_ns.saturating_add(missing_ns)),
            Some(wait_ns) => Err(wait_ns),
        }
    }
}

/// All clients' buckets.
pub struct Clients {
    rate: Rate,
    /// When each is full again, in nanoseconds since the Unix epoch.
    full_at_ns: Cache<IpAddr, Arc<AtomicU64>>,
    refused: Counter,
}

impl Clients {
    /// With every bucket full. `registry` shows how many requests are refused.
    pub fn new(rate: Rate, registry: &mut Registry) -> Clients {
        let refused = Counter::default();
        let help = "Requests of the REST API refused because their client asked too often";
        registry.register("rest_requests_refused", help, refused.clone());
        Clients { rate, full_at_ns: Cache::new(MAX_CLIENTS), refused }
    }

    /// Lets a request of `client` through.
    ///
    /// # Errors
    /// When there were too many: after how many seconds there may be one again.
    fn admit(&self, client: IpAddr, now_ms: u64) -> Result<(), u64> {
        let now_ns = now_ms.saturating_mul(1_000_000);
        let client = network(client);
        let bucket = self.full_at_ns.get(&client).unwrap_or_else(|| {
            // Of two that come at once, one may find a bucket that nobody else looks at: it is a request more.
            let bucket = Arc::new(AtomicU64::new(0));
            self.full_at_ns.insert(client, bucket.clone());
            bucket
        });
        let take = |full_at_ns| self.rate.take(full_at_ns, now_ns).ok();
        match bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(full_at_ns) => {
                self.refused.inc();
                Err(self.rate.take(full_at_ns, now_ns).err().unwrap_or_default().div_ceil(SECOND_NS).max(1))
            }
        }
    }
}

/// What counts as one client.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Refuses the requests of a client that asks too often.
pub(super) async fn bound(
    State(shared): State<Arc<Shared>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let client = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |Extension(ConnectInfo(peer))| peer.ip());
    shared.clients.admit(client, clock::now_ms()).map_err(|seconds| {
        let what = format!("too many requests from {client}; wait {seconds} s, or raise rest.requests_per_second");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, what).retry_after(seconds)
    })?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_774_008_000_000;

    fn clients(per_second: u64, burst: u64) -> Clients {
        Clients::new(Rate { per_second, burst }, &mut Registry::default())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let clients = clients(2, 3);
        let at = |ms| clients.admit(address("192.0.2.1"), NOW_MS + ms);
        assert_eq!([at(0), at(0), at(0), at(0)], [Ok(()), Ok(()), Ok(()), Err(1)]);
        assert_eq!([at(499), at(500), at(500)], [Err(1), Ok(()), Err(1)]);
        assert_eq!(clients.refused.get(), 3);
        assert_eq!((0..4).map(|_| at(60_000).is_ok()).collect::<Vec<_>>(), [true, true, true, false]);
    }

    #[test]
    fn clients_are_told_apart_by_their_networks() {
        let clients = clients(1, 1);
        let admitted = |text| clients.admit(address(text), NOW_MS).is_ok();
        assert!(admitted("192.0.2.1") && admitted("192.0.2.2") && !admitted("192.0.2.1"));
        assert!(!admitted("::ffff:192.0.2.1"), "the same, as a socket of both kinds tells it");
        assert!(admitted("2001:db8::1") && !admitted("2001:db8::2") && admitted("2001:db8:0:1::1"));
    }

    #[test]
    fn a_clock_that_is_set_back_shuts_nobody_out() {
        let clients = clients(1, 5);
        let at = |ms| clients.admit(address("192.0.2.1"), ms);
        assert_eq!(at(NOW_MS), Ok(()));
        assert_eq!([at(NOW_MS - 3_600_000), at(NOW_MS - 3_600_000)], [Ok(()), Ok(())]);
    }

    #[test]
    fn the_table_is_bounded() {
        let clients = clients(1, 1);
        for client in 0..3 * MAX_CLIENTS as u32 {
            let _ = clients.admit(Ipv4Addr::from_bits(client).into(), NOW_MS);
        }
        assert!(clients.full_at_ns.len() <= MAX_CLIENTS);
    }

    proptest! {
        #[test]
        fn no_more_than_the_burst_and_the_rate_are_admitted(
            per_second in 1..=MAX_RATE,
            burst in 1..50u64,
            steps in proptest::collection::vec(0..20u64, 1..200),
        ) {
            let clients = clients(per_second, burst);
            let (mut now_ms, mut admitted) = (NOW_MS, 0);
            for step_ms in steps {
                now_ms += step_ms;
                let answer = clients.admit(address("192.0.2.1"), now_ms);
                admitted += u64::from(answer.is_ok());
                let interval_ns = SECOND_NS / per_second;
                prop_assert!(admitted <= burst + (now_ms - NOW_MS) * 1_000_000 / interval_ns);
                if let Err(seconds) = answer {
                    let later_ms = now_ms + seconds * 1000;
                    let full_at_ns = clients.full_at_ns.get(&address("192.0.2.1")).unwrap().load(Ordering::Relaxed);
                    prop_assert!(clients.rate.take(full_at_ns, later_ms * 1_000_000).is_ok(), "what is told is enough");
                }
            }
        }
    }
}
