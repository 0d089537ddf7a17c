//! Where a clock that counts samples lost time, and got it back.
//!
//! A busy sender whose sound stood still for a moment may make up for it much later, and hand on more samples at once than
//! time has passed. In between its sound arrives late, all by the same, while nothing else on the same path does. A
//! queue that is as full all along would look the same, so what lies between is told with doubt.

use super::fit::Point;
use super::stalls::{Arrival, Stall, became_longer};

/// For so long before and after a change least delays are looked at, seconds: longer than browsers' saw teeth.
const LEVEL_S: f64 = 10.0;
/// What comes down may do so by steps; of the time before a step the last of it is left out, seconds.
const STEPS_S: f64 = 3.0;
/// The least rise that is taken for the beginning of a plateau, seconds: more than browsers hold back of sound at a time.
const LEAST_S: f64 = 0.012;
/// More than this is not made up for, seconds.
const MOST_S: f64 = 0.25;
/// Arrivals that must have been late in it.
const LATE_IN_IT: usize = 4;
/// Longer than this it is none, seconds.
const LONGEST_S: f64 = 600.0;
/// Media time that what comes back is spread over, times what comes back: media time and session time both rise.
const SPREAD: f64 = 4.0;
/// Plateaus of a stream; what comes later is taken for queues.
const MOST_PLATEAUS: usize = 12;

/// A rise of the least delay that may turn out to be the beginning of a plateau, or what is left of it.
struct Rise {
    /// It is between this arrival and the next.
    at: usize,
    rise_s: f64,
}

/// Stalls and what took them back (`lost_s` below 0), by least-delay arrivals in order; `paths` as for `stalls::find`. Together
/// they lose nothing, and those that give back do not overlap.
pub(super) fn find(arrivals: &[Arrival], paths: &[Vec<Point>], least_s: f64) -> Vec<Stall> {
    let mut found = Vec::new();
    let mut rises: Vec<Rise> = Vec::new();
    let mut since = 0;
    // What a rise rose to, once its saw teeth are down.
    let mut risen_to_s = f64::INFINITY;
    let mut free_from_s = f64::NEG_INFINITY;
    let mut plateaus = 0;
    for (at, pair) in arrivals.windows(2).enumerate() {
        let [before, after] = pair else { continue };
        let same_path = |change_s: f64| {
            change_of_path(paths, before, after).is_some_and(|longer_s| longer_s.abs() < change_s / 2.0)
        };
        let mut high_s = level_until(arrivals, since, at, STEPS_S);
        if before.arrival_s - arrivals[since].arrival_s < LEVEL_S {
            high_s = high_s.min(risen_to_s);
        }
        let fall_s = high_s - after.delay_s;
        if fall_s >= least_s {
            (since, risen_to_s) = (at + 1, f64::INFINITY);
            let parts = taken(&mut rises, fall_s);
            let Some(down) = between(arrivals, at) else { continue };
            if down.0 < free_from_s || plateaus >= MOST_PLATEAUS || !same_path(fall_s) {
                continue;
            }
            let lost: Vec<_> = parts.iter().filter_map(|rise| lost_by(rise, arrivals, at)).collect();
            let back_s: f64 = lost.iter().map(|stall| stall.lost_s).sum();
            if back_s > 0.0 {
                let back = came_back(down, back_s);
                free_from_s = back.to_s;
                plateaus += 1;
                found.extend(lost);
                found.push(back);
            }
            continue;
        }
        let to_s = level_from(&arrivals[at + 1..], after.arrival_s);
        let rise_s = to_s - level_until(arrivals, since, at, 0.0);
        if rise_s >= LEAST_S.max(least_s) {
            (since, risen_to_s) = (at + 1, to_s);
            if same_path(rise_s) {
                rises.push(Rise { at, rise_s });
            }
        }
    }
    found
}

/// Takes `fall_s` in all off the rises, the last first.
fn taken(rises: &mut Vec<Rise>, mut fall_s: f64) -> Vec<Rise> {
    let mut parts = Vec::new();
    while fall_s > 0.0
        && let Some(rise) = rises.last_mut()
    {
        let rise_s = rise.rise_s.min(fall_s);
        parts.push(Rise { at: rise.at, rise_s });
        fall_s -= rise_s;
        rise.rise_s -= rise_s;
        if rise.rise_s <= 0.0 {
            rises.pop();
        }
    }
    parts
}

/// What was lost at a rise that came down after arrival `until`, if it lasted as a plateau does.
fn lost_by(rise: &Rise, arrivals: &[Arrival], until: usize) -> Option<Stall> {
    let lasted_s = arrivals[until].arrival_s - arrivals[rise.at + 1].arrival_s;
    let lasted = until - rise.at >= LATE_IN_IT && (LEVEL_S..=LONGEST_S).contains(&lasted_s);
    let (from_s, to_s) = between(arrivals, rise.at)?;
    (lasted && rise.rise_s <= MOST_S).then(|| one(from_s, to_s, rise.rise_s))
}

