//! A way to the homeserver that keeps back what one client sends to other clients' devices, until it is told to let go.
//!
//! The client is answered as if it had been delivered, so that it goes on and sends the event: a late room key. Other
//! requests it can make wait for their answer.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};

pub struct HoldingProxy {
    pub url: String,
    held: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Parts of paths whose requests wait, and how many have come to wait so far.
    slow: watch::Sender<(Vec<String>, usize)>,
    homeserver: String,
}

impl HoldingProxy {
    pub async fn start(homeserver: &str) -> Self {
        let homeserver = homeserver.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let held = Arc::new(Mutex::new(Vec::new()));
        let slow = watch::Sender::default();
        let (to, keep, wait) = (homeserver.clone(), Arc::clone(&held), slow.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, to.clone(), Arc::clone(&keep), wait.clone()));
            }
        });
        Self { url, held, slow, homeserver }
    }

    /// From now on requests whose path has `part` in it wait.
    pub fn hold_back(&self, part: &str) {
        self.slow.send_modify(|(parts, _)| parts.push(part.to_owned()));
    }

    /// Requests that wait go on, and later ones do not wait.
    pub fn let_go(&self, part: &str) {
        self.slow.send_modify(|(parts, _)| parts.retain(|held| held != part));
    }

    /// Resolves when so many requests have come to wait since the beginning.
    pub async fn has_held_back(&self, requests: usize) {
        let mut slow = self.slow.subscribe();
        slow.wait_for(|(_, waited)| *waited >= requests).await.expect("the proxy lives");
    }

    pub async fn held(&self) -> usize {
        self.held.lock().await.len()
    }

    pub async fn release(&self) {
        for request in self.held.lock().await.drain(..) {
            let answer = forward(&self.homeserver, &request).await.expect("an answer");
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        }
    }
}

/// One request for each connection.
async fn serve(
    mut client: TcpStream,
    homeserver: String,
    held: Arc<Mutex<Vec<Vec<u8>>>>,
    slow: watch::Sender<(Vec<String>, usize)>,
) -> Option<()> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        client.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
    };
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .unwrap_or(0);
    while request.len() < head + length {
        client.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
    }
    // The answer ends with the connection, so that nothing of it needs to be parsed.
    let mut lines: Vec<&str> = text.trim_end().lines().collect();
    lines.retain(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut rewritten = format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n")).into_bytes();
    rewritten.extend_from_slice(&request[head..]);

    let path = text.split_whitespace().nth(1)?;
    let is_slow = |(parts, _): &(Vec<String>, usize)| parts.iter().any(|part| path.contains(part));
    if is_slow(&slow.borrow()) {
        slow.send_modify(|(_, waited)| *waited += 1);
        slow.subscribe().wait_for(|slow| !is_slow(slow)).await.ok()?;
    }
    let answer = if text.starts_with("PUT") && text.contains("/sendToDevice/m.room.encrypted/") {
        held.lock().await.push(rewritten);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        head.as_bytes().to_vec()
    } else {
        forward(&homeserver, &rewritten).await?
    };
    client.write_all(&answer).await.ok()
}

async fn forward(homeserver: &str, request: &[u8]) -> Option<Vec<u8>> {
    let mut server = TcpStream::connect(homeserver).await.ok()?;
    server.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await.ok()?;
    Some(answer)
}
