//! RTP timestamps without their wrap.

/// Extends 32-bit RTP timestamps (RFC 3550 §5.1) to 64 bits.
///
/// Each timestamp is taken to lie less than 2^31 ticks from the one before (12 h at 48 kHz, 6.6 h at 90 kHz),
/// in either direction, so reordered packets go back and a wrap goes on. The first one is taken as it is:
/// values are never negative unless a packet from before the first wrap comes late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimestampUnwrapper {
    last: Option<i64>,
}

impl TimestampUnwrapper {
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// The extended timestamp, which becomes the reference for the next one.
    pub fn unwrap(&mut self, ts: u32) -> i64 {
        let extended = match self.last {
            Some(last) => nearest(ts, last),
            None => i64::from(ts),
        };
        self.last = Some(extended);
        extended
    }

    /// The extended timestamp without moving the reference, `None` before the first `unwrap`.
    pub fn peek(&self, ts: u32) -> Option<i64> {
        self.last.map(|last| nearest(ts, last))
    }
}

/// The value congruent to `ts` modulo 2^32 that is nearest to `reference`.
pub(crate) fn nearest(ts: u32, reference: i64) -> i64 {
    // Truncation keeps the residue modulo 2^32, and the cast to i32 takes the shorter way round.
    let step = ts.wrapping_sub(reference as u32) as i32;
    reference.saturating_add(i64::from(step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wrap_goes_on_and_a_late_packet_goes_back() {
        let mut unwrapper = TimestampUnwrapper::new();
        assert_eq!(unwrapper.peek(7), None);
        assert_eq!(unwrapper.unwrap(0xFFFF_FF00), 0xFFFF_FF00);
        assert_eq!(unwrapper.unwrap(0x40), 0x1_0000_0040);
        assert_eq!(unwrapper.unwrap(0xFFFF_FFF0), 0xFFFF_FFF0);
        assert_eq!(unwrapper.peek(0x80), Some(0x1_0000_0080));
        assert_eq!(unwrapper.unwrap(0x80), 0x1_0000_0080);
    }

    proptest! {
        #[test]
        fn any_walk_of_small_steps_is_followed(
            start: u32,
            steps in prop::collection::vec(-0x4000_0000_i64..0x4000_0000, 0..200),
        ) {
            let mut unwrapper = TimestampUnwrapper::new();
            let mut truth = i64::from(start);
            prop_assert_eq!(unwrapper.unwrap(start), truth);
            for step in steps {
                truth += step;
                prop_assert_eq!(unwrapper.unwrap(truth as u32), truth);
            }
        }
    }
}
