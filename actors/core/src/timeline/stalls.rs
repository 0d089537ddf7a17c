//! Where a clock that counts samples lost time.
//!
//! RTP time of sound counts samples (RFC 3550 §5.1). A sender whose sound stood still for a moment (an overrun, a
//! busy machine) sends what comes after under RTP times that are too early from then on, by what it lost. Its
//! packets arrive late by as much, and stay so, while nothing else on the same path became later.

use super::fit::{Point, median};

/// What is taken for a stall, seconds: browsers lose sound by pieces of 10 ms.
const LEAST_STALL_S: f64 = 0.006;
/// It must be so many times what least delays differ by from one to the next, or jitter would add up.
const ABOVE_JITTER: f64 = 3.0;
/// Delay that comes down again within this time was a queue, seconds.
const QUEUE_S: f64 = 60.0;
/// Media times that differ by less are the same, seconds: less than a sample, more than rounding.
const SAMPLE_S: f64 = 1e-5;
/// Arrivals that must have been late since.
const LATE_SINCE: usize = 3;
/// Evidence of the path this far before counts, seconds.
const BEFORE_S: f64 = 30.0;
/// Stalls of a stream; with more of them the shorter ones are left.
const MOST_STALLS: usize = 32;

/// What had the least delay of a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arrival {
    /// Media times by RTP of the first and last packet that had hardly more.
    pub extent: (f64, f64),
    pub arrival_s: f64,
    pub delay_s: f64,
}

/// Between two arrivals, media time went on by `lost_s` more than RTP time says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stall {
    /// Media times by RTP between which it was.
    pub from_s: f64,
    pub to_s: f64,
    pub lost_s: f64,
    /// Whether nothing told that it was not the path.
    pub unwitnessed: bool,
}

/// Time lost until `media_s`, all stalls together.
pub(super) fn lost(stalls: &[Stall], media_s: f64) -> f64 {
    let part = |stall: &Stall| {
        let share = (media_s - stall.from_s) / (stall.to_s - stall.from_s);
        stall.lost_s * share.clamp(0.0, 1.0)
    };
    stalls.iter().map(part).sum()
}

/// Stalls as a file from `start_s` to `end_s` has them: one that began before it is over when it begins, and one that
/// is not over by its end came after its last frame. (A source that is switched off for a while is a stall between
/// two files.)
pub(super) fn within(stalls: &[Stall], start_s: f64, end_s: f64) -> Vec<Stall> {
    let inside = stalls.iter().filter_map(|stall| {
        if stall.from_s < start_s {
            let to_s = stall.to_s.min(start_s);
            return Some(Stall { from_s: stall.from_s.min(to_s - 1.0), to_s, ..*stall });
        }
        (stall.to_s < end_s - SAMPLE_S).then_some(*stall)
    });
    inside.collect()
}

/// Stalls by least-delay arrivals, in order of arrival. `paths`: arrival → delay of others
/// from the same sender.
pub(super) fn find(arrivals: &[Arrival], paths: &[Vec<Point>]) -> Vec<Stall> {
    let floors: Vec<_> = (0..arrivals.len())
        .map(|at| {
            let near =
                arrivals[at..].iter().take_while(|other| other.arrival_s - arrivals[at].arrival_s <= QUEUE_S);
            near.map(|other| other.delay_s).fold(f64::INFINITY, f64::min)
        })
        .collect();
    let mut steps: Vec<_> =
        arrivals.windows(2).map(|pair| (pair[1].delay_s - pair[0].delay_s).abs()).collect();
    let least_s = LEAST_STALL_S.max(ABOVE_JITTER * median(&mut steps).unwrap_or_default());
    let mut found: Vec<Stall> = Vec::new();
    for (at, pair) in arrivals.windows(2).enumerate() {
        let (from_s, to_s) = (pair[0].extent.1, pair[1].extent.0);
        let (before, after) = (pair[0].arrival_s, pair[1].arrival_s);
        let rise = floors[at + 1] - floors[at];
        if rise <= -least_s {
            // What came down after all was a queue.
            if let Some(last) = found.pop()
                && last.lost_s + rise >= least_s
            {
                found.push(Stall { lost_s: last.lost_s + rise, ..last });
            }
            continue;
        }
        let since = arrivals.len() - at - 1;
        if to_s <= from_s || after <= before || rise < least_s || since < LATE_SINCE {
            continue;
        }
        let longer: Vec<_> = paths.iter().filter_map(|path| became_longer(path, before, after)).collect();
        let longer_s = longer.iter().copied().fold(f64::INFINITY, f64::min);
        let lost_s = if longer_s.is_finite() && longer_s >= least_s { rise - longer_s } else { rise };
        if lost_s >= least_s {
            found.push(Stall { from_s, to_s, lost_s, unwitnessed: longer.is_empty() });
        }
    }
    if found.len() > MOST_STALLS {
        found.sort_by(|a, b| b.lost_s.total_cmp(&a.lost_s));
        found.truncate(MOST_STALLS);
        found.sort_by(|a, b| a.from_s.total_cmp(&b.from_s));
    }
    found
}

