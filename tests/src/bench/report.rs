//! The figures, for people and for programs.

use std::fmt;

use anyhow::Context;
use serde_json::{Value, json};

use super::Path;
use super::curve::Curve;
use super::flood::Flood;
use super::ledger::{Ingest, Questions};
use super::limiter::Limiter;
use super::memory::Memory;
use super::paced::Paced;
use super::redis::InRedis;

/// How much of the native filter's requests a second ours has to reach.
const BAR: f64 = 0.7;
/// How much of other paths' requests a second ours has to reach with leases.
const LEASED_BARS: [(&str, Path, f64); 3] =
    [("json-c32", Path::Native, 1.1), ("json-c32", Path::Plain, 0.7), ("sse50-c32", Path::Plain, 0.85)];
/// How much of Envoy's processor time a stream may take with its answer read and admission off, in that of plain Envoy.
const METER_CPU_BAR: f64 = 1.15;

/// One measurement, or the medians of many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    /// Requests a second.
    pub(super) rps: f64,
    /// Half of all calls took no longer.
    pub(super) p50_us: u64,
    /// All but one in a hundred took no longer.
    pub(super) p99_us: u64,
    /// The processor time of Envoy's worker for each request.
    pub(super) envoy_cpu_us: f64,
    /// The processor time of the service for each request.
    pub(super) service_cpu_us: f64,
}

impl Figures {
    /// The median of each figure by itself.
    pub(super) fn medians(rounds: &[Figures]) -> Figures {
        Figures {
            rps: median(rounds.iter().map(|figures| figures.rps)),
            p50_us: median(rounds.iter().map(|figures| figures.p50_us as f64)) as u64,
            p99_us: median(rounds.iter().map(|figures| figures.p99_us as f64)) as u64,
            envoy_cpu_us: median(rounds.iter().map(|figures| figures.envoy_cpu_us)),
            service_cpu_us: median(rounds.iter().map(|figures| figures.service_cpu_us)),
        }
    }
}

/// How long calls took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latency {
    /// Half of them took no longer.
    pub(super) p50_us: f64,
    /// All but one in a hundred took no longer.
    pub(super) p99_us: f64,
}

impl Latency {
    /// Of calls that took so long.
    pub(super) fn of(mut took_us: Vec<f64>) -> anyhow::Result<Latency> {
        took_us.sort_by(f64::total_cmp);
        let at = |hundredths: usize| took_us.get(took_us.len() * hundredths / 100).copied().context("no answer came");
        Ok(Latency { p50_us: at(50)?, p99_us: at(99)? })
    }

