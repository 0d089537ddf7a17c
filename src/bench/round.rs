//! One round: connect all calls, let media flow, measure, hang up, report.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use recorder_actors::ports::RemoteCandidate;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::process::Helper;
use super::report::{BenchReport, Connecting};
use super::wire::{Order, Told};
use super::{BenchError, BenchOptions, BenchTarget, CALLERS_COMMAND, Sample, WARM_UP};
use crate::calling::SentStream;

/// Calls that connect at the same time.
const AT_ONCE: usize = 8;
/// How long all calls together may take to connect, beside 200 ms for each.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often memory is looked at while media flows.
const LOOK: Duration = Duration::from_millis(250);
/// Calls go on this long after measuring, so that the last look still sees all of them.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Runs one round against `target`. `first_call` numbers the calls, so that a target can take several rounds.
pub async fn run(
    options: &BenchOptions,
    target: Arc<dyn BenchTarget>,
    first_call: usize,
) -> Result<BenchReport, BenchError> {
    let callers = Helper::start(&options.program, &[CALLERS_COMMAND])?;
    run_with(options, callers, target, first_call).await
}

/// The same with callers that run already.
pub(super) async fn run_with(
    options: &BenchOptions,
    callers: Helper,
    target: Arc<dyn BenchTarget>,
    first_call: usize,
) -> Result<BenchReport, BenchError> {
    let start = target.sample().await?;
    let mut round = Round {
        options,
        target: target.clone(),
        callers,
        first_call,
        answers: JoinSet::new(),
        early: HashMap::new(),
        asked: HashMap::new(),
        connecting: Vec::new(),
        problems: Vec::new(),
        sent: Vec::new(),
        calls_sent: 0,
        callers_sample: None,
    };
    options.tell(&format!("connecting {} calls to {}", options.calls, target.name()));
    round.connect().await?;
    options.tell(&format!("connected; media flows for {:?} and is measured then", WARM_UP));
    let measured = round.measure().await?;
    round.hang_up().await?;
    options.tell("hung up; waiting for the files to be final");
    let summary = target.finish().await?;
    let end = target.sample().await?;
    let connecting = Connecting::of(&round.connecting);
    let Round { sent, mut problems, .. } = round;
    problems.extend(summary.problems.iter().cloned());
    BenchReport::new(options, target.name(), start, measured, end, &sent, summary, connecting, problems)
}

/// What was seen while media flowed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    pub begin: Sample,
    pub end: Sample,
    pub lasted: Duration,
    pub peak_bytes: u64,
    /// Processor time of the callers' process in the same time.
    pub callers_cpu: Duration,
}

struct Round<'a> {
    options: &'a BenchOptions,
    target: Arc<dyn BenchTarget>,
    callers: Helper,
    first_call: usize,
    answers: JoinSet<(usize, Result<String, BenchError>)>,
    /// Candidates of calls that have no answer yet; a target knows a call only from its answer on.
    early: HashMap<usize, Vec<RemoteCandidate>>,
    asked: HashMap<usize, Instant>,
    connecting: Vec<Duration>,
    problems: Vec<String>,
    sent: Vec<SentStream>,
    calls_sent: usize,
    callers_sample: Option<Sample>,
}

