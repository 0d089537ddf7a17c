//! Figures and remote text as people read them.

use recorder_actors::observe::{ActorKind, ActorState};
use recorder_core::media::{Codec, Source};

/// Longest remote text that the page shows, characters.
pub(super) const NAME: usize = 80;
/// Longest sentence that the page shows, characters.
pub(super) const SENTENCE: usize = 200;
/// Combining marks that one letter may carry.
const MARKS: usize = 2;

/// Remote text as it may be shown: on one line, without controls or marks that turn the text around it, and
/// cut. Escaping is the template's part.
pub(super) fn tame(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut count = 0;
    let mut gap = false;
    let mut marks = 0;
    for c in text.chars() {
        let space = c.is_whitespace() || c.is_control();
        marks = if stacks(c) { marks + 1 } else { 0 };
        if invisible(c) || marks > MARKS || (space && (gap || shown.is_empty())) {
            continue;
        }
        if count == limit {
            shown.push('…');
            break;
        }
        shown.push(if space { ' ' } else { c });
        gap = space;
        count += 1;
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// Direction overrides and isolates, fillers with no picture of their own, and tags.
fn invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
        | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Combining marks, of which a heap would cover the lines above and below.
fn stacks(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// A name, or what to say in place of none.
pub(super) fn name_or(text: Option<&str>, otherwise: &str) -> String {
    let shown = text.map(|text| tame(text, NAME)).unwrap_or_default();
    if shown.is_empty() { otherwise.to_owned() } else { shown }
}

/// `00:42:17`.
pub(super) fn clock(seconds: f64) -> String {
    let whole = whole_seconds(seconds);
    format!("{:02}:{:02}:{:02}", whole / 3_600, whole / 60 % 60, whole % 60)
}

/// `9 d 4 h`, `69 min`, `78 s`: two figures' worth.
pub(super) fn age(seconds: f64) -> String {
    let whole = whole_seconds(seconds);
    match whole {
        0..=119 => format!("{whole} s"),
        120..=7_199 => format!("{} min", whole / 60),
        7_200..=172_799 => format!("{} h", whole / 3_600),
        _ => format!("{} d {} h", whole / 86_400, whole / 3_600 % 24),
    }
}

fn whole_seconds(seconds: f64) -> u64 {
    // Negative, from a clock that was set back, counts as nothing; the cast saturates.
    if seconds.is_finite() { seconds.max(0.0) as u64 } else { 0 }
}

/// Decimal units: `431 MB`.
pub(super) fn bytes(amount: u64) -> String {
    scaled(amount, &["B", "kB", "MB", "GB", "TB", "PB"], 100.0)
}

/// `1.4 Mbit/s`.
pub(super) fn bit_rate(bits_per_second: u64) -> String {
    scaled(bits_per_second, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"], 10.0)
}

/// Below `whole`, one decimal.
fn scaled(amount: u64, units: &[&str], whole: f64) -> String {
    let mut value = amount as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1_000.0;
        unit += 1;
    }
    if unit == 0 || value >= whole - 0.05 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// `1 call`, `2 calls`.
pub(super) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

pub(super) fn codec(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "Opus",
        Codec::Vp8 => "VP8",
        Codec::Vp9 => "VP9",
        Codec::Av1 => "AV1",
        Codec::H264 => "H.264",
        Codec::H265 => "H.265",
    }
}

pub(super) fn source(source: Source) -> &'static str {
    match source {
        Source::Microphone => "microphone",
        Source::Camera => "camera",
        Source::Screen => "screen",
        Source::ScreenAudio => "screen sound",
        Source::Unknown => "stream",
    }
}

pub(super) fn call_kind(kind: &str) -> &str {
    match kind {
        "one_to_one" => "1:1 call",
        "mesh" => "group call",
        "element_call" => "Element Call",
        other => other,
    }
}

pub(super) fn actor_kind(kind: ActorKind) -> &'static str {
    match kind {
        ActorKind::Supervisor => "Supervisor",
        ActorKind::Call => "Call",
        ActorKind::Peer => "Peer",
        ActorKind::TrackWriter => "TrackWriter",
    }
}

pub(super) fn actor_state(state: ActorState) -> &'static str {
    match state {
        ActorState::Starting => "starting",
        ActorState::Running => "running",
        ActorState::Restarting => "restarting",
        ActorState::Stopping => "stopping",
        ActorState::Stopped => "stopped",
        ActorState::Failed => "given up",
    }
}

/// A UTC instant in microseconds as (`2026-11-22`, `15:04:05`), by the civil calendar (proleptic Gregorian).
pub(super) fn date_and_time(utc_micros: i64) -> (String, String) {
    let seconds = utc_micros.div_euclid(1_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years are counted from March, so that the leap day is the last one of a year, in eras of 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (format!("{year:04}-{month:02}-{day:02}"), clock(second as f64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures_are_said_shortly() {
        assert_eq!(clock(2_537.9), "00:42:17");
        assert_eq!(clock(-3.0), "00:00:00");
        assert_eq!(
            [age(78.0), age(4_140.0), age(7_300.0), age(792_000.0)],
            ["78 s", "69 min", "2 h", "9 d 4 h"]
        );
        assert_eq!(
            [bytes(0), bytes(999), bytes(3_140_000), bytes(431_000_000)],
            ["0 B", "999 B", "3.1 MB", "431 MB"]
        );
        assert_eq!([bit_rate(34_000), bit_rate(1_400_000)], ["34 kbit/s", "1.4 Mbit/s"]);
        assert_eq!(bytes(999_700), "1.0 MB");
        assert_eq!([count(1, "call"), count(2, "call"), count(0, "call")], ["1 call", "2 calls", "0 calls"]);
    }

    #[test]
    fn instants_are_dates() {
        assert_eq!(date_and_time(0), ("1970-01-01".into(), "00:00:00".into()));
        assert_eq!(date_and_time(1_795_359_845_123_456), ("2026-11-22".into(), "15:04:05".into()));
        assert_eq!(date_and_time(951_782_400_000_000), ("2000-02-29".into(), "00:00:00".into()));
        assert_eq!(date_and_time(-1), ("1969-12-31".into(), "23:59:59".into()));
    }

    #[test]
    fn hostile_text_is_tamed() {
        assert_eq!(tame("evil\u{202e}gpj.exe", NAME), "evilgpj.exe");
        assert_eq!(tame("  a\n\n b\0\u{7}c ", NAME), "a b c");
        assert_eq!(tame(&"x".repeat(10_000), NAME).chars().count(), NAME + 1);
        assert_eq!(name_or(Some("\u{200b}\u{3164}"), "someone"), "someone");
        assert_eq!(tame("e\u{301}Z\u{351}\u{36b}\u{351}\u{351}o", NAME), "e\u{301}Z\u{351}\u{36b}o");
    }

    proptest! {
        #[test]
        fn tamed_text_is_short_and_on_one_line(text in "\\PC{0,200}|[\\x00-\\x20\u{202e}\u{2066}]{0,200}") {
            let shown = tame(&text, 20);
            prop_assert!(shown.chars().count() <= 21);
            prop_assert!(!shown.contains(|c: char| c.is_control() || invisible(c)));
        }

        #[test]
        fn every_second_of_four_centuries_has_a_date_in_order(days in 0_i64..146_097) {
            let today = date_and_time(days * 86_400_000_000).0;
            let tomorrow = date_and_time((days + 1) * 86_400_000_000).0;
            prop_assert!(today < tomorrow);
        }
    }
}
