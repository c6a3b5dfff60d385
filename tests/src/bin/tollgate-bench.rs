//! Measures what the filter costs and how fast the service decides; `make bench` builds and runs it.

use std::process::ExitCode;

use clap::Parser;
use tollgate_e2e::bench::{self, Plan};

/// Plain Envoy, Envoy's own rate limit filter and Tollgate's, side by side; and the service alone.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    plan: Plan,
}

// One thread, so that measuring takes little from what is measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match bench::run(&Args::parse().plan).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
