//! From senders' media clocks to the session's clock.
//!
//! Sender reports tie a stream's RTP time to its sender's wall clock (RFC 3550 §6.4.1), the same for all
//! streams of one sender, so audio and video lie to each other as the sender meant. The sender's wall clock
//! is tied to ours by what arrived with the least delay, less half the round trip. Until a stream has a
//! report its own least-delay arrivals place it. A packet of sound counts as sent when its last sample was taken.
//! Time that a sender's count of samples lost is put back first, stretch by stretch.

mod fit;
mod plateaus;
mod stalls;
mod stream;
mod unwrap;

pub use unwrap::TimestampUnwrapper;

use crate::media::SenderReport;
use crate::time::BootTime;
use fit::{Line, Point, lower_line};
use stalls::Stall;
use stream::StreamEvidence;

/// Streams whose evidence is kept; past it the one heard least recently is forgotten.
pub const MOST_STREAMS: usize = 32;
/// Error of the sender's clock's place when no round trip is known, seconds.
const UNKNOWN_DELAY_S: f64 = 0.2;
/// What lies between capture and sending and is not told without reports, seconds.
const CAPTURE_DELAY_S: f64 = 0.05;
/// A sender whose wall clock agrees with ours this well is believed to be disciplined as ours is, seconds.
const TRUSTED_S: f64 = 0.05;
/// Wall clocks of two streams further apart than this are not one clock, seconds.
const ONE_CLOCK_S: f64 = 2.0;
/// A report cannot have travelled faster than the packets by more than they may have waited at the sender,
/// seconds.
const LONGEST_WAIT_S: f64 = 0.5;
/// Packets that are faster than all others by more than this are not: their reports are late, seconds.
const TOO_FAST_S: f64 = 0.01;
/// Packets tell how two wall clocks lie to each other if their stream has this part of the reports that the
/// stream with most of them has.
const ENOUGH_REPORTS: usize = 3;
/// Longest round trip that is believed, seconds.
const LONGEST_ROUND_TRIP_S: f64 = 10.0;
/// How far two clocks may run apart where nothing was measured, seconds a second.
const UNKNOWN_DRIFT: f64 = 200e-6;
/// Knots of a map are not closer than this, seconds: a block's time is told in milliseconds.
const KNOT_APART_S: f64 = 0.001;
/// Extent of arrivals from which their drift is believed, seconds.
const DRIFT_SPAN_S: f64 = 60.0;

/// By what evidence a stream was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockMethod {
    SenderReports,
    Arrival,
}

/// A knot of the piecewise linear map from media time to session time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockPoint {
    /// Seconds of media time since the first block.
    pub media_s: f64,
    /// Seconds since the origin that was asked for; may be negative if that lies after the first block.
    pub session_s: f64,
    /// The true session time lies at most so far off.
    pub error_s: f64,
}

/// Where a stretch of media lies.
#[derive(Clone, Debug, PartialEq)]
pub struct ClockEstimate {
    pub method: ClockMethod,
    /// At least one, at media time 0; media and session times rise strictly.
    pub points: Vec<ClockPoint>,
    /// Reports of this stream that were not rejected on sight.
    pub sender_reports: u32,
    /// Session time of media time 0 on the fitted line.
    pub offset_s: f64,
    /// How much faster session time goes than media time.
    pub drift_ppm: f64,
    /// Root mean square of what the evidence differs from the fit.
    pub residual_s: f64,
    /// The largest error of the points.
    pub error_bound_s: f64,
}

/// All evidence about one sender's clock: one per participant's connection, shared by its streams. Bounded
/// memory (about 20 kB a stream), robust against any reports. Estimates may be asked for at any time and get
/// better.
#[derive(Clone, Debug, Default)]
pub struct SenderClock {
    /// Zero of `f64` seconds in here: the first arrival of all.
    base: Option<BootTime>,
    streams: Vec<StreamEvidence>,
    least_round_trip_s: Option<f64>,
    /// An instant of ours and the UTC of it, microseconds since 1970.
    utc: Option<(BootTime, i64)>,
}

impl SenderClock {
    pub fn new() -> Self {
        Self::default()
    }

    /// Our own wall clock: at `at` it was `utc_micros` (microseconds since 1970). Without it no sender's wall
    /// clock is trusted as such.
    pub fn set_utc(&mut self, at: BootTime, utc_micros: i64) {
        self.utc = Some((at, utc_micros));
    }

