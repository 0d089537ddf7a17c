//! `bench`: synthetic calls through a whole recording path on loopback, and what they cost it.
//!
//! The callers run in a process of their own, so that the processor time of the recording side can be read by
//! itself. The two talk in JSON lines over the child's standard input and output ([`wire`]).

mod answers;
pub mod child;
pub mod command;
pub mod compare;
pub mod helper_target;
pub mod mesh_target;
pub mod micro;
pub mod nowhere;
pub mod process;
pub mod recording_target;
pub mod report;
pub mod round;
pub mod srtp;
#[cfg(test)]
mod tests;
pub mod usage;
pub mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use recorder_actors::ports::RemoteCandidate;

pub use compare::{Comparison, compare};
pub use helper_target::HelperTarget;
pub use mesh_target::MeshTarget;
pub use report::BenchReport;
pub use round::run;
pub use usage::Usage;

use crate::calling::VideoLoad;

/// Hidden subcommand that turns this program into the callers' process.
pub const CALLERS_COMMAND: &str = "bench-callers";
/// Hidden subcommand that turns this program into the baseline receiver's process.
pub const RECEIVER_COMMAND: &str = "bench-receiver";

/// One round of `bench`.
#[derive(Clone)]
pub struct BenchOptions {
    pub calls: usize,
    /// How long is measured, after all calls are connected and media has flowed for [`WARM_UP`].
    pub measure: Duration,
    /// Opus in every call.
    pub audio: bool,
    /// VP8 in every call.
    pub video: Option<VideoLoad>,
    /// The program to start with [`CALLERS_COMMAND`]: usually the running one.
    pub program: PathBuf,
    /// Gets a line of text whenever there is something to tell.
    pub progress: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Media flows this long before measuring, so that key frames at the start and first allocations are left
/// out.
pub const WARM_UP: Duration = Duration::from_secs(2);

impl BenchOptions {
    /// What `bench` reports unless told otherwise: 1, 20, 100 and 300 calls, with the video load at which two
    /// processor cores still have room for the callers: 300, 300, 50 and 0 packets/s, beside 50 packets/s of
    /// audio.
    pub fn standard_loads() -> [(usize, Option<VideoLoad>); 4] {
        [
            (1, Some(VideoLoad::packets_per_second(300))),
            (20, Some(VideoLoad::packets_per_second(300))),
            (100, Some(VideoLoad::packets_per_second(50))),
            (300, None),
        ]
    }

    pub(crate) fn streams_per_call(&self) -> usize {
        usize::from(self.audio) + usize::from(self.video.is_some())
    }

    pub(crate) fn tell(&self, line: &str) {
        (self.progress)(line);
    }
}

/// A recording path under load, or something to compare it with.
pub trait BenchTarget: Send + Sync + 'static {
    /// For the report.
    fn name(&self) -> String;

    /// Callers get our picture: they are to offer to receive it, and are asked whether it came.
    fn shows_tile(&self) -> bool {
        false
    }

    /// Answers an offer. Calls are numbered upwards; a number does not come twice in a target's life.
    fn answer(&self, call: usize, offer: String) -> BoxFuture<'static, Result<String, BenchError>>;

    /// A trickled candidate of an answered call.
    fn add_candidate(&self, call: usize, candidate: RemoteCandidate);

    /// Usage of the process that receives, and RTP packets received so far by all calls since the target
    /// began.
    fn sample(&self) -> BoxFuture<'static, Result<Sample, BenchError>>;

    /// Every call has hung up. Waits until all files are final and says what became of the calls since the
    /// last time.
    fn finish(&self) -> BoxFuture<'static, Result<TargetSummary, BenchError>>;
}

/// Usage and count at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sample {
    pub usage: Usage,
    pub packets: u64,
}

/// What a target made of its calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetSummary {
    pub streams: u64,
    /// RTP packets received, retransmissions included.
    pub received: u64,
    pub recovered: u64,
    /// Packets that never came.
    pub lost: u64,
    pub dropped_by_us: u64,
    /// Whether every ledger balances; `None` where there is none.
    pub ledgers_balance: Option<bool>,
    /// Session folders written.
    pub sessions: Vec<PathBuf>,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
}

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("the helper process `{program} {command}` cannot be started: {source}")]
    NotStarted { program: PathBuf, command: String, source: std::io::Error },
    #[error("no runtime for the helper: {0}")]
    NoRuntime(std::io::Error),
    #[error("the helper process ended early")]
    ChildEnded,
    #[error("the helper process said something that is not understood: {0}")]
    BadLine(#[from] serde_json::Error),
    #[error("call {call} failed: {reason}")]
    CallFailed { call: usize, reason: String },
    #[error("only {connected} of {calls} calls were connected after {after:?}")]
    NotConnected { connected: usize, calls: usize, after: Duration },
    #[error("the recording path failed: {0}")]
    Target(String),
    #[error("usage of the process cannot be read: {0}")]
    Usage(std::io::Error),
    #[error("nothing was received while measuring")]
    NothingReceived,
}
