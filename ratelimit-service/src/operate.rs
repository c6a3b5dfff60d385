//! What operators have a running service do, from the command line: replay, reconcile, purge.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::json;

use crate::client::Client;
use crate::entry::{Entry, EntryRecord};
use crate::rest::{Purged, Reconciled};
use crate::spool;

/// The most entries that are sent together,
const MAX_SENT_ENTRIES: usize = 1000;

/// and the most bytes; a single entry may be longer.
const MAX_SENT_BYTES: usize = 1 << 20;

/// A running service.
pub struct Service {
    client: Client,
}

impl Service {
    /// The one that is asked so.
    pub fn new(client: Client) -> Service {
        Service { client }
    }

    /// Has it take the entries of spool segments and of JSON lines; those that it has already count once. Prints what came of
    /// each file.
    ///
    /// # Errors
    /// When a file cannot be read, a line is no entry, or the service does not take them; what was sent before is taken.
    pub async fn replay(&self, files: &[PathBuf], out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let mut code = ExitCode::SUCCESS;
        for file in files {
            let (sent, unread) = self.replay_file(file).await.with_context(|| file.display().to_string())?;
            write!(out, "{}: {sent} entries", file.display())?;
            if unread > 0 {
                write!(out, ", and {unread} bytes that cannot be read")?;
                code = ExitCode::FAILURE;
            }
            writeln!(out)?;
        }
        Ok(code)
    }

    /// How many entries were sent, and how many bytes could not be read.
    async fn replay_file(&self, file: &Path) -> anyhow::Result<(usize, usize)> {
        let mut lines = self.lines();
        let mut unread = 0;
        if spool::is_segment(file)? {
            let (entries, bytes) = spool::read_file(file)?;
            for entry in &entries {
                lines.send(&serde_json::to_vec(&EntryRecord::from(entry))?).await?;
            }
            unread = bytes;
        } else {
            let mut reader = BufReader::new(File::open(file)?);
            for number in 1.. {
                let Some(line) = next_line(&mut reader)? else { break };
                if !line.trim_ascii().is_empty() {
                    check(&line).with_context(|| format!("line {number}"))?;
                    lines.send(&line).await?;
                }
            }
        }
        lines.flush().await?;
        Ok((lines.sent, unread))
    }

    /// Entries that go to it together.
    pub(crate) fn lines(&self) -> Lines<'_> {
        Lines { service: self, waiting: Vec::new(), entries: 0, sent: 0 }
    }

    async fn send(&self, lines: Vec<u8>) -> anyhow::Result<()> {
        let request = self.client.request(Method::POST, self.client.at(&["api", "v1", "admin", "events"])?);
        self.client.asked(request.header("content-type", "application/x-ndjson").body(lines)).await.map(drop)
    }

    /// Has it compare its books for a period by name, the present month where none is given, and prints where they disagree.
    ///
    /// # Errors
    /// When it does not answer, or the period has another name.
    pub async fn reconcile(&self, period: Option<&str>, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let mut url = self.client.at(&["api", "v1", "admin", "reconcile"])?;
        if let Some(period) = period {
            url.query_pairs_mut().append_pair("period", period);
        }
        let answer: Reconciled = self.client.get(url).await?;
        if answer.differences.is_empty() {
            writeln!(out, "the books agree")?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(out, "{:<24} {:<10} {:<32} {:>20} {:>20}", "tenant", "place", "figure", "entries", "found")?;
        for difference in &answer.differences {
            let crate::reconcile::Difference { tenant, place, figure, entries, found } = difference;
            writeln!(out, "{tenant:<24} {place:<10} {figure:<32} {entries:>20} {found:>20}")?;
        }
        Ok(ExitCode::FAILURE)
    }

    /// Has it erase all that the ledger has of a tenant.
    ///
    /// # Errors
    /// When it does not answer, or not all is erased.
    pub async fn purge(
        &self,
        tenant: &str,
        actor: &str,
        reason: Option<&str>,
        out: &mut impl Write,
    ) -> anyhow::Result<ExitCode> {
        let url = self.client.at(&["api", "v1", "admin", "tenants", tenant, "purge"])?;
        let request = self.client.request(Method::POST, url);
        let body = json!({ "reason": reason }).to_string();
        let request = request.header("x-tollgate-actor", actor).header("content-type", "application/json").body(body);
        let purged: Purged = self.client.json(request).await?;
        writeln!(out, "{tenant}: {} entries erased", purged.entries)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// JSON lines on their way to a service.
pub(crate) struct Lines<'a> {
    service: &'a Service,
    waiting: Vec<u8>,
    entries: usize,
    /// How many entries it has taken.
    pub(crate) sent: usize,
}

impl Lines<'_> {
    /// Sends an entry, with others or once there are enough of them.
    pub(crate) async fn send(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.waiting.extend(line);
        self.waiting.push(b'\n');
        self.entries += 1;
        match self.entries < MAX_SENT_ENTRIES && self.waiting.len() < MAX_SENT_BYTES {
            true => Ok(()),
            false => self.flush().await,
        }
    }

    /// Sends what waits for others.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        if self.entries > 0 {
            self.service.send(std::mem::take(&mut self.waiting)).await?;
            self.sent += std::mem::take(&mut self.entries);
        }
        Ok(())
    }
}

/// The longest line that is read.
const MAX_LINE_BYTES: u64 = 1 << 20;

fn next_line(from: &mut impl BufRead) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.len() as u64 == MAX_LINE_BYTES {
        bail!("a line is longer than {MAX_LINE_BYTES} bytes");
    }
    let is_end = line.is_empty();
    line.pop_if(|last| *last == b'\n');
    Ok((!is_end).then_some(line))
}

/// The service checks them too, but knows no line of the file.
fn check(line: &[u8]) -> anyhow::Result<()> {
    let record: EntryRecord = serde_json::from_slice(line)?;
    Entry::try_from(record)?;
    Ok(())
}
