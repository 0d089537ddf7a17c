//! Faults of a configuration, in words that say what to do.

use std::fmt;
use std::path::Path;

/// Longest piece of a wrong value that is shown.
const SHOWN: usize = 80;

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `matrix.user`, or the file's path for a fault of the whole file.
    pub key: String,
    /// The value as written, cut; `None` where nothing was written or where it might be a secret.
    pub value: Option<String>,
    pub problem: String,
    /// What the operator is to do.
    pub advice: String,
}

impl Fault {
    pub fn new(key: &str, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { key: key.to_owned(), value: None, problem: problem.into(), advice: advice.into() }
    }

    #[must_use]
    pub fn with_value(mut self, value: impl fmt::Display) -> Self {
        let text = value.to_string();
        let mut shown: String = text.chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        self.value = Some(shown);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            // Debug escapes line breaks and control characters of a pasted value.
            write!(f, " = {value:?}")?;
        }
        write!(f, ": {}; {}", self.problem, self.advice)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        // A key that could not be read holds its default: what a check then says about it would mislead.
        for fault in faults {
            if !self.0.iter().any(|known| known.key == fault.key) {
                self.0.push(fault);
            }
        }
    }

    pub(super) fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }

    pub(super) fn unreadable_file(path: &Path, error: &std::io::Error) -> Self {
        Self(vec![Fault::new(
            &path.display().to_string(),
            format!("the configuration file cannot be read ({error})"),
            "check the path given with --config and that the recorder's user may read it",
        )])
    }

    pub(super) fn not_toml(problem: &str) -> Self {
        Self(vec![Fault::new(
            "configuration",
            problem,
            "correct that line; strings stand in double quotes, lists in square brackets",
        )])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has a fault:")?,
            count => write!(f, "the configuration has {count} faults:")?,
        }
        for fault in &self.0 {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
