//! What a tenant has used, by time and by what it was used for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tollgate_domain::{Day, Period, Span};
use utoipa::openapi::schema::{AnyOfBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Asked;
use super::problem::Problem;
use super::tenant::Tenant;
use super::usage::PeriodName;
use super::usage_fields::{UsageFields, rounded};
use super::{Shared, rfc3339};
use crate::clock;
use crate::decimal;
use crate::ledger::{Dimension, Grain, Point, Series, TrackedSum, Usage};
use crate::period;

/// The most parts of time in an answer.
const MAX_PARTS: usize = 1000;

/// The most points in an answer, over all labels.
const MAX_POINTS: usize = 10_000;

/// The most labels that a breakdown tells one by one.
const MAX_LABELS: usize = 1000;

/// What tenants used, by time and by what it was used for.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(series)).routes(routes!(breakdown)).routes(routes!(tracked))
}

/// From one moment to before another, milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from_ms: u64,
    to_ms: u64,
}

impl Range {
    /// What the question says, and where it says nothing the period around `now_ms`.
    fn new(from: Option<&str>, to: Option<&str>, around: Span, now_ms: u64) -> Result<Range, Problem> {
        let period = Period::around(around, now_ms);
        let from_ms = from.map_or(Ok(period.first.start_ms()), |text| moment("from", text))?;
        let to_ms = to.map_or(Ok(period.end.start_ms()), |text| moment("to", text))?;
        if to_ms <= from_ms {
            let what = format!("to: {} is not after from, {}", rfc3339(to_ms), rfc3339(from_ms));
            return Err(Problem::bad_request(what));
        }
        Ok(Range { from_ms, to_ms })
    }

    /// When its parts begin.
    fn starts(self, grain: Grain) -> Result<Vec<u64>, Problem> {
        let next = move |at_ms: u64| grain.end_ms(at_ms);
        let first = self.from_ms.checked_sub(1).map_or(0, next);
        let starts = std::iter::successors(Some(first), |start| Some(next(*start)));
        let starts: Vec<_> = starts.take_while(|start| *start < self.to_ms).take(MAX_PARTS + 1).collect();
        if starts.len() > MAX_PARTS {
            let what = format!("more than {MAX_PARTS} parts from from to to; ask for less, or by a coarser grain");
            return Err(Problem::bad_request(what));
        }
        Ok(starts)
    }
}

/// A moment in RFC 3339, or the beginning of a day in UTC.
fn moment(key: &str, text: &str) -> Result<u64, Problem> {
    let at = text.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
    let at = at.or_else(|| period::day(text).map(Day::start_ms));
    let refused = || format!("{key}: `{text}` is no moment such as 2026-11-25T10:00:00Z and no day such as 2026-11-25");
    at.ok_or_else(|| Problem::bad_request(refused()))
}

/// What [`moment`] reads.
fn moments() -> Schema {
    let text = |format| ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format)));
    AnyOfBuilder::new().item(text(KnownFormat::Date)).item(text(KnownFormat::DateTime)).build().into()
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SeriesQuery {
    /// How long each part is.
    #[serde(default)]
    #[param(inline)]
    grain: Grain,
    /// The first moment; the present month's without.
    #[param(schema_with = moments)]
    from: Option<String>,
    /// The first moment that no longer counts; the next month's without.
    #[param(schema_with = moments)]
    to: Option<String>,
    /// What the sums are kept apart by.
    #[param(inline)]
    by: Option<Dimension>,
}

/// A tenant's usage by time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Series)]
struct SeriesAnswer {
    tenant_id: String,
    grain: Grain,
    #[schema(format = DateTime)]
    from: String,
    #[schema(format = DateTime)]
    to: String,
    by: Option<Dimension>,
    points: Vec<PointFields>,
}

/// The usage of a part of the time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Point)]
struct PointFields {
    #[schema(format = DateTime)]
    start: String,
    /// Only where a dimension is asked for; null for calls that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    label: Option<Option<String>>,
    #[serde(flatten)]
    usage: UsageFields,
}

/// A tenant's usage by time
///
/// Every part of the time is told, or with a dimension those where it was used.
#[utoipa::path(get, path = "/api/v1/usage/{tenant}/series", tag = "usage", params(Tenant, SeriesQuery),
    responses((status = 200, body = SeriesAnswer, description = "The usage of each part"), Asked))]