    /// A round trip to the sender, from another source than its reports; the least one counts.
    pub fn observe_round_trip(&mut self, round_trip_ns: u64) {
        let seconds = round_trip_ns as f64 / 1e9;
        if seconds > 0.0 && seconds <= LONGEST_ROUND_TRIP_S {
            self.least_round_trip_s =
                Some(self.least_round_trip_s.map_or(seconds, |least| least.min(seconds)));
        }
    }

    /// A packet of a stream: its RTP time without wrap (the numbering the later `estimate` uses), how much sound it
    /// holds (ticks; 0 for pictures and where it is not known), and its arrival.
    pub fn observe_packet(
        &mut self,
        ssrc: u32,
        clock_rate: u32,
        unwrapped_rtp: i64,
        length: u32,
        arrival: BootTime,
    ) {
        let arrival_s = self.seconds(arrival);
        // RTP time is that of the first sample (RFC 3550 §5.1), and no packet is sent before its last sample was taken.
        let length_s = f64::from(length) / f64::from(clock_rate.max(1));
        let stream = self.stream(ssrc, arrival_s);
        stream.packet(clock_rate, unwrapped_rtp, arrival_s - length_s);
    }

    /// A sender report. Reports of no use (no wall clock) are ignored; contradictory ones are weighed at
    /// `estimate`.
    pub fn observe_report(&mut self, report: &SenderReport) {
        if let Some(round_trip) = report.round_trip_ns {
            self.observe_round_trip(round_trip);
        }
        // A sender without a wall clock says 0 (RFC 3550 §6.4.1).
        if report.ntp >> 32 == 0 {
            return;
        }
        let arrival_s = self.seconds(report.arrival);
        self.stream(report.ssrc, arrival_s).report(report.ntp, report.rtp, arrival_s);
    }

    /// Where `media_span_s` seconds of a stream's media lie that begin at `rtp_of_first_block`, in seconds
    /// since `origin`. A stream that was never heard lies at `origin`, with an endless error.
    pub fn estimate(
        &self,
        ssrc: u32,
        rtp_of_first_block: i64,
        media_span_s: f64,
        origin: BootTime,
    ) -> ClockEstimate {
        let span_s = if media_span_s.is_finite() { media_span_s.max(0.0) } else { 0.0 };
        let (Some(index), Some(base)) =
            (self.streams.iter().position(|stream| stream.ssrc == ssrc), self.base)
        else {
            return nowhere(ClockMethod::Arrival, span_s);
        };
        let Some(rtp_s) = self.streams[index].seconds(rtp_of_first_block) else {
            return nowhere(ClockMethod::Arrival, span_s);
        };
        let streams = self.without_stalls();
        let stream = &streams[index];
        let media = stream.straight(rtp_s)..stream.straight(rtp_s + span_s);
        let placed =
            self.by_reports(&streams, stream, &media, base).or_else(|| self.by_arrival(stream, &media));
        let Some(placed) = placed else { return nowhere(ClockMethod::Arrival, span_s) };
        let shift = base.seconds_since(origin);
        let stalls = stalls::within(stream.stalls(), rtp_s, rtp_s + span_s);
        let point = |media_s: f64| {
            let at = rtp_s + media_s + stalls::lost(&stalls, rtp_s + media_s);
            let outside = (placed.evidence.0 - at).max(at - placed.evidence.1).max(0.0);
            ClockPoint {
                media_s,
                session_s: placed.line.at(at) + shift,
                error_s: placed.base_error_s
                    + placed.worst_s
                    + outside * UNKNOWN_DRIFT
                    + doubt(&stalls, rtp_s + media_s),
            }
        };
        let mut knots = vec![0.0];
        if span_s > 0.0 {
            let bends = stalls.iter().flat_map(|stall| {
                // Both ends stay, however close they are.
                let to_s = stall.to_s.max(stall.from_s + 1.5 * KNOT_APART_S);
                [stall.from_s - rtp_s, to_s - rtp_s]
            });
            knots.extend(bends.filter(|&at| at > KNOT_APART_S && at < span_s - KNOT_APART_S));
            knots.push(span_s);
            knots.sort_by(f64::total_cmp);
            knots.dedup_by(|b, a| *b - *a < KNOT_APART_S);
        }
        let points: Vec<_> = knots.into_iter().map(point).collect();
        ClockEstimate {
            method: placed.method,
            sender_reports: stream.report_count(),
            offset_s: points[0].session_s,
            drift_ppm: (placed.line.slope - 1.0) * 1e6,
            residual_s: placed.residual_s,
            error_bound_s: points.iter().map(|point| point.error_s).fold(0.0, f64::max),
            points,
        }
    }

