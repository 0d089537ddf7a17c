//! Takes typed values out of the merged tables and collects what does not fit.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use config::{Value, ValueKind};

use super::values::{self, Wrong};
use super::{ByteSize, Fault, Faults};

/// As `config` names the origin of a value that an environment variable gave.
const ENVIRONMENT_ORIGIN: &str = "the environment";
/// Closest match below which no key is suggested.
const ALIKE: f64 = 0.72;

/// Reads each known key once; what remains at the end is unknown.
pub(super) struct Reader<'a> {
    values: BTreeMap<String, Value>,
    keys: &'a [&'a str],
    credentials: Option<&'a str>,
    faults: Faults,
}

impl<'a> Reader<'a> {
    pub(super) fn new(root: Value, keys: &'a [&'a str], credentials: Option<&'a str>) -> Self {
        let mut values = BTreeMap::new();
        flatten(String::new(), root, &mut values);
        Self { values, keys, credentials, faults: Faults::default() }
    }

    /// All faults, one for each unknown key among them.
    pub(super) fn finish(mut self) -> Faults {
        for (key, value) in std::mem::take(&mut self.values) {
            let problem = if from_environment(&value) {
                format!("no such setting (from {})", variable(&key))
            } else {
                "no such setting".to_owned()
            };
            let advice = self.advice_for_unknown(&key);
            // Its value is not shown: an unknown key may well be a password in the wrong place.
            self.faults.push(Fault::new(&key, problem, advice));
        }
        self.faults
    }

    fn advice_for_unknown(&self, key: &str) -> String {
        if self.keys.iter().any(|known| known.split_once('.').is_some_and(|(section, _)| section == key)) {
            return format!("write it as a section, [{key}], with keys below it");
        }
        let leaf = key.rsplit('.').next().unwrap_or(key);
        let lower = key.to_lowercase();
        let closest = self
            .keys
            .iter()
            .map(|known| {
                let known_leaf = known.rsplit('.').next().unwrap_or(known);
                let whole = strsim::normalized_damerau_levenshtein(&lower, known);
                let end = if leaf.eq_ignore_ascii_case(known_leaf) { 0.9 } else { 0.0 };
                // A secret in the file itself: `password` instead of `password_file`.
                let secret = if known_leaf.strip_suffix("_file") == Some(leaf) { 0.95 } else { 0.0 };
                (whole.max(end).max(secret), *known)
            })
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match closest {
            Some((score, known)) if score >= ALIKE => format!("did you mean {known}?"),
            _ => "remove it; config/recorder.toml lists every key".to_owned(),
        }
    }

    /// Takes one string-like key.
    pub(super) fn take<T>(&mut self, key: &str, default: T, parse: fn(&str) -> Result<T, Wrong>) -> T {
        let Some(value) = self.values.remove(key) else { return default };
        let ValueKind::String(text) = &value.kind else {
            self.ill_typed(key, &value, "a string in double quotes");
            return default;
        };
        match parse(text) {
            Ok(parsed) => parsed,
            Err(wrong) => {
                self.wrong(key, text, wrong);
                default
            }
        }
    }

    /// Takes a list of strings; in the environment they are separated by commas.
    pub(super) fn list<T>(&mut self, key: &str, parse: fn(&str) -> Result<T, Wrong>) -> Vec<T> {
        let Some(value) = self.values.remove(key) else { return Vec::new() };
        let texts: Vec<String> = match value.kind.clone() {
            ValueKind::String(text) if from_environment(&value) => {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
            }
            ValueKind::Array(items) => {
                let mut texts = Vec::with_capacity(items.len());
                for item in items {
                    if let ValueKind::String(text) = item.kind {
                        texts.push(text);
                    } else {
                        self.ill_typed(key, &item, "only strings in this list");
                    }
                }
                texts
            }
            _ => {
                self.ill_typed(key, &value, "a list of strings, [\"…\", \"…\"]");
                return Vec::new();
            }
        };
        let mut parsed = Vec::with_capacity(texts.len());
        for text in texts {
            match parse(&text) {
                Ok(item) => parsed.push(item),
                Err(wrong) => self.wrong(key, &text, wrong),
            }
        }
        parsed
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        let Some(value) = self.values.remove(key) else { return default };
        match &value.kind {
            ValueKind::Boolean(flag) => return *flag,
            ValueKind::String(text) if from_environment(&value) => match text.to_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => return true,
                "false" | "no" | "off" | "0" => return false,
                _ => {}
            },
            _ => {}
        }
        self.ill_typed(key, &value, "true or false, without quotes");
        default
    }

    /// Takes a whole number within `range`.
    pub(super) fn number<T>(&mut self, key: &str, default: T, range: RangeInclusive<i64>) -> T
    where
        T: TryFrom<i64>,
    {
        let Some(value) = self.values.remove(key) else { return default };
        let number = match &value.kind {
            ValueKind::String(text) if from_environment(&value) => text.trim().parse().ok(),
            kind => whole(kind),
        };
        let (low, high) = (range.start(), range.end());
        let Some(number) = number else {
            self.ill_typed(key, &value, &format!("a whole number from {low} to {high}, without quotes"));
            return default;
        };
        match T::try_from(number) {
            Ok(fitting) if range.contains(&number) => fitting,
            _ => {
                self.wrong(
                    key,
                    &number.to_string(),
                    Wrong::new("out of range", format!("set {low} to {high}")),
                );
                default
            }
        }
    }

    /// Takes an amount of bytes: a number, or a string with a unit.
    pub(super) fn size(&mut self, key: &str, default: ByteSize) -> ByteSize {
        if let Some(number) = self.values.get(key).and_then(|value| whole(&value.kind)) {
            self.values.remove(key);
            return u64::try_from(number).map(ByteSize).unwrap_or_else(|_| {
                self.wrong(key, &number.to_string(), Wrong::new("less than nothing", "set 0 or more"));
                default
            });
        }
        self.take(key, default, values::byte_size)
    }

    /// Takes the path of a file that holds a secret; `${CREDENTIALS_DIRECTORY}` is systemd's folder of
    /// credentials (`LoadCredential=`, systemd.exec(5)). An empty string means no file.
    pub(super) fn secret_file(&mut self, key: &str) -> Option<PathBuf> {
        const VARIABLE: &str = "${CREDENTIALS_DIRECTORY}";
        let text = self.take(key, String::new(), |text| Ok(text.to_owned()));
        if text.is_empty() {
            return None;
        }
        match (text.contains(VARIABLE), self.credentials) {
            (false, _) => Some(PathBuf::from(text)),
            (true, Some(folder)) => Some(PathBuf::from(text.replace(VARIABLE, folder))),
            (true, None) => {
                let wrong = Wrong::new(
                    "CREDENTIALS_DIRECTORY is not set",
                    "start under systemd with LoadCredential=, or write a plain path",
                );
                self.wrong(key, &text, wrong);
                None
            }
        }
    }

    fn wrong(&mut self, key: &str, text: &str, wrong: Wrong) {
        self.faults.push(Fault::new(key, wrong.problem, wrong.advice).with_value(text));
    }

    fn ill_typed(&mut self, key: &str, value: &Value, wanted: &str) {
        let found = match &value.kind {
            ValueKind::Nil => "nothing",
            ValueKind::Boolean(_) => "true or false",
            ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
                "a whole number"
            }
            ValueKind::Float(_) => "a number with a fraction",
            ValueKind::String(_) => "text",
            ValueKind::Table(_) => "a section",
            ValueKind::Array(_) => "a list",
        };
        let fault = Fault::new(key, format!("{found} cannot stand here"), format!("write {wanted}"));
        let fault = match &value.kind {
            ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil => fault,
            _ => fault.with_value(value),
        };
        self.faults.push(fault);
    }
}

fn from_environment(value: &Value) -> bool {
    value.origin() == Some(ENVIRONMENT_ORIGIN)
}

/// The environment variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{}__{}", super::ENVIRONMENT_PREFIX, key.to_uppercase().replace('.', "__"))
}

fn whole(kind: &ValueKind) -> Option<i64> {
    match kind {
        ValueKind::I64(number) => Some(*number),
        ValueKind::I128(number) => i64::try_from(*number).ok(),
        ValueKind::U64(number) => i64::try_from(*number).ok(),
        ValueKind::U128(number) => i64::try_from(*number).ok(),
        _ => None,
    }
}

fn flatten(prefix: String, value: Value, into: &mut BTreeMap<String, Value>) {
    match value.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(path, value, into);
            }
        }
        _ => {
            into.insert(prefix, value);
        }
    }
}
