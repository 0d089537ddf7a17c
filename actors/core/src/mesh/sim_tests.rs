//! Two meshes that talk over a network that loses, repeats and delays, with a media plane that connects whom it may; and
//! one mesh under a flood.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::inbox::MOST_WAITING;
use super::incoming::{MOST_HELD, MOST_HELD_BYTES, MOST_REJECTIONS, MOST_WAITING_BYTES};
use super::leg::LegPhase;
use super::test_support::{NOW, UTC, content, member, new_mesh, offer, seconds, sent};
use super::*;
use crate::call::ConnectionLevel;
use crate::time::BootTime;

#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    LateBy(u64),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        2 => (1_u64..9).prop_map(Fate::LateBy),
    ]
}

struct Side {
    mesh: Mesh,
    roster: Roster,
    /// Our open legs that know the other side's description, and which leg of its that is.
    remote: BTreeMap<LegId, LegId>,
}

struct Mail {
    at: u64,
    to: usize,
    event_type: &'static str,
    content: Value,
}

struct World {
    sides: [Side; 2],
    mail: Vec<Mail>,
    fates: std::vec::IntoIter<Fate>,
    lost: usize,
    second: u64,
}

const USERS: [&str; 2] = ["@ada:hs", "@bot:hs"];

impl World {
    fn new(fates: Vec<Fate>) -> Self {
        let side = |n: usize| {
            let mut roster = Roster::new(USERS[n]);
            let call = json!({"m.intent": "m.room", "m.type": "m.video"});
            roster.state_event(CALL_EVENT, "conf", "@ada:hs", &call, UTC);
            let settings = MeshSettings::new(USERS[n], "D", &format!("s{n}"), "conf", "!r:hs", "tile");
            Side { mesh: Mesh::new(settings), roster, remote: BTreeMap::new() }
        };
        Self { sides: [side(0), side(1)], mail: Vec::new(), fates: fates.into_iter(), lost: 0, second: 0 }
    }

    fn now(&self) -> BootTime {
        NOW + Duration::from_secs(self.second)
    }

    fn utc(&self) -> i64 {
        UTC + i64::try_from(self.second).unwrap() * 1_000
    }

    fn read_rosters(&mut self, enters: [u64; 2]) {
        for (n, enters) in enters.into_iter().enumerate() {
            if self.second < enters {
                continue;
            }
            let (now, utc) = (self.now(), self.utc());
            let side = &mut self.sides[n];
            let members = side.roster.gathering(utc).unwrap().members;
            let own = side.roster.own_content().cloned();
            let actions = side.mesh.members(&members, own.as_ref(), now, utc);
            self.run(n, actions);
        }
    }

    fn step(&mut self, seconds: u64, enters: [u64; 2]) {
        self.second += seconds;
        self.read_rosters(enters);
        for n in 0..2 {
            let actions = self.sides[n].mesh.tick(self.now(), self.utc());
            self.run(n, actions);
        }
        while let Some(place) = self.mail.iter().position(|mail| mail.at <= self.second) {
            let mail = self.mail.remove(place);
            let sender = USERS[1 - mail.to];
            let signal = ToDeviceSignal::parse(sender, mail.event_type, &mail.content, self.now()).unwrap();
            let actions = self.sides[mail.to].mesh.signal(signal, self.now());
            self.run(mail.to, actions);
        }
        self.connect();
    }

    fn post(&mut self, to: usize, event_type: &'static str, content: Value) {
        let mut post = |at| self.mail.push(Mail { at, to, event_type, content: content.clone() });
        match self.fates.next().unwrap_or(Fate::Arrives) {
            Fate::Arrives => post(self.second),
            Fate::Lost => self.lost += 1,
            Fate::Twice => {
                post(self.second);
                post(self.second);
            }
            Fate::LateBy(late) => {
                // Who waits that long for it may have gone on without it.
                self.lost += usize::from(late >= 4);
                post(self.second + late);
            }
        }
    }

