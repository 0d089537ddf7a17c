//! What one stream's packets and reports say, in bounded memory.

use std::ops::Range;

use super::fit::{Line, Point, median, middle_line};
use super::stalls::{self, Arrival, Stall};
use super::unwrap::nearest;

/// Zero of wall clocks in here: the first day of 2020, so that `f64` seconds keep microseconds.
pub(super) const NTP_BASE: u64 = 3_786_825_600 << 32;
/// Reports kept a stream; past it every second one goes.
const MOST_REPORTS: usize = 512;
/// Reports kept of a stream without packets.
const MOST_EARLY: usize = 8;
/// Least-delay arrivals kept a stream; past it neighbours are joined.
const MOST_WINDOWS: usize = 256;
/// Time over which one least-delay arrival is kept at first, seconds.
const FIRST_WINDOW_S: f64 = 1.0;
/// Delays that differ by less are taken for equal, seconds.
const HARDLY_S: f64 = 0.005;
/// Reports whose RTP time lies further from the packets around them are nonsense, seconds.
const CONTRADICTION_S: f64 = 5.0;
/// A report is an outlier from this residual on, and from five times the usual one, seconds.
const OUTLIER_S: f64 = 0.05;
/// Distance between reports from which their drift is believed, seconds: their jitter divided by it is below
/// the usual drift. That of pictures is a millisecond. Browsers tie sound to the instant at which it is
/// encoded, which wanders by some ten.
const DRIFT_APART_S: f64 = 20.0;
const SOUND_DRIFT_APART_S: f64 = 60.0;
/// The clock that counts pictures (RFC 3551 §5); all others count samples of sound.
const PICTURE_RATE: f64 = 90_000.0;
/// Evidence this far around a stretch of media counts for it, seconds.
const AROUND_S: f64 = 60.0;

#[derive(Clone, Copy, Debug)]
struct Report {
    /// Seconds of the sender's wall clock since `NTP_BASE`.
    ntp_s: f64,
    rtp: i64,
    arrival_s: f64,
}

/// The packet with the least delay of a window of time.
#[derive(Clone, Copy, Debug)]
struct Window {
    media_s: f64,
    arrival_s: f64,
    begins_s: f64,
    /// Media times of the first and last packet with hardly more delay.
    extent: (f64, f64),
}

impl Window {
    fn delay_s(&self) -> f64 {
        self.arrival_s - self.media_s
    }

