//! Ports for servers that can't be given one by the kernel.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

/// Below what the kernel gives to clients (from 32768 on), so that no client has a server's port while it restarts.
const PORTS: Range<u16> = 20_000..32_000;
/// How far apart processes that run at once begin: they have ids in a row.
const STRIDE: u32 = 97;

/// A port of [`PORTS`] that nobody listens on, and that was not given out in this process before.
///
/// # Errors
/// When all are taken.
pub(super) fn free() -> anyhow::Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let first = process::id().wrapping_mul(STRIDE);
    let candidates = PORTS.map(|_| {
        let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        PORTS.start + (number % u32::from(PORTS.end - PORTS.start)) as u16
    });
    let mut free = candidates.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.next().context("no port is free below the kernel's own range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_not_while_it_is_taken() {
        let first = free().unwrap();
        let second = free().unwrap();
        assert_ne!(first, second);
        assert!(PORTS.contains(&first) && PORTS.contains(&second));
        let next = PORTS.start + (second - PORTS.start + 1) % (PORTS.end - PORTS.start);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, next));
        assert_ne!(free().unwrap(), next, "{taken:?}");
    }
}
