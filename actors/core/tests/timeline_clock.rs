//! Synthetic senders whose clocks are wrong in known ways: what the recorder makes of them.

use proptest::prelude::*;
use recorder_core::media::SenderReport;
use recorder_core::time::BootTime;
use recorder_core::timeline::{ClockEstimate, ClockMethod, SenderClock};

const AUDIO: u32 = 0xA0A0;
const VIDEO: u32 = 0xB0B0;
/// Our clock when the call begins.
const ORIGIN_S: f64 = 5_000.0;
/// UTC then, seconds since 1970 and since 1900.
const UTC_S: f64 = 1_795_359_845.0;
const NTP_S: f64 = UTC_S + 2_208_988_800.0;

/// A sender. Times are seconds since the call began, on our clock.
#[derive(Clone, Copy, Debug)]
struct Sender {
    /// Its wall clock less UTC.
    offset_s: f64,
    /// How much faster its wall clock goes than ours.
    ntp_ppm: f64,
    /// How much faster its sampling clock goes than its wall clock.
    media_ppm: f64,
    there_s: f64,
    back_s: f64,
    jitter_s: f64,
    knows_round_trip: bool,
}

const PLAIN: Sender = Sender {
    offset_s: 7.0,
    ntp_ppm: 0.0,
    media_ppm: 0.0,
    there_s: 0.02,
    back_s: 0.02,
    jitter_s: 0.0,
    knows_round_trip: true,
};

struct Call {
    sender: Sender,
    clock: SenderClock,
    noise: u64,
}

impl Call {
    fn new(sender: Sender) -> Self {
        Self { sender, clock: SenderClock::new(), noise: 0x9E37_79B9_7F4A_7C15 }
    }

    fn ntp_s(&self, at: f64) -> f64 {
        NTP_S + self.sender.offset_s + at * (1.0 + self.sender.ntp_ppm * 1e-6)
    }

    /// RTP time, without wrap, of what is captured at `at`; it begins anywhere, just before a wrap.
    fn rtp(&self, rate: u32, at: f64) -> i64 {
        let ppm = (1.0 + self.sender.ntp_ppm * 1e-6) * (1.0 + self.sender.media_ppm * 1e-6);
        4_294_000_000 + (at * ppm * f64::from(rate)).round() as i64
    }

    fn arrival(&mut self, sent: f64) -> BootTime {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        let jitter = (self.noise >> 11) as f64 / (1_u64 << 53) as f64;
        // Mostly little, sometimes much.
        boot(sent + self.sender.there_s + self.sender.jitter_s * jitter.powi(4))
    }

    fn packets(&mut self, ssrc: u32, rate: u32, from: f64, to: f64, step: f64) {
        let mut at = from;
        while at < to {
            match ssrc {
                AUDIO => self.sound(at, self.rtp(rate, at)),
                _ => self.picture(ssrc, at, self.rtp(rate, at)),
            }
            at += step;
        }
    }

    fn picture(&mut self, ssrc: u32, sent: f64, rtp: i64) {
        let arrival = self.arrival(sent);
        self.clock.observe_packet(ssrc, 90_000, rtp, 0, arrival);
    }

    /// 20 ms of sound from `at` on, sent when all of it was heard.
    fn sound(&mut self, at: f64, rtp: i64) {
        let arrival = self.arrival(at + 0.02);
        self.clock.observe_packet(AUDIO, 48_000, rtp, 960, arrival);
    }

    fn report(&mut self, ssrc: u32, rate: u32, at: f64) {
        let (ntp_s, rtp) = (self.ntp_s(at), self.rtp(rate, at));
        self.told(ssrc, at, ntp_s, rtp as u32);
    }

