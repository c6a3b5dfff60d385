//! The service behind the Tollgate filter: the limiter that it asks before a call, and the collector that it tells after.
//!
//! - [`config`]: what a file may say, and its defaults; [`reload`]: what it says while the service runs.
//! - [`serve`]: the running service, from bound ports to a graceful end.
//! - [`rls`] and [`collector`]: the two gRPC services, Envoy's rate limit service v3 and OTLP logs.
//! - [`rest`]: usage, limits and metrics over HTTP.
//! - [`limiter`] over [`counters`]: the rules of `tollgate-domain` for all tenants.
//! - [`ledger`]: every usage event once, and daily sums; [`audit`]: who changed what, in the same database.
//! - [`accounts`]: tenants, plans, budgets, keys, prices and invoices.
//! - [`sinks`]: where entries go beside the ledger; [`alerts`]: who nears a monthly limit, or one of the [`budgets`];
//!   [`webhooks`]: how that is told; [`http`]: how requests go out; [`secret`]: what is never shown.
//! - [`tls`]: how what we serve is kept from others.
//! - [`prices`]: what models cost, by the table that is shipped and by others' tables.
//! - [`billing`]: invoices, made of the ledger; [`invoices`]: how one is written.
//! - [`cli`]: what operators ask of a running service from the command line, by [`client`]; [`operate`]: what they have it do.
//! - [`inspect`]: what the filter would read from recorded responses.

pub mod accounts;
pub mod alerts;
mod answers;
pub mod audit;
pub mod billing;
pub mod budgets;
mod chance;
pub mod cli;
pub mod client;
pub mod clock;
pub mod collector;
pub mod config;
pub mod counters;
pub mod database;
pub mod entry;
pub mod export;
pub mod http;
pub mod inspect;
pub mod invoices;
pub mod ledger;
pub mod limiter;
pub mod metrics;
pub mod operate;
pub mod period;
pub mod policies;
pub mod prices;
pub mod reconcile;
pub mod reload;
pub mod rest;
pub mod rls;
pub mod secret;
pub mod serve;
pub mod sinks;
pub mod spool;
pub mod tls;
pub mod usage_metrics;
mod watch;
pub mod webhooks;

use tollgate_domain::decimal;
