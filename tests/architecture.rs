//! What ARCHITECTURE.md says of tests is true.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "node_modules", "fuzz"].contains(&name.as_str()) {
            sources(&path, text);
        } else if name.ends_with(".rs") || name.ends_with(".mjs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Rows of the table of changes and of that of their tests, by their first cells; of the second also the rest.
fn tables() -> (Vec<String>, Vec<(String, String)>) {
    let document = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = |header: &str| -> Vec<(String, String)> {
        let table = document.lines().skip_while(|line| *line != header).skip(2);
        table
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split_once('|').unwrap())
            .map(|(first, rest)| (first.trim().to_owned(), rest.to_owned()))
            .collect()
    };
    let changes = rows("| fact | what happens | touched |").into_iter().map(|(fact, _)| fact).collect();
    (changes, rows("| fact | its tests |"))
}

#[test]
fn every_row_of_the_change_table_names_tests_that_exist() {
    let mut text = String::new();
    for folder in ["src", "actors", "tests"] {
        sources(&root().join(folder), &mut text);
    }
    let (changes, tests) = tables();
    assert!(changes.len() > 15);
    assert_eq!(changes, tests.iter().map(|(fact, _)| fact.clone()).collect::<Vec<_>>());
    for (fact, names) in tests {
        let names: Vec<_> = names.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{fact} has no test");
        for name in names {
            let is_rust = text.contains(&format!("fn {name}("));
            assert!(is_rust || text.contains(&format!("'{name}'")), "{fact}: there is no test {name}");
        }
    }
}
