//! Senders whose clocks are wrong in known ways.

use recorder_core::media::SenderReport;
use recorder_core::time::BootTime;
use recorder_core::timeline::{ClockEstimate, SenderClock};

pub const AUDIO: u32 = 0xA0A0;
pub const VIDEO: u32 = 0xB0B0;
/// Our clock when the call begins.
pub const ORIGIN_S: f64 = 5_000.0;
/// UTC then, seconds since 1970 and since 1900.
pub const UTC_S: f64 = 1_795_359_845.0;
pub const NTP_S: f64 = UTC_S + 2_208_988_800.0;

/// A sender. Times are seconds since the call began, on our clock.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Its wall clock less UTC.
    pub offset_s: f64,
    /// How much faster its wall clock goes than ours.
    pub ntp_ppm: f64,
    /// How much faster its sampling clock goes than its wall clock.
    pub media_ppm: f64,
    pub there_s: f64,
    pub back_s: f64,
    pub jitter_s: f64,
    pub knows_round_trip: bool,
}

pub const PLAIN: Sender = Sender {
    offset_s: 7.0,
    ntp_ppm: 0.0,
    media_ppm: 0.0,
    there_s: 0.02,
    back_s: 0.02,
    jitter_s: 0.0,
    knows_round_trip: true,
};

pub struct Call {
    pub sender: Sender,
    pub clock: SenderClock,
    pub noise: u64,
}

impl Call {
    pub fn new(sender: Sender) -> Self {
        Self { sender, clock: SenderClock::new(), noise: 0x9E37_79B9_7F4A_7C15 }
    }

    pub fn ntp_s(&self, at: f64) -> f64 {
        NTP_S + self.sender.offset_s + at * (1.0 + self.sender.ntp_ppm * 1e-6)
    }

    /// RTP time, without wrap, of what is captured at `at`; it begins anywhere, just before a wrap.
    pub fn rtp(&self, rate: u32, at: f64) -> i64 {
        let ppm = (1.0 + self.sender.ntp_ppm * 1e-6) * (1.0 + self.sender.media_ppm * 1e-6);
        4_294_000_000 + (at * ppm * f64::from(rate)).round() as i64
    }

    pub fn arrival(&mut self, sent: f64) -> BootTime {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        let jitter = (self.noise >> 11) as f64 / (1_u64 << 53) as f64;
        // Mostly little, sometimes much.
        boot(sent + self.sender.there_s + self.sender.jitter_s * jitter.powi(4))
    }

    pub fn packets(&mut self, ssrc: u32, rate: u32, from: f64, to: f64, step: f64) {
        let mut at = from;
        while at < to {
            match ssrc {
                AUDIO => self.sound(at, self.rtp(rate, at)),
                _ => self.picture(ssrc, at, self.rtp(rate, at)),
            }
            at += step;
        }
    }

    pub fn picture(&mut self, ssrc: u32, sent: f64, rtp: i64) {
        let arrival = self.arrival(sent);
        self.clock.observe_packet(ssrc, 90_000, rtp, 0, arrival);
    }

    /// 20 ms of sound from `at` on, sent when all of it was heard.
    pub fn sound(&mut self, at: f64, rtp: i64) {
        let arrival = self.arrival(at + 0.02);
        self.clock.observe_packet(AUDIO, 48_000, rtp, 960, arrival);
    }

    pub fn report(&mut self, ssrc: u32, rate: u32, at: f64) {
        let (ntp_s, rtp) = (self.ntp_s(at), self.rtp(rate, at));
        self.told(ssrc, at, ntp_s, rtp as u32);
    }

    pub fn told(&mut self, ssrc: u32, at: f64, ntp_s: f64, rtp: u32) {
        let arrival = self.arrival(at);
        let trip = self.sender.there_s + self.sender.back_s;
        self.clock.observe_report(&SenderReport {
            arrival,
            ssrc,
            ntp: ((ntp_s as u64) << 32) + (ntp_s.fract() * 4_294_967_296.0) as u64,
            rtp,
            round_trip_ns: self.sender.knows_round_trip.then_some((trip * 1e9) as u64),
        });
    }

    /// A call as Chromium sends it: video reports each 1.1 s, audio each 6 s.
    pub fn run(&mut self, length: f64) {
        let mut second = 0.0;
        while second < length {
            self.packets(AUDIO, 48_000, second, second + 1.0, 0.02);
            self.packets(VIDEO, 90_000, second, second + 1.0, 1.0 / 15.0);
            self.report(VIDEO, 90_000, second + 0.9);
            if second % 6.0 == 5.0 {
                self.report(AUDIO, 48_000, second + 0.95);
            }
            second += 1.0;
        }
    }

    pub fn estimate(&self, ssrc: u32, rate: u32, from: f64, span: f64) -> ClockEstimate {
        self.clock.estimate(ssrc, self.rtp(rate, from), span, boot(0.0))
    }
}

pub fn boot(at: f64) -> BootTime {
    BootTime(((ORIGIN_S + at) * 1e9) as u64)
}

/// Session time by the map.
pub fn session_s(estimate: &ClockEstimate, media_s: f64) -> f64 {
    let pair =
        estimate.points.windows(2).find(|pair| media_s <= pair[1].media_s).expect("a point of the map");
    let share = (media_s - pair[0].media_s) / (pair[1].media_s - pair[0].media_s);
    pair[0].session_s + share * (pair[1].session_s - pair[0].session_s)
}

/// Checks that each point tells the truth within the error it states, and returns the worst difference.
pub fn judge(estimate: &ClockEstimate, from: f64, media_per_session: f64) -> f64 {
    let mut worst = 0.0_f64;
    for point in &estimate.points {
        let truth = from + point.media_s / media_per_session;
        let off = (point.session_s - truth).abs();
        assert!(off <= point.error_s + 1e-4, "{off} s off, {point:?}, true {truth}, {estimate:?}");
        worst = worst.max(off);
    }
    assert!(estimate.error_bound_s >= estimate.points[0].error_s);
    worst
}

/// Seconds that the count of samples has lost by a time; `None` while it stands still.
pub fn lost_samples(stalls: &[(f64, f64)], at: f64) -> Option<f64> {
    let stands = stalls.iter().any(|(from, lost)| at > *from && at < from + lost);
    let over = stalls.iter().filter(|(from, lost)| at >= from + lost);
    (!stands).then(|| over.map(|(_, lost)| lost).sum())
}