    /// The median of each figure by itself.
    pub(super) fn medians(rounds: &[Latency]) -> Latency {
        Latency {
            p50_us: median(rounds.iter().map(|latency| latency.p50_us)),
            p99_us: median(rounds.iter().map(|latency| latency.p99_us)),
        }
    }
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 0 { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// The medians of a case on a path.
pub(super) type Row = (&'static str, Path, Figures);

/// All that was measured; what was not is empty.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// In the order in which they are shown.
    pub(super) calls: Vec<Row>,
    pub(super) paced: Paced,
    pub(super) flood: Flood,
    pub(super) memory: Memory,
    pub(super) limiter: Limiter,
    pub(super) redis: InRedis,
    pub(super) curve: Curve,
    pub(super) ingest: Ingest,
    pub(super) questions: Questions,
}

impl Report {
    /// As programs read it.
    pub(super) fn json(&self) -> Value {
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        let row = |(case, path, figures): &(&str, Path, Figures)| {
            json!({
                "case": case,
                "path": path.name(),
                "rps": tenths(figures.rps),
                "p50_us": figures.p50_us,
                "p99_us": figures.p99_us,
                "envoy_cpu_us": tenths(figures.envoy_cpu_us),
                "service_cpu_us": tenths(figures.service_cpu_us),
            })
        };
        let calls: Vec<_> = self.calls.iter().map(row).collect();
        json!({
            "calls": calls,
            "steady_calls": self.paced.json(),
            "flood": self.flood.json(),
            "memory": self.memory.json(),
            "limiter": self.limiter.json(),
            "limiter_in_redis": self.redis.json(),
            "curve": self.curve.json(),
            "ingest": self.ingest.json(),
            "questions": self.questions.json(),
        })
    }

    fn figures(&self, case: &str, path: Path) -> Option<&Figures> {
        self.calls.iter().find(|row| row.0 == case && row.1 == path).map(|row| &row.2)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.calls.is_empty() {
            self.write_calls(f)?;
        }
        let Report { paced, flood, memory, limiter, redis, curve, ingest, questions, .. } = self;
        write!(f, "{paced}{flood}{memory}{limiter}{redis}{curve}{ingest}{questions}")
    }
}

impl Report {
    fn write_calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:<13} {:>10} {:>8} {:>8} {:>14} {:>16}",
            "case", "path", "requests/s", "p50 µs", "p99 µs", "Envoy CPU µs", "service CPU µs"
        )?;
        for (case, path, figures) in &self.calls {
            let Figures { rps, p50_us, p99_us, envoy_cpu_us, service_cpu_us } = figures;
            let path = path.name();
            write!(f, "{case:<10} {path:<13} {rps:>10.0} {p50_us:>8} {p99_us:>8}")?;
            writeln!(f, " {envoy_cpu_us:>14.1} {service_cpu_us:>16.1}")?;
        }
        writeln!(f)?;
        for (case, _, filter) in self.calls.iter().filter(|row| row.1 == Path::Filter) {
            let (Some(plain), Some(native)) = (self.figures(case, Path::Plain), self.figures(case, Path::Native))
            else {
                continue;
            };
            let ratio = filter.rps / native.rps;
            let verdict = if ratio >= BAR { "meets" } else { "MISSES" };
            writeln!(
                f,
                "{case:<10} the filter has {ratio:.2} of the native filter's requests/s ({verdict} the bar of {BAR}), {:.2} of plain Envoy's",
                filter.rps / plain.rps
            )?;
        }
        for (case, _, leased) in self.calls.iter().filter(|row| row.1 == Path::Leased) {
            let of = |path| self.figures(case, path).map(|figures| leased.rps / figures.rps);
            let bars = LEASED_BARS.iter().filter(|bar| bar.0 == *case);
            for (ratio, path, bar) in bars.filter_map(|(_, path, bar)| Some((of(*path)?, path.name(), bar))) {
                let verdict = if ratio >= *bar { "meets" } else { "MISSES" };
                writeln!(
                    f,
                    "{case:<10} with leases the filter has {ratio:.2} of {path}'s requests/s ({verdict} the bar of {bar})"
                )?;
            }
        }
        for (case, _, meter) in self.calls.iter().filter(|row| row.1 == Path::Meter && row.0.starts_with("sse")) {
            let Some(plain) = self.figures(case, Path::Plain) else { continue };
            let ratio = meter.envoy_cpu_us / plain.envoy_cpu_us;
            let verdict = if ratio <= METER_CPU_BAR { "meets" } else { "MISSES" };
            writeln!(
                f,
                "{case:<10} reading the answer takes {ratio:.2} of plain Envoy's CPU ({verdict} the bar of {METER_CPU_BAR})"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_two() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }

    #[test]
    fn the_ratio_is_stated_with_its_verdict() {
        let figures = |rps| Figures { rps, p50_us: 1, p99_us: 2, envoy_cpu_us: 3.0, service_cpu_us: 4.0 };
        let text = |filter| {
            let calls = vec![
                ("json-c1", Path::Plain, figures(2000.0)),
                ("json-c1", Path::Native, figures(1000.0)),
                ("json-c1", Path::Filter, figures(filter)),
            ];
            Report { calls, ..Report::default() }.to_string()
        };
        assert!(text(700.0).contains("0.70 of the native filter's requests/s (meets"), "{}", text(700.0));
        assert!(text(699.0).contains("(MISSES the bar of 0.7), 0.35 of plain"), "{}", text(699.0));
    }
}
