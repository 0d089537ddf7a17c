use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;
use recorder_core::time::BootTime;

use super::*;

const START: BootTime = BootTime(5_000_000_000_000);

type TestInbox = Inbox<String, ()>;

fn lane(sender: &str) -> Lane {
    Lane { room: "!r:x".into(), sender: sender.into() }
}

fn inbox() -> TestInbox {
    Inbox::new(Limits::default())
}

fn push(inbox: &mut TestInbox, sender: &str, id: &str) -> Taken {
    inbox.push(&lane(sender), id, 10, id.to_owned())
}

fn seal(inbox: &mut TestInbox, sender: &str, id: &str) -> Taken {
    inbox.push_sealed(START, &lane(sender), id, 10, Duration::ZERO, ())
}

fn out(inbox: &mut TestInbox) -> Vec<String> {
    inbox.drain().collect()
}

#[test]
fn readable_events_pass_at_once_and_once() {
    let mut inbox = inbox();
    assert_eq!(push(&mut inbox, "@a:x", "$1"), Taken::Released);
    assert_eq!(push(&mut inbox, "@a:x", "$1"), Taken::Repeated);
    assert_eq!(push(&mut inbox, "@a:x", "$2"), Taken::Released);
    assert_eq!(out(&mut inbox), ["$1", "$2"]);
}

#[test]
fn a_late_key_releases_the_invite_before_the_hang_up() {
    let mut inbox = inbox();
    assert_eq!(seal(&mut inbox, "@a:x", "$invite"), Taken::Waiting);
    assert_eq!(push(&mut inbox, "@a:x", "$hangup"), Taken::Held);
    assert!(out(&mut inbox).is_empty());
    inbox.fill("$invite", Some("$invite".into()));
    assert_eq!(out(&mut inbox), ["$invite", "$hangup"]);
    assert_eq!(inbox.held_bytes(), 0);
    assert_eq!(push(&mut inbox, "@a:x", "$next"), Taken::Released);
}

#[test]
fn another_sender_is_never_held() {
    let mut inbox = inbox();
    seal(&mut inbox, "@a:x", "$1");
    assert_eq!(push(&mut inbox, "@b:x", "$2"), Taken::Released);
    assert_eq!(out(&mut inbox), ["$2"]);
}

#[test]
fn keys_that_come_out_of_order_release_in_order() {
    let mut inbox = inbox();
    for id in ["$1", "$2", "$3"] {
        seal(&mut inbox, "@a:x", id);
    }
    inbox.fill("$3", Some("$3".into()));
    inbox.fill("$2", None);
    assert!(out(&mut inbox).is_empty());
    inbox.fill("$1", Some("$1".into()));
    assert_eq!(out(&mut inbox), ["$1", "$3"]);
}

#[test]
fn what_need_not_be_in_order_waits_for_no_key_but_its_own() {
    let mut inbox = inbox();
    for id in ["$1", "$objection", "$3"] {
        seal(&mut inbox, "@a:x", id);
    }
    inbox.fill_past("$objection", "$objection".into());
    assert_eq!(out(&mut inbox), ["$objection"]);
    inbox.fill_past("$objection", "$objection".into());
    inbox.fill("$3", Some("$3".into()));
    assert!(out(&mut inbox).is_empty(), "each comes once, and the others in order");
    inbox.fill("$1", Some("$1".into()));
    assert_eq!(out(&mut inbox), ["$1", "$3"]);
    assert_eq!(inbox.held_bytes(), 0);
}

#[test]
fn a_key_that_never_comes_holds_for_a_calls_lifetime_only() {
    let mut inbox = inbox();
    inbox.push_sealed(START, &lane("@a:x"), "$1", 10, Duration::from_secs(30), ());
    push(&mut inbox, "@a:x", "$2");
    assert_eq!(inbox.next_deadline(), Some(START + Duration::from_secs(60)));
    inbox.expire(START + Duration::from_secs(59));
    assert!(out(&mut inbox).is_empty());
    inbox.expire(START + Duration::from_secs(60));
    assert_eq!(out(&mut inbox), ["$2"]);
    assert_eq!(inbox.given_up(), 1);
    assert_eq!(inbox.next_deadline(), None);
}

#[test]
fn the_key_of_a_given_up_placeholder_changes_nothing() {
    let mut inbox = inbox();
    seal(&mut inbox, "@a:x", "$1");
    inbox.expire(START + Duration::from_secs(90));
    inbox.fill("$1", Some("$1".into()));
    assert!(out(&mut inbox).is_empty());
}

#[test]
fn an_undecryptable_event_older_than_a_call_holds_nothing() {
    let mut inbox = inbox();
    let taken = inbox.push_sealed(START, &lane("@a:x"), "$1", 10, Duration::from_secs(90), ());
    assert_eq!(taken, Taken::TooOld);
    assert_eq!(push(&mut inbox, "@a:x", "$2"), Taken::Released);
}

