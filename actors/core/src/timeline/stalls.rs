//! Where a clock that counts samples lost time.
//!
//! RTP time of sound counts samples (RFC 3550 §5.1). A sender whose sound stood still for a moment (an overrun, a
//! busy machine) sends what comes after under RTP times that are too early from then on, by what it lost. Its
//! packets arrive late by as much, and stay so, while nothing else on the same path became later.

use super::fit::Point;
use super::plateaus;

/// What is taken for a stall, seconds: browsers lose sound by pieces of 10 ms.
const LEAST_STALL_S: f64 = 0.006;
/// It must be so many times what least delays usually differ by from one to the next, or jitter would add up.
const ABOVE_JITTER: f64 = 3.0;
/// Delay that comes down again within this time was a queue, seconds.
const QUEUE_S: f64 = 60.0;
/// Lost little by little is what is a stall in all within this time, seconds: 500 ppm, more than any two clocks run apart.
const GRADUAL_S: f64 = 12.0;
/// Browsers that are late by a growing part of their 10 ms catch up within this time, seconds.
const SAW_TOOTH_S: f64 = 10.0;
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
    /// Media time by RTP of the one that had the least.
    pub media_s: f64,
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
    /// Lost little by little all along, not at a moment between the two.
    pub gradual: bool,
    /// One of two that even out: what was lost, and, with `lost_s` below 0, that it came back.
    pub came_back: bool,
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
        if stall.gradual {
            return Some(*stall);
        }
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
    let least_s = LEAST_STALL_S.max(ABOVE_JITTER * jitter_s(arrivals));
    let plateaus = plateaus::find(arrivals, paths, least_s);
    let rest = without(&plateaus, arrivals);
    let mut found = at_once(&rest, paths, least_s);
    found.extend(gradual(&without(&found, &rest), paths, least_s));
    if found.len() > MOST_STALLS {
        found.sort_by(|a, b| b.lost_s.total_cmp(&a.lost_s));
        found.truncate(MOST_STALLS);
    }
    found.extend(plateaus);
    found.sort_by(|a, b| a.from_s.total_cmp(&b.from_s));
    found
}

/// Arrivals as they would be late without `stalls`.
fn without(stalls: &[Stall], arrivals: &[Arrival]) -> Vec<Arrival> {
    let rest =
        |arrival: &Arrival| Arrival { delay_s: arrival.delay_s - lost(stalls, arrival.media_s), ..*arrival };
    arrivals.iter().map(rest).collect()
}

/// How much least delays differ from one to the next: by what they come down, since going up may be a stall. As often as not
/// they go up, so three quarters of all are taken for half of those that come down.
fn jitter_s(arrivals: &[Arrival]) -> f64 {
    let mut falls: Vec<_> =
        arrivals.windows(2).map(|pair| (pair[0].delay_s - pair[1].delay_s).max(0.0)).collect();
    falls.sort_by(f64::total_cmp);
    falls.get(falls.len() * 3 / 4).copied().unwrap_or_default()
}

/// Stalls of one moment each, between two arrivals.
fn at_once(arrivals: &[Arrival], paths: &[Vec<Point>], least_s: f64) -> Vec<Stall> {
    let floors = floors(arrivals, 0.0);
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
        if to_s <= from_s || after <= before || since < LATE_SINCE {
            continue;
        }
        if let Some((lost_s, unwitnessed)) = of_the_sender(rise, paths, before, after, least_s) {
            found.push(Stall { from_s, to_s, lost_s, unwitnessed, gradual: false, came_back: false });
        }
    }
    found
}

/// Time that was lost by pieces too small to be seen, one after the other: faster than any two clocks run apart.
fn gradual(arrivals: &[Arrival], paths: &[Vec<Point>], least_s: f64) -> Vec<Stall> {
    let floors = floors(arrivals, SAW_TOOTH_S);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = arrivals.get(at) {
        let near = arrivals[at + 1..].iter().take_while(|to| to.arrival_s - first.arrival_s <= GRADUAL_S);
        let rises = near.enumerate().map(|(number, to)| (at + 1 + number, to));
        let change = rises.map(|(to, arrival)| (to, arrival, floors[to] - floors[at]));
        let Some((to, last, rise)) = change.into_iter().find(|(.., rise)| rise.abs() >= least_s) else {
            at += 1;
            continue;
        };
        if rise < 0.0 {
            take_back(&mut found, -rise);
        } else if floors[to] - floors[to - 1] < least_s
            && let Some((lost_s, unwitnessed)) =
                of_the_sender(rise, paths, first.arrival_s, last.arrival_s, least_s)
            && last.media_s > first.media_s
        {
            let (from_s, to_s) = (first.media_s, last.media_s);
            found.push(Stall { from_s, to_s, lost_s, unwitnessed, gradual: true, came_back: false });
        }
        at = to;
    }
    found
}

/// What came down after all was a queue.
fn take_back(found: &mut Vec<Stall>, mut fall: f64) {
    while fall > 0.0
        && let Some(last) = found.last_mut()
    {
        let part = fall.min(last.lost_s);
        last.lost_s -= part;
        fall -= part;
        if last.lost_s <= 0.0 {
            found.pop();
        }
    }
}