    /// All streams' evidence with the time that their clocks lost.
    fn without_stalls(&self) -> Vec<StreamEvidence> {
        let reports: Vec<Point> = self.streams.iter().flat_map(StreamEvidence::report_delays).collect();
        let least = reports.iter().map(|point| point.y).fold(f64::INFINITY, f64::min);
        // Of one wall clock, as nearly all senders have.
        let of_one = reports.into_iter().filter(|point| point.y - least <= ONE_CLOCK_S).collect();
        let mut paths = vec![of_one];
        paths.extend(self.streams.iter().filter_map(StreamEvidence::picture_delays));
        self.streams.iter().map(|stream| stream.without_stalls(&paths)).collect()
    }

    /// Media time → sender's wall clock → our time.
    fn by_reports(
        &self,
        streams: &[StreamEvidence],
        stream: &StreamEvidence,
        media: &std::ops::Range<f64>,
        base: BootTime,
    ) -> Option<Placed> {
        let reported = stream.reported(media)?;
        let own = self.delays(stream, media)?;
        // All streams that show the same wall clock say together how it lies to ours: by their evidence of the
        // whole call, since an offset between clocks does not depend on the stretch asked for.
        let level = least(&own);
        let all = f64::NEG_INFINITY..f64::INFINITY;
        let others = streams.iter().filter_map(|other| {
            let delays = self.delays(other, &all)?;
            ((least(&delays) - level).abs() <= ONE_CLOCK_S).then(|| Some((other.reported(&all)?, delays)))?
        });
        let others: Vec<_> = others.collect();
        let most = others.iter().map(|(reported, _)| reported.count).max().unwrap_or(0);
        let mut delays = Vec::new();
        for (reported, theirs) in others {
            // Where few reports tie packets to a wall clock, one that is late makes all of them too fast.
            let has_enough = reported.count * ENOUGH_REPORTS >= most;
            delays.extend(if has_enough { theirs } else { reported.delays });
        }
        if delays.is_empty() {
            delays.clone_from(&own);
        }
        let mut offset = lower_line(&mut delays, DRIFT_SPAN_S)?;
        // By so much this stream's packets were faster than those of streams that know better.
        let too_fast = own.iter().map(|point| offset.at(point.x) - point.y).fold(0.0, f64::max);
        // Less than what is surely wrong is not mended, but it is doubt.
        let (too_fast_s, doubtful_s) = if too_fast > TOO_FAST_S { (too_fast, 0.0) } else { (0.0, too_fast) };
        let half_trip_s = self.half_trip_s();
        offset.intercept -= half_trip_s.unwrap_or(0.0);
        let middle = reported.line.at((media.start + media.end) / 2.0);
        let mut base_error_s = half_trip_s.unwrap_or(UNKNOWN_DELAY_S);
        if let Some(ours) = self.utc_offset_s(base, stream::NTP_BASE)
            && (offset.at(middle) - ours).abs() <= TRUSTED_S
        {
            base_error_s = base_error_s.max((offset.at(middle) - ours).abs());
            offset = Line { slope: 0.0, intercept: ours };
        }
        // ntp = r(media); ours = ntp + offset(ntp).
        let line = Line {
            slope: reported.line.slope * (1.0 + offset.slope),
            intercept: (reported.line.intercept - too_fast_s) * (1.0 + offset.slope) + offset.intercept,
        };
        Some(Placed {
            method: ClockMethod::SenderReports,
            line,
            evidence: reported.extent,
            base_error_s,
            worst_s: reported.worst_s + doubtful_s,
            residual_s: reported.residual_s,
        })
    }

    /// Media time → our time by the stream's own least-delay arrivals.
    fn by_arrival(&self, stream: &StreamEvidence, media: &std::ops::Range<f64>) -> Option<Placed> {
        let mut delays = stream.arrivals(media);
        let line = lower_line(&mut delays, DRIFT_SPAN_S)?;
        let spread = delays.iter().map(|point| point.y - line.at(point.x)).map(|late| late * late);
        let residual_s = (spread.sum::<f64>() / delays.len() as f64).sqrt().min(UNKNOWN_DELAY_S);
        let half_trip_s = self.half_trip_s();
        Some(Placed {
            method: ClockMethod::Arrival,
            line: Line { slope: 1.0 + line.slope, intercept: line.intercept - half_trip_s.unwrap_or(0.0) },
            evidence: extent(&delays),
            base_error_s: half_trip_s.unwrap_or(UNKNOWN_DELAY_S) + CAPTURE_DELAY_S,
            worst_s: residual_s,
            residual_s,
        })
    }

