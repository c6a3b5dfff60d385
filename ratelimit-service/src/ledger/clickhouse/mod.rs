//! The ledger in ClickHouse.
//!
//! - A batch is one insert of rows for each of the two tables of entries; views on these fill the sums and the ids.
//! - An id counts once, however late it comes again: what is there is looked up before, by one writer at a time.
//! - ClickHouse has no transaction over a table and the views on it. So an insert is written down before it is made
//!   ([`intent`]), and one whose outcome is not known is brought to its end before anything else is stored ([`recovery`]).
//! - What was told of as failed and is there nonetheless is told of as new when it is appended again.

mod append;
mod database;
mod intent;
mod reading;
mod recovery;
mod rows;
mod schema;
mod settings;
mod sums;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tollgate_domain::{Day, Period, Span};
use tollgate_wire::usage_event::UsageEvent;

use super::{Difference, Ledger, LedgerError, Page, Point, Series, Spent, TrackedSum};
use crate::clock::now_ms;
use crate::entry::{Batch, Entry, TrackedEvent};
use crate::metrics::Metrics;
use append::Key;
use database::Database;
use intent::{Intent, Intents};

pub use settings::{ClickHouseSettings, MAX_RETENTION_MONTHS};

/// The most entries of one insert: longer batches are several.
const MAX_INSERT_ENTRIES: usize = 100_000;

/// The most entries that are remembered as told of as failed; what is past them is told of as stored before.
const MAX_UNTOLD: usize = 1_000_000;

/// How long after a look at the sums an insert of another process that was under way is thought to be over.
const INSERT_PASSES: Duration = Duration::from_secs(2);

/// The engine for more than one machine's disk.
pub struct ClickHouseLedger(Arc<Shared>);

struct Shared {
    database: Database,
    retention_months: u32,
    in_doubt: Counter,
    is_closed: AtomicBool,
    writer: Mutex<Writer>,
}

struct Writer {
    /// `None` where nothing is appended.
    intents: Option<Intents>,
    /// An insert whose outcome is not known.
    doubt: Option<Intent>,
    /// What was stored, or may be, and was told of as failed.
    untold: HashSet<Key>,
}

impl ClickHouseLedger {
    /// Connects, brings the tables up to date, and finishes the insert that was under way when the last process ended, by what
    /// it left in the folder `state`: of this ledger alone, created when missing.
    ///
    /// # Errors
    /// When ClickHouse does not answer or refuses, its tables are a newer version's, or the folder cannot be used or is in use.
    pub async fn open(
        settings: &ClickHouseSettings,
        state: &Path,
        metrics: &Metrics,
    ) -> anyhow::Result<ClickHouseLedger> {
        let folder = state.to_owned();
        let (intents, doubt) = spawn_blocking(move || {
            let intents = Intents::open(&folder)?;
            let doubt = intents.read()?;
            anyhow::Ok((intents, doubt))
        })
        .await??;
        let database = Database::new(settings);
        schema::prepare(&database, settings).await?;
        let mut writer = Writer { intents: Some(intents), doubt, untold: HashSet::new() };
        if let Some(intent) = &writer.doubt {
            let tracked = intent.tracked.iter().map(Key::of_tracked);
            writer.untold = intent.usage.iter().filter_map(Key::of_usage).chain(tracked).collect();
        }
        let in_doubt = metrics.ledger_inserts_in_doubt.clone();
        let ledger = ClickHouseLedger::new(database, settings, in_doubt, writer);
        ledger
            .0
            .settle_doubt(&mut *ledger.0.writer.lock().await)
            .await
            .context("finishing an insert that was under way")?;
        Ok(ledger)
    }

    /// Connects to a ledger beside a service that may be appending: to read, compare and purge. To append is an error.
    ///
    /// # Errors
    /// When ClickHouse does not answer or refuses, or its tables are not of this version.
    pub async fn connect(settings: &ClickHouseSettings) -> anyhow::Result<ClickHouseLedger> {
        let database = Database::new(settings);
        schema::check(&database, settings).await?;
        let writer = Writer { intents: None, doubt: None, untold: HashSet::new() };
        Ok(ClickHouseLedger::new(database, settings, Counter::default(), writer))
    }

    fn new(database: Database, settings: &ClickHouseSettings, in_doubt: Counter, writer: Writer) -> ClickHouseLedger {
        ClickHouseLedger(Arc::new(Shared {
            database,
            retention_months: settings.retention_months,
            in_doubt,
            is_closed: AtomicBool::new(false),
            writer: Mutex::new(writer),
        }))
    }