#[test]
fn what_an_earlier_life_handled_is_not_delivered_again() {
    let mut inbox = inbox();
    inbox.remember("$old");
    assert_eq!(push(&mut inbox, "@a:x", "$old"), Taken::Repeated);
    assert_eq!(seal(&mut inbox, "@a:x", "$old"), Taken::Repeated);
    assert!(out(&mut inbox).is_empty());
}

#[test]
fn a_flood_of_undecryptable_events_stays_bounded_and_harms_its_sender_only() {
    let mut inbox = inbox();
    seal(&mut inbox, "@alice:x", "$alice-invite");
    for n in 0..100_000 {
        inbox.push_sealed(START, &lane("@eve:x"), &format!("$eve-{n}"), 60_000, Duration::ZERO, ());
        assert!(inbox.waiting().count() <= 33);
    }
    assert!(inbox.held_bytes() <= 33 * 60_000);
    assert!(inbox.opened.len() <= 2 * Limits::default().open + 1);
    assert!(inbox.seen.len() <= Limits::default().remembered);
    inbox.fill("$alice-invite", Some("$alice-invite".into()));
    assert_eq!(out(&mut inbox), ["$alice-invite"]);
}

#[test]
fn a_flood_from_many_senders_stays_bounded() {
    let mut inbox = inbox();
    for n in 0..20_000 {
        inbox.push_sealed(START, &lane(&format!("@{n}:x")), &format!("${n}"), 60_000, Duration::ZERO, ());
    }
    assert!(inbox.held_bytes() <= Limits::default().held_bytes);
    assert!(inbox.waiting().count() <= Limits::default().open);
    assert_eq!(inbox.lanes.len(), inbox.waiting().count());
}

#[test]
fn readable_events_held_behind_a_placeholder_are_bounded_by_bytes() {
    let mut inbox = inbox();
    seal(&mut inbox, "@eve:x", "$sealed");
    for n in 0..10_000 {
        inbox.push(&lane("@eve:x"), &format!("${n}"), 60_000, format!("${n}"));
    }
    assert!(inbox.held_bytes() <= Limits::default().held_bytes);
    assert_eq!(inbox.given_up(), 1);
    assert_eq!(out(&mut inbox).len(), 10_000);
}

#[derive(Clone, Debug)]
enum Step {
    Push { sender: u8, sealed: bool },
    Repeat(usize),
    Fill(usize),
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..3, any::<bool>()).prop_map(|(sender, sealed)| Step::Push { sender, sealed }),
        1 => any::<usize>().prop_map(Step::Repeat),
        3 => any::<usize>().prop_map(Step::Fill),
        1 => (0_u64..40).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_each_event_comes_once_and_in_its_senders_order(
        steps in prop::collection::vec(any_step(), 0..200)
    ) {
        let mut inbox = Inbox::<(u8, usize), ()>::new(Limits { open: 6, open_per_sender: 4, ..Limits::default() });
        let mut now = START;
        let mut sent: Vec<(u8, bool)> = Vec::new();
        let mut delivered: Vec<(u8, usize)> = Vec::new();
        let id = |n: usize| format!("${n}");
        for step in steps {
            match step {
                Step::Push { sender, sealed } => {
                    let n = sent.len();
                    sent.push((sender, sealed));
                    let lane = lane(&sender.to_string());
                    if sealed {
                        inbox.push_sealed(now, &lane, &id(n), 10, Duration::ZERO, ());
                    } else {
                        inbox.push(&lane, &id(n), 10, (sender, n));
                    }
                }
                Step::Repeat(n) if !sent.is_empty() => {
                    let n = n % sent.len();
                    let (sender, _) = sent[n];
                    prop_assert_eq!(inbox.push(&lane(&sender.to_string()), &id(n), 10, (sender, n)), Taken::Repeated);
                }
                Step::Fill(n) if !sent.is_empty() => {
                    let n = n % sent.len();
                    inbox.fill(&id(n), Some((sent[n].0, n)));
                }
                Step::Pass(seconds) => {
                    now = now + Duration::from_secs(seconds);
                    inbox.expire(now);
                }
                Step::Repeat(_) | Step::Fill(_) => {}
            }
            delivered.extend(inbox.drain());
        }
        inbox.expire(now + Duration::from_secs(1000));
        delivered.extend(inbox.drain());

        let unique: HashSet<_> = delivered.iter().collect();
        prop_assert_eq!(unique.len(), delivered.len());
        let mut last: HashMap<u8, usize> = HashMap::new();
        for (sender, n) in &delivered {
            if let Some(before) = last.insert(*sender, *n) {
                prop_assert!(before < *n);
            }
        }
        for (n, (sender, sealed)) in sent.iter().enumerate() {
            prop_assert!(*sealed || unique.contains(&(*sender, n)));
        }
        prop_assert_eq!(inbox.held_bytes(), 0);
        prop_assert!(inbox.lanes.is_empty() && inbox.open.is_empty());
    }
}
