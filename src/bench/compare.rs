//! `bench --compare`: our recording path and something else on the same load, one after the other and several
//! times, because a machine's speed wanders.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::{BenchError, BenchOptions, BenchReport, BenchTarget, run};

/// How often each is run.
pub const TIMES: usize = 5;

/// Microseconds of processor time per packet, run by run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub calls: usize,
    pub ours: String,
    pub ours_us: Vec<f64>,
    /// What ours is compared with.
    pub other: String,
    pub other_us: Vec<f64>,
    pub ours_median_us: f64,
    pub other_median_us: f64,
    /// Ours / other.
    pub ratio: f64,
    /// What the ratio may be.
    pub limit: f64,
    pub problems: Vec<String>,
}

impl Comparison {
    /// Nothing went wrong, and ours costs no more than it may.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty() && self.ratio <= self.limit
    }
}

/// Runs `ours` and what `other` makes `times` times each, taking turns. Calls of both are numbered from `first_call`, and
/// of the callers there are new ones for each turn.
pub async fn compare(
    options: &BenchOptions,
    ours: Arc<dyn BenchTarget>,
    first_call: usize,
    times: usize,
    limit: f64,
    other: impl Fn() -> Result<Arc<dyn BenchTarget>, BenchError>,
) -> Result<Comparison, BenchError> {
    let (mut ours_us, mut other_us, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    let mut name = String::new();
    for turn in 0..times.max(1) {
        let report = run(options, ours.clone(), first_call + turn * options.calls).await?;
        take("ours", &report, &mut ours_us, &mut problems);
        let report = run(options, other()?, first_call + turn * options.calls).await?;
        take("other", &report, &mut other_us, &mut problems);
        name = report.target;
        let (Some(ours), Some(other)) = (ours_us.last(), other_us.last()) else { continue };
        options.tell(&format!("turn {}: ours {ours:.1} µs a packet, the other {other:.1} µs", turn + 1));
    }
    let (ours_median_us, other_median_us) = (median(&ours_us), median(&other_us));
    let ratio = ours_median_us / other_median_us;
    Ok(Comparison {
        calls: options.calls,
        ours: ours.name(),
        ours_us,
        other: name,
        other_us,
        ours_median_us,
        other_median_us,
        ratio,
        limit,
        problems,
    })
}

fn take(who: &str, report: &BenchReport, costs: &mut Vec<f64>, problems: &mut Vec<String>) {
    costs.push(report.cpu_us_per_packet);
    problems.extend(report.problems.iter().map(|problem| format!("{who}: {problem}")));
}

/// Middle of the values, 0 for none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => 0.0,
        (Some(value), 1) => *value,
        (Some(value), _) => values.get(middle.wrapping_sub(1)).map_or(*value, |below| (below + value) / 2.0),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |values: &[f64]| values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(", ");
        writeln!(f, "{} calls, microseconds of processor time a packet:", self.calls)?;
        writeln!(f, "  ours, to disk         {:.1}  ({})", self.ours_median_us, list(&self.ours_us))?;
        writeln!(f, "  the other             {:.1}  ({})", self.other_median_us, list(&self.other_us))?;
        let missed = if self.ratio <= self.limit { "" } else { ": MISSED" };
        writeln!(f, "  ratio of the medians  {:.3}, at most {} is wanted{missed}", self.ratio, self.limit)?;
        writeln!(f, "  ours is               {}", self.ours)?;
        writeln!(f, "  the other is          {}", self.other)?;
        for problem in &self.problems {
            writeln!(f, "  problem               {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_ratio_above_its_limit_is_no_good_end_and_says_so() {
        let compared = |ratio| Comparison {
            calls: 1,
            ours: "ours".to_owned(),
            ours_us: vec![ratio],
            other: "the other".to_owned(),
            other_us: vec![1.0],
            ours_median_us: ratio,
            other_median_us: 1.0,
            ratio,
            limit: 1.0,
            problems: Vec::new(),
        };
        assert!(compared(1.0).is_good() && !compared(1.0).to_string().contains("MISSED"));
        assert!(!compared(1.01).is_good() && compared(1.01).to_string().contains("MISSED"));
        assert!(!compared(f64::NAN).is_good(), "nothing was measured");
    }
}
