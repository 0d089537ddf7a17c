//! A helper process as its parent sees it: orders in, facts out. It ends with its handle.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::BenchError;
use super::wire::{Order, Told};

/// Orders that wait to be written; who gives one waits for room.
const ORDERS: usize = 64;

/// A running helper process.
pub struct Helper {
    orders: mpsc::Sender<Order>,
    lines: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
    /// Ends when this is dropped.
    _process: Option<Child>,
}

impl Helper {
    /// Starts `program arguments`. Its standard error stays ours.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<Self, BenchError> {
        let command = arguments.join(" ");
        let not_started = |source| BenchError::NotStarted { program: program.to_owned(), command, source };
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(not_started)?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(BenchError::ChildEnded);
        };
        Ok(Self { _process: Some(process), ..Self::over(input, output) })
    }

    /// A helper at the other end of these, wherever it runs.
    pub fn over(
        mut input: impl AsyncWrite + Send + Unpin + 'static,
        output: impl AsyncRead + Send + Unpin + 'static,
    ) -> Self {
        let (orders, mut waiting) = mpsc::channel::<Order>(ORDERS);
        // Ends when the handle is dropped or the helper no longer reads.
        tokio::spawn(async move {
            while let Some(order) = waiting.recv().await {
                let Ok(mut line) = serde_json::to_vec(&order) else { continue };
                line.push(b'\n');
                if input.write_all(&line).await.is_err() {
                    break;
                }
            }
        });
        let output: Box<dyn AsyncRead + Send + Unpin> = Box::new(output);
        Self { orders, lines: BufReader::new(output).lines(), _process: None }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = Helper::start(Path::new("/nonexistent/recorder"), &["bench-callers"]).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/recorder bench-callers"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_ends_at_once_is_an_error_not_a_hang() {
        let mut helper = Helper::start(Path::new("/bin/true"), &["bench-callers"]).unwrap();
        assert!(matches!(helper.next().await, Err(BenchError::ChildEnded)));
    }

    #[tokio::test]
    async fn a_program_that_says_something_else_is_an_error() {
        let mut helper = Helper::start(Path::new("/bin/echo"), &["bench-callers"]).unwrap();
        assert!(matches!(helper.next().await, Err(BenchError::BadLine(_))));
    }
}
