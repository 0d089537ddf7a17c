//! The helper processes themselves: all callers of a round, or the baseline receiver. They read orders until
//! those end, and then end too.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use super::wire::{Order, Told};
use super::{BenchError, Sample, Usage};
use crate::calling::receiver::ReceivedTotal;
use crate::calling::{CallerSettings, CallingError, ReceivingPeer, SyntheticCaller};

const ADDRESS: &str = "127.0.0.1:0";
/// Which helper this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Callers,
    Receiver,
}

/// Turns this process into a helper, on a thread of its own runtime, with orders from standard input and
/// facts to standard output.
pub fn serve(role: Role) -> Result<(), BenchError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::NoRuntime)?;
    let (orders, facts) = (tokio::io::stdin(), tokio::io::stdout());
    runtime.block_on(async {
        match role {
            Role::Callers => serve_callers(orders, facts).await,
            Role::Receiver => serve_receiver(orders, facts).await,
        }
    })
}

/// How long a call may take to connect.
const PATIENCE: Duration = Duration::from_secs(60);
/// Orders that wait for one call. More than that many candidates are not sent to a peer on loopback.
const CALL_ORDERS: usize = 64;
/// Facts that wait to be written; who tells one waits for room.
const TELLING: usize = 256;

/// Runs the callers' process to its end. Wants a runtime of one thread: more of them cost more.
pub async fn serve_callers(
    orders: impl AsyncRead + Unpin,
    facts: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(), BenchError> {
    let (told, writer) = teller(facts);
    let mut calls = HashMap::<usize, mpsc::Sender<Order>>::new();
    let mut running = tokio::task::JoinSet::new();
    let mut orders = BufReader::new(orders).lines();
    while let Some(line) = orders.next_line().await.ok().flatten() {
        match serde_json::from_str(&line)? {
            Order::Call { call, audio, video, tile } => {
                let (order, given) = mpsc::channel(CALL_ORDERS);
                calls.insert(call, order);
                let settings = CallerSettings { audio, video, receives: tile, ..CallerSettings::default() };
                let told = told.clone();
                running.spawn(async move {
                    if let Err(error) = Box::pin(one_call(call, settings, given, told.clone())).await {
                        let _ = told.send(Told::Failed { call, reason: error.to_string() }).await;
                    }
                });
            }
            Order::Sample => tell_sample(&told, 0).await?,
            Order::HangUp => {
                // Each call ends when nothing more can be ordered.
                calls.clear();
                while running.join_next().await.is_some() {}
                let _ = told.send(Told::Ended).await;
            }
            order @ (Order::Answer { call, .. } | Order::Candidate { call, .. }) => {
                if let Some(given) = calls.get(&call) {
                    let _ = given.send(order).await;
                }
            }
            order @ Order::Send { .. } => {
                for given in calls.values() {
                    let _ = given.send(order.clone()).await;
                }
            }
            Order::Offer { .. } => {}
        }
    }
    drop((told, calls));
    while running.join_next().await.is_some() {}
    let _ = writer.await;
    Ok(())
}

/// One call from its offer to its hang-up.
async fn one_call(
    call: usize,
    settings: CallerSettings,
    mut orders: mpsc::Receiver<Order>,
    told: mpsc::Sender<Told>,
) -> Result<(), CallingError> {
    let (mut caller, sdp) = SyntheticCaller::start(settings).await?;
    let _ = told.send(Told::Offer { call, sdp }).await;
    let mut candidates = caller.take_candidates();
    {
        let mut connected = pin!(caller.connected(PATIENCE));
        loop {
            tokio::select! {
                up = &mut connected => break up?,
                Some(candidate) = candidates.recv() => {
                    let _ = told.send(Told::Candidate { call, candidate: candidate.into() }).await;
                }
                order = orders.recv() => match order {
                    Some(Order::Answer { sdp, .. }) => caller.accept_answer(sdp).await?,
                    Some(Order::Candidate { candidate, .. }) => caller.add_candidate(candidate.into()).await?,
                    Some(_) => {}
                    None => return Ok(()),
                }
            }
        }
    }
    let _ = told.send(Told::Connected { call }).await;
    while let Some(order) = orders.recv().await {
        match order {
            Order::Candidate { candidate, .. } => caller.add_candidate(candidate.into()).await?,
            Order::Send { duration } => {
                // Calls do not send in step: each begins at another point of the 33 ms between two pictures.
                tokio::time::sleep(Duration::from_micros(call as u64 * 7_919 % 33_333)).await;
                let streams = caller.run(duration).await?;
                let _ = told.send(Told::Sent { call, streams, received: caller.received() }).await;
            }
            _ => {}
        }
    }
    caller.hang_up().await?;
    Ok(())
}

/// Runs the baseline receiver's process to its end: the `webrtc` crate's wrapper, reading and writing
/// nothing.
pub async fn serve_receiver(
    orders: impl AsyncRead + Unpin,
    facts: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(), BenchError> {
    let (told, writer) = teller(facts);
    let total = Arc::new(ReceivedTotal::default());
    let mut peers = HashMap::new();
    let mut orders = BufReader::new(orders).lines();
    while let Some(line) = orders.next_line().await.ok().flatten() {
        match serde_json::from_str(&line)? {
            Order::Offer { call, sdp } => {
                let answered = Box::pin(answer(sdp, total.clone())).await;
                let fact = match answered {
                    Ok((peer, sdp)) => {
                        peers.insert(call, peer);
                        Told::Answer { call, sdp }
                    }
                    Err(error) => Told::Failed { call, reason: error.to_string() },
                };
                let _ = told.send(fact).await;
            }
            Order::Candidate { call, candidate } => {
                if let Some(peer) = peers.get(&call)
                    && let Err(error) = peer.add_candidate(candidate.into()).await
                {
                    let _ = told.send(Told::Failed { call, reason: error.to_string() }).await;
                }
            }
            Order::Sample => tell_sample(&told, total.packets.load(Ordering::Relaxed)).await?,
            Order::HangUp => {
                for (_, peer) in peers.drain() {
                    let _ = peer.close().await;
                }
                let _ = told.send(Told::Ended).await;
            }
            Order::Call { .. } | Order::Answer { .. } | Order::Send { .. } => {}
        }
    }
    drop(told);
    let _ = writer.await;
    Ok(())
}

async fn answer(offer: String, total: Arc<ReceivedTotal>) -> Result<(ReceivingPeer, String), CallingError> {
    let (peer, _) = ReceivingPeer::answer(offer, ADDRESS.to_owned(), total, None).await?;
    let sdp = peer.complete_answer().await?;
    Ok((peer, sdp))
}

async fn tell_sample(told: &mpsc::Sender<Told>, packets: u64) -> Result<(), BenchError> {
    let sample = Sample { usage: Usage::own()?, packets };
    told.send(Told::Sample { sample }).await.map_err(|_| BenchError::ChildEnded)
}

/// A task that writes facts, until nobody can tell any more.
fn teller(
    mut facts: impl AsyncWrite + Send + Unpin + 'static,
) -> (mpsc::Sender<Told>, tokio::task::JoinHandle<()>) {
    let (told, mut waiting) = mpsc::channel::<Told>(TELLING);
    let writer = tokio::spawn(async move {
        while let Some(fact) = waiting.recv().await {
            let Ok(mut line) = serde_json::to_vec(&fact) else { continue };
            line.push(b'\n');
            if facts.write_all(&line).await.is_err() || facts.flush().await.is_err() {
                break;
            }
        }
    });
    (told, writer)
}
