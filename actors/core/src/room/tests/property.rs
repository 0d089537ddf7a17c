//! Whatever comes in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Input {
    Wait(u64),
    Command { user: usize, body: String, authority: Authority },
    React { user: usize, event: usize, key: &'static str },
    Gathering { call: usize, members: u8 },
    Nobody,
    Recording { streams: usize, ending: bool },
    Ended(EndReason),
    Said { message: usize },
    Failed { message: usize },
    Named { taken: bool },
    Called(Option<&'static str>),
    Refused { message: usize },
    Close(usize),
    Rejoined,
    ShutDown,
    Restart { goes_on: bool },
    Powers { own: i64, message: i64 },
}

const USERS: [&str; 4] = [ADA, BOB, EVE, BOT];
const BODIES: [&str; 12] = [
    "!start",
    "!stop",
    "!record start",
    "!record stop",
    "!record status",
    "!record help",
    "!record optout",
    "!record optin",
    "!record auto on",
    "!record auto off",
    "!record",
    "@recorder:hs: strat",
];

fn input() -> impl Strategy<Value = Input> {
    let body = prop_oneof![
        8 => prop::sample::select(&BODIES[..]).prop_map(str::to_owned),
        1 => ".{0,40}",
        1 => "(!record|Recorder:|@recorder) .{0,20}",
    ];
    let trusted = prop::bool::weighted(0.8);
    let authority = (trusted, 20..100i64, 15..100i64, prop::bool::weighted(0.9)).prop_map(
        |(allowed, level, own, joined)| Authority {
            allowed,
            level,
            needed_start: 30,
            powers: Powers { own, call_member: 20, message: 0 },
            joined,
        },
    );
    let reason = prop::sample::select(vec![
        EndReason::Stopped,
        EndReason::EveryoneLeft,
        EndReason::Unreachable,
        EndReason::DiskFull,
        EndReason::Failed,
        EndReason::Hangup,
    ]);
    prop_oneof![
        12 => (0..9_000u64).prop_map(Input::Wait),
        1 => (50_000..100_000u64).prop_map(Input::Wait),
        8 => (0..4usize, body, authority).prop_map(|(user, body, authority)| Input::Command { user, body, authority }),
        2 => (0..4usize, 0..40usize, prop::sample::select(vec!["🚫", "👍"]))
            .prop_map(|(user, event, key)| Input::React { user, event, key }),
        6 => (0..2usize, 0..16u8).prop_map(|(call, members)| Input::Gathering { call, members }),
        1 => Just(Input::Nobody),
        8 => (0..9usize, any::<bool>()).prop_map(|(streams, ending)| Input::Recording { streams, ending }),
        2 => reason.prop_map(Input::Ended),
        14 => (0..6usize).prop_map(|message| Input::Said { message }),
        2 => (0..6usize).prop_map(|message| Input::Failed { message }),
        1 => (0..6usize).prop_map(|message| Input::Refused { message }),
        4 => any::<bool>().prop_map(|taken| Input::Named { taken }),
        2 => prop::sample::select(vec![None, Some("Recorder"), Some("Scribe"), Some("● REC Recorder")]).prop_map(Input::Called),
        1 => prop::sample::select(vec![0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2]).prop_map(Input::Close),
        2 => Just(Input::Rejoined),
        1 => Just(Input::ShutDown),
        1 => any::<bool>().prop_map(|goes_on| Input::Restart { goes_on }),
        1 => (0..100i64, 0..30i64).prop_map(|(own, message)| Input::Powers { own, message }),
    ]
}

/// What must hold after each step.
#[derive(Default)]
struct Witness {
    running: bool,
    stopped: bool,
    tags: Vec<MessageTag>,
    /// By the event that is edited, when it was last.
    edits: BTreeMap<String, BootTime>,
    /// What was last asked for each user.
    opted_out: BTreeMap<String, bool>,
    name_says_recording: bool,
    /// The newest setting of our name.
    name: Option<u64>,
    shut_down: bool,
}

impl Witness {
    fn see(&mut self, out: &[RoomAction], now: BootTime) {
        for action in out {
            match action {
                RoomAction::Begin { .. } => {
                    assert!(!self.running, "begun while one runs");
                    (self.running, self.stopped) = (true, false);
                }
                RoomAction::Stop { .. } => {
                    assert!(self.running && !self.stopped, "stopped what does not run");
                    self.stopped = true;
                }
                RoomAction::Say { tag, message, relation } => {
                    assert!(!self.tags.contains(tag), "a tag names one message");
                    self.tags.push(*tag);
                    assert!(message.plain.len() + message.html.len() < 60 << 10);
                    if let Relation::Edit { event } = relation {
                        let before = self.edits.insert(event.clone(), now);
                        let apart = before.map(|before| now.saturating_since(before));
                        let last = self.shut_down && message.plain.starts_with("○ Paused");
                        let seldom = apart.is_none_or(|apart| apart >= Duration::from_secs(5));
                        assert!(seldom || last, "{apart:?}");
                    }
                }
                RoomAction::OptOut { user } => _ = self.opted_out.insert(user.clone(), true),
                RoomAction::OptIn { user } => _ = self.opted_out.insert(user.clone(), false),
                RoomAction::SetName { number, name } => {
                    self.name = Some(*number);
                    self.name_says_recording = name.as_ref().is_some_and(|name| name.starts_with("● REC "));
                }
                _ => {}
            }
        }
    }

    fn check(&self, room: &Room) {
        assert_eq!(room.durable().running.is_some(), self.running);
        for (user, out) in &self.opted_out {
            assert_eq!(room.is_opted_out(user), *out, "{user}");
        }
        assert!(
            !self.running || self.shut_down || self.name_says_recording,
            "the name says it while one runs"
        );
    }
}

fn run(inputs: Vec<Input>) {
    let mut room = Room::new(settings(), Durable::default());
    let mut witness = Witness::default();
    let mut now = at(1.0);
    for input in inputs {
        let before = room.durable().clone();
        let out = match input {
            Input::Wait(millis) => {
                now = now + Duration::from_millis(millis);
                room.tick(now)
            }
            Input::Command { user, body, authority } => {
                let said = Said { received: now, ..said(USERS[user], &body, 0.0) };
                room.command(&said, &authority, now)
            }
            Input::React { user, event, key } => {
                let event = witness.tags.get(event).map_or_else(|| "$x".to_owned(), |tag| event_of(*tag));
                let reaction = Reaction { sender: USERS[user].to_owned(), event, key: key.to_owned() };
                room.reaction(&reaction, &guest(), now)
            }
            Input::Gathering { call, members } => {
                let members: Vec<&str> =
                    (0..4).filter(|at| members & (1 << at) != 0).map(|at| USERS[at]).collect();
                room.gathering(view(["call", "other"][call], &members), now)
            }
            Input::Nobody => room.gathering(None, now),
            Input::Recording { streams, ending } => {
                let state = if ending { RecordingState::Ending } else { RecordingState::Recording };
                room.recording(Progress { state, streams, ..Progress::default() }, now)
            }
            Input::Ended(reason) => {
                witness.running = false;
                room.ended(ended(reason), now)
            }
            Input::Said { message } => {
                let tag = newest(&witness.tags, message);
                tag.map_or_else(Vec::new, |tag| room.said(tag, &event_of(tag), now))
            }
            Input::Failed { message } => {
                let tag = newest(&witness.tags, message);
                tag.map_or_else(Vec::new, |tag| room.failed(tag, now))
            }
            Input::Named { taken } => {
                witness.name.map_or_else(Vec::new, |number| room.named(number, taken, now))
            }
            Input::Called(name) => room.called(name, now),
            Input::Refused { message } => {
                let tag = newest(&witness.tags, message);
                tag.map_or_else(Vec::new, |tag| room.refused(tag, now))
            }
            Input::Close(0) => room.close(Closing::CallTerminated, now),
            Input::Close(1) => room.close(Closing::Removed, now),
            Input::Close(_) => room.close(Closing::Upgraded { to: None }, now),
            Input::Rejoined => {
                room.rejoined();
                Vec::new()
            }
            Input::ShutDown => {
                witness.shut_down = true;
                room.shut_down(now)
            }
            Input::Restart { goes_on } => {
                witness.shut_down = false;
                let kept = serde_json::to_vec(room.durable()).unwrap();
                room = Room::new(
                    Settings { started: now, ..settings() },
                    serde_json::from_slice(&kept).unwrap(),
                );
                (witness.stopped, witness.name_says_recording) = (false, witness.running);
                // Names of messages belong to a process.
                (witness.tags, witness.edits) = (Vec::new(), BTreeMap::new());
                if goes_on {
                    room.start_restored(now)
                } else {
                    witness.running = false;
                    room.ended(ended(EndReason::Restarted), now)
                }
            }
            Input::Powers { own, message } => room.powers(Powers { own, call_member: 20, message }, now),
        };
        if *room.durable() != before {
            assert!(out.contains(&RoomAction::Persist), "a change is told: {out:?}");
        }
        witness.see(&out, now);
        witness.check(&room);
    }
}

/// One of the messages under way, the newest first.
fn newest(tags: &[MessageTag], back: usize) -> Option<MessageTag> {
    tags.len().checked_sub(back + 1).map(|at| tags[at])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_sequence_of_inputs_breaks_the_rules(inputs in prop::collection::vec(input(), 1..200)) {
        run(inputs);
    }

    #[test]
    fn no_message_panics_and_none_makes_a_long_answer(body in ".{0,200}", prefix in "(!|!record |@recorder:hs |> |\\[)?") {
        let mut scene = Scene::new();
        for (message, _) in messages(&scene.ada(&format!("{prefix}{body}"), 1.0), MessageKind::Reply) {
            prop_assert!(message.html.len() < 6_000);
        }
    }
}
