//! The LLM stand-in as a program of its own.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tollgate_e2e::standin::{self, Options, Recording};

/// Answers like OpenAI's API, as each request's x-standin-* headers tell it to.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// The folder that x-standin-replay reads from.
    #[arg(long, value_name = "DIR")]
    replay_dir: Option<PathBuf>,
}

// One thread: it answers faster than any proxy asks, and leaves the other cores to the proxy.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("llm-standin: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), String> {
    let stop = stop_signal().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| format!("cannot listen on {} (--listen): {error}", args.listen))?;
    let addr = listener.local_addr().map_err(|error| error.to_string())?;
    println!("listening on {addr}");
    standin::serve(listener, Options { replay_dir: args.replay_dir, recording: Recording::Off }, stop).await;
    Ok(())
}

fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
