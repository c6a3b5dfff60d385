//! Plausible usage of tenants that are not there: the same for the same seed and last day.

mod events;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use tollgate_domain::Day;

use super::records::{BUDGETS, Changes, PLANS, TENANTS};
use super::{Form, ServiceArgs, day};
use crate::client::{Client, Refused};
use crate::clock;
use crate::operate::Service;
use events::{Tenant, Tier};

/// The most tenants.
const MAX_TENANTS: u16 = 1000;

/// The most months.
const MAX_MONTHS: u16 = 36;

/// Days of a month here.
const MONTH_DAYS: i32 = 30;

/// How often it is asked whether new plans hold, and how long it is waited then.
const ASKED: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// What is told of a plan's limits, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Limits {
    plan_tier: String,
}

/// How much is made up.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many tenants.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_TENANTS)))]
    tenants: u16,
    /// How many months of 30 days of usage.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_MONTHS)))]
    months: u16,
    /// Another seed makes up something else; the same one makes up the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The UTC day before which the usage ends; today without.
    #[arg(long, value_parser = day)]
    until: Option<Day>,
    #[command(flatten)]
    service: ServiceArgs,
}

impl DemoArgs {
    pub(super) async fn run(self, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let client = self.service.connect()?;
        let until = self.until.unwrap_or_else(|| Day::of(clock::now_ms()));
        let first = until.plus(-MONTH_DAYS * i32::from(self.months));
        let tenants: Vec<Tenant> = (0..self.tenants).map(|number| Tenant::new(self.seed, number)).collect();
        put_plans(&client).await?;
        for tenant in &tenants {
            put_tenant(&client, tenant).await.with_context(|| format!("tenant `{}`", tenant.id))?;
        }
        let service = Service::new(client);
        let mut lines = service.lines();
        for tenant in &tenants {
            for number in first.number()..until.number() {
                for entry in tenant.day(Day::from_number(number), number - first.number()) {
                    lines.send(&serde_json::to_vec(&entry)?).await?;
                }
            }
        }
        lines.flush().await?;
        writeln!(out, "{} tenants, {} entries from {first} to before {until}", tenants.len(), lines.sent)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Puts the plans, and waits until they hold: a tenant cannot be on one before.
async fn put_plans(client: &Client) -> anyhow::Result<()> {
    for tier in Tier::ALL {
        let limits = RawValue::from_string(tier.limits().to_owned())?;
        let plan =
            Changes::default().set("context_tokens", Some(tier.context_tokens()))?.set("limits", Some(limits))?;
        let plan = plan.set("markup_ppm", Some(tier.markup_ppm()))?;
        PLANS.set(client, tier.name(), plan, Form::Json, &mut std::io::sink()).await?;
    }
    for tier in Tier::ALL {
        let mut url = client.at(&["api", "v1", "usage", "demo", "limit"])?;
        url.query_pairs_mut().append_pair("plan_tier", tier.name());
        let mut asked = 0;
        while !holds(client, url.clone(), tier).await? {
            if asked == ASKED {
                bail!("the plan `{}` does not hold yet; try again later", tier.name());
            }
            asked += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// A tier that is not known yet has the default one's plan, or is refused.
async fn holds(client: &Client, url: Url, tier: Tier) -> anyhow::Result<bool> {
    match client.get::<Limits>(url).await {
        Ok(limits) => Ok(limits.plan_tier == tier.name()),
        Err(error) => match error.downcast_ref() {
            Some(Refused { status: StatusCode::BAD_REQUEST, .. }) => Ok(false),
            _ => Err(error),
        },
    }
}

async fn put_tenant(client: &Client, tenant: &Tenant) -> anyhow::Result<()> {
    let changes = Changes::default().set("display_name", Some(&tenant.display_name))?;
    let changes = changes.set("tier", Some(tenant.tier.name()))?;
    TENANTS.set(client, &tenant.id, changes, Form::Json, &mut std::io::sink()).await?;
    let budget = Changes::default()
        .set("tenant", Some(&tenant.id))?
        .set("amount_nanousd", Some(tenant.tier.budget_nanousd()))?
        .set("enforcement", Some("soft"))?
        .set("thresholds", Some([50, 80, 100]))?;
    BUDGETS.set(client, &tenant.id, budget, Form::Json, &mut std::io::sink()).await?;
    Ok(())
}