    fn database(&self) -> Result<&Database, LedgerError> {
        if self.0.is_closed.load(Ordering::Acquire) { Err(LedgerError::Closed) } else { Ok(&self.0.database) }
    }
}

impl Shared {
    async fn append(&self, batch: &Batch) -> Result<Vec<bool>, LedgerError> {
        let mut writer = self.writer.lock().await;
        if self.is_closed.load(Ordering::Acquire) {
            return Err(LedgerError::Closed);
        }
        let entries: Vec<_> = batch.iter().collect();
        let mut new = Vec::with_capacity(entries.len());
        for part in entries.chunks(MAX_INSERT_ENTRIES) {
            match self.append_part(&mut writer, part).await {
                Ok(of_part) => new.extend(of_part),
                Err(error) => {
                    writer.remember_untold(entries.iter().zip(&new).filter(|(_, is_new)| **is_new));
                    return Err(error);
                }
            }
        }
        Ok(new)
    }

    async fn append_part(&self, writer: &mut Writer, entries: &[&Entry]) -> Result<Vec<bool>, LedgerError> {
        self.settle_doubt(writer).await?;
        let plan = append::plan(&self.database, entries).await?;
        if !(plan.usage.is_empty() && plan.tracked.is_empty()) {
            let intent = writer.write_down(plan.usage, plan.tracked).await?;
            if let Err(error) = recovery::insert(&self.database, &intent).await {
                tracing::error!(%error, entries = entries.len(), "it is not known what of an insert is stored");
                self.in_doubt.inc();
                writer.doubt = Some(intent);
                writer.remember_untold(entries.iter().zip(&plan.new).filter(|(_, is_new)| **is_new));
                return Err(error);
            }
            writer.forget_intent().await;
        }
        let told = entries.iter().zip(plan.new).map(|(entry, is_new)| writer.tell(entry, is_new));
        Ok(told.collect())
    }

    async fn settle_doubt(&self, writer: &mut Writer) -> Result<(), LedgerError> {
        // It stays in doubt until it is settled, also when whoever waits for that goes away.
        let Writer { intents, doubt, .. } = &mut *writer;
        let (Some(intent), Some(intents)) = (doubt, intents) else { return Ok(()) };
        recovery::settle(&self.database, intents, intent, self.holds_entries()).await?;
        tracing::info!(rows = intent.usage.len() + intent.tracked.len(), "an insert in doubt is stored");
        writer.doubt = None;
        writer.forget_intent().await;
        Ok(())
    }

    /// Tells of the month that begins then whether none of its entries is past its retention.
    fn holds_entries(&self) -> impl Fn(u64) -> bool + use<> {
        let mut month = Period::around(Span::Month, now_ms());
        for _ in 0..self.retention_months {
            month = Period::around(Span::Month, month.first.plus(-1).start_ms());
        }
        let oldest_ms = month.end.max(Day::from_number(0)).start_ms();
        move |month_ms| month_ms >= oldest_ms
    }
}

impl Writer {
    async fn write_down(
        &self,
        usage: Vec<rows::UsageRow>,
        tracked: Vec<crate::entry::TrackedRecord>,
    ) -> Result<Intent, LedgerError> {
        let intents = self.intents.clone().ok_or_else(|| {
            LedgerError::Database("nothing can be appended: the ledger was opened beside the service".to_owned())
        })?;
        let write = move || {
            let intent = Intent::new(usage, tracked);
            intents.write(&intent)?;
            anyhow::Ok(intent)
        };
        let written = spawn_blocking(write).await.map_err(anyhow::Error::from).flatten();
        written.map_err(|error| LedgerError::Database(format!("nothing was inserted into ClickHouse: {error:#}")))
    }

    async fn forget_intent(&self) {
        let Some(intents) = self.intents.clone() else { return };
        // One that stays is made again at the next start, which changes nothing, or is replaced.
        if let Err(error) = spawn_blocking(move || intents.remove()).await.map_err(anyhow::Error::from).flatten() {
            tracing::warn!(error = format!("{error:#}"), "an insert that was made stays written down");
        }
    }

