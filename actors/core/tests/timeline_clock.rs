//! Synthetic senders whose clocks are wrong in known ways: what the recorder makes of them.

mod timeline_support;

use proptest::prelude::*;
use recorder_core::media::SenderReport;
use recorder_core::time::BootTime;
use recorder_core::timeline::{ClockMethod, SenderClock};
use timeline_support::*;

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
