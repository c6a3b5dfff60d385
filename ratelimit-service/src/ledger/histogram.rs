//! How many durations were how long: counts by buckets that grow with the duration, so that sums over any calls tell quantiles.

/// Buckets in each doubling: a bucket is at most an eighth wider than its lower bound.
const BUCKETS_IN_DOUBLING: u64 = 8;

/// Below so many milliseconds each has a bucket of its own.
const EXACT_MS: u64 = BUCKETS_IN_DOUBLING;

/// The bucket of a duration in milliseconds; those past half a year share the last one.
pub fn bucket(ms: u64) -> u8 {
    if ms < EXACT_MS {
        return ms as u8;
    }
    let doubling = u64::from(ms.ilog2());
    let part = (ms >> (doubling - 3)) % BUCKETS_IN_DOUBLING;
    u8::try_from(EXACT_MS + (doubling - 3) * BUCKETS_IN_DOUBLING + part).unwrap_or(u8::MAX)
}

/// The shortest duration in a bucket, in milliseconds.
fn lower_bound_ms(bucket: u8) -> u64 {
    let bucket = u64::from(bucket);
    match bucket.checked_sub(EXACT_MS) {
        None => bucket,
        Some(past) => (BUCKETS_IN_DOUBLING + past % BUCKETS_IN_DOUBLING) << (past / BUCKETS_IN_DOUBLING),
    }
}

/// Counts by bucket. Those that are 0 are not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram(Vec<(u8, u64)>);

impl Histogram {
    /// Of these counts, in any order; a bucket may come more than once.
    pub fn from_counts(counts: impl IntoIterator<Item = (u8, u64)>) -> Histogram {
        let mut histogram = Histogram::default();
        for (bucket, count) in counts {
            *histogram.count(bucket) += count;
        }
        histogram.0.retain(|(_, count)| *count > 0);
        histogram
    }

    /// Counts a duration.
    pub fn record(&mut self, ms: u64) {
        *self.count(bucket(ms)) += 1;
    }

    /// Counts what the other has too.
    pub fn add(&mut self, other: &Histogram) {
        for (bucket, count) in &other.0 {
            *self.count(*bucket) += count;
        }
    }

    /// The counts, by bucket.
    pub fn counts(&self) -> &[(u8, u64)] {
        &self.0
    }

    /// The duration in milliseconds that `percent` of those counted do not exceed, to a sixteenth; `None` when none is.
    pub fn percentile(&self, percent: u8) -> Option<u64> {
        let all: u64 = self.0.iter().map(|(_, count)| count).sum();
        let rank = (u128::from(all) * u128::from(percent)).div_ceil(100).max(1);
        let mut counted = 0;
        let reaches = |(_, count): &&(u8, u64)| {
            counted += u128::from(*count);
            counted >= rank
        };
        let (bucket, _) = self.0.iter().find(reaches)?;
        let (from, to) = (lower_bound_ms(*bucket), lower_bound_ms(bucket.saturating_add(1)));
        Some(from + to.saturating_sub(from + 1) / 2)
    }

    /// As bytes: of each bucket its number, and its count in base 128 with the lowest digit first.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(3 * self.0.len());
        for (bucket, count) in &self.0 {
            bytes.push(*bucket);
            let mut rest = *count;
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        }
        bytes
    }

    /// What [`Histogram::encode`] has written.
    pub(crate) fn decode(bytes: &[u8]) -> Histogram {
        let (mut counts, mut bytes) = (Vec::with_capacity(bytes.len() / 2), bytes.iter());
        while let Some(bucket) = bytes.next() {
            let (mut count, mut shift) = (0, 0);
            for byte in bytes.by_ref() {
                count |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            counts.push((*bucket, count));
        }
        Histogram(counts)
    }

    fn count(&mut self, bucket: u8) -> &mut u64 {
        let at = match self.0.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (bucket, 0));
                at
            }
        };
        &mut self.0[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other() {
        for bucket_number in 0..u8::MAX {
            let (from, to) = (lower_bound_ms(bucket_number), lower_bound_ms(bucket_number + 1));
            assert_eq!((bucket(from), bucket(to - 1), bucket(to)), (bucket_number, bucket_number, bucket_number + 1));
            assert!((to - from - 1) * 8 <= from, "{from}..{to}");
        }
        assert_eq!(bucket(u64::MAX), u8::MAX);
    }

    proptest! {
        #[test]
        fn a_percentile_is_near_the_real_one(mut durations in proptest::collection::vec(0..10_000_000u64, 1..200), percent in 1..=100u8) {
            let mut histogram = Histogram::default();
            durations.iter().for_each(|ms| histogram.record(*ms));
            durations.sort_unstable();
            let rank = (durations.len() * usize::from(percent)).div_ceil(100);
            let (real, told) = (durations[rank - 1], histogram.percentile(percent).unwrap());
            prop_assert!(real.abs_diff(told) * 16 <= real, "{told} for {real}");
        }

        #[test]
        fn sums_are_those_of_the_parts(all in proptest::collection::vec(0..100_000u64, 0..100), at in 0..100usize) {
            let of = |part: &[u64]| {
                let mut histogram = Histogram::default();
                part.iter().for_each(|ms| histogram.record(*ms));
                histogram
            };
            let (first, second) = all.split_at(at.min(all.len()));
            let mut sum = of(first);
            sum.add(&of(second));
            prop_assert_eq!(&sum, &of(&all));
            prop_assert_eq!(&Histogram::decode(&sum.encode()), &sum);
            prop_assert_eq!(Histogram::from_counts(sum.counts().iter().rev().copied()), sum);
        }
    }

    #[test]
    fn of_none_there_is_no_percentile() {
        assert_eq!(Histogram::default().percentile(50), None);
    }
}
