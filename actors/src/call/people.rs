//! Who is in a call: participants with their stays, the leg that carries each, and the PeerActor's place.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recorder_core::call::recording_begun;
use recorder_core::ids::{LegId, ParticipantId};
use recorder_core::manifest::{CallKind, EventKind, LeaveReason, OpenedBecause, Record};
use recorder_core::time::BootTime;
use recorder_core::timeline::SenderClock;
use tokio::sync::watch;

use super::kind::PeerKey;
use super::slot::CallShared;
use crate::journal::event;
use crate::observe::{ActorKind, Severity, Totals};
use crate::peer::{Inherited, KnownParticipant, PeerActor, PeerShared, Wanted};
use crate::ports::ConnectionFacts;
use crate::session::SessionHandle;
use crate::supervise::{Check, Slot, lock};

/// How long a participant's first sight waits for the homeserver to say its name.
const NAME_LIMIT: Duration = Duration::from_secs(2);
/// Earlier connections of one participant that are remembered for the clock maps at the end; of those beyond, the
/// provisional maps stay.
const MOST_RETIRED: usize = 256;

/// Users whose names are looked up in one call; others go by their ids.
const MOST_NAMES: usize = 2_000;

/// One device of one user, over all its stays and connections. Who leaves without ever having had a place is forgotten.
pub(crate) struct Participant {
    pub(crate) party: Option<String>,
    /// Seen first.
    pub(crate) since: BootTime,
    /// In the call now.
    pub(crate) present: bool,
    /// Why it left, until that is told; it may be back by then, as a browser that was killed.
    pub(crate) left: Option<LeaveReason>,
    /// What carries its media now.
    pub(crate) leg: Option<LegId>,
    /// Since it stands in the manifest: from its first leg on.
    pub(crate) place: Option<Place>,
    /// The manifest has no room for it.
    refused: bool,
}

/// A participant's place in session and tree.
pub(crate) struct Place {
    pub(crate) id: ParticipantId,
    pub(crate) name: String,
    /// Opted out from the start: of this participant only the presence becomes known.
    pub(crate) hidden: bool,
    pub(crate) slot: Arc<Slot<PeerActor>>,
    /// What the PeerActor works on, with the leg it belongs to.
    pub(crate) peer: Option<(LegId, Arc<PeerShared>)>,
    /// Those of earlier legs.
    pub(crate) retired: Vec<Arc<PeerShared>>,
    /// Tracks that an earlier process recorded of it.
    pub(crate) known: Vec<Inherited>,
    /// A stay that the journal knows to have begun and not to have ended.
    pub(crate) staying: bool,
}

impl Participant {
    pub(crate) fn new(party: Option<String>, since: BootTime) -> Self {
        Self { party, since, present: true, left: None, leg: None, place: None, refused: false }
    }

    pub(crate) fn peer(&self) -> Option<Arc<PeerShared>> {
        let (_, peer) = self.place.as_ref()?.peer.as_ref()?;
        Some(Arc::clone(peer))
    }

    /// The peers of all its connections, oldest first.
    pub(crate) fn peers(&self) -> Vec<Arc<PeerShared>> {
        let Some(place) = &self.place else { return Vec::new() };
        place.retired.iter().chain(place.peer.iter().map(|(_, peer)| peer)).map(Arc::clone).collect()
    }
}

impl CallShared {
    /// A participant is in the call, and media that arrives on `leg` is theirs.
    pub(super) fn present(self: &Arc<Self>, peer: PeerKey, party: Option<String>, leg: Option<LegId>) {
        self.learn_name(&peer.user);
        let now = self.world.clock.now();
        let mut people = lock(&self.people);
        let person = people.entry(peer).or_insert_with(|| Participant::new(None, now));
        person.present = true;
        person.party = party.or(person.party.take());
        person.leg = leg.or(person.leg);
    }

    /// A participant is in the call no more.
    pub(super) fn gone(&self, peer: &PeerKey, reason: LeaveReason) {
        let mut people = lock(&self.people);
        if let Some(person) = people.get_mut(peer) {
            person.present = false;
            person.left = Some(reason);
            if person.place.is_none() {
                people.remove(peer);
            }
        }
    }

