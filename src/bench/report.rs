//! What a round says of itself, for people and as JSON.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::round::Measured;
use super::{BenchError, BenchOptions, Sample, TargetSummary};
use crate::calling::SentStream;

/// The outcome of one round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    pub target: String,
    pub calls: usize,
    pub streams: usize,
    /// How long was measured.
    pub measured_seconds: f64,
    /// While measuring.
    pub packets_per_second: f64,
    /// Processor time of the receiving process per packet received, microseconds, while measuring.
    pub cpu_us_per_packet: f64,
    /// The same as a share of one processor core.
    pub cpu_percent: f64,
    /// Processor time of the callers per packet, for comparison: it is not part of the recording path.
    pub callers_cpu_us_per_packet: f64,
    pub resident: Resident,
    pub connecting: Connecting,
    /// Over the whole of the calls, without retransmissions.
    pub packets_sent: u64,
    pub packets_received: u64,
    pub recovered: u64,
    /// Packets that never came.
    pub lost: u64,
    pub dropped_by_us: u64,
    pub key_frame_requests: u64,
    pub packets_nacked: u64,
    /// `None` where there is no ledger.
    pub ledgers_balance: Option<bool>,
    pub sessions: Vec<PathBuf>,
    pub problems: Vec<String>,
}

/// Resident memory of the receiving process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// Before the first call.
    pub start: u64,
    /// While media flowed.
    pub peak: u64,
    /// After the last call.
    pub end: u64,
    /// (peak − start) / streams.
    pub per_stream: u64,
}

/// From starting a caller until its connection is up, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Connecting {
    pub median_ms: f64,
    pub p95_ms: f64,
    pub slowest_ms: f64,
}

impl Connecting {
    pub(super) fn of(took: &[Duration]) -> Self {
        let mut took = took.iter().map(|took| took.as_secs_f64() * 1e3).collect::<Vec<_>>();
        took.sort_by(f64::total_cmp);
        let at =
            |share: f64| took.get(((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1)));
        let at = |share| at(share).copied().unwrap_or(0.0);
        Self { median_ms: at(0.5), p95_ms: at(0.95), slowest_ms: at(1.0) }
    }
}

impl BenchReport {
    #[expect(clippy::too_many_arguments, reason = "one caller; each is another source of facts")]
    pub(super) fn new(
        options: &BenchOptions,
        target: String,
        start: Sample,
        measured: Measured,
        end: Sample,
        sent: &[SentStream],
        summary: TargetSummary,
        connecting: Connecting,
        problems: Vec<String>,
    ) -> Result<Self, BenchError> {
        let packets = measured.end.packets.saturating_sub(measured.begin.packets);
        if packets == 0 {
            return Err(BenchError::NothingReceived);
        }
        let cpu = measured.end.usage.cpu.saturating_sub(measured.begin.usage.cpu).as_secs_f64();
        let seconds = measured.lasted.as_secs_f64();
        let streams = options.calls * options.streams_per_call();
        let packets_sent = sent.iter().map(|stream| stream.packets).sum();
        let grown = measured.peak_bytes.saturating_sub(start.usage.resident_bytes);
        let mut report = Self {
            target,
            calls: options.calls,
            streams,
            measured_seconds: seconds,
            packets_per_second: packets as f64 / seconds,
            cpu_us_per_packet: cpu * 1e6 / packets as f64,
            cpu_percent: cpu / seconds * 100.0,
            callers_cpu_us_per_packet: measured.callers_cpu.as_secs_f64() * 1e6 / packets as f64,
            resident: Resident {
                start: start.usage.resident_bytes,
                peak: measured.peak_bytes,
                end: end.usage.resident_bytes,
                per_stream: grown / (streams.max(1) as u64),
            },
            connecting,
            packets_sent,
            packets_received: summary.received,
            recovered: summary.recovered,
            lost: summary.lost,
            dropped_by_us: summary.dropped_by_us,
            key_frame_requests: sent.iter().map(|stream| stream.key_frame_requests).sum(),
            packets_nacked: sent.iter().map(|stream| stream.packets_nacked).sum(),
            ledgers_balance: summary.ledgers_balance,
            sessions: summary.sessions,
            problems,
        };
        if summary.streams != streams as u64 {
            report.problems.push(format!("{} streams sent, {} received", streams, summary.streams));
        }
        if report.packets_received + report.lost < packets_sent {
            let missing = packets_sent - report.packets_received - report.lost;
            report
                .problems
                .push(format!("{missing} packets were sent and are neither received nor called lost"));
        }
        Ok(report)
    }

    /// Nothing of ours was lost and nothing is unaccounted for.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.dropped_by_us == 0 && self.ledgers_balance != Some(false)
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident, connecting, .. } = self;
        writeln!(f, "{} calls, {} streams into {}", self.calls, self.streams, self.target)?;
        writeln!(
            f,
            "  connected     median {:.0} ms, 95 % within {:.0} ms, slowest {:.0} ms",
            connecting.median_ms, connecting.p95_ms, connecting.slowest_ms
        )?;
        writeln!(
            f,
            "  processor     {:.1} µs a packet at {:.0} packets/s ({:.1} % of a core); callers {:.1} µs",
            self.cpu_us_per_packet, self.packets_per_second, self.cpu_percent, self.callers_cpu_us_per_packet
        )?;
        writeln!(
            f,
            "  memory        start {:.1}, peak {:.1}, end {:.1} MiB; {:.0} KiB a stream",
            mebibytes(resident.start),
            mebibytes(resident.peak),
            mebibytes(resident.end),
            resident.per_stream as f64 / 1024.0
        )?;
        writeln!(
            f,
            "  packets       {} sent, {} received, {} recovered, {} lost, {} dropped by us",
            self.packets_sent, self.packets_received, self.recovered, self.lost, self.dropped_by_us
        )?;
        writeln!(
            f,
            "  feedback      {} key frames asked for, {} packets reported missing",
            self.key_frame_requests, self.packets_nacked
        )?;
        match self.ledgers_balance {
            Some(true) => writeln!(f, "  ledgers       all balance")?,
            Some(false) => writeln!(f, "  ledgers       DO NOT BALANCE")?,
            None => {}
        }
        if !self.sessions.is_empty() {
            writeln!(f, "  on disk       {} sessions", self.sessions.len())?;
        }
        for problem in &self.problems {
            writeln!(f, "  problem       {problem}")?;
        }
        Ok(())
    }
}
