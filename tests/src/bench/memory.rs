//! The memory that the filter's VM takes, at rest and for each stream that is open.

use std::fmt;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::harness::envoy::Envoy;
use crate::harness::http::{Answer, Request};
use crate::harness::wait::{PATIENCE, eventually};

/// How many streams are open at each look.
const OPEN_STREAMS: [u32; 4] = [0, 250, 500, 1000];
/// What a VM may take at rest.
const REST_BAR_BYTES: u64 = 4 << 20;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Open streams, and the VM's memory in bytes then.
    looks: Vec<(u32, u64)>,
}

/// Opens more and more streams through a filter that has seen no call yet, each held by the stand-in after its first event.
pub(super) async fn measure(envoy: &Envoy) -> anyhow::Result<Memory> {
    let mut open: Vec<Answer> = Vec::new();
    let mut looks = Vec::new();
    for streams in OPEN_STREAMS {
        while open.len() < streams as usize {
            open.push(open_stream(envoy, open.len()).await?);
        }
        let bytes = eventually("the memory of the VM", PATIENCE, async || {
            // The filter tells both at the same time.
            let admitted = envoy.stat("tollgate_filter_calls_admitted_total").await?;
            let bytes = envoy.stat("tollgate_filter_memory_bytes").await?;
            ensure!(bytes > 0 && admitted == u64::from(streams), "{bytes} bytes, {admitted} of {streams} streams");
            Ok(bytes)
        })
        .await?;
        looks.push((streams, bytes));
    }
    Ok(Memory { looks })
}

async fn open_stream(envoy: &Envoy, number: usize) -> anyhow::Result<Answer> {
    let body = json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "How does a tollgate count?"}],
        "stream": true,
    });
    let request = Request::post(envoy.listener(), "/v1/chat/completions", &body);
    let request = request.header("x-tenant-id", "bench").header("x-plan-tier", "bench");
    let mut answer = request.header("x-standin-gate", &format!("memory-{number}")).start().await?;
    answer.next_bytes().await?;
    Ok(answer)
}

impl Memory {
    /// Bytes for each further stream, over the whole range.
    fn slope(&self) -> Option<f64> {
        let (first, last) = (self.looks.first()?, self.looks.last()?);
        Some((last.1 as f64 - first.1 as f64) / f64::from(last.0.checked_sub(first.0)?))
    }

    pub(super) fn json(&self) -> Value {
        let looks: Vec<_> =
            self.looks.iter().map(|(streams, bytes)| json!({"streams": streams, "bytes": bytes})).collect();
        json!({ "looks": looks, "bytes_per_stream": self.slope() })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some((_, rest)), Some(slope)) = (self.looks.first(), self.slope()) else { return Ok(()) };
        let verdict = if *rest <= REST_BAR_BYTES { "meets" } else { "MISSES" };
        let looks: Vec<_> =
            self.looks.iter().map(|(streams, bytes)| format!("{streams}: {} KiB", bytes / 1024)).collect();
        writeln!(f, "\nVM memory at rest {} KiB ({verdict} the bar of {} KiB)", rest / 1024, REST_BAR_BYTES / 1024)?;
        writeln!(f, "VM memory by open streams: {}; {slope:.0} bytes a stream", looks.join(", "))
    }
}