/// By how much a path was longer after a time than before it; `None` if it has nothing to say of one of both.
fn became_longer(path: &[Point], before_s: f64, after_s: f64) -> Option<f64> {
    let least = |from: f64, to: f64| {
        let inside = path.iter().filter(|point| point.x >= from && point.x <= to);
        inside.map(|point| point.y).min_by(f64::total_cmp)
    };
    Some(least(after_s, after_s + QUEUE_S)? - least(before_s - BEFORE_S, before_s)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrivals each second, `late` by second.
    fn arrivals(late: &[f64]) -> Vec<Arrival> {
        let arrival = |(second, &delay_s): (usize, &f64)| {
            let media_s = second as f64;
            Arrival { extent: (media_s, media_s), arrival_s: media_s + delay_s, delay_s }
        };
        late.iter().enumerate().map(arrival).collect()
    }

    fn path(delays: &[f64]) -> Vec<Point> {
        delays.iter().enumerate().map(|(second, &y)| Point { x: second as f64, y }).collect()
    }

    #[test]
    fn what_is_late_for_good_while_the_path_is_as_it_was_is_a_stall() {
        let found =
            find(&arrivals(&[0.02, 0.02, 0.09, 0.12, 0.09, 0.09, 0.09, 0.09, 0.09]), &[path(&[0.03; 9])]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!((found[0].lost_s - 0.07).abs() < 1e-9 && !found[0].unwitnessed, "{found:?}");
        assert_eq!(lost(&found, 0.5), 0.0);
        assert!((lost(&found, 1.5) - 0.035).abs() < 1e-9);
        assert!((lost(&found, 9.0) - 0.07).abs() < 1e-9);
    }

    #[test]
    fn a_source_that_was_off_is_a_stall_between_its_files() {
        let off = Stall { from_s: 9.98, to_s: 10.0, lost_s: 4.0, unwitnessed: false };
        assert_eq!(within(&[off], 2.0, 10.0), []);
        let before = within(&[off], 10.0, 15.0);
        assert_eq!((lost(&before, 10.0), lost(&before, 15.0)), (4.0, 4.0));
        assert_eq!(within(&[off], 2.0, 12.0), [off]);
    }

    #[test]
    fn a_queue_that_empties_again_is_none() {
        assert_eq!(find(&arrivals(&[0.02, 0.3, 0.4, 0.2, 0.02]), &[]), []);
    }

    #[test]
    fn jitter_does_not_add_up_to_stalls() {
        let late = |second: usize| {
            if second.is_multiple_of(70) { 0.02 } else { 0.02 + 0.001 * (second % 12) as f64 }
        };
        let late: Vec<_> = (0..250).map(late).collect();
        assert_eq!(find(&arrivals(&late), &[]), []);
        // Two minutes of a queue, which empties.
        let late: Vec<_> = (0..250).map(|at| if (60..180).contains(&at) { 0.2 } else { 0.02 }).collect();
        assert_eq!(find(&arrivals(&late), &[]), []);
    }

    #[test]
    fn a_path_that_becomes_longer_for_all_is_none() {
        let late = [0.02, 0.02, 0.09, 0.09, 0.09];
        assert_eq!(find(&arrivals(&late), &[path(&late)]), []);
    }
}
