//! Counts of values in buckets that grow with the value, as HdrHistogram has them: the error is a
//! share of the value.
//!
//! One of its own, since the memory of subjects is measured and each caller has one: a few KiB, no
//! library beside it.

/// The largest value that is told from larger ones: a minute, in nanoseconds.
const MAX: u64 = 60_000_000_000;

/// How often which values came.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    /// Values up to `2 << bits` have a bucket each; from there each doubling has `1 << bits`
    /// buckets.
    bits: u32,
    counts: Vec<u32>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// With an error of at most one part in `2 << bits`.
    pub(crate) fn new(bits: u32) -> Self {
        let mut new = Self { bits, counts: Vec::new(), total: 0, max: 0 };
        new.counts = vec![0; new.bucket(MAX) + 1];
        new
    }

    pub(crate) fn record(&mut self, value: u64) {
        let bucket = self.bucket(value.min(MAX));
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Takes all of another with the same buckets in.
    pub(crate) fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.bits, other.bits, "buckets of another width");
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The value that this share of all values does not exceed, up to the error; 0 where there are
    /// none.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                // The middle of the last one may lie beyond what came.
                return self.middle(bucket).min(self.max as f64);
            }
        }
        0.0
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    fn bucket(&self, value: u64) -> usize {
        let doublings = value.max(1).ilog2().saturating_sub(self.bits);
        let bucket = (u64::from(doublings) << self.bits) + (value >> doublings);
        usize::try_from(bucket).expect("a bucket of a minute is below 2^32")
    }

    fn middle(&self, bucket: usize) -> f64 {
        let doublings = (bucket >> self.bits).saturating_sub(1);
        let lowest = (bucket - (doublings << self.bits)) as f64;
        let width = 2_f64.powi(i32::try_from(doublings).expect("a value has at most 64 doublings"));
        (lowest + 0.5) * width - 0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_are_exact_and_large_ones_near() {
        for bits in [5, 10] {
            let error = 1.0 / f64::from(2 << bits);
            for value in
                [0, 1, 31, 32, 63, 64, 65, 1000, 1023, 1024, 2047, 2048, 2049, 123_456_789, MAX]
            {
                let mut histogram = Histogram::new(bits);
                histogram.record(value);
                let (found, wanted) = (histogram.at(0.5), value as f64);
                assert!(
                    (found - wanted).abs() <= wanted * error,
                    "{bits} bits: {found}, not {wanted}"
                );
            }
        }
    }

    #[test]
    fn shares_are_counted_over_all_that_was_added() {
        let (mut low, mut high) = (Histogram::new(10), Histogram::new(10));
        (1..=500).for_each(|value| low.record(value));
        (501..=1000).for_each(|value| high.record(value));
        low.add(&high);
        assert_eq!(
            (low.at(0.5), low.at(0.99), low.at(1.0), low.max()),
            (500.0, 990.0, 1000.0, 1000)
        );
    }

    #[test]
    fn a_value_beyond_the_largest_is_counted_there() {
        let mut histogram = Histogram::new(5);
        histogram.record(u64::MAX);
        assert!(histogram.at(0.5) >= 0.98 * MAX as f64);
        assert_eq!(histogram.max(), u64::MAX);
    }

    #[test]
    fn none_is_no_value() {
        assert_eq!(Histogram::new(5).at(0.5), 0.0);
    }
}