    fn run(&mut self, n: usize, actions: Vec<MeshAction>) {
        let mut work: std::collections::VecDeque<_> = actions.into();
        let now = self.now();
        while let Some(action) = work.pop_front() {
            let other = 1 - n;
            let more = match action {
                MeshAction::Publish { content } => {
                    for side in &mut self.sides {
                        side.roster.state_event(MEMBER_EVENT, USERS[n], USERS[n], &content, UTC);
                    }
                    self.sides[n].mesh.published(true, now)
                }
                MeshAction::SendToDevice { user, device, event_type, content } => {
                    assert_eq!((user.as_str(), device.as_str()), (USERS[other], "D"));
                    self.post(other, event_type, content);
                    continue;
                }
                MeshAction::Dial { leg, .. } => {
                    self.sides[n].mesh.dialled(leg, Some(&leg.0.to_string()), now)
                }
                MeshAction::Accept { leg, offer } => {
                    self.sides[n].remote.insert(leg, LegId(offer.parse().unwrap()));
                    self.sides[n].mesh.accepted(leg, Some(&leg.0.to_string()), now)
                }
                MeshAction::ApplyAnswer { leg, sdp } => {
                    self.sides[n].remote.insert(leg, LegId(sdp.parse().unwrap()));
                    self.sides[n].mesh.applied(leg, true, now)
                }
                MeshAction::CloseLeg { leg, .. } => {
                    let Some(theirs) = self.sides[n].remote.remove(&leg) else { continue };
                    if self.sides[other].remote.get(&theirs) == Some(&leg) {
                        let actions = self.sides[other].mesh.connection(theirs, ConnectionLevel::Closed, now);
                        self.run(other, actions);
                    }
                    continue;
                }
                _ => continue,
            };
            work.extend(more);
        }
        assert!(self.sides[n].mesh.legs.len() <= 1, "one pair, one leg");
    }

    fn connect(&mut self) {
        let pairs: Vec<_> = self.sides[0].remote.iter().map(|(a, b)| (*a, *b)).collect();
        for (a, b) in pairs {
            if self.sides[1].remote.get(&b) == Some(&a) {
                for (n, leg) in [(0, a), (1, b)] {
                    let now = self.now();
                    let actions = self.sides[n].mesh.connection(leg, ConnectionLevel::Connected, now);
                    self.run(n, actions);
                }
            }
        }
    }

