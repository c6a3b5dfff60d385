//! A child process with its log.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::wait::{PATIENCE, eventually};

/// How much of a log's end goes into an error.
const LOG_TAIL_LINES: usize = 30;

/// A running child. It is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// How a process is brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SIGTERM: it may finish what it has begun.
    Stop,
    /// SIGKILL: it may not.
    Kill,
}

impl Process {
    /// Runs `program` in `dir`, with its output in `dir/NAME.log`.
    ///
    /// The kernel kills it when the thread that calls this ends, so that nothing is left when a test is killed; call it
    /// from a thread that lives as long as the process shall.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        dir: &Path,
    ) -> anyhow::Result<Process> {
        Process::spawn_by(&[], name, program, args, dir)
    }

    /// As [`Process::spawn`], with more options to setpriv: those by which it is another user's.
    pub(super) fn spawn_by(
        options: &[&str],
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        dir: &Path,
    ) -> anyhow::Result<Process> {
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| log.display().to_string())?;
        // Setting the death signal from here would take unsafe code; util-linux's setpriv does it and becomes the program.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(options)
            .arg("--")
            .arg(program)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {} (by setpriv, of util-linux)", program.display()))?;
        Ok(Process { name: name.to_owned(), child, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// # Errors
    /// When it has ended.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}", self.name);
        }
        Ok(())
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Brings it to its end and waits for that.
    ///
    /// # Errors
    /// When it does not end in time, or after [`End::Stop`] not with status 0.
    pub async fn end(mut self, how: End) -> anyhow::Result<()> {
        let status = match how {
            End::Kill => self.kill()?,
            End::Stop => {
                self.signal(Signal::TERM)?;
                eventually("the process's end", PATIENCE, async || {
                    self.child.try_wait()?.with_context(|| format!("{} still runs", self.name))
                })
                .await?
            }
        };
        match how {
            End::Stop if !status.success() => {
                bail!("{} stopped with {status}; the end of its log:\n{}", self.name, self.log_tail())
            }
            End::Kill if status.signal().is_none() => bail!("{} had ended by itself with {status}", self.name),
            End::Stop | End::Kill => Ok(()),
        }
    }

    /// Holds it (SIGSTOP): it still has its connections, and does nothing.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("a process id out of range")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Waits until it has ended by itself, and kills it when that takes too long. For what can't wait otherwise.
    pub(super) fn leave(mut self, bound: Duration) {
        let start = Instant::now();
        while start.elapsed() < bound && self.check_running().is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to hear of an error, and the kernel still kills the process when this one ends.
        let _ = self.kill();
    }
}