/// The delay that each arrival came down to afterwards, if by then something was no queue. Near the end, where little came
/// afterwards, at least `whole_s` of what was last counts.
fn floors(arrivals: &[Arrival], whole_s: f64) -> Vec<f64> {
    let Some(last) = arrivals.last() else { return Vec::new() };
    let floor = |arrival: &Arrival| {
        let from = arrival.arrival_s.min(last.arrival_s - whole_s);
        let near = arrivals.iter().skip_while(|other| other.arrival_s < from);
        near.take_while(|other| other.arrival_s - arrival.arrival_s <= QUEUE_S)
            .map(|other| other.delay_s)
            .fold(f64::INFINITY, f64::min)
    };
    arrivals.iter().map(floor).collect()
}

/// What of a rise of the least delay the path does not account for, and whether nothing told of the path. `None` if that
/// is too little.
fn of_the_sender(
    rise: f64,
    paths: &[Vec<Point>],
    before: f64,
    after: f64,
    least_s: f64,
) -> Option<(f64, bool)> {
    if rise < least_s {
        return None;
    }
    let longer = paths.iter().filter_map(|path| became_longer(path, before, after, QUEUE_S));
    let longer: Vec<_> = longer.collect();
    let longer_s = longer.iter().copied().fold(f64::INFINITY, f64::min);
    let lost_s = if longer_s.is_finite() && longer_s >= least_s { rise - longer_s } else { rise };
    (lost_s >= least_s).then_some((lost_s, longer.is_empty()))
}

/// By how much a path was longer for `while_s` after a time than before one; `None` if it has nothing to say of one of both.
pub(super) fn became_longer(path: &[Point], before_s: f64, after_s: f64, while_s: f64) -> Option<f64> {
    let least = |from: f64, to: f64| {
        let inside = path.iter().filter(|point| point.x >= from && point.x <= to);
        inside.map(|point| point.y).min_by(f64::total_cmp)
    };
    Some(least(after_s, after_s + while_s)? - least(before_s - BEFORE_S, before_s)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrivals each second, `late` by second.
    fn arrivals(late: &[f64]) -> Vec<Arrival> {
        let arrival = |(second, &delay_s): (usize, &f64)| {
            let media_s = second as f64;
            Arrival { extent: (media_s, media_s), media_s, arrival_s: media_s + delay_s, delay_s }
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
        let off = Stall {
            from_s: 9.98,
            to_s: 10.0,
            lost_s: 4.0,
            unwitnessed: false,
            gradual: false,
            came_back: false,
        };
        assert_eq!(within(&[off], 2.0, 10.0), []);
        let before = within(&[off], 10.0, 15.0);
        assert_eq!((lost(&before, 10.0), lost(&before, 15.0)), (4.0, 4.0));
        assert_eq!(within(&[off], 2.0, 12.0), [off]);
    }

    #[test]
    fn what_is_lost_little_by_little_is_put_back_little_by_little() {
        // 2 ms a second from the tenth to the twentieth, between times of rest; the path is as it was.
        let late: Vec<_> =
            (0..40).map(|second| 0.02 + 0.002 * f64::from((second - 10).clamp(0, 10))).collect();
        let found = find(&arrivals(&late), &[path(&[0.03; 40])]);
        for (second, late) in late.iter().enumerate() {
            let off = late - 0.02 - lost(&found, second as f64);
            assert!(off.abs() < 0.006, "{off} at {second}: {found:?}");
        }
        assert!(found.iter().all(|stall| stall.gradual && !stall.unwitnessed));
        // A file that begins in the middle of it has lost what was lost by then.
        assert_eq!(within(&found, 15.0, 30.0), found);
    }

    #[test]
    fn a_saw_tooth_and_clocks_that_run_apart_are_none() {
        let tooth: Vec<_> = (0..63).map(|second| 0.02 + 0.002 * f64::from(second % 5)).collect();
        assert_eq!(find(&arrivals(&tooth), &[]), []);
        let apart: Vec<_> = (0..200).map(|second| 0.02 + 0.0002 * f64::from(second)).collect();
        assert_eq!(find(&arrivals(&apart), &[]), []);
        let longer: Vec<_> =
            (0..40).map(|second| 0.02 + 0.002 * f64::from((second - 10).clamp(0, 10))).collect();
        assert_eq!(find(&arrivals(&longer), &[path(&longer)]), []);
    }

    #[test]
    fn what_is_lost_in_every_second_is_not_taken_for_jitter() {
        let late =
            [0.02, 0.02, 0.032, 0.045, 0.08, 0.098, 0.11, 0.11, 0.12, 0.14, 0.14, 0.15, 0.15, 0.15, 0.15];
        let found = find(&arrivals(&late), &[path(&[0.03; 15])]);
        for (second, late) in late.iter().enumerate() {
            let off = late - 0.02 - lost(&found, second as f64);
            assert!(off.abs() < 0.02, "{off} at {second}: {found:?}");
        }
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
        // One that grows, and empties at once or little by little.
        for emptying in [1, 40] {
            let filled = |at: i32| (at - 60).clamp(0, 90).min((180 - at) * 90 / emptying).max(0);
            let late: Vec<_> = (0..300).map(|at| 0.02 + 0.001 * f64::from(filled(at))).collect();
            let left: f64 = find(&arrivals(&late), &[]).iter().map(|stall| stall.lost_s).sum();
            assert!(left < 0.01, "{left} s of a queue that empties in {emptying} s");
        }
    }

    #[test]
    fn a_path_that_becomes_longer_for_all_is_none() {
        let late = [0.02, 0.02, 0.09, 0.09, 0.09];
        assert_eq!(find(&arrivals(&late), &[path(&late)]), []);
    }
}
