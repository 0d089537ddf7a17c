//! How far two words are apart: for "did you mean".

/// Letters looked at. Commands are shorter; what is longer is no typing error.
const LONGEST: usize = 24;

/// Optimal string alignment distance: insertions, deletions, substitutions and neighbours in the wrong order. `None`
/// where a word is longer than any command.
pub(super) fn distance(a: &str, b: &str) -> Option<usize> {
    let letters = |text: &str| -> Vec<char> { text.chars().take(LONGEST + 1).collect() };
    let (a, b) = (letters(a), letters(b));
    if a.len() > LONGEST || b.len() > LONGEST {
        return None;
    }
    let mut before = vec![0; b.len() + 1];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            next[j] = (row[j] + 1).min(next[j - 1] + 1).min(row[j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                next[j] = next[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    Some(row[b.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slip_of_the_fingers_counts_once() {
        for (a, b, expected) in [
            ("", "", 0),
            ("start", "start", 0),
            ("start", "strat", 1),
            ("stat", "start", 1),
            ("stopp", "stop", 1),
            ("stob", "stop", 1),
            ("", "stop", 4),
            ("ca", "abc", 3),
            ("hälp", "help", 1),
        ] {
            assert_eq!(distance(a, b), Some(expected), "{a} {b}");
        }
        assert_eq!(distance(&"x".repeat(60_000), "stop"), None);
    }
}
