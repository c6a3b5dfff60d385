//! Which months a tenant is billed for, and what their invoices are called.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use ring::digest::{SHA256, digest};
use tollgate_domain::invoice::{BillingCalendar, BillingMonth};
use tollgate_wire::usage_event::MAX_NAME_BYTES;

use super::{BillingError, hex};
use crate::accounts::Tenant;
use crate::invoices;

/// The most bytes of an invoice's id that are its tenant's name: what follows is `-2026-11`, and what else tells it
/// apart. A longer name is cut, and has a part of its hash in its place.
const MAX_TENANT_BYTES: usize = MAX_NAME_BYTES - 24;

/// A tenant's months: in its time zone, from the day of its billing anchor on. Without a record: those of UTC.
pub(super) fn calendar(tenant: Option<&Tenant>) -> Result<BillingCalendar, BillingError> {
    let zone = tenant.map_or("UTC", |tenant| tenant.time_zone.as_str());
    let day = match tenant.and_then(|tenant| tenant.billing_anchor_ms) {
        None => 1,
        Some(anchor_ms) => {
            let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
            let at = i64::try_from(anchor_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
            zone.to_datetime(at.unwrap_or_default()).day().unsigned_abs()
        }
    };
    invoices::calendar(zone, day).map_err(BillingError::Calendar)
}

/// The month that begins in this one of the calendar year; `None` where there is none such.
pub(super) fn labelled(calendar: &BillingCalendar, year: i16, month: i8) -> Option<BillingMonth> {
    let middle = Date::new(year, month, 15).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    let around = calendar.month(u64::try_from(middle.as_millisecond()).ok()?);
    let before = calendar.month(around.start_ms.saturating_sub(1));
    let after = calendar.month(around.end_ms);
    [before, around, after].into_iter().find(|found| (found.first.year(), found.first.month()) == (year, month))
}

/// What is left of a month beside those that are billed already: with another calendar than before, months may
/// overlap, and no moment is billed twice. Nor is any left out: in another time zone the month after the last billed one begins
/// some hours later, which are its own then. `None`: nothing.
pub(super) fn unbilled<'b>(
    month: &BillingMonth,
    billed: impl Iterator<Item = &'b BillingMonth> + Clone,
) -> Option<BillingMonth> {
    let mut left = month.clone();
    let covering = |at_ms: u64| billed.clone().find(move |billed| (billed.start_ms..billed.end_ms).contains(&at_ms));
    let day_after = |billed: &BillingMonth| billed.last.saturating_add(1.day());
    let mut just_before = billed.clone().filter(|billed| day_after(billed) == month.first);
    if covering(month.start_ms).is_none()
        && let Some(last) = just_before.find(|billed| billed.end_ms < month.start_ms)
    {
        left.start_ms = last.end_ms;
    }
    while let Some(billed) = covering(left.start_ms) {
        left.start_ms = billed.end_ms;
        left.first = day_after(billed);
    }
    let after = billed.clone().filter(|billed| billed.start_ms > left.start_ms);
    if let Some(next) = after.min_by_key(|billed| billed.start_ms)
        && next.start_ms < left.end_ms
    {
        left.end_ms = next.start_ms;
        left.last = next.first.saturating_sub(1.day());
    }
    (left.start_ms < left.end_ms && left.first <= left.last).then_some(left)
}

