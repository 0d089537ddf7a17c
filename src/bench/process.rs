//! A helper process as its parent sees it: orders in, facts out. It ends with its handle.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;

use super::BenchError;
use super::wire::{Order, Told};

/// Orders that wait to be written; who gives one waits for room.
const ORDERS: usize = 64;

/// A running helper process.
pub struct Helper {
    orders: mpsc::Sender<Order>,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Helper {
    /// Starts `program command`. Its standard error stays ours.
    pub fn start(program: &Path, command: &'static str) -> Result<Self, BenchError> {
        let not_started = |source| BenchError::NotStarted { program: program.to_owned(), command, source };
        let mut child = Command::new(program)
            .arg(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(not_started)?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::ChildEnded);
        };
        let (orders, mut waiting) = mpsc::channel::<Order>(ORDERS);
        // Ends when the handle is dropped or the child no longer reads.
        tokio::spawn(async move {
            while let Some(order) = waiting.recv().await {
                let Ok(mut line) = serde_json::to_vec(&order) else { continue };
                line.push(b'\n');
                if stdin.write_all(&line).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self { orders, lines: BufReader::new(stdout).lines(), _child: child })
    }

    /// A handle for giving orders from elsewhere.
    pub fn orders(&self) -> mpsc::Sender<Order> {
        self.orders.clone()
    }

    pub async fn order(&self, order: Order) -> Result<(), BenchError> {
        self.orders.send(order).await.map_err(|_| BenchError::ChildEnded)
    }

    /// The next thing it tells. May be dropped while waiting, without loss.
    pub async fn next(&mut self) -> Result<Told, BenchError> {
        let line = self.lines.next_line().await.ok().flatten().ok_or(BenchError::ChildEnded)?;
        Ok(serde_json::from_str(&line)?)
    }
}
