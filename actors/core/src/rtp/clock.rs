//! RTP timestamps unwrapped to 64 bits (RFC 3550 §5.1: they wrap at 2^32 and start anywhere).

use crate::time::BootTime;

/// A step that leaves both the arrival clock and the timestamp before by more than this is another clock.
const TOLERANCE_S: i64 = 10;

/// Where a timestamp lies on the stream's own 64-bit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwrapped {
    Time(i64),
    /// The sender's clock jumped; the line begins anew at this time.
    Restarted(i64),
}

/// Unwraps timestamps by nearness to the one before, or, after hours of silence, to what the arrival clock foretells:
/// 90 kHz wraps after 13 hours, and a camera may be off for longer.
#[derive(Clone, Debug)]
pub struct TimestampLine {
    clock_rate: i64,
    last: Option<(i64, BootTime)>,
}

impl TimestampLine {
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate: i64::from(clock_rate.max(1)), last: None }
    }

    /// `arrival` is that of the frame's first packet.
    pub fn unwrap(&mut self, timestamp: u32, arrival: BootTime) -> Unwrapped {
        let Some((last, last_arrival)) = self.last else {
            let time = i64::from(timestamp);
            self.last = Some((time, arrival));
            return Unwrapped::Time(time);
        };
        let elapsed_s = arrival.seconds_since(last_arrival).clamp(-1e9, 1e9);
        let foretold = last.saturating_add((elapsed_s * self.clock_rate as f64) as i64);
        let tolerance = TOLERANCE_S * self.clock_rate;
        let by_arrival = nearest(foretold, timestamp);
        let by_last = nearest(last, timestamp);
        let time = if (by_arrival - foretold).abs() <= tolerance {
            by_arrival
        } else if (by_last - last).abs() <= tolerance {
            by_last
        } else {
            let time = i64::from(timestamp);
            self.last = Some((time, arrival));
            return Unwrapped::Restarted(time);
        };
        if time > last {
            self.last = Some((time, arrival));
        }
        Unwrapped::Time(time)
    }
}

/// The value congruent to `timestamp` modulo 2^32 that lies nearest to `reference`.
fn nearest(reference: i64, timestamp: u32) -> i64 {
    let step = timestamp.wrapping_sub(reference as u32) as i32;
    reference.saturating_add(i64::from(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> BootTime {
        BootTime((seconds * 1e9) as u64)
    }

    #[test]
    fn a_wrap_goes_on_counting() {
        let mut line = TimestampLine::new(48_000);
        assert_eq!(line.unwrap(u32::MAX - 959, at(1.0)), Unwrapped::Time(4_294_966_336));
        assert_eq!(line.unwrap(0, at(1.02)), Unwrapped::Time(4_294_967_296));
        assert_eq!(line.unwrap(960, at(1.04)), Unwrapped::Time(4_294_968_256));
    }

    #[test]
    fn a_camera_that_was_off_for_a_day_comes_back_a_day_later() {
        let mut line = TimestampLine::new(90_000);
        line.unwrap(1000, at(10.0));
        let day = 86_400 * 90_000_i64;
        assert_eq!(line.unwrap((1000 + day) as u32, at(10.0 + 86_400.0)), Unwrapped::Time(1000 + day));
    }

    #[test]
    fn a_sender_whose_clock_stood_still_during_a_pause_goes_on_where_it_was() {
        let mut line = TimestampLine::new(48_000);
        line.unwrap(1000, at(10.0));
        assert_eq!(line.unwrap(1960, at(10.0 + 60.0)), Unwrapped::Time(1960));
        assert_eq!(line.unwrap(2920, at(10.0 + 90_000.0)), Unwrapped::Time(2920));
    }

    #[test]
    fn an_unrelated_timestamp_is_another_clock() {
        let mut line = TimestampLine::new(90_000);
        line.unwrap(1000, at(10.0));
        assert_eq!(line.unwrap(2_000_000_000, at(10.1)), Unwrapped::Restarted(2_000_000_000));
        assert_eq!(line.unwrap(2_000_003_000, at(10.2)), Unwrapped::Time(2_000_003_000));
    }

    #[test]
    fn a_step_back_is_told_as_such_and_does_not_move_the_line() {
        let mut line = TimestampLine::new(90_000);
        line.unwrap(90_000, at(10.0));
        assert_eq!(line.unwrap(87_000, at(10.1)), Unwrapped::Time(87_000));
        assert_eq!(line.unwrap(93_000, at(10.2)), Unwrapped::Time(93_000));
    }
}
