//! Tollgate on one machine: `make demo`, `make up` and `make down`.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use tollgate_e2e::harness::run_dir::RunDir;
use tollgate_e2e::harness::stores::Servers;
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
    /// Runs a command with PostgreSQL, Redis and ClickHouse beside it: tests that it runs use these.
    WithServers {
        /// The command.
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<OsString>,
    },
    /// Holds everything for `up`.
    #[command(hide = true)]
    Hold(Ports),
}

async fn with_servers(command: &[OsString]) -> anyhow::Result<()> {
    let dir = RunDir::create()?;
    let servers = Servers::start(dir.path()).await?;
    let (program, args) = command.split_first().context("no command")?;
    let mut command = tokio::process::Command::new(program);
    let status = command.args(args).envs(servers.environment()).kill_on_drop(true).status().await?;
    ensure!(status.success(), "{}: {status}", program.display());
    Ok(())
}

/// One thread: the kernel ends the child processes with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Demo => demo::run().await,
        Command::Up(ports) => background::up(ports).await,
        Command::Down => background::down().await,
        Command::Hold(ports) => background::hold(ports).await,
        Command::WithServers { command } => with_servers(&command).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate-local: {error:#}");
            ExitCode::FAILURE
        }
    }
}
