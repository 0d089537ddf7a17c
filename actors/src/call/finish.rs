//! The end of a call: clock maps, session, the message to the room.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recorder_core::call::{CallEnd, Saved, Shortfall, recording_saved};
use recorder_core::manifest::{CallKind, EndReason};

use super::input::Ending;
use super::kind::leave_reason;
use super::people::{Participant, end_stays};
use super::slot::CallShared;
use crate::clock_fit;
use crate::observe::{Severity, Totals};
use crate::ports::DiskLevel;
use crate::session::{SessionEnd, SessionHandle};
use crate::supervise::lock;

/// What remains when every file is closed; resolves when the call is done.
pub(super) async fn finish(shared: Arc<CallShared>, Ending { end, by }: Ending) {
    let world = Arc::clone(&shared.world);
    let session = lock(&shared.session).clone();
    // Without a folder there is nothing to finish.
    if let Some(session) = session.filter(|_| !shared.session_failed.load(Ordering::Acquire)) {
        shared.tell_drops(Duration::ZERO);
        let people: Vec<_> = lock(&shared.people).values().flat_map(Participant::peers).collect();
        for peer in people {
            for track in peer.tracks() {
                let files = lock(&track.shared.finished).clone();
                clock_fit::recompute(&session, &peer.sender_clock, &files);
            }
        }
        // Of a session that goes on, an earlier process may have reached somebody.
        let reached = end == CallEnd::Unreachable && session.manifest().segments().next().is_some();
        let end = if reached { CallEnd::Left } else { end };
        let reason = end_reason(end, *world.disk.borrow());
        if shared.kind != CallKind::OneToOne && end == CallEnd::Shutdown {
            suspend(&shared, &session, reason).await;
            return done(&shared).await;
        }
        end_stays(&shared, &session, leave_reason(end));
        let end_of_session = SessionEnd { stopped_by: by, ..SessionEnd::because(reason) };
        let saved = match session.finish(end_of_session).await {
            Ok(manifest) => crate::snapshot::saved(&manifest),
            Err(error) => {
                tracing::error!(call = %shared.key, %error, "the session could not be finished");
                session.saved()
            }
        };
        let (what, participants) = saved;
        *lock(&shared.saved) = Some((what, participants, reason));
        if shared.kind == CallKind::OneToOne {
            shared.outbox.message(recording_saved(what, shared.shortfall()));
        }
        world.board.happened(world.clock.utc_micros(), Severity::Info, saved_text(&shared, what));
        if let Some(folder) = session.folder() {
            world.sessions.finished(folder);
        }
    }
    if shared.kind == CallKind::OneToOne && shared.session_failed.load(Ordering::Acquire) {
        shared.outbox.message(recording_saved(Saved::default(), Some(Shortfall::NoFolder)));
    }
    done(&shared).await;
}

/// The process ends and its group call goes on: the session stays open for the next process, which ends it if the call is
/// over by then. Its files are whole.
async fn suspend(shared: &CallShared, session: &SessionHandle, reason: EndReason) {
    if let Err(error) = session.suspend().await {
        tracing::error!(call = %shared.key, %error, "what a session knows could not all be written");
    }
    let (saved, participants) = session.saved();
    *lock(&shared.saved) = Some((saved, participants, reason));
}

async fn done(shared: &CallShared) {
    let world = &shared.world;
    Totals::count(&world.board.totals.calls_ended);
    world.board.remove_call(shared.key);
    // A hang-up that did not get out is left to the next start.
    if shared.outbox.signalled().await {
        world.live_calls.remove(shared.room.clone(), shared.call_id.clone()).await;
    }
    shared.outbox.said().await;
    shared.done.store(true, Ordering::Release);
    shared.link.nudge();
}

/// For the page: no name of who opted out.
fn saved_text(shared: &CallShared, saved: Saved) -> String {
    let caller = || {
        let people = lock(&shared.people);
        let (key, person) = people.iter().next().filter(|_| shared.kind == CallKind::OneToOne)?;
        let place = person.place.as_ref().filter(|place| !place.hidden)?;
        (!lock(&shared.opted_out).contains(&key.user)).then(|| format!("of {}", place.name))
    };
    let room = || {
        let name = lock(&shared.room_facts).name.clone();
        format!("in {}", if name.is_empty() { &shared.room } else { &name })
    };
    format!(
        "The call {} ended: {} streams, {:.0} s, {} bytes",
        caller().unwrap_or_else(room),
        saved.streams,
        saved.duration_s,
        saved.bytes
    )
}

fn end_reason(end: CallEnd, disk: DiskLevel) -> EndReason {
    if disk == DiskLevel::AllStopped {
        return EndReason::DiskFull;
    }
    match end {
        CallEnd::Hangup | CallEnd::AnsweredElsewhere => EndReason::Hangup,
        CallEnd::Left => EndReason::EveryoneLeft,
        CallEnd::Unreachable => EndReason::Unreachable,
        CallEnd::Removed => EndReason::Removed,
        CallEnd::RoomUpgraded => EndReason::RoomUpgraded,
        CallEnd::ConnectionLost => EndReason::ConnectionLost,
        CallEnd::Shutdown => EndReason::Shutdown,
        CallEnd::Stopped => EndReason::Stopped,
        CallEnd::Terminated => EndReason::Terminated,
        CallEnd::OptedOut => EndReason::OptedOut,
        CallEnd::NotAnnounced => EndReason::NotAnnounced,
        CallEnd::NotPermitted => EndReason::NotPermitted,
        CallEnd::DiskFull => EndReason::DiskFull,
        CallEnd::BadOffer | CallEnd::Busy | CallEnd::Failed => EndReason::Failed,
    }
}