async fn series(
    State(shared): State<Arc<Shared>>,
    Tenant { tenant }: Tenant,
    query: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<Json<SeriesAnswer>, Problem> {
    let Query(SeriesQuery { grain, from, to, by }) = query?;
    let range = Range::new(from.as_deref(), to.as_deref(), Span::Month, clock::now_ms())?;
    let starts = range.starts(grain)?;
    let Range { from_ms, to_ms } = range;
    let question = Series { tenant: &tenant, grain, from_ms, to_ms, by };
    let points = shared.series(&question).await?;
    let points = match by {
        Some(_) => {
            check_points(points.len())?;
            let fields = |point: Point| PointFields {
                start: rfc3339(point.start_ms),
                label: Some(point.label),
                usage: (&point.usage).into(),
            };
            points.into_iter().map(fields).collect()
        }
        None => {
            let used: HashMap<_, _> = points.iter().map(|point| (point.start_ms, &point.usage)).collect();
            let none = Usage::default();
            let usage = |start: &u64| used.get(start).map_or_else(|| (&none).into(), |usage| (*usage).into());
            let fields = |start: &u64| PointFields { start: rfc3339(*start), label: None, usage: usage(start) };
            starts.iter().map(fields).collect()
        }
    };
    Ok(Json(SeriesAnswer { tenant_id: tenant, grain, from: rfc3339(from_ms), to: rfc3339(to_ms), by, points }))
}

fn check_points(points: usize) -> Result<(), Problem> {
    if points > MAX_POINTS {
        let what = format!("{points} points; at most {MAX_POINTS} are told: ask for less, or by a coarser grain");
        return Err(Problem::bad_request(what));
    }
    Ok(())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BreakdownQuery {
    /// What the sums are kept apart by.
    #[param(inline)]
    by: Dimension,
    /// The time, where no moments are given.
    #[serde(default)]
    #[param(inline)]
    period: PeriodName,
    /// The first moment; the period's without.
    #[param(schema_with = moments)]
    from: Option<String>,
    /// The first moment that no longer counts; the next period's without.
    #[param(schema_with = moments)]
    to: Option<String>,
}

/// A tenant's usage by what it was used for.
#[derive(Debug, Serialize, ToSchema)]
struct Breakdown {
    tenant_id: String,
    #[schema(format = DateTime)]
    from: String,
    #[schema(format = DateTime)]
    to: String,
    by: Dimension,
    parts: Vec<PartFields>,
    /// What is not told by label; null when all is.
    others: Option<UsageFields>,
}

/// The usage of one label.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Part)]
struct PartFields {
    label: Option<String>,
    /// Of all tokens.
    share_percent: f64,
    #[serde(flatten)]
    usage: UsageFields,
}

/// A tenant's usage by what it was used for, the most used first
///
/// It is of the days that begin in the time.
#[utoipa::path(get, path = "/api/v1/usage/{tenant}/breakdown", tag = "usage", params(Tenant, BreakdownQuery),
    responses((status = 200, body = Breakdown, description = "The usage of each label"), Asked))]
