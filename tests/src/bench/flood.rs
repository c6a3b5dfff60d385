//! A tenant far over its limit: how fast it is refused, how often the service is asked, and what another tenant feels of it.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::paced::call_steadily;
use super::report::{Latency, median};
use super::wrk::{Load, Wrk};
use crate::harness::envoy::Envoy;
use crate::harness::http::Request;
use crate::harness::service::Service;
use crate::harness::wait::{PATIENCE, eventually};

/// The tenant, and its tier.
pub(super) const TENANT: &str = "flood";
/// What its limit lets through, about one in a hundred of its calls.
pub(super) const ADMITTED_PER_S: u64 = 100;

/// A flood lasts so many times as long as other measurements: its beginning, when all connections ask at once, is a part of it.
const LASTS: u32 = 4;

/// How many requests a second there have to be, in those of plain Envoy.
const RPS_BAR: f64 = 1.2;
/// How many refusals there have to be for each question.
const REFUSALS_BAR: f64 = 1_000.0;
/// How much longer all but one in a hundred calls of another tenant may take.
const OTHER_BAR: f64 = 1.5;

const FLOOD: Load = Load { name: "flood-c32", answer: "json", connections: 32, tenant: TENANT };
/// The same without any filter.
const PLAIN: Load = Load { name: "json-c32", answer: "json", connections: 32, tenant: TENANT };

/// What was seen, by round.
#[derive(Debug, Default)]
pub(super) struct Flood(Vec<Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    plain_rps: f64,
    rps: f64,
    refused: f64,
    questions: f64,
    other_alone: Latency,
    other: Latency,
}

impl Flood {
    /// A flood, and another one for `time` beside which another tenant calls.
    pub(super) async fn measure(
        &mut self,
        wrk: &Wrk,
        plain: &Envoy,
        leased: &Envoy,
        service: &Service,
        time: Duration,
    ) -> anyhow::Result<()> {
        let plain = wrk.run(&PLAIN, plain.listener(), time)?;
        let other_alone = call_steadily(leased.listener(), time).await?;
        let before = (denied(leased).await?, questions(service).await?);
        let flood = wrk.run(&FLOOD, leased.listener(), time * LASTS)?;
        ensure!(flood.io_errors == 0 && flood.status_errors > 0, "{flood:?}");
        let after = eventually("all refusals are counted", PATIENCE, async || {
            let after = denied(leased).await?;
            ensure!(after - before.0 >= flood.status_errors, "{after}");
            questions(service).await
        })
        .await?;
        let (addr, again) = (leased.listener(), wrk.clone());
        let beside = tokio::task::spawn_blocking(move || again.run(&FLOOD, addr, time));
        let other = call_steadily(addr, time).await?;
        beside.await.context("wrk")??;
        let rps = |result: &super::wrk::LoadResult| result.requests as f64 / (result.duration_us as f64 / 1e6);
        self.0.push(Seen {
            plain_rps: rps(&plain),
            rps: rps(&flood),
            refused: flood.status_errors as f64,
            questions: (after - before.1) as f64,
            other_alone,
            other,
        });
        Ok(())
    }

    fn median(&self, of: impl Fn(&Seen) -> f64) -> f64 {
        median(self.0.iter().map(of))
    }

    pub(super) fn json(&self) -> Value {
        let row = |seen: &Seen| {
            json!({
                "plain_rps": seen.plain_rps.round(),
                "rps": seen.rps.round(),
                "refused": seen.refused,
                "questions": seen.questions,
                "other_alone_p99_us": seen.other_alone.p99_us.round(),
                "other_p99_us": seen.other.p99_us.round(),
            })
        };
        self.0.iter().map(row).collect()
    }
}

async fn denied(envoy: &Envoy) -> anyhow::Result<u64> {
    envoy.stat("tollgate_filter_calls_denied_total").await
}

/// How often the service was asked, for leases too.
async fn questions(service: &Service) -> anyhow::Result<u64> {
    let metrics = Request::get(service.rest(), "/metrics").send().await?.text();
    let decisions = metrics.lines().filter(|line| line.starts_with("tollgate_rls_decisions_total{"));
    let counts = decisions.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let verdict = |is_met| if is_met { "meets" } else { "MISSES" };
        let (rps, of_plain) = (self.median(|seen| seen.rps), self.median(|seen| seen.rps / seen.plain_rps));
        let per_question = self.median(|seen| seen.refused / seen.questions.max(1.0));
        let other = self.median(|seen| seen.other.p99_us / seen.other_alone.p99_us);
        writeln!(f, "\na flood of one tenant on 32 connections, its limit at {ADMITTED_PER_S} requests/s")?;
        let met = verdict(of_plain >= RPS_BAR);
        writeln!(f, "{rps:.0} requests/s, {of_plain:.2} of plain Envoy's ({met} the bar of {RPS_BAR})")?;
        let met = verdict(per_question > REFUSALS_BAR);
        writeln!(f, "{per_question:.0} refusals for each question to the service ({met} the bar of {REFUSALS_BAR})")?;
        let (alone, beside) = (self.median(|seen| seen.other_alone.p99_us), self.median(|seen| seen.other.p99_us));
        let met = verdict(other <= OTHER_BAR);
        writeln!(
            f,
            "another tenant's p99 is {beside:.0} µs beside it and {alone:.0} µs alone: {other:.2} ({met} the bar of {OTHER_BAR})"
        )
    }
}
