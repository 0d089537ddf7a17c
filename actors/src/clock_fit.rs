//! From a sender's clock to a segment's clock map.

use std::sync::Mutex;

use recorder_core::manifest::{ClockFit, ClockMethod, ClockPoint, Ppm, Record, Seconds};
use recorder_core::timeline::{ClockMethod as Method, SenderClock};

use crate::segment::SegmentOrder;
use crate::session::SessionHandle;
use crate::supervise::lock;

pub(crate) struct Fit {
    pub(crate) start_s: Seconds,
    pub(crate) map: Vec<ClockPoint>,
    pub(crate) clock: ClockFit,
}

/// A file that is closed: what its clock map is computed from, again when its session ends.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedFile {
    pub file: String,
    pub ssrc: u32,
    /// Unwrapped RTP time of its first block.
    pub first_rtp: i64,
    /// Seconds of media from the first block to the end of the last.
    pub span_s: f64,
}

/// Computes the clock maps of closed files anew, by all evidence of the whole session: a short file may have been closed
/// before its stream's first sender report came.
pub(crate) fn recompute(session: &SessionHandle, sender_clock: &Mutex<SenderClock>, files: &[ClosedFile]) {
    let manifest = session.manifest();
    for closed in files {
        let Some(segment) = manifest.segments().find(|segment| segment.file == closed.file) else { continue };
        let fit = fit_on(session, sender_clock, closed.ssrc, closed.first_rtp, closed.span_s);
        if fit.map == segment.clock_map && fit.clock == segment.clock {
            continue;
        }
        let mut newer = segment.clone();
        newer.place(fit.map, fit.clock);
        newer.end_s = newer.session_time(Seconds::new(closed.span_s));
        session.tell(Record::SegmentClosed { file: closed.file.clone(), segment: Box::new(newer) });
    }
}

/// The clock map of a file that begins at `first_rtp` (unwrapped) and spans `span_s` seconds of media, by all evidence
/// there is now.
pub(crate) fn fit(order: &SegmentOrder, first_rtp: i64, span_s: f64) -> Fit {
    fit_on(&order.session, &order.sender_clock, order.ring.info.ssrc, first_rtp, span_s)
}

fn fit_on(
    session: &SessionHandle,
    sender_clock: &Mutex<SenderClock>,
    ssrc: u32,
    first_rtp: i64,
    span_s: f64,
) -> Fit {
    let origin = session.clock().epoch_boot_time();
    // A session that is older than the boot has no epoch on this clock.
    let before_s = session.session_s(origin).as_f64();
    let estimate = lock(sender_clock).estimate(ssrc, first_rtp, span_s, origin);
    let map: Vec<_> = estimate
        .points
        .iter()
        .map(|point| ClockPoint {
            media_s: Seconds::new(point.media_s),
            session_s: Seconds::new(before_s + point.session_s),
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
