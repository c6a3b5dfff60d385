//! What the scripts are called with, and what they answer.

use std::sync::Arc;

use redis::{Arg, Cmd, FromRedisValue, Script, Value};
use serde::Deserialize;
use serde_json::json;
use tollgate_domain::{
    Ask, Counter, Expired, Extent, HeldCall, MAX_AMOUNT, Outcome, Overlap, Role, Rule, Settled, Settles, Take, Unit,
    Unused, Used, Verdict,
};

use super::Failure;
use super::keys::{TenantKeys, index_key, reset_key};

/// For how long it is known when a tenant was reset.
const RESET_KEPT_MS: u64 = 32 * 86_400_000;

/// A script that Redis knows by its hash, once it has been sent.
pub(super) struct Known {
    code: &'static str,
    hash: String,
}

impl Known {
    fn new(code: &'static str) -> Known {
        Known { code, hash: Script::new(code).get_hash().to_owned() }
    }

    fn called(&self, keys: &[String]) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.hash).arg(keys.len()).arg(keys);
        cmd
    }

    /// The same call, with the script's text: for a Redis that does not know it.
    fn taught(&self, called: &Cmd) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(self.code);
        for arg in called.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                cmd.arg(bytes);
            }
        }
        cmd
    }
}

/// Both scripts, and the prefix of all keys.
pub(super) struct Scripts {
    counters: Arc<Known>,
    due: Arc<Known>,
    prefix: String,
}

/// A call of a script, or of a command of Redis's own.
pub(super) struct Invocation {
    script: Option<Arc<Known>>,
    /// By hash.
    pub(super) cmd: Cmd,
}

impl Invocation {
    /// Of a command of Redis's own.
    pub(super) fn plain(cmd: Cmd) -> Invocation {
        Invocation { script: None, cmd }
    }

    /// With the script's text.
    pub(super) fn taught(&self) -> Option<Cmd> {
        self.script.as_ref().map(|script| script.taught(&self.cmd))
    }

    /// As text.
    pub(super) fn args(&self) -> Vec<String> {
        let simple = self.cmd.args_iter().filter_map(|arg| match arg {
            Arg::Simple(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        });
        simple.collect()
    }
}

/// A tenant in the index of due ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) tenant: String,
    /// Its place there, as Redis writes it.
    pub(super) score: String,
    /// It had nothing when it was last looked at.
    pub(super) is_parked: bool,
}

/// Whether a decision made a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Yes,
    /// It was denied, or made before.
    No,
}

/// What is offered of one tenant.
pub(super) struct Offered {
    pub(super) now_ms: u64,
    /// When to ask again.
    pub(super) next_ms: Option<u64>,
    pub(super) expired: Vec<Expired>,
}

impl Scripts {
    pub(super) fn new(prefix: &str) -> Scripts {
        let [counters, due] =
            [include_str!("counters.lua"), include_str!("due.lua")].map(|code| Arc::new(Known::new(code)));
        Scripts { counters, due, prefix: prefix.to_owned() }
    }

