//! Numbers of the manifest that are exact by construction: what is written and read back is the same value.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds, never negative, in whole microseconds: six decimals in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u64);

impl Seconds {
    pub const ZERO: Self = Self(0);
    /// 2^53 − 1 microseconds, 285 years: every value below is exact as a JSON number.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Rounds to microseconds; negative values and NaN become 0, what lies beyond [`Self::MAX`] becomes it.
    pub fn new(seconds: f64) -> Self {
        let micros = (seconds * 1e6).round();
        // `as` saturates and takes NaN for 0.
        Self((micros as u64).min(Self::MAX.0))
    }

    pub const fn from_micros(micros: u64) -> Self {
        if micros > Self::MAX.0 { Self::MAX } else { Self(micros) }
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Self {
        Self::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Add for Seconds {
    type Output = Self;

    fn add(self, rhs: Self) -> Self {
        Self::from_micros(self.0.saturating_add(rhs.0))
    }
}

/// Zero where `rhs` is the greater.
impl Sub for Seconds {
    type Output = Self;

    fn sub(self, rhs: Self) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self::new)
    }
}

/// A clock's drift in parts per million, positive where the sender's clock is the slower one, kept to six
/// decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ppm(i64);

impl Ppm {
    /// Rounds to six decimals and limits to ± 10^9; NaN becomes 0.
    pub fn new(ppm: f64) -> Self {
        Self((ppm.clamp(-1e9, 1e9) * 1e6).round() as i64)
    }

    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl Serialize for Ppm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Ppm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self::new)
    }
}

/// An instant of UTC in microseconds since 1970, without leap seconds; `2026-11-22T15:04:05.123456Z` in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utc(i64);

/// The text is no `YYYY-MM-DDTHH:MM:SS[.ffffff]Z` (RFC 3339 §5.6, UTC only).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UTC time of RFC 3339")]
pub struct NotUtc;

const DAY: i64 = 86_400_000_000;
/// 0000-01-01 and 9999-12-31T23:59:59.999999, the years that RFC 3339 can write.
const FIRST: i64 = -719_528 * DAY;
const LAST: i64 = 2_932_897 * DAY - 1;

impl Utc {
    /// Limited to the years 0 to 9999.
    pub const fn from_micros(micros: i64) -> Self {
        if micros < FIRST {
            Self(FIRST)
        } else if micros > LAST {
            Self(LAST)
        } else {
            Self(micros)
        }
    }

    pub const fn as_micros(self) -> i64 {
        self.0
    }

    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self::from_micros(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Seconds from `earlier` to `self`, negative if `self` lies before it.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / 1e6
    }

    /// `20261122T150405Z`, as folders begin (ISO 8601, basic format).
    pub fn basic(self) -> String {
        let ((year, month, day), seconds) = self.parts();
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    fn parts(self) -> ((i64, i64, i64), i64) {
        (civil_from_days(self.0.div_euclid(DAY)), self.0.rem_euclid(DAY) / 1_000_000)
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((year, month, day), seconds) = self.parts();
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let micros = self.0.rem_euclid(1_000_000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

impl FromStr for Utc {
    type Err = NotUtc;

    fn from_str(text: &str) -> Result<Self, NotUtc> {
        let body = text.strip_suffix('Z').filter(|body| body.is_ascii() && body.len() >= 19).ok_or(NotUtc)?;
        let (whole, fraction) = body.split_at(19);
        let bytes = whole.as_bytes();
        if [bytes[4], bytes[7], bytes[10], bytes[13], bytes[16]] != *b"--T::" {
            return Err(NotUtc);
        }
        let number = |from: usize, to: usize, least: i64, most: i64| {
            let digits =
                whole.get(from..to).filter(|d| d.bytes().all(|b| b.is_ascii_digit())).ok_or(NotUtc)?;
            digits.parse::<i64>().ok().filter(|n| (least..=most).contains(n)).ok_or(NotUtc)
        };
        let (year, month, day) = (number(0, 4, 0, 9999)?, number(5, 7, 1, 12)?, number(8, 10, 1, 31)?);
        let (hour, minute, second) = (number(11, 13, 0, 23)?, number(14, 16, 0, 59)?, number(17, 19, 0, 60)?);
        let micros = match fraction.strip_prefix('.') {
            None if fraction.is_empty() => 0,
            Some(f) if (1..=9).contains(&f.len()) && f.bytes().all(|b| b.is_ascii_digit()) => {
                format!("{f:0<6}")[..6].parse::<i64>().map_err(|_| NotUtc)?
            }
            _ => return Err(NotUtc),
        };
        let seconds = hour * 3600 + minute * 60 + second;
        Ok(Self::from_micros(days_from_civil(year, month, day) * DAY + seconds * 1_000_000 + micros))
    }
}

impl Serialize for Utc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Utc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Days since 1970 to (year, month, day) of the proleptic Gregorian calendar. Years are counted from March,
/// so that the leap day is a year's last and the months' lengths follow one line.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let since_0000_03 = days + 719_468;
    let era = since_0000_03.div_euclid(146_097);
    let day_of_era = since_0000_03.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}
