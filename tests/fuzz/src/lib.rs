//! One entry function per fuzz target. `actors/core/tests/fuzz_corpus.rs` and, for what the daemon reads itself,
//! `tests/fuzz_corpus.rs` replay the corpora through the same ones.

#[cfg(feature = "daemon")]
pub mod daemon_entries;
pub mod entries;
