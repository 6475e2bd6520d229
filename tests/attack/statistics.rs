//! Tests whether two samples of times can be distinguished: the test of Mann and Whitney, two-sided, with average
//! ranks for ties and the normal approximation, which is valid from some twenty values.
//!
//! It uses only the order, so a single stall of the machine counts as one rank and not as its hundred milliseconds.
//! Its effect size is the chance that a value of one sample exceeds a value of the other (the area under the ROC
//! curve): 0.5 if the samples cannot be distinguished, 1 or 0 if they differ completely.

use std::fmt;

/// The level of all tests of one run together; divided by their number (Bonferroni), because several pairs are
/// compared.
pub(crate) const ALPHA: f64 = 0.01;

/// The result of comparing two samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    /// The chance that a value of the first sample exceeds one of the second; ties count half.
    pub(crate) auc: f64,
    /// The probability of a difference of at least this size if there is none.
    pub(crate) p: f64,
}

impl Comparison {
    pub(crate) fn of(one: &[u64], other: &[u64]) -> Self {
        let mut all: Vec<(u64, bool)> = one.iter().map(|value| (*value, true)).collect();
        all.extend(other.iter().map(|value| (*value, false)));
        all.sort_unstable();
        let (n, m) = (one.len() as f64, other.len() as f64);
        let (mut rank_sum, mut ties, mut before) = (0.0, 0.0, 0.0);
        for tied in all.chunk_by(|a, b| a.0 == b.0) {
            let count = tied.len() as f64;
            let rank = before + f64::midpoint(count, 1.0);
            rank_sum += rank * tied.iter().filter(|(_, first)| *first).count() as f64;
            ties += count.powi(3) - count;
            before += count;
        }
        let u = rank_sum - n * (n + 1.0) / 2.0;
        let total = n + m;
        let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
        let z = if variance > 0.0 { (u - n * m / 2.0) / variance.sqrt() } else { 0.0 };
        Self { auc: u / (n * m), p: 2.0 * upper_tail(z.abs()) }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AUC {:.4}, p {:.3}", self.auc, self.p)
    }
}

/// The chance that a standard normal value exceeds `z` (Abramowitz and Stegun 26.2.17, with an error below 1e-7).
fn upper_tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly
}

/// The value below which `share` of the sample lies.
pub(crate) fn quantile(sample: &[u64], share: f64) -> u64 {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// Values computed by the definition: every pair counted, and the variance with its correction for ties.
#[test]
fn the_test_of_mann_and_whitney_gives_known_values() {
    let near = |seen: f64, wanted: f64| assert!((seen - wanted).abs() < 1e-4, "{seen} for {wanted}");
    let lower: Vec<u64> = (0..20).collect();
    let upper: Vec<u64> = (20..40).collect();
    near(Comparison::of(&lower, &upper).auc, 0.0);
    near(Comparison::of(&upper, &lower).auc, 1.0);
    assert!(Comparison::of(&lower, &upper).p < 1e-6);
    let same = Comparison::of(&lower, &lower);
    near(same.auc, 0.5);
    near(same.p, 1.0);
    let tied = Comparison::of(&[1, 2, 2, 3, 5, 8], &[2, 3, 3, 9, 9, 9]);
    near(tied.auc, 0.25);
    near(tied.p, 0.140_920);
    near(Comparison::of(&[7; 9], &[7; 9]).p, 1.0);
    near(upper_tail(1.959_964), 0.025);
}

/// A test that finds nothing would let every attack pass.
#[test]
fn a_shift_of_a_tenth_of_the_spread_is_found_in_fifty_thousand_values() {
    // Deterministic noise: multiples of an odd number modulo a power of two are evenly spread.
    let noise = |seed: u64, shift: u64| -> Vec<u64> {
        (0..50_000_u64).map(|n| n.wrapping_mul(2_654_435_761).wrapping_add(seed) % 65_536 + shift).collect()
    };
    let found = Comparison::of(&noise(1, 6_554), &noise(77, 0));
    assert!(found.p < 1e-6 && found.auc > 0.55, "{found}");
    let nothing = Comparison::of(&noise(1, 0), &noise(77, 0));
    assert!(nothing.p > 0.01 && (nothing.auc - 0.5).abs() < 0.01, "{nothing}");
}