    fn add(&mut self, media_s: f64, arrival_s: f64) {
        if (media_s - self.media_s).abs() >= CONTRADICTION_S {
            return;
        }
        let more = arrival_s - media_s - self.delay_s();
        if more < -HARDLY_S {
            self.extent = (media_s, media_s);
        } else if more <= HARDLY_S {
            self.extent = (self.extent.0.min(media_s), self.extent.1.max(media_s));
        }
        if more < 0.0 {
            (self.media_s, self.arrival_s) = (media_s, arrival_s);
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct StreamEvidence {
    pub ssrc: u32,
    pub heard_s: f64,
    clock_rate: f64,
    last_rtp: Option<i64>,
    reports: Vec<Report>,
    /// Keep every n-th report, and how many came since the last one kept.
    report_stride: u32,
    skipped_reports: u32,
    report_count: u32,
    early: Vec<(u64, u32, f64)>,
    windows: Vec<Window>,
    window_s: f64,
    /// Where the clock that counts samples lost time; media time below is without them.
    stalls: Vec<Stall>,
}

/// Media time → sender's wall clock, by the reports that agree.
pub(super) struct Reported {
    pub line: Line,
    pub count: usize,
    /// Media time of the first and last report that agrees.
    pub extent: (f64, f64),
    pub residual_s: f64,
    /// What the one furthest off is off.
    pub worst_s: f64,
    /// Wall clock → arrival less wall clock, of those reports.
    pub delays: Vec<Point>,
}

impl StreamEvidence {
    pub(super) fn new(ssrc: u32) -> Self {
        Self {
            ssrc,
            heard_s: f64::NEG_INFINITY,
            clock_rate: 0.0,
            last_rtp: None,
            reports: Vec::new(),
            report_stride: 1,
            skipped_reports: 0,
            report_count: 0,
            early: Vec::new(),
            windows: Vec::new(),
            window_s: FIRST_WINDOW_S,
            stalls: Vec::new(),
        }
    }

    /// Whether its RTP time counts samples. That of pictures is read from a clock, and loses nothing.
    fn counts_samples(&self) -> bool {
        self.clock_rate != PICTURE_RATE
    }

    /// The same evidence with media time that went on where samples were lost: by arrivals that have been late
    /// since, where the path to us (`paths`: arrival → delay, one list a witness) did not become longer.
    pub(super) fn without_stalls(&self, paths: &[Vec<Point>]) -> Self {
        let mut straight = self.clone();
        if self.counts_samples() {
            let arrival = |window: &Window| Arrival {
                extent: window.extent,
                media_s: window.media_s,
                arrival_s: window.arrival_s,
                delay_s: window.delay_s(),
            };
            let arrivals: Vec<_> = self.windows.iter().map(arrival).collect();
            straight.stalls = stalls::find(&arrivals, paths);
        }
        for window in &mut straight.windows {
            window.media_s += stalls::lost(&straight.stalls, window.media_s);
        }
        straight
    }

    /// Media time by RTP → media time without stalls.
    pub(super) fn straight(&self, media_s: f64) -> f64 {
        media_s + stalls::lost(&self.stalls, media_s)
    }

    pub(super) fn stalls(&self) -> &[Stall] {
        &self.stalls
    }

    /// Arrival → what a report took, by the clocks of both ends.
    pub(super) fn report_delays(&self) -> Vec<Point> {
        let point = |report: &Report| Point { x: report.arrival_s, y: report.arrival_s - report.ntp_s };
        self.reports.iter().filter(|report| self.is_believable(report)).map(point).collect()
    }

    /// Arrival → delay of least-delay arrivals, of a stream whose RTP time is read from a clock.
    pub(super) fn picture_delays(&self) -> Option<Vec<Point>> {
        let point = |window: &Window| Point { x: window.arrival_s, y: window.delay_s() };
        (!self.counts_samples() && self.last_rtp.is_some()).then(|| self.windows.iter().map(point).collect())
    }

    pub(super) fn report_count(&self) -> u32 {
        self.report_count
    }

    /// Media time in seconds, `None` before the first packet.
    pub(super) fn seconds(&self, rtp: i64) -> Option<f64> {
        self.last_rtp.map(|_| rtp as f64 / self.clock_rate)
    }

    pub(super) fn packet(&mut self, clock_rate: u32, rtp: i64, arrival_s: f64) {
        self.clock_rate = f64::from(clock_rate.max(1));
        let first = self.last_rtp.is_none();
        self.last_rtp = Some(rtp);
        if first {
            for (ntp, rtp, arrival_s) in std::mem::take(&mut self.early) {
                self.report(ntp, rtp, arrival_s);
            }
        }
        let media_s = rtp as f64 / self.clock_rate;
        match self.windows.last_mut() {
            Some(last) if (arrival_s - last.begins_s).abs() < self.window_s => last.add(media_s, arrival_s),
            _ => {
                if self.windows.len() >= MOST_WINDOWS {
                    self.join_windows();
                }
                let extent = (media_s, media_s);
                self.windows.push(Window { media_s, arrival_s, begins_s: arrival_s, extent });
            }
        }
    }

    /// Joins neighbours two by two, the one with less delay stays.
    fn join_windows(&mut self) {
        let joined = self.windows.chunks(2).map(|pair| {
            let least = pair.iter().copied().min_by(|a, b| a.delay_s().total_cmp(&b.delay_s()));
            Window { begins_s: pair[0].begins_s, ..least.unwrap_or(pair[0]) }
        });
        self.windows = joined.collect();
        self.window_s *= 2.0;
    }

    pub(super) fn report(&mut self, ntp: u64, rtp: u32, arrival_s: f64) {
        let Some(last_rtp) = self.last_rtp else {
            if self.early.len() < MOST_EARLY {
                self.early.push((ntp, rtp, arrival_s));
            }
            return;
        };
        self.report_count = self.report_count.saturating_add(1);
        self.skipped_reports += 1;
        if self.skipped_reports < self.report_stride {
            return;
        }
        self.skipped_reports = 0;
        if self.reports.len() >= MOST_REPORTS {
            let mut index = 0;
            self.reports.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.report_stride = self.report_stride.saturating_mul(2);
        }
        // Wrapping keeps the difference right over NTP's era change of 2036 (RFC 5905 §6).
        let ntp_s = ntp.wrapping_sub(NTP_BASE) as f64 / 4_294_967_296.0;
        self.reports.push(Report { ntp_s, rtp: nearest(rtp, last_rtp), arrival_s });
    }

    /// Least-delay arrivals around a stretch of media (all, if there are none): media time → arrival less
    /// media time.
    pub(super) fn arrivals(&self, media: &Range<f64>) -> Vec<Point> {
        let points = |window: &Window| Point { x: window.media_s, y: window.delay_s() };
        let near: Vec<_> =
            self.windows.iter().filter(|window| around(media, window.media_s)).map(points).collect();
        if near.is_empty() { self.windows.iter().map(points).collect() } else { near }
    }

    /// The reports around a stretch of media that agree with each other and with the packets; all of the
    /// stream's, if there are none around. `None` if none agree.
    pub(super) fn reported(&self, media: &Range<f64>) -> Option<Reported> {
        let believable: Vec<_> = self.reports.iter().filter(|report| self.is_believable(report)).collect();
        let near: Vec<_> =
            believable.iter().copied().filter(|report| around(media, self.media_s(report))).collect();
        let reports = if near.is_empty() { believable } else { near };
        let lag = |report: &Report| Point { x: self.media_s(report), y: report.ntp_s - self.media_s(report) };
        let points: Vec<_> = reports.iter().map(|report| lag(report)).collect();
        let apart = if self.counts_samples() { SOUND_DRIFT_APART_S } else { DRIFT_APART_S };
        let rough = middle_line(&points, apart)?;
        let off = |line: &Line, point: &Point| (point.y - line.at(point.x)).abs();
        let mut offs: Vec<_> = points.iter().map(|point| off(&rough, point)).collect();
        let limit = OUTLIER_S.max(5.0 * median(&mut offs)?.min(OUTLIER_S));
        let agreeing: Vec<_> =
            reports.into_iter().zip(points).filter(|(_, point)| off(&rough, point) <= limit).collect();
        // Fewer than half in agreement is no evidence.
        if agreeing.len() * 2 < offs.len() {
            return None;
        }
        let points: Vec<_> = agreeing.iter().map(|(_, point)| *point).collect();
        let line = middle_line(&points, apart)?;
        let worst_s = points.iter().map(|point| off(&line, point)).fold(0.0, f64::max);
        let squares: f64 = points.iter().map(|point| off(&line, point).powi(2)).sum();
        let first = points.iter().map(|point| point.x).fold(f64::INFINITY, f64::min);
        let last = points.iter().map(|point| point.x).fold(f64::NEG_INFINITY, f64::max);
        Some(Reported {
            line: Line { slope: 1.0 + line.slope, intercept: line.intercept },
            count: points.len(),
            worst_s,
            extent: (first, last),
            residual_s: (squares / points.len() as f64).sqrt(),
            delays: agreeing
                .iter()
                .map(|(report, _)| Point { x: report.ntp_s, y: report.arrival_s - report.ntp_s })
                .collect(),
        })
    }

    fn media_s(&self, report: &Report) -> f64 {
        self.straight(report.rtp as f64 / self.clock_rate)
    }

    /// Its RTP time is near what the packets around its arrival had.
    fn is_believable(&self, report: &Report) -> bool {
        let after = self.windows.partition_point(|window| window.arrival_s < report.arrival_s);
        let neighbours = self.windows.iter().skip(after.saturating_sub(1)).take(2);
        let nearest = neighbours.min_by(|a, b| {
            let away = |window: &Window| (window.arrival_s - report.arrival_s).abs();
            away(a).total_cmp(&away(b))
        });
        nearest.is_some_and(|window| {
            let expected = report.arrival_s - window.delay_s();
            (self.media_s(report) - expected).abs() <= CONTRADICTION_S
        })
    }
}

fn around(media: &Range<f64>, at: f64) -> bool {
    at >= media.start - AROUND_S && at <= media.end + AROUND_S
}