    fn told(&mut self, ssrc: u32, at: f64, ntp_s: f64, rtp: u32) {
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
    fn run(&mut self, length: f64) {
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

    fn estimate(&self, ssrc: u32, rate: u32, from: f64, span: f64) -> ClockEstimate {
        self.clock.estimate(ssrc, self.rtp(rate, from), span, boot(0.0))
    }
}

fn boot(at: f64) -> BootTime {
    BootTime(((ORIGIN_S + at) * 1e9) as u64)
}

/// Session time by the map.
fn session_s(estimate: &ClockEstimate, media_s: f64) -> f64 {
    let pair =
        estimate.points.windows(2).find(|pair| media_s <= pair[1].media_s).expect("a point of the map");
    let share = (media_s - pair[0].media_s) / (pair[1].media_s - pair[0].media_s);
    pair[0].session_s + share * (pair[1].session_s - pair[0].session_s)
}

/// Checks that each point tells the truth within the error it states, and returns the worst difference.
fn judge(estimate: &ClockEstimate, from: f64, media_per_session: f64) -> f64 {
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

#[test]
fn before_a_report_arrivals_place_a_stream() {
    let mut call = Call::new(PLAIN);
    call.packets(AUDIO, 48_000, 0.0, 3.0, 0.02);
    call.clock.observe_round_trip(40_000_000);
    let estimate = call.estimate(AUDIO, 48_000, 0.0, 3.0);
    assert_eq!((estimate.method, estimate.sender_reports), (ClockMethod::Arrival, 0));
    assert!(judge(&estimate, 0.0, 1.0) < 1e-3, "{estimate:?}");
}

#[test]
fn half_the_round_trip_is_taken_off() {
    let slow = Sender { there_s: 0.15, back_s: 0.15, ..PLAIN };
    let mut call = Call::new(slow);
    call.run(20.0);
    let estimate = call.estimate(VIDEO, 90_000, 0.0, 20.0);
    assert_eq!(estimate.method, ClockMethod::SenderReports);
    assert!(judge(&estimate, 0.0, 1.0) < 2e-3, "{estimate:?}");
}

#[test]
fn a_path_slow_in_one_direction_stays_within_the_stated_error() {
    for (there_s, back_s) in [(0.3, 0.0), (0.0, 0.3), (0.25, 0.05)] {
        let mut call = Call::new(Sender { there_s, back_s, offset_s: -30.0, ..PLAIN });
        call.run(30.0);
        let estimate = call.estimate(AUDIO, 48_000, 0.0, 30.0);
        judge(&estimate, 0.0, 1.0);
        assert!(estimate.error_bound_s >= 0.15 && estimate.error_bound_s < 0.17, "{estimate:?}");
    }
}

#[test]
fn sound_and_picture_are_exact_to_each_other_when_both_have_reports() {
    let mut call = Call::new(Sender { jitter_s: 0.4, there_s: 0.1, back_s: 0.02, media_ppm: 80.0, ..PLAIN });
    call.run(120.0);
    let audio = call.estimate(AUDIO, 48_000, 0.0, 120.0);
    let video = call.estimate(VIDEO, 90_000, 0.0, 120.0);
    for (a, v) in audio.points.iter().zip(&video.points) {
        assert!((a.session_s - v.session_s).abs() < 1e-3, "{a:?} {v:?}");
    }
}

#[test]
fn a_late_first_report_of_sound_corrects_its_place() {
    let mut call = Call::new(Sender { knows_round_trip: false, jitter_s: 0.1, ..PLAIN });
    call.run(5.0);
    assert_eq!(call.estimate(AUDIO, 48_000, 0.0, 5.0).method, ClockMethod::Arrival);
    call.report(AUDIO, 48_000, 5.5);
    let (audio, video) = (call.estimate(AUDIO, 48_000, 0.0, 5.0), call.estimate(VIDEO, 90_000, 0.0, 5.0));
    assert_eq!(audio.method, ClockMethod::SenderReports);
    assert!((audio.offset_s - video.offset_s).abs() < 1e-4, "{audio:?} {video:?}");
}

/// Instants at which a sender's sound stands still, and for how long, as of one that was busy for a moment.
const BUSY: [(f64, f64); 3] = [(0.9, 0.052), (1.9, 0.082), (2.6, 0.012)];

/// Seconds that the count of samples has lost by a time; `None` while it stands still.
fn lost_samples(stalls: &[(f64, f64)], at: f64) -> Option<f64> {
    let stands = stalls.iter().any(|(from, lost)| at > *from && at < from + lost);
    let over = stalls.iter().filter(|(from, lost)| at >= from + lost);
    (!stands).then(|| over.map(|(_, lost)| lost).sum())
}

/// A call of 21 s whose network is away from 6 to 18 s, what was sent meanwhile is lost, but for the sound's last
/// 4 s, which a queue of the sender's kept. Its sound loses samples, and its few reports of sound are late.
fn outage(clock_lies_s: f64) -> Call {
    let mut call = Call::new(Sender { offset_s: clock_lies_s, there_s: 0.001, back_s: 0.001, ..PLAIN });
    for tick in 0..1050 {
        let at = f64::from(tick) * 0.02;
        let lost = lost_samples(&BUSY, at);
        let sound = call.rtp(48_000, at - lost.unwrap_or_default());
        if lost.is_some() && !(6.0..14.2).contains(&at) {
            call.sound(if at < 18.1 && at > 6.0 { 18.1 } else { at + 0.002 }, sound);
        }
        let away = (6.0..18.0).contains(&at);
        if tick % 3 == 0 && !away {
            call.picture(VIDEO, at + 0.006, call.rtp(90_000, at));
        }
        if tick % 55 == 40 && !away {
            call.report(VIDEO, 90_000, at);
        }
        // Made long after the sample that it tells of.
        let late = if tick == 60 { 0.006 } else { 0.04 };
        if tick == 60 || tick == 960 {
            let ntp_s = call.ntp_s(at) + late;
            call.told(AUDIO, at + late, ntp_s, sound as u32);
        }
    }
    call
}

#[test]
fn samples_that_a_sender_lost_move_neither_its_sound_nor_its_pictures() {
    for clock_lies_s in [0.0, 7.0] {
        let mut call = outage(clock_lies_s);
        call.clock.set_utc(boot(0.0), (UTC_S * 1e6) as i64);
        let picture = call.estimate(VIDEO, 90_000, 0.0, 20.9);
        assert!(judge(&picture, 0.0, 1.0) < 5e-3, "{picture:?}");
        let lost = |at| lost_samples(&BUSY, at).unwrap();
        let span = 20.9 - lost(20.9);
        let sound = call.estimate(AUDIO, 48_000, 0.0, span);
        for second in [0.0, 0.8, 1.8, 4.0, 15.0, 19.5, 20.5] {
            let media_s = second - lost(second);
            let off = (session_s(&sound, media_s) - second).abs();
            assert!(off < 0.02 && off <= sound.error_bound_s + 1e-4, "{off} s off at {second}: {sound:?}");
        }
    }
}

#[test]
fn a_lone_late_report_moves_neither_pictures_nor_its_own_sound() {
    // The wall clock was read so long after the sample: about as long as a packet of sound, and longer.
    for late in [0.015, 0.025, 0.07] {
        let mut call = Call::new(PLAIN);
        for second in 0..10 {
            let at = f64::from(second);
            call.packets(AUDIO, 48_000, at, at + 1.0, 0.02);
            call.packets(VIDEO, 90_000, at, at + 1.0, 1.0 / 15.0);
            call.report(VIDEO, 90_000, at + 0.9);
        }
        let rtp = call.rtp(48_000, 5.0) as u32;
        call.told(AUDIO, 5.0 + late, call.ntp_s(5.0 + late), rtp);
        for (ssrc, rate) in [(VIDEO, 90_000), (AUDIO, 48_000)] {
            let estimate = call.estimate(ssrc, rate, 0.0, 10.0);
            assert_eq!(estimate.method, ClockMethod::SenderReports);
            assert!(judge(&estimate, 0.0, 1.0) < 1e-3, "{late} s late: {estimate:?}");
        }
    }
}

#[test]
fn drift_is_measured_over_a_long_call() {
    for ppm in [-200.0, -30.0, 0.0, 200.0] {
        let mut call = Call::new(Sender { media_ppm: ppm, jitter_s: 0.05, ..PLAIN });
        call.run(900.0);
        let estimate = call.estimate(AUDIO, 48_000, 0.0, 900.0);
        assert!((estimate.drift_ppm + ppm).abs() < 5.0, "{ppm}: {estimate:?}");
        assert!(judge(&estimate, 0.0, 1.0 + ppm * 1e-6) < 6e-3, "{ppm}: {estimate:?}");
    }
}

#[test]
fn a_wall_clock_that_agrees_with_ours_is_trusted() {
    // The path is slow in one direction: arrivals alone would be 30 ms wrong.
    let mut call = Call::new(Sender { offset_s: 0.0, there_s: 0.08, back_s: 0.02, ..PLAIN });
    call.run(20.0);
    let before = judge(&call.estimate(VIDEO, 90_000, 0.0, 20.0), 0.0, 1.0);
    assert!(before > 0.025, "{before}");
    call.clock.set_utc(boot(3.0), ((UTC_S + 3.0) * 1e6) as i64);
    let trusted = judge(&call.estimate(VIDEO, 90_000, 0.0, 20.0), 0.0, 1.0);
    assert!(trusted < 1e-3, "{trusted}");
    // A clock that is off by more is not.
    let mut call = Call::new(Sender { offset_s: 0.3, ..PLAIN });
    call.clock.set_utc(boot(0.0), (UTC_S * 1e6) as i64);
    call.run(20.0);
    assert!(judge(&call.estimate(VIDEO, 90_000, 0.0, 20.0), 0.0, 1.0) < 2e-3);
}

#[test]
fn garbage_reports_move_nothing() {
    let mut call = Call::new(PLAIN);
    call.run(60.0);
    let clean = call.estimate(VIDEO, 90_000, 0.0, 60.0);
    let mut call = Call::new(PLAIN);
    for second in 0..60 {
        let at = f64::from(second);
        call.packets(VIDEO, 90_000, at, at + 1.0, 1.0 / 15.0);
        call.report(VIDEO, 90_000, at + 0.9);
        let rtp = call.rtp(90_000, at);
        match second % 6 {
            0 => call.told(VIDEO, at, 0.0, rtp as u32),
            1 => call.told(VIDEO, at, call.ntp_s(at) + 1e5 * at, rtp as u32),
            2 => call.told(VIDEO, at, call.ntp_s(at), (rtp as u32).wrapping_mul(77)),
            _ => {}
        }
    }
    let dirty = call.estimate(VIDEO, 90_000, 0.0, 60.0);
    assert_eq!(dirty.method, ClockMethod::SenderReports);
    assert!((clean.offset_s - dirty.offset_s).abs() < 2e-3, "{clean:?} {dirty:?}");
    assert!((clean.drift_ppm - dirty.drift_ppm).abs() < 20.0, "{clean:?} {dirty:?}");
}

#[test]
fn reports_that_contradict_the_packets_are_as_none() {
    let mut call = Call::new(PLAIN);
    for second in 0..30 {
        let at = f64::from(second);
        call.packets(AUDIO, 48_000, at, at + 1.0, 0.02);
        call.told(AUDIO, at, call.ntp_s(at), call.rtp(48_000, at + 3_600.0) as u32);
    }
    let estimate = call.estimate(AUDIO, 48_000, 0.0, 30.0);
    assert_eq!(estimate.method, ClockMethod::Arrival);
    judge(&estimate, 0.0, 1.0);
}

#[test]
fn streams_of_different_wall_clocks_do_not_move_each_other() {
    let mut call = Call::new(PLAIN);
    call.run(30.0);
    let alone = call.estimate(VIDEO, 90_000, 0.0, 30.0);
    call.packets(7, 90_000, 30.0, 40.0, 0.1);
    call.told(7, 35.0, call.ntp_s(35.0) + 500.0, call.rtp(90_000, 35.0) as u32);
    assert_eq!(call.estimate(VIDEO, 90_000, 0.0, 30.0), alone);
    let other = call.estimate(7, 90_000, 30.0, 10.0);
    assert_eq!(other.method, ClockMethod::SenderReports);
    assert!((other.points[0].session_s - 30.0).abs() < 0.01, "{other:?}");
}

#[test]
fn a_stream_nobody_heard_has_an_endless_error() {
    let estimate = SenderClock::new().estimate(1, 0, 10.0, BootTime(0));
    assert_eq!(estimate.error_bound_s, f64::MAX);
    assert_eq!(estimate.points.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_the_clocks_the_truth_lies_within_the_stated_error(
        offset_s in -30.0_f64..30.0,
        ntp_ppm in -100.0_f64..100.0,
        media_ppm in -100.0_f64..100.0,
        there_s in 0.001_f64..0.3,
        back_s in 0.001_f64..0.3,
        jitter_s in 0.0_f64..0.3,
        length in 2_u32..180,
    ) {
        let sender = Sender { offset_s, ntp_ppm, media_ppm, there_s, back_s, jitter_s, knows_round_trip: true };
        let mut call = Call::new(sender);
        call.run(f64::from(length));
        let media_per_session = (1.0 + ntp_ppm * 1e-6) * (1.0 + media_ppm * 1e-6);
        let span = f64::from(length) * media_per_session;
        for (ssrc, rate) in [(AUDIO, 48_000), (VIDEO, 90_000)] {
            let estimate = call.estimate(ssrc, rate, 0.0, span);
            for point in &estimate.points {
                let truth = point.media_s / media_per_session;
                // What nobody queued for in the whole call is as unknown as the path itself.
                let queued = if jitter_s > 0.0 { 0.01 } else { 1e-4 };
                prop_assert!((point.session_s - truth).abs() <= point.error_s + queued, "{point:?} {truth} {estimate:?}");
            }
        }
    }

    #[test]
    fn whenever_samples_are_lost_sound_is_where_its_sender_meant_it(
        stalls in prop::collection::vec((1.0_f64..9.0, 0.02_f64..0.4), 0..6),
        offset_s in -30.0_f64..30.0,
        jitter_s in 0.0_f64..0.05,
        late_s in prop::collection::vec(0.0_f64..0.02, 10),
    ) {
        let mut call = Call::new(Sender { offset_s, jitter_s, ..PLAIN });
        let apart = stalls.iter().enumerate().map(|(number, (from, lost))| (from + 9.0 * number as f64, *lost));
        let stalls: Vec<_> = apart.collect();
        let lost = |at| lost_samples(&stalls, at);
        for tick in 0..3_000 {
            let at = f64::from(tick) * 0.02;
            let sound = lost(at).map(|lost| call.rtp(48_000, at - lost));
            if let Some(sound) = sound {
                call.sound(at, sound);
            }
            if tick % 3 == 0 {
                call.picture(VIDEO, at, call.rtp(90_000, at));
            }
            if tick % 55 == 40 {
                call.report(VIDEO, 90_000, at);
            }
            if let (260, Some(sound)) = (tick % 300, sound) {
                let late = late_s[tick as usize / 300];
                call.told(AUDIO, at + late, call.ntp_s(at) + late, sound as u32);
            }
        }
        let picture = call.estimate(VIDEO, 90_000, 0.0, 60.0);
        prop_assert!(judge(&picture, 0.0, 1.0) < 5e-3, "{picture:?}");
        let sound = call.estimate(AUDIO, 48_000, 0.0, 60.0 - lost(60.0).unwrap());
        for second in (0..60).map(f64::from) {
            // How far back a stall began nobody can tell from what came before it.
            if stalls.iter().any(|(from, _)| (second - from).abs() < 1.0) {
                continue;
            }
            let media_s = second - lost(second).unwrap();
            let off = (session_s(&sound, media_s) - second).abs();
            prop_assert!(off < 0.025 && off <= sound.error_bound_s, "{off} at {second}: {sound:?}");
        }
    }

    #[test]
    fn any_reports_give_finite_rising_points(
        reports in prop::collection::vec((any::<u32>(), any::<u64>(), any::<u32>(), 0_u64..1 << 50), 0..60),
        packets in prop::collection::vec((0_u32..3, any::<u32>(), any::<u32>(), 0_u64..1 << 50), 0..60),
        span in 0.0_f64..1e5,
    ) {
        let mut clock = SenderClock::new();
        for (ssrc, rtp, length, arrival) in packets {
            clock.observe_packet(ssrc, 90_000, i64::from(rtp), length, BootTime(arrival));
        }
        for (ssrc, ntp, rtp, arrival) in reports {
            let (arrival, round_trip_ns) = (BootTime(arrival), Some(ntp));
            clock.observe_report(&SenderReport { arrival, ssrc: ssrc % 3, ntp, rtp, round_trip_ns });
        }
        for ssrc in 0..3 {
            let estimate = clock.estimate(ssrc, 5, span, BootTime(1));
            for point in &estimate.points {
                prop_assert!(point.session_s.is_finite() && point.error_s.is_finite() && point.error_s >= 0.0);
            }
            prop_assert!(estimate.points.windows(2).all(|pair| pair[0].session_s < pair[1].session_s));
        }
    }
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let mut call = Call::new(PLAIN);
    for ssrc in 0..10_000 {
        call.packets(ssrc, 90_000, f64::from(ssrc), f64::from(ssrc) + 0.5, 0.1);
        call.report(ssrc, 90_000, f64::from(ssrc));
    }
    // The first was forgotten, the last is known.
    assert_eq!(call.estimate(0, 90_000, 0.0, 0.0).error_bound_s, f64::MAX);
    assert!(call.estimate(9_999, 90_000, 9_999.0, 0.4).error_bound_s < 1.0);
    let mut call = Call::new(PLAIN);
    for second in 0..20_000 {
        let at = f64::from(second);
        call.packets(VIDEO, 90_000, at, at + 1.0, 0.5);
        call.report(VIDEO, 90_000, at + 0.5);
    }
    let estimate = call.estimate(VIDEO, 90_000, 0.0, 20_000.0);
    assert!(judge(&estimate, 0.0, 1.0) < 2e-3, "{estimate:?}");
}
