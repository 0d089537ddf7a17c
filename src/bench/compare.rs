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
    /// Ours / other: at most 1 is wanted beside the wrapper, at most 0.1 beside aiortc's MediaRecorder, and at most 1.2 of
    /// a mesh call beside 1:1 calls.
    pub ratio: f64,
    pub problems: Vec<String>,
}

/// Runs `ours` and what `other` makes `times` times each, taking turns. Calls of both are numbered from `first_call`, and
/// of the callers there are new ones for each turn.
pub async fn compare(
    options: &BenchOptions,
    ours: Arc<dyn BenchTarget>,
    first_call: usize,
    times: usize,
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
        writeln!(f, "  ratio of the medians  {:.3}", self.ratio)?;
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
}
