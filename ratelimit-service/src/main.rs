//! The `tollgate` binary.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tokio::signal::unix::{SignalKind, signal};
use tollgate::cli::{self, ServiceArgs};
use tollgate::config::{self, Config, LogFormat};
use tollgate::export::{self, Export, Format, What};
use tollgate::inspect::{self, InspectArgs};
use tollgate::operate::Service as Operated;
use tollgate::serve::Service;
use tollgate::{ledger, period};
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
    /// Have a running service take the entries of spool segments and of JSON lines; each counts once.
    Replay {
        #[command(flatten)]
        service: ServiceArgs,
        /// Segments of a spool (`*.spool`), or JSON lines as `tollgate export` writes them.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Compare a running service's books: entries with sums, and with what limits have spent. Exit 1 if they disagree.
    Reconcile {
        #[command(flatten)]
        service: ServiceArgs,
        /// A month (2026-11) or a day (2026-11-25), in UTC; the present month unless given.
        #[arg(long)]
        period: Option<String>,
    },
    /// Write what the ledger has of a period, tenant by tenant.
    Export(ExportArgs),
    /// Have a running service erase all that its ledger has of a tenant, for good.
    Purge {
        #[command(flatten)]
        service: ServiceArgs,
        /// Whose entries.
        #[arg(long)]
        tenant: String,
        /// Who asks for it, for the audit log.
        #[arg(long, env = "USER", default_value = "cli")]
        actor: String,
        /// Why, for the audit log.
        #[arg(long)]
        reason: Option<String>,
        /// Yes, erase them.
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Show what the filter would read from recorded responses, as one JSON line each.
    Inspect(InspectArgs),
    #[command(flatten)]
    Asking(cli::Command),
    /// Write what a shell completes this command line by.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// The configuration, which says where the ledger is. Without it every field has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A month (2026-11) or a day (2026-11-25), in UTC.
    #[arg(long)]
    period: String,
    /// Whose entries; all tenants' unless given.
    #[arg(long)]
    tenant: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    what: What,
    #[arg(long, value_enum)]
    format: Format,
    /// Where to; standard output unless given.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        // Who reads our output has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tollgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { config } => wait_for(serve(config)).map(|()| ExitCode::SUCCESS),
        Command::CheckConfig { file } => {
            let config = Config::parse(&config::read(&file)?, &file.display().to_string())?;
            for warning in &config.warnings {
                eprintln!("tollgate: {}: warning: {warning}", file.display());
            }
            println!("{}: ok", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Replay { service, files } => {
            wait_for(async { Operated::new(service.connect()?).replay(&files, &mut io::stdout()).await })
        }
        Command::Reconcile { service, period } => {
            wait_for(async { Operated::new(service.connect()?).reconcile(period.as_deref(), &mut io::stdout()).await })
        }
        Command::Purge { service, tenant, actor, reason, yes: _ } => wait_for(async {
            Operated::new(service.connect()?).purge(&tenant, &actor, reason.as_deref(), &mut io::stdout()).await
        }),
        Command::Asking(command) => wait_for(command.run(&mut io::stdout())),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "tollgate", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Export(args) => wait_for(export(args)).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => Ok(inspect::run(&args, &mut io::stdout().lock(), &mut io::stderr())?.into()),
    }
}

#[tokio::main]
async fn wait_for<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    task.await
}

/// The configuration, and the file and text that it is read from.
fn configuration(file: Option<PathBuf>) -> anyhow::Result<(Config, Option<(PathBuf, String)>)> {
    let source = file.map(|file| config::read(&file).map(|text| (file, text))).transpose()?;
    let config = match &source {
        Some((file, text)) => Config::parse(text, &file.display().to_string())?,
        None => Config::parse("", "defaults")?,
    };
    Ok((config, source))
}

async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let ExportArgs { config, period, tenant, what, format, output } = args;
    let (config, _) = configuration(config)?;
    let period = period::parse(&period).map_err(|error| anyhow::anyhow!("--period: {error}"))?;
    let (from_ms, to_ms) = (period.first.start_ms(), period.end.start_ms());
    let ledger = ledger::open_to_read(&config).await?;
    let export = Export { tenant: tenant.as_deref(), from_ms, to_ms, what };
    let out: Box<dyn Write + Send> = match output {
        None => Box::new(io::stdout()),
        Some(file) => Box::new(File::create(&file).with_context(|| format!("cannot create {}", file.display()))?),
    };
    let entries = export::run(ledger.as_ref(), &export, format, BufWriter::new(out)).await?;
    eprintln!("tollgate: {entries} entries");
    Ok(())
}

async fn serve(file: Option<PathBuf>) -> anyhow::Result<()> {
    let (config, source) = configuration(file)?;
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
    let log = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => tracing_subscriber::registry().with(filter).with(log).init(),
        LogFormat::Json => tracing_subscriber::registry().with(filter).with(log.json().flatten_event(true)).init(),
    }
}