/// The id of a tenant's `nth` invoice for a month that begins on this day: `acme-2026-11`, the next `acme-2026-11-2`.
/// No two tenants' ids are the same.
pub(super) fn number(tenant: &str, first: Date, nth: usize) -> String {
    let tenant = match tenant.len() {
        0..=MAX_TENANT_BYTES => tenant.to_owned(),
        _ => {
            let hash = hex(&digest(&SHA256, tenant.as_bytes()).as_ref()[..16]);
            format!("{}~{hash}", &tenant[..tenant.floor_char_boundary(MAX_TENANT_BYTES - 33)])
        }
    };
    let number = format!("{tenant}-{:04}-{:02}", first.year(), first.month());
    if nth > 1 { format!("{number}-{nth}") } else { number }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::accounts::TenantStatus;

    fn ms(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond() as u64
    }

    fn tenant(zone: &str, anchor: Option<&str>) -> Tenant {
        Tenant {
            display_name: None,
            tier: None,
            status: TenantStatus::Active,
            billing_anchor_ms: anchor.map(ms),
            time_zone: zone.to_owned(),
            metadata: Default::default(),
        }
    }

    #[test]
    fn months_begin_on_the_day_of_the_anchor_in_the_zone() {
        let first = |tenant: Option<Tenant>, at: &str| {
            let month = calendar(tenant.as_ref()).unwrap().month(ms(at));
            (month.first.to_string(), month.start_ms)
        };
        assert_eq!(first(None, "2026-11-20T00:00:00Z"), ("2026-11-01".into(), ms("2026-11-01T00:00:00Z")));
        let berlin = || Some(tenant("Europe/Berlin", Some("2026-01-14T23:30:00Z")));
        assert_eq!(first(berlin(), "2026-11-20T00:00:00Z"), ("2026-11-15".into(), ms("2026-11-14T23:00:00Z")));
        let last = || Some(tenant("UTC", Some("2026-01-31T12:00:00Z")));
        assert_eq!(first(last(), "2026-11-20T00:00:00Z").0, "2026-10-31");
        assert!(calendar(Some(&tenant("Europe/Bielefeld", None))).is_err());
    }

    #[test]
    fn months_are_found_by_the_one_that_they_begin_in() {
        let calendar = invoices::calendar("America/New_York", 31).unwrap();
        for month in 1..=12 {
            let found = labelled(&calendar, 2026, month).unwrap();
            assert_eq!((found.first.year(), found.first.month()), (2026, month));
        }
        assert_eq!(labelled(&calendar, 2026, 13), None);
        assert_eq!(labelled(&calendar, -1, 1), None);
    }

    #[test]
    fn no_moment_is_billed_twice_when_the_calendar_changes() {
        let [old, new] = [1, 15].map(|day| invoices::calendar("UTC", day).unwrap());
        let october = old.month(ms("2026-10-20T00:00:00Z"));
        let next = new.month(ms("2026-11-10T00:00:00Z"));
        let left = unbilled(&next, [&october].into_iter()).unwrap();
        assert_eq!((left.first.to_string(), left.last.to_string()), ("2026-11-01".into(), "2026-11-14".into()));
        assert_eq!((left.start_ms, left.end_ms), (october.end_ms, next.end_ms));
        assert_eq!(unbilled(&october, [&october].into_iter()), None);
        let before = new.month(ms("2026-09-20T00:00:00Z"));
        let left = unbilled(&before, [&october].into_iter()).unwrap();
        assert_eq!((left.first.to_string(), left.last.to_string()), ("2026-09-15".into(), "2026-09-30".into()));
    }

    #[test]
    fn no_moment_is_left_out_when_the_time_zone_changes() {
        let [old, new] = ["UTC", "America/New_York"].map(|zone| invoices::calendar(zone, 1).unwrap());
        let november = old.month(ms("2026-11-20T00:00:00Z"));
        let billed = || [&november].into_iter();
        // The rest of New York's November is no day of its own, and December's.
        assert_eq!(unbilled(&new.month(ms("2026-11-20T00:00:00Z")), billed()), None);
        let december = new.month(ms("2026-12-20T00:00:00Z"));
        let left = unbilled(&december, billed()).unwrap();
        assert_eq!((left.start_ms, left.end_ms), (november.end_ms, december.end_ms));
        assert_eq!((left.first, left.last), (december.first, december.last));
        assert_eq!(unbilled(&december, [&november, &left].into_iter()), None);
        // Days between are a month of their own.
        let later = invoices::calendar("UTC", 2).unwrap();
        let left = unbilled(&later.month(ms("2026-11-20T00:00:00Z")), billed()).unwrap();
        assert_eq!((left.first.to_string(), left.last.to_string()), ("2026-12-01".into(), "2026-12-01".into()));
        let next = later.month(ms("2026-12-20T00:00:00Z"));
        assert_eq!(unbilled(&next, billed()).unwrap(), next);
    }

    #[test]
    fn what_is_left_behind_several_billed_months_is_found() {
        let [old, new] = [5, 11].map(|day| invoices::calendar("UTC", day).unwrap());
        let october = old.month(ms("2026-10-20T00:00:00Z"));
        let short = unbilled(&new.month(ms("2026-11-01T00:00:00Z")), [&october].into_iter()).unwrap();
        let november = invoices::calendar("UTC", 1).unwrap().month(ms("2026-11-20T00:00:00Z"));
        let left = unbilled(&november, [&october, &short].into_iter()).unwrap();
        assert_eq!((left.first.to_string(), left.last.to_string()), ("2026-11-11".into(), "2026-11-30".into()));
        assert_eq!((left.start_ms, left.end_ms), (short.end_ms, november.end_ms));
    }

    #[test]
    fn a_second_invoice_has_another_number() {
        let first = Date::constant(2026, 11, 1);
        assert_eq!([1, 2].map(|nth| number("acme", first, nth)), ["acme-2026-11", "acme-2026-11-2"]);
    }

    proptest! {
        #[test]
        fn numbers_are_ids_and_tell_tenants_apart(
            [one, other] in prop::array::uniform2("[a-z]{1,3}(-2026)?(-11)?(-2)?|é{110,128}"),
            [nth, nth_other] in prop::array::uniform2(1..13_usize),
        ) {
            let first = Date::constant(2026, 11, 1);
            let number_of_one = number(&one, first, nth);
            prop_assert!(number_of_one.len() <= MAX_NAME_BYTES);
            let are_same = one == other && nth == nth_other;
            prop_assert_eq!(number_of_one == number(&other, first, nth_other), are_same);
        }
    }
}
