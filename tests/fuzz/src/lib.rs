//! One entry function per fuzz target. `actors/core/tests/fuzz_corpus.rs` replays the corpora through the same ones.

pub mod entries;