    /// Of the tenants' script.
    pub(super) fn text(&self) -> &'static str {
        self.counters.code
    }

    fn on_tenant(&self, tenant: &str, operation: &str, now_ms: Option<u64>, id: &str) -> Invocation {
        let mut cmd = self.counters.called(&TenantKeys::new(&self.prefix, tenant).0);
        cmd.arg(operation);
        match now_ms {
            Some(now_ms) => cmd.arg(now_ms),
            None => cmd.arg(""),
        };
        cmd.arg(id);
        Invocation { script: Some(Arc::clone(&self.counters)), cmd }
    }

    /// `now_ms` instead of Redis's clock.
    pub(super) fn admit(&self, tenant: &str, asks: &[Ask<'_>], take: Take<'_>, now_ms: Option<u64>) -> Invocation {
        let (operation, id) = match take {
            Take::Nothing => ("look", ""),
            Take::ForGood => ("take", ""),
            Take::Used => ("used", ""),
            Take::Hold(hold) => ("hold", hold.id.as_str()),
            Take::Lend(_) => ("lend", ""),
        };
        let mut call = self.on_tenant(tenant, operation, now_ms, id);
        match take {
            Take::Hold(hold) => call.cmd.arg(exact(hold.timeout_ms)).arg(written(&hold.call)),
            Take::Lend(lend) => call.cmd.arg(exact(lend.timeout_ms)).arg(written(&lend.call)),
            _ => call.cmd.arg("").arg(""),
        };
        let ids = if let Take::Lend(lend) = take { lend.ids.as_slice() } else { &[] };
        add_asks(&mut call.cmd, ids, asks);
        call
    }

    pub(super) fn settle(&self, tenant: &str, id: &str, used: &Used<'_>, now_ms: Option<u64>) -> Invocation {
        let operation = match (used.extent, used.settles) {
            (Extent::Something, Settles::All) => "settle",
            (Extent::Nothing, Settles::All) => "void",
            (Extent::Something, Settles::Known) => "settle_known",
            (Extent::Nothing, Settles::Known) => "void_known",
        };
        let mut call = self.on_tenant(tenant, operation, now_ms, id);
        call.cmd.arg(exact(used.started_at_ms)).arg(exact(used.ended_at_ms));
        add_asks(&mut call.cmd, &[], used.asks);
        call
    }

    pub(super) fn give_back(&self, tenant: &str, unused: &Unused<'_>, now_ms: Option<u64>) -> Invocation {
        let mut call = self.on_tenant(tenant, "give_back", now_ms, "");
        call.cmd.arg(exact(unused.lent)).arg("");
        add_asks(&mut call.cmd, unused.ids, unused.asks);
        call
    }

    pub(super) fn unposted(&self, tenant: &str, most: usize, now_ms: Option<u64>) -> Invocation {
        let mut call = self.on_tenant(tenant, "unposted", now_ms, "");
        call.cmd.arg(most);
        call
    }

    pub(super) fn posted(&self, tenant: &str, id: &str, now_ms: Option<u64>) -> Invocation {
        self.on_tenant(tenant, "posted", now_ms, id)
    }

    pub(super) fn restore(&self, tenant: &str, asks: &[Ask<'_>], overlap: Overlap, now_ms: Option<u64>) -> Invocation {
        let operation = match overlap {
            Overlap::Nothing => "restore",
            Overlap::Held => "restore_beyond_held",
        };
        let mut call = self.on_tenant(tenant, operation, now_ms, "");
        call.cmd.arg("").arg("");
        add_asks(&mut call.cmd, &[], asks);
        call
    }

    pub(super) fn reset(&self, tenant: &str, now_ms: Option<u64>) -> Invocation {
        self.on_tenant(tenant, "reset", now_ms, "")
    }

    /// What [`Scripts::last_reset`] asks for: longer than any period.
    pub(super) fn note_reset(&self, tenant: &str, at_ms: u64) -> Invocation {
        let mut cmd = redis::cmd("SET");
        cmd.arg(reset_key(&self.prefix, tenant)).arg(at_ms).arg("PX").arg(RESET_KEPT_MS);
        Invocation::plain(cmd)
    }

    pub(super) fn last_reset(&self, tenant: &str) -> Invocation {
        let mut cmd = redis::cmd("GET");
        cmd.arg(reset_key(&self.prefix, tenant));
        Invocation::plain(cmd)
    }

    fn on_index(&self, shard: usize, operation: &str, now_ms: u64) -> Invocation {
        let mut cmd = self.due.called(&[index_key(&self.prefix, shard)]);
        cmd.arg(operation).arg(now_ms);
        Invocation { script: Some(Arc::clone(&self.due)), cmd }
    }

    /// The tenants of a shard that are due, and those that are parked for long; `most` of each.
    pub(super) fn due(&self, shard: usize, most: usize, now_ms: u64) -> Invocation {
        let mut call = self.on_index(shard, "due", now_ms);
        call.cmd.arg(most);
        call
    }

    /// The tenant is to be looked at then, if not before.
    pub(super) fn lower(&self, shard: usize, tenant: &str, at_ms: u64, now_ms: u64) -> Invocation {
        let mut call = self.on_index(shard, "lower", now_ms);
        call.cmd.arg(tenant).arg(exact(at_ms));
        call
    }

    /// Who gets 1 may look at it.
    pub(super) fn park(&self, shard: usize, due: &Due, now_ms: u64) -> Invocation {
        let mut call = self.on_index(shard, "park", now_ms);
        call.cmd.arg(&due.tenant).arg(&due.score);
        call
    }

    /// Forgets a tenant that is parked since `parked_at_ms`.
    pub(super) fn drop(&self, shard: usize, tenant: &str, parked_at_ms: u64) -> Invocation {
        let mut call = self.on_index(shard, "drop", parked_at_ms);
        call.cmd.arg(tenant).arg(parked_at_ms);
        call
    }
}

fn add_asks(cmd: &mut Cmd, ids: &[String], asks: &[Ask<'_>]) {
    cmd.arg(ids.len()).arg(ids);
    for ask in asks {
        let role = match ask.role {
            Role::Binding => "b",
            Role::Warning | Role::Shadow | Role::Tracked => "-",
        };
        let unit = match ask.limit.unit {
            Unit::Requests => "r",
            Unit::Concurrency => "s",
            Unit::Tokens | Unit::InputTokens | Unit::OutputTokens | Unit::Cost => "-",
        };
        cmd.arg(format!("{:016x}", ask.limit.counter().0)).arg(role).arg(unit).arg(exact(ask.amount));
        match ask.rule {
            Rule::Refilled { capacity, burst, window_ms } => {
                cmd.arg("R").arg(exact(capacity)).arg(exact(burst)).arg(exact(window_ms))
            }
            Rule::Calendar { capacity, edges } => cmd.arg("C").arg(exact(capacity)).arg(&edges.map(exact)),
            Rule::Slots { capacity } => cmd.arg("S").arg(exact(capacity)),
        };
    }
}

/// A number that a double can hold. What is larger than any that is counted stays larger.
fn exact(number: u64) -> u64 {
    number.min(MAX_AMOUNT + 1)
}

/// The tier, the model, the API, the key, tokens in and out; and images, where there are some: earlier releases know of none.
#[derive(Deserialize)]
struct Held(String, Option<String>, Option<String>, Option<String>, u64, u64, #[serde(default)] u64);

/// A JSON array, as [`Held`] is read.
fn written(call: &HeldCall) -> String {
    let HeldCall { tier, model, api, key, input_tokens, output_tokens, images } = call;
    match images {
        0 => json!([tier, model, api, key, input_tokens, output_tokens]),
        _ => json!([tier, model, api, key, input_tokens, output_tokens, images]),
    }
    .to_string()
}

fn read(call: &str) -> Result<HeldCall, Failure> {
    let Held(tier, model, api, key, input_tokens, output_tokens, images) =
        serde_json::from_str(call).map_err(unexpected)?;
    Ok(HeldCall { tier, model, api, key, input_tokens, output_tokens, images })
}

/// Redis answered what the scripts do not.
fn unexpected(error: impl std::fmt::Display) -> Failure {
    Failure::InDoubt(format!("Redis answers what it should not: {error}"))
}

fn numbers(answer: Value) -> Result<Vec<u64>, Failure> {
    Vec::<u64>::from_redis_value(answer).map_err(unexpected)
}

/// The verdict, and whether a reservation was made, should one be asked for.
pub(super) fn verdict(answer: Value, asks: usize, take: Take<'_>) -> Result<(Verdict, Made), Failure> {
    let numbers = numbers(answer)?;
    let [outcome, now_ms, counters @ ..] = numbers.as_slice() else { return Err(unexpected("too few numbers")) };
    let counters: Vec<Counter> = counters.as_chunks().0.iter().filter_map(counter).collect();
    if counters.len() != asks {
        return Err(unexpected(format!("{} counters instead of {asks}", counters.len())));
    }
    let reserved = match take {
        Take::Lend(_) => usize::try_from(*outcome).unwrap_or(usize::MAX),
        Take::Hold(_) => usize::from(*outcome > 0),
        Take::Nothing | Take::ForGood | Take::Used => 0,
    };
    let (outcome, made) = match (take, outcome) {
        (_, 0) => (Outcome::Denied, Made::No),
        (Take::Lend(_), _) | (_, 1) => (Outcome::Admitted, Made::Yes),
        _ => (Outcome::Admitted, Made::No),
    };
    Ok((Verdict { outcome, counters, reserved, now_ms: *now_ms }, made))
}

fn counter(&[spent, held, at_ms, fraction]: &[u64; 4]) -> Option<Counter> {
    Some(Counter { spent, held, at_ms, fraction: u32::try_from(fraction).ok()? })
}

/// What a settlement met, and the time there.
pub(super) fn settled(answer: Value) -> Result<(Settled, u64), Failure> {
    let settled = match *numbers(answer)? {
        [0, now_ms, ..] => (Settled::Posted, now_ms),
        [1, now_ms] => (Settled::Corrected, now_ms),
        [2, now_ms] => (Settled::Unreserved, now_ms),
        [3, now_ms] => (Settled::Repeated, now_ms),
        [4, now_ms] => (Settled::Unknown, now_ms),
        _ => return Err(unexpected("no settlement")),
    };
    Ok(settled)
}

pub(super) fn last_reset(answer: Value) -> Result<u64, Failure> {
    Ok(Option::<u64>::from_redis_value(answer).map_err(unexpected)?.unwrap_or(0))
}

pub(super) fn offered(answer: Value) -> Result<Offered, Failure> {
    type Row = (String, u64, u64, String);
    let (now_ms, next_ms, rows) = <(u64, i64, Vec<Row>)>::from_redis_value(answer).map_err(unexpected)?;
    let expired = rows.into_iter().map(|(id, started_at_ms, expired_at_ms, call)| {
        Ok(Expired { id, started_at_ms, expired_at_ms, call: read(&call)? })
    });
    Ok(Offered { now_ms, next_ms: u64::try_from(next_ms).ok(), expired: expired.collect::<Result<_, _>>()? })
}

pub(super) fn due(answer: Value) -> Result<Vec<Due>, Failure> {
    let rows = Vec::<(String, String, u64)>::from_redis_value(answer).map_err(unexpected)?;
    Ok(rows.into_iter().map(|(tenant, score, parked)| Due { tenant, score, is_parked: parked == 1 }).collect())
}
