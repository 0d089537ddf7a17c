//! From senders' media clocks to the session's clock.

mod unwrap;

pub use unwrap::TimestampUnwrapper;
