//! What the tests of a mesh have in common: two users, what they send, and what came of it.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::call::ConnectionLevel;
use crate::time::BootTime;

pub(super) const NOW: BootTime = BootTime(1_000_000_000_000);
pub(super) const UTC: i64 = 1_795_400_000_000;

/// Calls us: its user id is the lower one.
pub(super) const ADA: &str = "@ada:hs";
/// Is called by us.
pub(super) const EVE: &str = "@eve:hs";

pub(super) fn seconds(seconds: u64) -> BootTime {
    NOW + Duration::from_secs(seconds)
}

pub(super) fn member(user: &str, session: &str) -> Member {
    Member {
        user: user.into(),
        device: "D".into(),
        session_id: session.into(),
        screen: false,
        expires_ts_ms: UTC + 3_600_000,
    }
}

pub(super) fn new_mesh() -> Mesh {
    Mesh::new(MeshSettings::new("@bot:hs", "BOT", "mine", "conf", "!room:hs", "tile"))
}

/// Published, with these in the call.
pub(super) fn joined(members: &[Member]) -> (Mesh, Vec<MeshAction>) {
    let mut mesh = new_mesh();
    mesh.members(members, None, NOW, UTC);
    let actions = mesh.published(true, NOW);
    (mesh, actions)
}

pub(super) fn content(call_id: &str, session: &str, seq: u64, body: Value) -> Value {
    let mut content = body;
    for (field, value) in [
        ("call_id", json!(call_id)),
        ("party_id", json!("D")),
        ("version", json!("1")),
        ("conf_id", json!("conf")),
        ("device_id", json!("D")),
        ("sender_session_id", json!(session)),
        ("dest_session_id", json!("mine")),
        ("seq", json!(seq)),
    ] {
        if content.get(field).is_none() {
            content[field] = value;
        }
    }
    content
}

pub(super) fn signal(user: &str, call_id: &str, seq: u64, kind: &str, body: Value) -> ToDeviceSignal {
    let content = content(call_id, "s1", seq, body);
    ToDeviceSignal::parse(user, &format!("m.call.{kind}"), &content, NOW).unwrap()
}

pub(super) fn offer() -> Value {
    json!({"offer": {"type": "offer", "sdp": "theirs"}, "lifetime": 60_000, "invitee": "@bot:hs",
        "sdp_stream_metadata": {"cam": {"purpose": "m.usermedia"}}})
}

pub(super) fn answer() -> Value {
    json!({"answer": {"type": "answer", "sdp": "theirs"},
        "sdp_stream_metadata": {"cam": {"purpose": "m.usermedia"}}})
}

pub(super) fn candidates(count: usize) -> Value {
    let list: Vec<_> =
        (0..count).map(|n| json!({"candidate": format!("candidate:{n}"), "sdpMid": "0"})).collect();
    json!({"candidates": list})
}

pub(super) fn later_offer(sdp: &str) -> Value {
    json!({"description": {"type": "offer", "sdp": sdp}})
}

pub(super) fn invite(mesh: &mut Mesh, call_id: &str) -> Vec<MeshAction> {
    mesh.signal(signal(ADA, call_id, 0, "invite", offer()), NOW)
}

/// What is sent: user, type, call and number.
pub(super) fn sent(actions: &[MeshAction]) -> Vec<String> {
    actions
        .iter()
        .filter_map(|action| match action {
            MeshAction::SendToDevice { user, event_type, content, .. } => {
                let kind = event_type.trim_start_matches("m.call.");
                let call_id = content["call_id"].as_str().unwrap();
                Some(format!("{user} {kind} {call_id} {}", content["seq"]))
            }
            _ => None,
        })
        .collect()
}

pub(super) fn reason(actions: &[MeshAction]) -> Option<&str> {
    actions.iter().find_map(|action| match action {
        MeshAction::SendToDevice { event_type: "m.call.hangup", content, .. } => content["reason"].as_str(),
        _ => None,
    })
}

pub(super) fn closed(actions: &[MeshAction]) -> Vec<(u32, LegEnd)> {
    actions
        .iter()
        .filter_map(|action| match action {
            MeshAction::CloseLeg { leg, why } => Some((leg.0, *why)),
            _ => None,
        })
        .collect()
}

pub(super) fn dials(actions: &[MeshAction]) -> usize {
    actions.iter().filter(|action| matches!(action, MeshAction::Dial { .. })).count()
}

pub(super) fn accepts(actions: &[MeshAction]) -> usize {
    actions.iter().filter(|action| matches!(action, MeshAction::Accept { .. })).count()
}

/// How many of those in the call can be taken to be there.
pub(super) fn present(mesh: &Mesh) -> usize {
    mesh.peers.len() - mesh.unreachable(&[]).len()
}

pub(super) fn ignored(actions: &[MeshAction]) -> bool {
    actions == [MeshAction::Ignored]
}

pub(super) const ONE: LegId = LegId(1);

/// One leg that they placed, connected.
pub(super) fn called() -> Mesh {
    let (mut mesh, _) = joined(&[member(ADA, "s1")]);
    invite(&mut mesh, "c");
    mesh.accepted(ONE, Some("ours"), NOW);
    assert!(
        mesh.connection(ONE, ConnectionLevel::Connected, NOW)
            .contains(&MeshAction::LegConnected { leg: ONE })
    );
    mesh
}

/// One leg that we placed, answered and connected.
pub(super) fn calling() -> Mesh {
    let (mut mesh, _) = joined(&[member(EVE, "s1")]);
    mesh.dialled(ONE, Some("ours"), NOW);
    mesh.signal(signal(EVE, "mine.1", 0, "answer", answer()), NOW);
    mesh.applied(ONE, true, NOW);
    mesh.connection(ONE, ConnectionLevel::Connected, NOW);
    mesh
}