async fn breakdown(
    State(shared): State<Arc<Shared>>,
    Tenant { tenant }: Tenant,
    query: Result<Query<BreakdownQuery>, QueryRejection>,
) -> Result<Json<Breakdown>, Problem> {
    let Query(BreakdownQuery { by, period, from, to }) = query?;
    let range = Range::new(from.as_deref(), to.as_deref(), period.span(), clock::now_ms())?;
    let is_month = from.is_none() && to.is_none() && period.span() == Span::Month;
    let grain = if is_month { Grain::Month } else { Grain::Day };
    range.starts(grain)?;
    let Range { from_ms, to_ms } = range;
    let question = Series { tenant: &tenant, grain, from_ms, to_ms, by: Some(by) };
    let mut sums: BTreeMap<Option<String>, Usage> = BTreeMap::new();
    for point in shared.series(&question).await? {
        sums.entry(point.label).or_default().add(&point.usage);
    }
    let all: u64 = sums.values().fold(0, |sum, usage| sum.saturating_add(usage.total_tokens()));
    let mut parts: Vec<_> = sums.into_iter().collect();
    parts.sort_by_key(|(_, usage)| Reverse((usage.total_tokens(), usage.requests)));
    let others = parts.split_off(parts.len().min(MAX_LABELS));
    let others = (!others.is_empty()).then(|| others.iter().map(|(_, usage)| usage).sum::<Usage>());
    let fields = |(label, usage): (Option<String>, Usage)| PartFields {
        label,
        share_percent: rounded(usage.total_tokens() as f64 / all.max(1) as f64 * 100.0),
        usage: (&usage).into(),
    };
    Ok(Json(Breakdown {
        tenant_id: tenant,
        from: rfc3339(from_ms),
        to: rfc3339(to_ms),
        by,
        parts: parts.into_iter().map(fields).collect(),
        others: others.as_ref().map(Into::into),
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TrackedQuery {
    /// The time, where no moments are given.
    #[serde(default)]
    #[param(inline)]
    period: PeriodName,
    /// The first moment; the period's without.
    #[param(schema_with = moments)]
    from: Option<String>,
    /// The first moment that no longer counts; the next period's without.
    #[param(schema_with = moments)]
    to: Option<String>,
}

/// A tenant's other events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrackedUsage)]
struct TrackedAnswer {
    tenant_id: String,
    #[schema(format = DateTime)]
    from: String,
    #[schema(format = DateTime)]
    to: String,
    totals: Vec<TrackedFields>,
    days: Vec<TrackedDay>,
}

/// Events of a type.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrackedSum)]
struct TrackedFields {
    event_type: String,
    events: u64,
    /// Exact, so a text.
    quantity: String,
}

/// Events of a type on a day.
#[derive(Debug, Serialize, ToSchema)]
struct TrackedDay {
    #[schema(format = Date)]
    date: String,
    #[serde(flatten)]
    fields: TrackedFields,
}

/// A tenant's other events by type, over the time and on its days
#[utoipa::path(get, path = "/api/v1/usage/{tenant}/tracked", tag = "usage", params(Tenant, TrackedQuery),
    responses((status = 200, body = TrackedAnswer, description = "The sums of each type"), Asked))]
async fn tracked(
    State(shared): State<Arc<Shared>>,
    Tenant { tenant }: Tenant,
    query: Result<Query<TrackedQuery>, QueryRejection>,
) -> Result<Json<TrackedAnswer>, Problem> {
    let Query(TrackedQuery { period, from, to }) = query?;
    let range = Range::new(from.as_deref(), to.as_deref(), period.span(), clock::now_ms())?;
    range.starts(Grain::Day)?;
    let Range { from_ms, to_ms } = range;
    let sums = shared.ledger.tracked(&tenant, from_ms, to_ms).await?;
    check_points(sums.len())?;
    let mut totals: BTreeMap<&str, (u64, u128)> = BTreeMap::new();
    for sum in &sums {
        let (events, micros) = totals.entry(&sum.event_type).or_default();
        *events += sum.events;
        *micros += sum.quantity_micros;
    }
    let fields = |event_type: &str, events, micros| TrackedFields {
        event_type: event_type.to_owned(),
        events,
        quantity: decimal::written(micros, 6),
    };
    let totals = totals.iter().map(|(event_type, (events, micros))| fields(event_type, *events, *micros)).collect();
    let day = |sum: &TrackedSum| TrackedDay {
        date: Day::of(sum.start_ms).to_string(),
        fields: fields(&sum.event_type, sum.events, sum.quantity_micros),
    };
    let days = sums.iter().map(day).collect();
    Ok(Json(TrackedAnswer { tenant_id: tenant, from: rfc3339(from_ms), to: rfc3339(to_ms), totals, days }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond() as u64
    }

    fn range(from: &str, to: &str) -> Range {
        Range::new(Some(from), Some(to), Span::Month, 0).unwrap()
    }

    #[test]
    fn parts_are_those_that_begin_in_the_time() {
        let starts = |from, to, grain| {
            let starts = range(from, to).starts(grain).unwrap();
            starts.into_iter().map(rfc3339).collect::<Vec<_>>()
        };
        assert_eq!(
            starts("2026-11-25T10:00:00Z", "2026-11-25T13:30:00+01:00", Grain::Hour),
            ["2026-11-25T10:00:00Z", "2026-11-25T11:00:00Z", "2026-11-25T12:00:00Z"]
        );
        assert_eq!(starts("2026-11-25T00:00:00.001Z", "2026-11-27", Grain::Day), ["2026-11-26T00:00:00Z"]);
        assert_eq!(starts("2026-12-01", "2027-01-02", Grain::Month), ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"]);
        assert_eq!(starts("1970-01-01", "1970-01-02", Grain::Day), ["1970-01-01T00:00:00Z"]);
        assert_eq!(starts("2026-11-02", "2026-11-03", Grain::Month), [""; 0]);
    }

    #[test]
    fn the_default_is_the_period_around_now() {
        let now_ms = ms("2026-11-25T10:00:00Z");
        let of = |span| Range::new(None, None, span, now_ms).unwrap();
        let between = |from: &str, to: &str| Range { from_ms: ms(from), to_ms: ms(to) };
        assert_eq!(of(Span::Month), between("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"));
        assert_eq!(of(Span::Week), between("2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"));
        assert!(Range::new(Some("2026-12-01"), None, Span::Month, now_ms).is_err());
    }

    #[test]
    fn an_answer_is_bounded() {
        let hours = |to| range("2026-01-01", to).starts(Grain::Hour).map(|starts| starts.len());
        assert_eq!(hours("2026-02-11T16:00:00Z").unwrap(), MAX_PARTS);
        assert!(hours("2026-02-11T17:00:00Z").is_err());
        assert!(range("1970-01-01", "9999-12-01").starts(Grain::Month).is_err());
    }
}
