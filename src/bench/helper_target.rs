//! Something to compare with, as a target: a process of its own that takes calls and tells what it has used.
//!
//! Our own program is such a process with the `webrtc` crate's wrapper in it, receiving and writing nothing;
//! another is `tests/compare/aiortc_recorder.py`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use recorder_actors::ports::RemoteCandidate;
use tokio::sync::{mpsc, oneshot};

use super::process::Helper;
use super::wire::{Order, Told};
use super::{BenchError, BenchTarget, RECEIVER_COMMAND, Sample, TargetSummary};

/// Candidates and other orders that wait to be passed on; a candidate that finds no room is left out.
type Orders = mpsc::Sender<Order>;

/// A receiving process. It ends with this.
pub struct HelperTarget {
    name: String,
    orders: Orders,
    waiting: Arc<Mutex<Waiting>>,
    reader: tokio::task::JoinHandle<()>,
}

/// Who waits for what the process tells.
#[derive(Default)]
struct Waiting {
    ended: bool,
    answers: HashMap<usize, oneshot::Sender<Result<String, BenchError>>>,
    samples: Vec<oneshot::Sender<Sample>>,
    hang_ups: Vec<oneshot::Sender<()>>,
    streams: u64,
}

impl HelperTarget {
    /// Our own `program` as the baseline receiver.
    pub fn wrapper(program: &Path) -> Result<Self, BenchError> {
        let name = "the webrtc crate's wrapper, receiving without writing".to_owned();
        Ok(Self::over(Helper::start(program, &[RECEIVER_COMMAND])?, name))
    }

    /// Another program that takes the same orders.
    pub fn program(program: &Path, arguments: &[&str]) -> Result<Self, BenchError> {
        let name =
            [&*program.to_string_lossy()].iter().chain(arguments).copied().collect::<Vec<_>>().join(" ");
        Ok(Self::over(Helper::start(program, arguments)?, name))
    }

    /// The receiver that this helper is.
    pub fn over(mut helper: Helper, name: String) -> Self {
        let orders = helper.orders();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let known = waiting.clone();
        let reader = tokio::spawn(async move {
            while let Ok(fact) = helper.next().await {
                lock(&known).take(fact);
            }
            // Whoever still waits learns of the end by the dropped sender.
            *lock(&known) = Waiting { ended: true, ..Waiting::default() };
        });
        Self { name, orders, waiting, reader }
    }

    fn ask<T: Send + 'static>(
        &self,
        order: Order,
        register: impl FnOnce(&mut Waiting, oneshot::Sender<T>),
    ) -> BoxFuture<'static, Result<T, BenchError>> {
        let (tell, told) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            if !waiting.ended {
                register(&mut waiting, tell);
            }
        }
        let orders = self.orders.clone();
        async move {
            orders.send(order).await.map_err(|_| BenchError::ChildEnded)?;
            told.await.map_err(|_| BenchError::ChildEnded)
        }
        .boxed()
    }
}

impl Waiting {
    fn take(&mut self, fact: Told) {
        match fact {
            Told::Answer { call, sdp } => {
                self.streams += sdp.lines().filter(|line| line.starts_with("m=")).count() as u64;
                if let Some(tell) = self.answers.remove(&call) {
                    let _ = tell.send(Ok(sdp));
                }
            }
            Told::Failed { call, reason } => {
                if let Some(tell) = self.answers.remove(&call) {
                    let _ = tell.send(Err(BenchError::CallFailed { call, reason }));
                }
            }
            Told::Sample { sample } => {
                for tell in self.samples.drain(..) {
                    let _ = tell.send(sample);
                }
            }
            Told::Ended => {
                for tell in self.hang_ups.drain(..) {
                    let _ = tell.send(());
                }
            }
            Told::Offer { .. } | Told::Candidate { .. } | Told::Connected { .. } | Told::Sent { .. } => {}
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    // Nothing in here panics half-way through a change.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BenchTarget for HelperTarget {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn answer(&self, call: usize, offer: String) -> BoxFuture<'static, Result<String, BenchError>> {
        let answered = self.ask(Order::Offer { call, sdp: offer }, |waiting, tell| {
            waiting.answers.insert(call, tell);
        });
        async move { answered.await? }.boxed()
    }

    fn add_candidate(&self, call: usize, candidate: RemoteCandidate) {
        let _ = self.orders.try_send(Order::Candidate { call, candidate: candidate.into() });
    }

    fn sample(&self) -> BoxFuture<'static, Result<Sample, BenchError>> {
        self.ask(Order::Sample, |waiting, tell| waiting.samples.push(tell))
    }

    fn finish(&self) -> BoxFuture<'static, Result<TargetSummary, BenchError>> {
        let ended = self.ask(Order::HangUp, |waiting, tell| waiting.hang_ups.push(tell));
        let sampled = self.sample();
        let streams = std::mem::take(&mut lock(&self.waiting).streams);
        async move {
            ended.await?;
            let received = sampled.await?.packets;
            Ok(TargetSummary { streams, received, ..TargetSummary::default() })
        }
        .boxed()
    }
}

impl Drop for HelperTarget {
    fn drop(&mut self) {
        // The reader holds the process, which ends with it.
        self.reader.abort();
    }
}