    /// Over a stream's packets and reports: sender's wall clock → our time less that wall clock, delay
    /// included.
    fn delays(&self, stream: &StreamEvidence, media: &std::ops::Range<f64>) -> Option<Vec<Point>> {
        let reported = stream.reported(media)?;
        let mut points: Vec<_> = stream
            .arrivals(media)
            .into_iter()
            .map(|arrival| {
                let ntp = reported.line.at(arrival.x);
                Point { x: ntp, y: arrival.x + arrival.y - ntp }
            })
            .collect();
        let level = points.iter().map(|point| point.y).fold(f64::INFINITY, f64::min);
        points.extend(reported.delays.into_iter().filter(|report| report.y > level - LONGEST_WAIT_S));
        Some(points)
    }

    fn half_trip_s(&self) -> Option<f64> {
        self.least_round_trip_s.map(|trip| trip / 2.0)
    }

    /// Our time less UTC, on the scales used here.
    fn utc_offset_s(&self, base: BootTime, ntp_base: u64) -> Option<f64> {
        let (at, utc_micros) = self.utc?;
        /// Seconds from 1900 to 1970 (RFC 5905 §6).
        const UNIX_EPOCH_S: f64 = 2_208_988_800.0;
        let utc_s = utc_micros as f64 / 1e6 + UNIX_EPOCH_S - (ntp_base >> 32) as f64;
        Some(at.seconds_since(base) - utc_s)
    }

    fn seconds(&mut self, at: BootTime) -> f64 {
        at.seconds_since(*self.base.get_or_insert(at))
    }

    fn stream(&mut self, ssrc: u32, now_s: f64) -> &mut StreamEvidence {
        let index = match self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            Some(index) => index,
            None => {
                if self.streams.len() >= MOST_STREAMS {
                    let oldest =
                        self.streams.iter().enumerate().min_by(|a, b| a.1.heard_s.total_cmp(&b.1.heard_s));
                    if let Some((oldest, _)) = oldest {
                        self.streams.swap_remove(oldest);
                    }
                }
                self.streams.push(StreamEvidence::new(ssrc));
                self.streams.len() - 1
            }
        };
        let stream = &mut self.streams[index];
        stream.heard_s = stream.heard_s.max(now_s);
        stream
    }
}

/// A stream's line to our time, and how far it is believed.
struct Placed {
    method: ClockMethod,
    /// Media seconds → seconds since `base`.
    line: Line,
    /// Media time of the first and last evidence.
    evidence: (f64, f64),
    base_error_s: f64,
    /// How far the evidence was off at most.
    worst_s: f64,
    residual_s: f64,
}

fn least(points: &[Point]) -> f64 {
    points.iter().map(|point| point.y).fold(f64::INFINITY, f64::min)
}

/// What may not have been lost of media time: a path that became longer looks the same when nothing else came by it.
fn doubt(stalls: &[Stall], at: f64) -> f64 {
    let doubtful = stalls.iter().filter(|stall| stall.unwitnessed && at < stall.to_s);
    // What came back may have been a queue within the sender.
    let came_back: Vec<_> = stalls.iter().filter(|stall| stall.came_back).copied().collect();
    doubtful.map(|stall| stall.lost_s).sum::<f64>() + stalls::lost(&came_back, at).max(0.0)
}

fn extent(points: &[Point]) -> (f64, f64) {
    let first = points.iter().map(|point| point.x).fold(f64::INFINITY, f64::min);
    let last = points.iter().map(|point| point.x).fold(f64::NEG_INFINITY, f64::max);
    (first, last)
}

fn nowhere(method: ClockMethod, span_s: f64) -> ClockEstimate {
    let point = |at| ClockPoint { media_s: at, session_s: at, error_s: f64::MAX };
    let points = if span_s > 0.0 { vec![point(0.0), point(span_s)] } else { vec![point(0.0)] };
    ClockEstimate {
        method,
        points,
        sender_reports: 0,
        offset_s: 0.0,
        drift_ppm: 0.0,
        residual_s: 0.0,
        error_bound_s: f64::MAX,
    }
}
