//! Tollgate on one machine: `make demo`, `make up` and `make down`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tollgate_e2e::local::{Ports, background, demo};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tells the story and stops.
    Demo,
    /// Starts everything in the background.
    Up(Ports),
    /// Stops what `up` started.
    Down,
    /// Holds everything for `up`.
    #[command(hide = true)]
    Hold(Ports),
}

/// One thread: the kernel ends the child processes with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Demo => demo::run().await,
        Command::Up(ports) => background::up(ports).await,
        Command::Down => background::down().await,
        Command::Hold(ports) => background::hold(ports).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate-local: {error:#}");
            ExitCode::FAILURE
        }
    }
}