impl Round<'_> {
    async fn connect(&mut self) -> Result<(), BenchError> {
        let calls = self.options.calls;
        let patience = PATIENCE + Duration::from_millis(200) * u32::try_from(calls).unwrap_or(u32::MAX);
        let deadline = Instant::now() + patience;
        let mut started = 0;
        while self.connecting.len() < calls {
            while started < calls && started < self.connecting.len() + AT_ONCE {
                let call = self.first_call + started;
                self.early.insert(call, Vec::new());
                self.asked.insert(call, Instant::now());
                let BenchOptions { audio, video, .. } = *self.options;
                let tile = self.target.shows_tile();
                self.callers.order(Order::Call { call, audio, video, tile }).await?;
                started += 1;
            }
            let before = self.connecting.len();
            timeout_at(deadline, self.step()).await.map_err(|_| BenchError::NotConnected {
                connected: before,
                calls,
                after: patience,
            })??;
            let now = self.connecting.len();
            if now > before && now.is_multiple_of(50) {
                self.options.tell(&format!("{now} of {calls} connected"));
            }
        }
        Ok(())
    }

    /// Takes one fact of the callers or one answer of the target.
    async fn step(&mut self) -> Result<(), BenchError> {
        tokio::select! {
            fact = self.callers.next() => self.take(fact?),
            Some(answered) = self.answers.join_next() => {
                let (call, answer) = answered.map_err(|error| BenchError::Target(error.to_string()))?;
                let sdp = answer?;
                self.callers.order(Order::Answer { call, sdp }).await?;
                for candidate in self.early.remove(&call).into_iter().flatten() {
                    self.target.add_candidate(call, candidate);
                }
                Ok(())
            }
        }
    }

    fn take(&mut self, fact: Told) -> Result<(), BenchError> {
        match fact {
            Told::Offer { call, sdp } => {
                let answer = self.target.answer(call, sdp);
                self.answers.spawn(async move { (call, answer.await) });
            }
            Told::Candidate { call, candidate } => match self.early.get_mut(&call) {
                Some(early) => early.push(candidate.into()),
                None => self.target.add_candidate(call, candidate.into()),
            },
            Told::Connected { call } => {
                if let Some(asked) = self.asked.remove(&call) {
                    self.connecting.push(asked.elapsed());
                }
            }
            Told::Failed { call, reason } => return Err(BenchError::CallFailed { call, reason }),
            Told::Sent { call, streams, received } => {
                if self.target.shows_tile() && received == 0 {
                    self.problems.push(format!("call {call} saw no picture of ours"));
                }
                self.calls_sent += 1;
                self.sent.extend(streams);
            }
            Told::Sample { sample } => self.callers_sample = Some(sample),
            Told::Answer { .. } | Told::Ended => {}
        }
        Ok(())
    }

    async fn measure(&mut self) -> Result<Measured, BenchError> {
        let lasts = self.options.measure;
        self.callers.order(Order::Send { duration: WARM_UP + lasts + AFTERWARDS }).await?;
        let flows = Instant::now();
        self.step_until(flows + WARM_UP).await?;
        let callers_begin = self.sample_callers().await?;
        let begin = self.target.sample().await?;
        let measuring = Instant::now();
        let mut peak_bytes = begin.usage.resident_bytes;
        let mut told = measuring;
        let mut end = begin;
        while measuring.elapsed() < lasts {
            self.step_until((Instant::now() + LOOK).min(measuring + lasts)).await?;
            end = self.target.sample().await?;
            peak_bytes = peak_bytes.max(end.usage.resident_bytes);
            if told.elapsed() >= Duration::from_secs(5) {
                told = Instant::now();
                let packets = end.packets - begin.packets;
                let seconds = measuring.elapsed().as_secs();
                self.options.tell(&format!("{seconds} s measured, {packets} packets received"));
            }
        }
        let lasted = measuring.elapsed();
        let callers_end = self.sample_callers().await?;
        let callers_cpu = callers_end.usage.cpu.saturating_sub(callers_begin.usage.cpu);
        // All that is to come now is what the callers have sent.
        let deadline = Instant::now() + PATIENCE;
        while self.calls_sent < self.options.calls {
            match timeout_at(deadline, self.step()).await {
                Ok(step) => step?,
                Err(_) => {
                    self.problems.push("the callers did not finish sending in time".to_owned());
                    break;
                }
            }
        }
        Ok(Measured { begin, end, lasted, peak_bytes, callers_cpu })
    }

    async fn sample_callers(&mut self) -> Result<Sample, BenchError> {
        self.callers_sample = None;
        self.callers.order(Order::Sample).await?;
        loop {
            self.step().await?;
            if let Some(sample) = self.callers_sample.take() {
                return Ok(sample);
            }
        }
    }

    /// Takes what comes until then.
    async fn step_until(&mut self, then: Instant) -> Result<(), BenchError> {
        while let Ok(step) = timeout_at(then, self.step()).await {
            step?;
        }
        Ok(())
    }

    async fn hang_up(&mut self) -> Result<(), BenchError> {
        self.callers.order(Order::HangUp).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match timeout_at(deadline, self.callers.next()).await {
                Ok(Ok(Told::Ended)) => return Ok(()),
                Ok(Ok(fact)) => self.take(fact)?,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    self.problems.push("the callers did not hang up in time".to_owned());
                    return Ok(());
                }
            }
        }
    }
}
