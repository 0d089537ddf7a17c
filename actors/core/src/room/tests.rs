//! A room with people in it, and what is asked of its machine.

mod commands;
mod consent;
mod lifecycle;
mod name;
mod property;
mod status;

use std::time::Duration;

use super::*;
use crate::call::Saved;
use crate::manifest::{CallKind, EndReason};
use crate::time::BootTime;

pub(super) const BOT: &str = "@recorder:hs";
pub(super) const ADA: &str = "@ada:hs";
pub(super) const BOB: &str = "@bob:hs";
pub(super) const EVE: &str = "@eve:hs";

/// The machine began here.
const START: u64 = 1_000;

pub(super) fn at(seconds: f64) -> BootTime {
    BootTime(START * 1_000_000_000 + (seconds * 1e9) as u64)
}

pub(super) fn settings() -> Settings {
    Settings::new(BOT, "Recorder", at(0.0))
}

pub(super) fn trusted() -> Authority {
    Authority {
        allowed: true,
        level: 50,
        needed_start: 50,
        powers: Powers { own: 50, call_member: 50, message: 0 },
        joined: true,
    }
}

pub(super) fn guest() -> Authority {
    Authority { allowed: false, level: 0, ..trusted() }
}

pub(super) fn view(call_id: &str, members: &[&str]) -> Option<GatheringView> {
    let members = members.iter().map(|&user| user.to_owned()).collect();
    Some(GatheringView { call_id: call_id.to_owned(), kind: CallKind::Mesh, members })
}

pub(super) fn ended(reason: EndReason) -> Ended {
    Ended { saved: Saved { streams: 4, duration_s: 61.0, bytes: 2_000_000 }, participants: 2, reason }
}

pub(super) fn said(sender: &str, body: &str, now: f64) -> Said {
    Said {
        event_id: "$command".to_owned(),
        sender: sender.to_owned(),
        thread_root: None,
        body: body.to_owned(),
        formatted: String::new(),
        mentions: Vec::new(),
        received: at(now),
        age: Duration::ZERO,
    }
}

/// A machine and the messages that it was told to have sent.
pub(super) struct Scene {
    pub(super) room: Room,
    /// Whether messages get their event ids at once.
    pub(super) answers: bool,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with(settings(), Durable::default())
    }

    pub(super) fn with(settings: Settings, durable: Durable) -> Self {
        Self { room: Room::new(settings, durable), answers: true }
    }

    /// Reports each message as sent, with an event id made of its kind and number.
    pub(super) fn sent(&mut self, out: Vec<RoomAction>, now: f64) -> Vec<RoomAction> {
        let mut all = out.clone();
        for action in out {
            if let RoomAction::Say { tag, .. } = action
                && self.answers
            {
                all.extend(self.room.said(tag, &event_of(tag), at(now)));
            }
        }
        all
    }

    pub(super) fn type_as(
        &mut self,
        sender: &str,
        body: &str,
        authority: Authority,
        now: f64,
    ) -> Vec<RoomAction> {
        let out = self.room.command(&said(sender, body, now), &authority, at(now));
        self.sent(out, now)
    }

    pub(super) fn ada(&mut self, body: &str, now: f64) -> Vec<RoomAction> {
        self.type_as(ADA, body, trusted(), now)
    }

    pub(super) fn here(&mut self, members: &[&str], now: f64) -> Vec<RoomAction> {
        let out = self.room.gathering(view("call", members), at(now));
        self.sent(out, now)
    }

    pub(super) fn tick(&mut self, now: f64) -> Vec<RoomAction> {
        let out = self.room.tick(at(now));
        self.sent(out, now)
    }

    pub(super) fn ended(&mut self, reason: EndReason, now: f64) -> Vec<RoomAction> {
        let out = self.room.ended(ended(reason), at(now));
        self.sent(out, now)
    }

    pub(super) fn object(&mut self, sender: &str, event: &str, now: f64) -> Vec<RoomAction> {
        let reaction =
            Reaction { sender: sender.to_owned(), event: event.to_owned(), key: "🚫".to_owned() };
        let out = self.room.reaction(&reaction, &guest(), at(now));
        self.sent(out, now)
    }

    /// A recording of Ada and Bob that Ada started at 1 s.
    pub(super) fn recording() -> Self {
        let mut scene = Self::new();
        scene.here(&[ADA, BOB, BOT], 0.5);
        assert!(begun(&scene.ada("!start", 1.0)).is_some());
        scene
    }
}

pub(super) fn event_of(tag: MessageTag) -> String {
    format!("${:?}-{}", tag.kind, tag.number)
}

pub(super) fn messages(out: &[RoomAction], kind: MessageKind) -> Vec<(crate::call::Announcement, Relation)> {
    out.iter()
        .filter_map(|action| match action {
            RoomAction::Say { tag, message, relation } if tag.kind == kind => {
                Some((message.clone(), relation.clone()))
            }
            _ => None,
        })
        .collect()
}

/// The plain text of the one message of a kind.
pub(super) fn text(out: &[RoomAction], kind: MessageKind) -> String {
    let all = messages(out, kind);
    assert_eq!(all.len(), 1, "{kind:?} in {out:?}");
    all[0].0.plain.clone()
}

pub(super) fn reply(out: &[RoomAction]) -> String {
    text(out, MessageKind::Reply)
}

/// Who began what, and whether by `auto`.
pub(super) fn begun(out: &[RoomAction]) -> Option<(Option<String>, bool)> {
    out.iter().find_map(|action| match action {
        RoomAction::Begin { by, auto, .. } => Some((by.clone(), *auto)),
        _ => None,
    })
}

pub(super) fn stopped(out: &[RoomAction]) -> Option<EndReason> {
    out.iter().find_map(|action| match action {
        RoomAction::Stop { reason, .. } => Some(*reason),
        _ => None,
    })
}

pub(super) fn reacted(out: &[RoomAction]) -> Option<&'static str> {
    out.iter().find_map(|action| match action {
        RoomAction::React { key, .. } => Some(*key),
        _ => None,
    })
}

/// What our name was last set to.
pub(super) fn named(out: &[RoomAction]) -> Option<Option<String>> {
    out.iter().rev().find_map(|action| match action {
        RoomAction::SetName { name, .. } => Some(name.clone()),
        _ => None,
    })
}

/// What whoever runs the recorder is told.
pub(super) fn reported(out: &[RoomAction]) -> Vec<&str> {
    out.iter()
        .filter_map(|action| match action {
            RoomAction::Report { text } => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

pub(super) fn counted(out: &[RoomAction]) -> Vec<Refusal> {
    out.iter()
        .filter_map(|action| match action {
            RoomAction::Count(refusal) => Some(*refusal),
            _ => None,
        })
        .collect()
}