    fn remember_untold<'a>(&mut self, new: impl Iterator<Item = (&'a &'a Entry, &'a bool)>) {
        for (entry, _) in new {
            if self.untold.len() < MAX_UNTOLD {
                self.untold.insert(Key::of(entry));
            }
        }
    }

    /// Whether an entry is new to who appended it.
    fn tell(&mut self, entry: &Entry, is_new: bool) -> bool {
        // Mostly there is none, and no key has to be made.
        let was_untold = !self.untold.is_empty() && self.untold.remove(&Key::of(entry));
        is_new || was_untold
    }
}

#[tonic::async_trait]
impl Ledger for ClickHouseLedger {
    async fn append(&self, batch: Batch) -> Result<Vec<bool>, LedgerError> {
        let shared = Arc::clone(&self.0);
        // On its own: an insert that has begun is not broken off by whoever no longer waits for it.
        let append = tokio::spawn(async move { shared.append(&batch).await });
        append.await.unwrap_or_else(|error| Err(LedgerError::Database(format!("an append ended early: {error}"))))
    }

    async fn series(&self, series: &Series<'_>) -> Result<Vec<Point>, LedgerError> {
        reading::series(self.database()?, series).await
    }

    async fn tracked(&self, tenant: &str, from_ms: u64, to_ms: u64) -> Result<Vec<TrackedSum>, LedgerError> {
        reading::tracked(self.database()?, tenant, from_ms, to_ms).await
    }

    async fn tenants(&self, from_ms: u64, to_ms: u64) -> Result<Vec<String>, LedgerError> {
        reading::tenants(self.database()?, from_ms, to_ms).await
    }

    async fn events(&self, page: &Page<'_>) -> Result<Vec<UsageEvent>, LedgerError> {
        reading::events(self.database()?, page, "").await
    }

    async fn unpriced(&self, page: &Page<'_>) -> Result<Vec<UsageEvent>, LedgerError> {
        reading::events(self.database()?, page, "AND cost_nanousd IS NULL AND usage_source != 'none'").await
    }

    async fn tracked_events(&self, page: &Page<'_>) -> Result<Vec<TrackedEvent>, LedgerError> {
        reading::tracked_events(self.database()?, page).await
    }

    async fn spent_since(&self, from_ms: u64, tenant: Option<&str>) -> Result<Vec<Spent>, LedgerError> {
        reading::spent_since(self.database()?, from_ms, tenant).await
    }

    async fn unsettled_since(&self, from_ms: u64, limit: usize) -> Result<Vec<UsageEvent>, LedgerError> {
        reading::unsettled_since(self.database()?, from_ms, limit).await
    }

    async fn real(&self, event_id: &str) -> Result<Option<UsageEvent>, LedgerError> {
        reading::real(self.database()?, event_id).await
    }

    async fn last_tier(&self, tenant: &str) -> Result<Option<String>, LedgerError> {
        reading::last_tier(self.database()?, tenant).await
    }

    async fn differences(&self, from_ms: u64, to_ms: u64) -> Result<Vec<Difference>, LedgerError> {
        let mut writer = self.0.writer.lock().await;
        let database = self.database()?;
        self.0.settle_doubt(&mut writer).await?;
        let database = &database.patient();
        let look = || reading::differences(database, from_ms, to_ms, self.0.holds_entries());
        let mut differences = look().await?;
        // Sums follow their entries within an insert, and the service may be at one: its differences pass.
        if writer.intents.is_none() && !differences.is_empty() {
            tokio::time::sleep(INSERT_PASSES).await;
            let still = look().await?;
            differences.retain(|one| still.iter().any(|other| is_same_difference(one, other)));
        }
        Ok(differences)
    }

    async fn purge(&self, tenant: &str) -> Result<u64, LedgerError> {
        let mut writer = self.0.writer.lock().await;
        let database = self.database()?;
        self.0.settle_doubt(&mut writer).await?;
        sums::purge(&database.patient(), tenant).await
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.database()?.ping().await
    }

    async fn close(&self) {
        let mut writer = self.0.writer.lock().await;
        self.0.is_closed.store(true, Ordering::Release);
        // Another may hold their folder now.
        writer.intents = None;
    }
}

/// Of the same sum, and as large, however much was added to both sides since.
fn is_same_difference(one: &Difference, other: &Difference) -> bool {
    let place = |difference: &Difference| (difference.tenant.clone(), difference.place.clone(), difference.sum.clone());
    let size =
        |difference: &Difference| (difference.entries > difference.sums, difference.entries.abs_diff(difference.sums));
    place(one) == place(other) && size(one) == size(other)
}
