//! The `tollgate` binary.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tollgate::config::{self, Config, LogFormat};
use tollgate::inspect::{self, InspectArgs};
use tollgate::serve::Service;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Messages are many small pieces: a quarter of the service's time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The limiter and collector that the Tollgate filter talks to.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT; SIGHUP reads the configuration again.
    Serve {
        /// The configuration, in YAML. Without it every field has its default.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check a configuration without running the service.
    CheckConfig {
        /// The configuration, in YAML.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show what the filter would read from recorded responses, as one JSON line each.
    Inspect(InspectArgs),
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tollgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { config } => serve(config).map(|()| ExitCode::SUCCESS),
        Command::CheckConfig { file } => {
            let config = Config::parse(&config::read(&file)?, &file.display().to_string())?;
            for warning in &config.warnings {
                eprintln!("tollgate: {}: warning: {warning}", file.display());
            }
            println!("{}: ok", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Inspect(args) => {
            Ok(inspect::run(&args, &mut std::io::stdout().lock(), &mut std::io::stderr())?.into())
        }
    }
}

#[tokio::main]
async fn serve(file: Option<PathBuf>) -> anyhow::Result<()> {
    let source = file.map(|file| config::read(&file).map(|text| (file, text))).transpose()?;
    let config = match &source {
        Some((file, text)) => Config::parse(text, &file.display().to_string())?,
        None => Config::parse("", "defaults")?,
    };
    start_log(config.log_format, config.log_filter.clone());
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let service = Service::start(config, source).await?;
    tracing::info!(grpc = %service.grpc_address()?, rest = %service.rest_address()?, "serving");
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    service.run(stop).await
}

fn start_log(format: LogFormat, filter: Targets) {
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => tracing_subscriber::registry().with(filter).with(log).init(),
        LogFormat::Json => tracing_subscriber::registry().with(filter).with(log.json().flatten_event(true)).init(),
    }
}
