//! From a sender's clock to a segment's clock map.

use recorder_core::manifest::{ClockFit, ClockMethod, ClockPoint, Ppm, Seconds};
use recorder_core::timeline::ClockMethod as Method;

use crate::segment::SegmentOrder;
use crate::supervise::lock;

pub(crate) struct Fit {
    pub(crate) start_s: Seconds,
    pub(crate) map: Vec<ClockPoint>,
    pub(crate) clock: ClockFit,
}

/// The clock map of a file that begins at `first_rtp` (unwrapped) and spans `span_s` seconds of media, by all evidence
/// there is now.
pub(crate) fn fit(order: &SegmentOrder, first_rtp: i64, span_s: f64) -> Fit {
    let info = &order.ring.info;
    let origin = order.session.clock();
    let estimate = lock(&order.sender_clock).estimate(info.ssrc, first_rtp, span_s, origin.epoch_boot_time());
    let map: Vec<_> = estimate
        .points
        .iter()
        .map(|point| ClockPoint {
            media_s: Seconds::new(point.media_s),
            session_s: Seconds::new(point.session_s),
            error_s: Seconds::new(point.error_s),
        })
        .collect();
    let start_s = map.first().map_or(Seconds::ZERO, |point| point.session_s);
    let method = match estimate.method {
        Method::SenderReports => ClockMethod::SenderReports,
        Method::Arrival => ClockMethod::Arrival,
    };
    Fit {
        start_s,
        map,
        clock: ClockFit {
            method: method.into(),
            sender_reports: u64::from(estimate.sender_reports),
            offset_s: start_s,
            drift_ppm: Ppm::new(estimate.drift_ppm),
            residual_s: Seconds::new(estimate.residual_s),
            error_bound_s: Seconds::new(estimate.error_bound_s),
        },
    }
}
