//! A call whose only path is a relay, through a real TURN server (Debian's coturn).

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use recorder_actors::ports::TurnServer;

use super::*;
use crate::adapters::media::shim::{Fault, Shim};

struct Coturn {
    child: Child,
    port: u16,
    _folder: Folder,
}

/// A folder for its pid file and database.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Coturn {
    /// None where coturn is not installed.
    fn start() -> Option<Self> {
        let port = UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let path = std::env::temp_dir().join(format!("coturn-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&path).ok()?;
        let folder = Folder(path);
        let child = Command::new("turnserver")
            .args(["-n", "-L", "127.0.0.1", "-E", "127.0.0.1", "-p", &port.to_string()])
            .args(["--lt-cred-mech", "-u", "caller:secret", "-r", "example.org", "--allow-loopback-peers"])
            .args(["--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout"])
            .args([format!("--pidfile={}", folder.0.join("pid").display())])
            .args([format!("--userdb={}", folder.0.join("db").display())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self { child, port, _folder: folder };
        server.wait_until_it_answers();
        Some(server)
    }

    fn wait_until_it_answers(&self) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
        let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        request.extend([7; 12]);
        for _ in 0..100 {
            let _ = socket.send_to(&request, ("127.0.0.1", self.port));
            if socket.recv_from(&mut [0; 512]).is_ok() {
                return;
            }
        }
        panic!("the turn server does not answer");
    }

    fn credentials(&self) -> Vec<TurnServer> {
        vec![TurnServer {
            uris: vec!["turns:127.0.0.1".to_owned(), format!("turn:127.0.0.1:{}?transport=udp", self.port)],
            username: "caller".to_owned(),
            password: "secret".to_owned(),
        }]
    }
}

/// No datagram passes the shared port: only relays are left.
struct NoDirectPath;

impl Shim for NoDirectPath {
    fn received(&mut self, _: SocketAddr, _: &[u8]) -> Fault {
        Fault::Drop
    }

    fn sent(&mut self, _: SocketAddr, _: &[u8]) -> Fault {
        Fault::Drop
    }
}

#[test]
fn a_call_without_a_direct_path_goes_through_the_relay() {
    let server = Coturn::start().expect("turnserver starts; it comes with the Debian package coturn");
    let plane = MediaLoop::start_with_shim(settings(), Box::new(NoDirectPath)).expect("start");
    let mut caller = Caller::new();
    let offer = caller.offer(&[MediaKind::Audio]);
    let (answer, facts) = block(plane.accept(CALL, offer, server.credentials(), None)).expect("answer");
    assert_eq!(answer.sdp.matches("typ relay").count(), 1, "the relayed address is told");
    caller.answer(&answer.sdp);
    let mut call = Call { plane, caller, facts, answer: answer.sdp };
    assert!(call.until(LONG, |call| call.caller.connected && call.state() == ConnectionState::Connected));
    for _ in 0..50 {
        call.caller.send(0);
        call.caller.run_for(Duration::from_millis(3));
    }
    let mut read = Read::default();
    assert!(call.until(LONG, |call| {
        if let Some(ring) = call.ring(0) {
            read.from(&ring);
        }
        read.packets.len() == 50
    }));
    read.check_balance(&call.ring(0).expect("ring"));
    call.plane.close(CALL);
    assert!(call.until(LONG, |call| call.caller.closed), "the goodbye goes through the relay as well");
}

#[test]
fn a_turn_server_that_does_not_answer_does_not_hold_up_the_call() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let uri = format!("turn:{}", silent.local_addr().expect("address"));
    let turn = vec![TurnServer { uris: vec![uri], username: "u".to_owned(), password: "p".to_owned() }];
    let plane = MediaLoop::start(settings()).expect("start");
    let mut caller = Caller::new();
    let offer = caller.offer(&[MediaKind::Audio]);
    let began = std::time::Instant::now();
    let (answer, facts) = block(plane.accept(CALL, offer, turn, None)).expect("answer");
    assert!(began.elapsed() < Duration::from_secs(2));
    caller.answer(&answer.sdp);
    let mut call = Call { plane, caller, facts, answer: answer.sdp };
    assert!(call.until(LONG, |call| call.state() == ConnectionState::Connected));
}