/// What gives `back_s` back between two media times.
fn came_back((late_until_s, in_time_s): (f64, f64), back_s: f64) -> Stall {
    // All before the first that was in time were late.
    let from_s = late_until_s.max(in_time_s - SPREAD * back_s);
    one(from_s, in_time_s.max(from_s + SPREAD * back_s), -back_s)
}

fn one(from_s: f64, to_s: f64, lost_s: f64) -> Stall {
    Stall { from_s, to_s, lost_s, unwitnessed: false, gradual: false, came_back: true }
}

/// The least delay of the arrivals within a while from a time on.
fn level_from(arrivals: &[Arrival], from_s: f64) -> f64 {
    least(arrivals.iter().take_while(|arrival| arrival.arrival_s - from_s <= LEVEL_S))
}

/// The least delay of a while until `but_s` before `at`, and not of what came before `since`; until `at` if there is nothing else.
fn level_until(arrivals: &[Arrival], since: usize, at: usize, but_s: f64) -> f64 {
    let until_s = arrivals[at].arrival_s;
    let near = arrivals[since..=at].iter().rev().take_while(|arrival| until_s - arrival.arrival_s <= LEVEL_S);
    let before = least(near.clone().filter(|arrival| until_s - arrival.arrival_s >= but_s));
    if before.is_finite() { before } else { least(near) }
}

fn least<'a>(arrivals: impl Iterator<Item = &'a Arrival>) -> f64 {
    arrivals.map(|arrival| arrival.delay_s).fold(f64::INFINITY, f64::min)
}

/// Media times by RTP between one arrival and the next.
fn between(arrivals: &[Arrival], at: usize) -> Option<(f64, f64)> {
    let (from_s, to_s) = (arrivals[at].extent.1, arrivals[at + 1].extent.0);
    (to_s > from_s).then_some((from_s, to_s))
}