    /// Both have one leg, it is connected, and it is the same.
    fn is_connected(&self) -> bool {
        let legs: Vec<_> = self
            .sides
            .iter()
            .flat_map(|side| side.mesh.legs.values())
            .filter(|leg| leg.phase == LegPhase::Connected)
            .map(|leg| (leg.id, leg.call_id().to_owned()))
            .collect();
        let [(a, call), (b, same)] = legs.as_slice() else { return false };
        call == same && self.sides[0].remote.get(a) == Some(b)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_conversation_that_loses_repeats_and_delays_ends_in_one_connected_leg(
        fates in prop::collection::vec(fate(), 0..48),
        enters in [0_u64..12, 0_u64..12],
    ) {
        let mut world = World::new(fates);
        let mut first = None;
        for _ in 0..600 {
            world.step(1, enters);
            if world.is_connected() {
                first.get_or_insert(world.second);
            }
        }
        if world.lost == 0 {
            prop_assert!(first.is_some_and(|second| second <= 30), "{first:?}");
        } else if world.lost <= 2 {
            prop_assert!(first.is_some_and(|second| second <= 120), "{first:?}");
        }
        // What was given up is taken up again when its membership is refreshed.
        for _ in 0..540 {
            world.step(5, enters);
        }
        prop_assert!(world.is_connected());
    }
}

#[test]
fn ten_thousand_signals_of_a_thousand_members_and_strangers_are_bounded() {
    let mut mesh = new_mesh();
    let members: Vec<_> = (0..1_000)
        .map(|n| member(&if n % 2 == 0 { format!("@a{n:03}:hs") } else { format!("@z{n:03}:hs") }, "s1"))
        .collect();
    mesh.members(&members, None, NOW, UTC);
    mesh.published(true, NOW);
    let mut rejected = 0;
    for n in 0..10_000_u64 {
        let user = match n % 10 {
            0..3 => format!("@stranger{n}:hs"),
            // A few who send all they can.
            3..7 => members[usize::try_from(n % 4).unwrap()].user.clone(),
            _ => members[usize::try_from(n % 1_000).unwrap()].user.clone(),
        };
        let mut body = offer();
        body["offer"]["sdp"] = json!("x".repeat(20_000));
        // Never the first of a call, but of strangers.
        let seq = if n % 10 < 3 { 0 } else { 1 + n };
        let content = content(&format!("c{}", n % 40), "s1", seq, body);
        let signal = ToDeviceSignal::parse(&user, "m.call.invite", &content, NOW).unwrap();
        rejected += sent(&mesh.signal(signal, NOW)).iter().filter(|line| line.contains(" reject ")).count();
    }
    assert_eq!(mesh.peers.len(), MOST_DEVICES);
    assert!(mesh.legs.len() <= MOST_DEVICES);
    assert!(mesh.waiting.held.len() <= MOST_HELD);
    assert!(mesh.waiting.held.iter().map(|(_, signal)| signal.weight()).sum::<usize>() <= MOST_HELD_BYTES);
    assert!(mesh.waiting_bytes() <= MOST_WAITING_BYTES);
    assert!(mesh.peers.values().all(|peer| peer.inboxes.len() <= 4));
    assert!(
        mesh.peers.values().flat_map(|peer| &peer.inboxes).all(|inbox| inbox.waiting.len() <= MOST_WAITING)
    );
    let weighed = mesh.peers.values().flat_map(|peer| &peer.inboxes).flat_map(|inbox| inbox.waiting.values());
    assert_eq!(weighed.map(|signal| signal.weight()).sum::<usize>(), mesh.waiting_bytes());
    // Six calls of each of four, of which each takes the place of the one before.
    assert!(rejected <= MOST_REJECTIONS + 4 * 6, "{rejected}");
    // It goes on: nothing is left of strangers, and who calls now is answered.
    mesh.tick(seconds(20), UTC);
    assert!(mesh.waiting.held.is_empty());
    let content = content("fresh", "s1", 0, offer());
    let signal = ToDeviceSignal::parse("@a000:hs", "m.call.invite", &content, NOW).unwrap();
    let actions = mesh.signal(signal, seconds(20));
    assert!(actions.iter().any(|action| matches!(action, MeshAction::Accept { .. })), "{actions:?}");
}

proptest! {
    #[test]
    fn no_order_of_inputs_panics_or_opens_two_legs_for_a_device(
        inputs in prop::collection::vec((0_u8..16, 0_u32..6, 0_u64..4, 0_u64..30), 0..120),
    ) {
        let mut mesh = new_mesh();
        let mut at = 0;
        for (kind, number, small, pause) in inputs {
            at += pause / 8 * small;
            let now = seconds(at);
            let leg = LegId(number);
            let user = if number % 2 == 0 { "@ada:hs" } else { "@eve:hs" };
            let session = format!("s{}", small / 2);
            let call_id = if small == 3 { "c".to_owned() } else { format!("mine.{number}") };
            let mut send = |kind: &str, body: Value| {
                let content = content(&call_id, &session, small, body);
                let signal = ToDeviceSignal::parse(user, &format!("m.call.{kind}"), &content, now).unwrap();
                mesh.signal(signal, now)
            };
            match kind {
                0 => mesh.members(&[member("@ada:hs", &session), member("@eve:hs", "s1")], None, now, UTC),
                1 => mesh.members(&[member("@eve:hs", &session)], Some(&json!({"m.calls": []})), now, UTC),
                2 => mesh.published(small != 0, now),
                3 => mesh.dialled(leg, (small != 0).then_some("o"), now),
                4 => mesh.accepted(leg, (small != 0).then_some("a"), now),
                5 => mesh.applied(leg, small != 0, now),
                6 => mesh.renegotiated(leg, (small != 0).then_some("a"), now),
                7 => mesh.connection(leg, ConnectionLevel::Connected, now),
                8 => mesh.connection(leg, ConnectionLevel::Disconnected, now),
                9 => mesh.connection(leg, ConnectionLevel::Closed, now),
                10 => send("invite", offer()),
                11 => send("answer", json!({"answer": {"type": "answer", "sdp": "x"}})),
                12 => send("hangup", json!({})),
                13 => send("negotiate", json!({"description": {"type": "offer", "sdp": "x"}})),
                14 => send("candidates", json!({"candidates": [{"candidate": "c"}]})),
                _ => mesh.tick(now, UTC),
            };
            let mut devices: Vec<_> = mesh.legs.values().map(|leg| &leg.address.user).collect();
            devices.sort();
            let legs = devices.len();
            devices.dedup();
            prop_assert_eq!(devices.len(), legs);
            for (key, peer) in &mesh.peers {
                let known = peer.leg.and_then(|leg| mesh.legs.get(&leg));
                prop_assert_eq!(peer.leg.is_some(), known.is_some_and(|leg| leg.address.user == key.0));
            }
            prop_assert_eq!(mesh.legs.len(), mesh.peers.values().filter(|peer| peer.leg.is_some()).count());
        }
    }
}
