//! Senders whose sound loses samples, or tells late of its clock.

#[expect(dead_code, reason = "these tests use a part of it")]
mod timeline_support;

use recorder_core::timeline::ClockMethod;
use timeline_support::*;

/// Instants at which a sender's sound stands still, and for how long, as of one that was busy for a moment.
const BUSY: [(f64, f64); 3] = [(0.9, 0.052), (1.9, 0.082), (2.6, 0.012)];

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
fn samples_that_a_sender_loses_all_the_time_by_small_pieces_move_nothing_either() {
    // 2 ms a second for half a minute, as of a browser that is too busy all along.
    let lost = |at: f64| 0.002 * (at - 5.0).clamp(0.0, 30.0).floor();
    let mut call = Call::new(PLAIN);
    for second in 0..50 {
        let begins = f64::from(second);
        for packet in 0..50 {
            let at = begins + f64::from(packet) * 0.02;
            call.sound(at, call.rtp(48_000, at - lost(at)));
        }
        call.packets(VIDEO, 90_000, begins, begins + 1.0, 1.0 / 15.0);
        call.report(VIDEO, 90_000, begins + 0.9);
        if second % 6 == 5 {
            let at = begins + 0.95;
            call.told(AUDIO, at, call.ntp_s(at), call.rtp(48_000, at - lost(at)) as u32);
        }
    }
    let sound = call.estimate(AUDIO, 48_000, 0.0, 49.9 - lost(49.9));
    for second in 0..50 {
        let at = f64::from(second) + 0.5;
        let off = (session_s(&sound, at - lost(at)) - at).abs();
        assert!(off < 0.01 && off <= sound.error_bound_s + 1e-4, "{off} s off at {at}: {sound:?}");
    }
}

#[test]
fn samples_that_are_lost_between_two_packets_bend_the_map_there() {
    // Sound goes on a sample after the last packet.
    let (from, lost) = (1.0, 0.24 - 1.0 / 48_000.0);
    let mut call = Call::new(PLAIN);
    for tick in 0..500 {
        let at = f64::from(tick) * 0.02;
        if at <= from {
            call.sound(at, call.rtp(48_000, at));
        } else if at > from + lost {
            call.sound(at, call.rtp(48_000, at - lost));
        }
        if tick % 50 == 40 {
            call.picture(VIDEO, at, call.rtp(90_000, at));
            call.report(VIDEO, 90_000, at);
        }
    }
    let sound = call.estimate(AUDIO, 48_000, 0.0, 9.9 - lost);
    for (at, lost) in [(0.5, 0.0), (1.0, 0.0), (2.0, lost), (9.0, lost)] {
        assert!((session_s(&sound, at - lost) - at).abs() < 5e-3, "{at}: {sound:?}");
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

/// A call of a minute whose count of samples has lost `sound_s` by a time, over a path longer by `path_s` from 7 to 37 s.
fn late_for_half_a_minute(sound_s: impl Fn(f64) -> f64, path_s: f64) -> Call {
    let mut call = Call::new(PLAIN);
    for tick in 0..3_000 {
        let at = f64::from(tick) * 0.02;
        let queue_s = if (7.0..37.0).contains(&at) { path_s } else { 0.0 };
        // It stands still when it loses some.
        if sound_s(at) <= sound_s(at - 0.022) {
            call.sound(at + queue_s, call.rtp(48_000, at - sound_s(at)));
        }
        if tick % 3 == 0 {
            call.picture(VIDEO, at + queue_s, call.rtp(90_000, at));
        }
        if tick % 55 == 40 {
            let ntp_s = call.ntp_s(at);
            call.told(VIDEO, at + queue_s, ntp_s, call.rtp(90_000, at) as u32);
        }
        if tick % 300 == 260 {
            let ntp_s = call.ntp_s(at);
            call.told(AUDIO, at + queue_s, ntp_s, call.rtp(48_000, at - sound_s(at)) as u32);
        }
    }
    call
}

#[test]
fn samples_that_were_lost_and_came_back_move_nothing() {
    let lost = |at: f64| if (7.0..37.0).contains(&at) { 0.022 } else { 0.0 };
    let call = late_for_half_a_minute(lost, 0.0);
    let sound = call.estimate(AUDIO, 48_000, 0.0, 59.9);
    for second in (0..59).map(|second| f64::from(second) + 0.5) {
        let off = (session_s(&sound, second - lost(second)) - second).abs();
        assert!(off < 0.005 && off <= sound.error_bound_s + 1e-4, "{off} s off at {second}: {sound:?}");
    }
    // A file of that half minute alone.
    let sound = call.estimate(AUDIO, 48_000, 10.0 - lost(10.0), 20.0);
    for second in (10..30).map(f64::from) {
        let off = (session_s(&sound, second - 10.0) - second).abs();
        assert!(off < 0.005 && off <= sound.error_bound_s + 1e-4, "{off} s off at {second}: {sound:?}");
    }
}

#[test]
fn a_queue_of_half_a_minute_moves_nothing_either() {
    let sound = late_for_half_a_minute(|_| 0.0, 0.022).estimate(AUDIO, 48_000, 0.0, 59.9);
    for second in (0..59).map(|second| f64::from(second) + 0.5) {
        let off = (session_s(&sound, second) - second).abs();
        assert!(off < 0.005, "{off} s off at {second}: {sound:?}");
    }
}