/// By how much the path became longer between two arrivals, by what changed least of all that tells of it; `None` if nothing
/// does.
fn change_of_path(paths: &[Vec<Point>], before: &Arrival, after: &Arrival) -> Option<f64> {
    let change = |path: &Vec<Point>| became_longer(path, before.arrival_s, after.arrival_s, LEVEL_S);
    paths.iter().filter_map(change).min_by(|a, b| a.abs().total_cmp(&b.abs()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::stalls::lost;
    use super::*;

    /// Arrivals each second, `late` by second.
    fn arrivals(late: impl Fn(u32) -> f64, seconds: u32) -> Vec<Arrival> {
        let arrival = |second| {
            let (media_s, delay_s) = (f64::from(second), late(second));
            Arrival { extent: (media_s, media_s), media_s, arrival_s: media_s + delay_s, delay_s }
        };
        (0..seconds).map(arrival).collect()
    }

    fn path(delay: impl Fn(u32) -> f64, seconds: u32) -> Vec<Point> {
        (0..seconds).map(|second| Point { x: f64::from(second), y: delay(second) }).collect()
    }

    fn plateau(second: u32) -> f64 {
        if (7..37).contains(&second) { 0.04 } else { 0.02 }
    }

    /// What is found of a lateness of 20 ms and more over a path that is as it was, and leaves 20 ms all along.
    fn evens_out(late: impl Fn(u32) -> f64, seconds: u32) -> Vec<Stall> {
        let found = find(&arrivals(&late, seconds), &[path(|_| 0.03, seconds)], 0.006);
        for second in 0..seconds {
            let off = late(second) - 0.02 - lost(&found, f64::from(second));
            assert!(off.abs() < 0.001, "{off} at {second}: {found:?}");
        }
        found
    }

    #[test]
    fn what_was_lost_and_came_back_while_the_path_was_as_before_is_both() {
        let found = evens_out(plateau, 60);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn of_two_steps_up_each_comes_down_by_itself() {
        let late = |second| match second {
            5..20 => 0.035,
            20..40 => 0.06,
            40..55 => 0.035,
            _ => 0.02,
        };
        evens_out(late, 80);
    }

    #[test]
    fn two_steps_up_may_come_down_as_one() {
        let late = |second| match second {
            5..25 => 0.035,
            25..45 => 0.06,
            _ => 0.02,
        };
        evens_out(late, 60);
    }

    #[test]
    fn what_comes_back_by_steps_does_so_by_all_of_them() {
        // As a browser was seen to be late, in ms, second by second.
        let late = [
            7, 11, 13, 6, 7, 9, 11, 13, 7, 8, 10, 29, 29, 36, 38, 40, 42, 36, 29, 29, 29, 29, 29, 29, 29, 29,
            25, 15, 17, 19, 21, 23, 15, 17, 19, 22, 15, 16, 9, 9, 9, 9,
        ];
        let late = |second: u32| f64::from(late[second as usize]) / 1000.0;
        let found = find(&arrivals(late, 42), &[path(|_| 0.03, 42)], 0.006);
        let offs = (0..42).map(|second| late(second) - 0.009 - lost(&found, f64::from(second)));
        let offs: Vec<_> = offs.collect();
        assert!(offs.iter().all(|off| off.abs() < 0.016), "{offs:?} {found:?}");
        assert!(offs.iter().filter(|off| off.abs() > 0.009).count() < 8, "{offs:?} {found:?}");
        let late = [
            0, 0, 2, -5, -3, -1, 1, 3, 15, 27, 29, 31, 33, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 16, 18,
            15, 15, 15, 15, 15, 15, 15, 6, 7, 9, 11, 13, 6, -5, -5, -5,
        ];
        let late = |second: u32| f64::from(late[second as usize]) / 1000.0;
        let found = find(&arrivals(late, 41), &[path(|_| 0.03, 41)], 0.006);
        let offs: Vec<_> =
            (0..41).map(|second| late(second) + 0.005 - lost(&found, f64::from(second))).collect();
        assert!(offs.iter().all(|off| off.abs() < 0.02), "{offs:?} {found:?}");
        assert!(offs.iter().filter(|off| off.abs() > 0.009).count() < 5, "{offs:?} {found:?}");
    }

    #[test]
    fn without_a_word_of_the_path_or_with_one_that_was_longer_too_it_is_a_queue() {
        assert_eq!(find(&arrivals(plateau, 60), &[], 0.006), []);
        assert_eq!(find(&arrivals(plateau, 60), &[path(|_| 0.03, 5)], 0.006), []);
        assert_eq!(find(&arrivals(plateau, 60), &[path(plateau, 60)], 0.006), []);
    }

    #[test]
    fn saw_teeth_short_queues_and_what_does_not_come_back_are_none() {
        let witness = || [path(|_| 0.03, 90)];
        let none = |late: fn(u32) -> f64| {
            let found = find(&arrivals(late, 90), &witness(), 0.006);
            assert_eq!(found, [], "{:?}", (0..90).map(late).collect::<Vec<_>>());
        };
        none(|second| 0.02 + 0.001 * f64::from(second % 10));
        none(|second| 0.02 + 0.0005 * f64::from(second));
        none(|second| if (20..28).contains(&second) { 0.2 } else { 0.02 });
        none(|second| if second > 20 { 0.05 } else { 0.02 });
        none(|second| if second < 20 { 0.05 } else { 0.02 });
    }

    #[test]
    fn what_comes_back_leaves_media_time_rising() {
        let close = |second: u32| {
            let (media_s, delay_s) = (f64::from(second), plateau(second));
            let extent = (media_s - 0.49, media_s + 0.49);
            Arrival { extent, media_s, arrival_s: media_s + delay_s, delay_s }
        };
        let found = find(&(0..60).map(close).collect::<Vec<_>>(), &[path(|_| 0.03, 60)], 0.006);
        assert_eq!(found.len(), 2, "{found:?}");
        let straight = (0..6_000).map(|at| f64::from(at) / 100.0).map(|at| at + lost(&found, at));
        let straight: Vec<_> = straight.collect();
        assert!(straight.windows(2).all(|pair| pair[1] - pair[0] > 0.005));
    }

    proptest! {
        #[test]
        fn whatever_comes_media_time_rises(
            steps in prop::collection::vec((0.0_f64..14.0, 0.0_f64..0.3, -0.05_f64..0.5), 1..80),
        ) {
            let (mut media_s, mut arrivals) = (0.0, Vec::new());
            for (lasts, delay_s, step) in steps {
                // A level, then something else.
                for _ in 0..lasts as u32 {
                    media_s += 1.0;
                    let extent = (media_s - 0.3, media_s + 0.3);
                    arrivals.push(Arrival { extent, media_s, arrival_s: media_s + delay_s, delay_s });
                }
                media_s += step;
            }
            let found = find(&arrivals, &[path(|_| 0.03, 1_200)], 0.006);
            let straight = |at: u32| f64::from(at) / 50.0 + lost(&found, f64::from(at) / 50.0);
            for at in 0..(media_s * 50.0) as u32 {
                prop_assert!(straight(at + 1) > straight(at), "{at}: {found:?}");
            }
        }
    }
}