    /// A participant for whom there is no place: not recorded, said once, and counted.
    pub(super) fn beyond(&self, peer: &PeerKey) {
        Totals::count(&self.world.board.totals.participants_refused);
        if self.beyond.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(call = %self.key, user = %peer.user, "a device is not recorded: there are, or were, too many");
            let what = format!(
                "A device of {} is not recorded: there are, or were, too many in the call",
                peer.user
            );
            self.world.board.happened(self.world.clock.utc_micros(), Severity::Warning, what);
        }
    }

    /// Brings session and tree in line with who is in the call: participants, stays, peers.
    pub(super) fn keep_people(&self, path: &str) {
        let Some(session) = lock(&self.session).clone() else { return };
        let ending = lock(&self.ending).is_some();
        let mut people = lock(&self.people);
        for (key, person) in people.iter_mut() {
            if self.is_awaited(key, person, &session)
                && let Some(name) = self.name_of(&key.user, person.since)
            {
                self.enter(path, &session, key, person, name);
            }
            let Some(place) = &mut person.place else { continue };
            if ending {
                continue;
            }
            if let Some(reason) = person.left.take()
                && std::mem::take(&mut place.staying)
            {
                tell_stay(&session, place, Some(reason));
            }
            if person.present && !std::mem::replace(&mut place.staying, true) {
                tell_stay(&session, place, None);
            }
        }
        drop(people);
        self.settle_earlier_stays(&session);
        self.tell_session(&session);
        for (key, person) in lock(&self.people).iter_mut() {
            self.keep_peer(&session, &key.user, person, ending);
        }
    }

    /// Once it is known who is there: who was there when the last process ended and is not now, left meanwhile.
    fn settle_earlier_stays(&self, session: &SessionHandle) {
        let known =
            lock(&self.shown).is_some() && lock(&self.inbox).is_empty() && self.everyone_has_a_place(session);
        if self.resume.is_none() || !known || self.stays_settled.swap(true, Ordering::AcqRel) {
            return;
        }
        let there: Vec<_> = lock(&self.people)
            .values()
            .filter_map(|person| Some(person.place.as_ref()?.id.clone()))
            .collect();
        session.end_stays_of_the_gone(&there);
    }

    /// A participant's first sight: in the manifest, in the tree, and the caller of a 1:1 call is told.
    fn enter(
        &self,
        path: &str,
        session: &SessionHandle,
        key: &PeerKey,
        person: &mut Participant,
        name: String,
    ) {
        let hidden = lock(&self.opted_out).contains(&key.user);
        let (id, tracks, staying) = match self.known(key, session) {
            Some(known) => (known.participant, known.tracks, known.present),
            None => {
                let said = |text: &String| (!hidden).then(|| text.clone());
                let added = session.add_participant(
                    said(&key.user),
                    key.device.as_ref().and_then(said),
                    person.party.as_ref().and_then(said),
                    said(&name),
                );
                let Some(id) = added else {
                    person.refused = true;
                    return self.beyond(key);
                };
                (id, Vec::new(), false)
            }
        };
        let shown = if hidden { "somebody who opted out" } else { &name };
        let slot =
            Slot::new(&self.world, &self.link, format!("{path}/{id}"), ActorKind::Peer, shown.to_owned());
        if self.kind == CallKind::OneToOne && lock(&self.ending).is_none() {
            let space = self.space_at_first();
            self.outbox.consent(recording_begun(&key.user, &name, &self.world.settings.user, space));
        }
        if !hidden {
            let what = format!("{name} is being recorded");
            self.world.board.happened(self.world.clock.utc_micros(), Severity::Info, what);
        }
        person.place =
            Some(Place { id, name, hidden, slot, peer: None, retired: Vec::new(), known: tracks, staying });
    }

    /// Has a user's name looked up, once.
    pub(super) fn learn_name(self: &Arc<Self>, user: &str) {
        {
            let mut names = lock(&self.names);
            if names.contains_key(user) || names.len() >= MOST_NAMES {
                return;
            }
            names.insert(user.to_owned(), None);
        }
        let (shared, user) = (Arc::clone(self), user.to_owned());
        actix::spawn(async move {
            let name = shared.world.signalling.display_name(shared.room.clone(), user.clone()).await;
            lock(&shared.names).insert(user.clone(), Some(name.unwrap_or(user)));
            shared.link.nudge();
        });
    }

    /// A user's name, or its id when no name was learnt in time.
    pub(super) fn name_of(&self, user: &str, since: BootTime) -> Option<String> {
        let learnt = lock(&self.names).get(user).cloned().flatten();
        let late = self.world.clock.now().saturating_since(since) >= NAME_LIMIT;
        learnt.or_else(|| late.then(|| user.to_owned()))
    }

    /// Everyone who was ever connected stands in the session and has the place that recorded it.
    pub(super) fn everyone_has_a_place(&self, session: &SessionHandle) -> bool {
        lock(&self.people).iter().all(|(key, person)| !self.is_awaited(key, person, session))
    }

    /// Has no place yet, and is to have one: from the first leg on, or at once where nothing but the stay is to be told or
    /// goes on.
    fn is_awaited(&self, key: &PeerKey, person: &Participant, session: &SessionHandle) -> bool {
        let comes = || {
            person.leg.is_some()
                || lock(&self.opted_out).contains(&key.user)
                || self.known(key, session).is_some()
        };
        person.place.is_none() && !person.refused && comes()
    }

    /// A session that goes on after a restart knows who was there; a 1:1 call never does.
    fn known(&self, key: &PeerKey, session: &SessionHandle) -> Option<KnownParticipant> {
        self.resume.as_ref().and_then(|_| session.participant(&key.user, key.device.as_deref()))
    }

    /// One PeerActor for the participant's newest leg; that of an older leg closes its files first.
    fn keep_peer(&self, session: &SessionHandle, user: &str, person: &mut Participant, ending: bool) {
        let connection = person.leg.and_then(|leg| {
            let legs = lock(&self.legs);
            Some((leg, legs.get(&leg)?.facts.clone()?))
        });
        let now = self.world.clock.now();
        let Some(place) = &mut person.place else { return };
        let carried = place.peer.as_ref().map(|(leg, _)| *leg);
        if let Some((leg, peer)) = &place.peer
            && person.leg != Some(*leg)
        {
            if !std::mem::replace(&mut lock(&peer.wanted).stop, true) {
                place.slot.nudge();
            }
            if place.slot.check(now) == Check::GivenUp {
                peer.finalise_all();
            }
            if !peer.is_idle() || place.slot.check(now) == Check::Running {
                self.revive(place, session, now);
                return;
            }
        }
        match connection {
            Some((leg, facts)) if carried != Some(leg) && !(ending && carried.is_some()) => {
                let inherited = match place.peer.take() {
                    Some((_, old)) => {
                        let tracks = old.heirloom();
                        // A connection on which nothing came is no reason of its own.
                        let because = if old.tracks().is_empty() {
                            old.inherited_because
                        } else {
                            OpenedBecause::Reconnected
                        };
                        if place.retired.len() < MOST_RETIRED {
                            place.retired.push(old);
                        }
                        (tracks, because)
                    }
                    None => (std::mem::take(&mut place.known), OpenedBecause::ProcessRestarted),
                };
                let names = (place.id.clone(), place.name.clone());
                let peer = self.new_peer(session, user, names, leg, facts, inherited);
                place.peer = Some((leg, peer));
                place.slot.revive();
            }
            _ => {}
        }
        self.revive(place, session, now);
    }

    /// Starts the PeerActor where it failed, was never started, or ended although files are open.
    fn revive(&self, place: &Place, session: &SessionHandle, now: BootTime) {
        let Some((_, peer)) = &place.peer else { return };
        match place.slot.check(now) {
            Check::RestartNow => {
                session.tell(event(session.now_s(), EventKind::ChildRestarted, Some(&place.id), None));
                start_peer(&place.slot, peer);
            }
            Check::Empty if !(lock(&peer.wanted).stop && peer.is_idle()) => start_peer(&place.slot, peer),
            Check::Empty | Check::Running | Check::Waiting | Check::GivenUp => {}
        }
    }

    fn new_peer(
        &self,
        session: &SessionHandle,
        user: &str,
        (participant, display_name): (ParticipantId, String),
        leg: LegId,
        connection: watch::Receiver<Arc<ConnectionFacts>>,
        (inherited, inherited_because): (Vec<Inherited>, OpenedBecause),
    ) -> Arc<PeerShared> {
        let mut sender_clock = SenderClock::new();
        sender_clock.set_utc(self.world.clock.now(), self.world.clock.utc_micros());
        let metadata = lock(&self.machine).metadata(leg).cloned();
        let opted_out = lock(&self.opted_out).contains(user);
        Arc::new(PeerShared {
            world: Arc::clone(&self.world),
            participant,
            display_name,
            session: session.clone(),
            connection,
            wanted: Mutex::new(Wanted { metadata, stop: false, opted_out }),
            link: Arc::default(),
            parent: Arc::clone(&self.link),
            plan: Mutex::default(),
            tracks: Mutex::default(),
            sender_clock: Arc::new(Mutex::new(sender_clock)),
            counters: Mutex::default(),
            ice_restarts: AtomicU32::new(0),
            inherited: Mutex::new(inherited),
            inherited_because,
        })
    }

    /// The streams' metadata of every leg, as the machine knows it now, to the peers that read it.
    pub(super) fn pass_metadata(&self, machine: &super::kind::Machine) {
        for person in lock(&self.people).values() {
            let Some(place) = &person.place else { continue };
            let Some((leg, peer)) = &place.peer else { continue };
            let mut wanted = lock(&peer.wanted);
            if wanted.metadata.as_ref() != machine.metadata(*leg) {
                wanted.metadata = machine.metadata(*leg).cloned();
                drop(wanted);
                place.slot.nudge();
            }
        }
    }

    /// Looks at each participant.
    pub(crate) fn each_person<T>(&self, look: impl Fn(&PeerKey, &Participant) -> Option<T>) -> Vec<T> {
        lock(&self.people).iter().filter_map(|(key, person)| look(key, person)).collect()
    }

    /// Nobody starts a peer again once its call is given up, so its files are closed for it.
    pub(super) fn stand_in_for_the_peers(&self) {
        let now = self.world.clock.now();
        for person in lock(&self.people).values() {
            if let (Some(place), Some(peer)) = (&person.place, person.peer())
                && place.slot.check(now) != Check::Running
            {
                peer.finalise_all();
            }
        }
    }

    /// Tells the peers to close every file; whether all are closed.
    pub(super) fn files_closed(&self) -> bool {
        let now = self.world.clock.now();
        let mut closed = true;
        for person in lock(&self.people).values() {
            let (Some(place), Some(peer)) = (&person.place, person.peer()) else { continue };
            let told = std::mem::replace(&mut lock(&peer.wanted).stop, true);
            if !told {
                place.slot.nudge();
            }
            if place.slot.check(now) == Check::GivenUp {
                peer.finalise_all();
            }
            closed &= told && peer.is_idle();
        }
        closed
    }
}

/// A stay begins, or ends for the reason given.
fn tell_stay(session: &SessionHandle, place: &Place, left: Option<LeaveReason>) {
    let at_s = session.now_s();
    let participant = place.id.clone();
    let kind = if left.is_some() { EventKind::Left } else { EventKind::Joined };
    session.tell(match left {
        None => Record::PresenceBegan { participant, at_s },
        Some(reason) => Record::PresenceEnded { participant, at_s, reason: Some(reason.into()) },
    });
    session.tell(event(at_s, kind, Some(&place.id), None));
}

/// Ends every stay that has not ended.
pub(super) fn end_stays(shared: &CallShared, session: &SessionHandle, reason: LeaveReason) {
    for person in lock(&shared.people).values_mut() {
        if let Some(place) = &mut person.place
            && std::mem::take(&mut place.staying)
        {
            tell_stay(session, place, Some(reason));
        }
    }
}

fn start_peer(slot: &Arc<Slot<PeerActor>>, peer: &Arc<PeerShared>) {
    let (inner, shared) = (Arc::clone(slot), Arc::clone(peer));
    slot.start(move |_| PeerActor::new(shared, inner));
}
