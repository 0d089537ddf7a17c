//! What actors hold of a session recorder.

use std::path::Path;
use std::sync::Arc;

use recorder_core::call::Saved;
use recorder_core::ids::{ParticipantId, SessionId, TrackId};
use recorder_core::manifest::{LeaveReason, Manifest, Participant, Record, Seconds, SessionClock};
use recorder_core::media::{Codec, Source};
use recorder_core::time::BootTime;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::state::Shared;
use super::{SessionEnd, SessionError, SessionStatus};
use crate::peer::KnownParticipant;
use crate::ports::Clock;
use crate::storage::FolderPlace;

/// Tells a session's recorder facts. Cheap to clone; when the last handle is dropped without
/// [`finish`](Self::finish), the recorder writes what it was told and ends, and the session stays
/// `recording`.
#[derive(Clone)]
pub struct SessionHandle {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) status: watch::Receiver<SessionStatus>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) place: FolderPlace,
    pub(super) session_id: SessionId,
    pub(super) _abandon: DropGuard,
}

impl std::fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionHandle").field("session_id", &self.inner.session_id).finish_non_exhaustive()
    }
}

impl SessionHandle {
    pub(super) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    pub fn session_id(&self) -> &SessionId {
        &self.inner.session_id
    }

    /// Where media files of this session belong; `None` until it is made.
    pub fn folder(&self) -> Option<&Arc<Path>> {
        self.inner.place.get()
    }

    pub(crate) fn place(&self) -> &FolderPlace {
        &self.inner.place
    }

    /// Why there will be no folder, if that is so.
    pub(crate) fn has_no_folder(&self) -> Option<Arc<str>> {
        self.inner.status.borrow().folder.clone()?.err()
    }

    /// Resolves when the folder is there, or cannot be made. Does not keep the session from being abandoned.
    pub fn opened(&self) -> impl Future<Output = Result<(), SessionError>> + Send + 'static + use<> {
        let mut status = self.inner.status.clone();
        async move {
            match status.wait_for(|status| status.folder.is_some()).await.map(|status| status.folder.clone())
            {
                Ok(Some(Err(why))) => Err(SessionError::Folder { why }),
                Ok(_) => Ok(()),
                Err(_) => Err(SessionError::Stopped { last_error: "its task was dropped".to_owned() }),
            }
        }
    }

    /// Never blocks on the disk. What does not fit (an unknown track, a full list, the end has been told) is
    /// logged, counted and changes nothing.
    pub fn tell(&self, record: Record) {
        let mut state = self.inner.shared.lock();
        match state.tell(record) {
            Ok(false) => {}
            Ok(true) => self.inner.shared.nudge.notify_one(),
            Err(error) => {
                state.rejected += 1;
                drop(state);
                tracing::warn!(session = %self.inner.session_id, %error, "a fact does not fit the session");
            }
        }
    }

    /// Structural facts told so far; [`Self::has_written`] says when the journal has them.
    pub fn told(&self) -> u64 {
        self.inner.shared.lock().told()
    }

    /// The first `told` structural facts are in the journal file. Cheap.
    pub fn has_written(&self, told: u64) -> bool {
        self.inner.status.borrow().written >= told
    }

    /// The name of the next file of this participant and source, unique in the folder.
    pub fn name_segment(&self, participant: &ParticipantId, source: Source, codec: Codec) -> String {
        self.inner.shared.lock().name_segment(participant, source, codec)
    }

    /// The id of this participant's next track of this source.
    pub fn name_track(&self, participant: &ParticipantId, source: Source) -> TrackId {
        self.inner.shared.lock().name_track(participant, source)
    }

    /// One more participant, by the next id; `None`, and nothing is told, if there are too many.
    pub fn add_participant(
        &self,
        user_id: Option<String>,
        device_id: Option<String>,
        party_id: Option<String>,
        display_name: Option<String>,
    ) -> Option<ParticipantId> {
        let mut state = self.inner.shared.lock();
        let participant = state.next_participant();
        let added = Record::ParticipantAdded {
            participant: participant.clone(),
            user_id,
            device_id,
            party_id,
            display_name,
        };
        match state.tell(added) {
            Ok(_) => {
                self.inner.shared.nudge.notify_one();
                Some(participant)
            }
            Err(_) => {
                state.rejected += 1;
                None
            }
        }
    }

    /// The participant of this user and device, with the tracks that a new connection goes on with.
    pub fn participant(&self, user: &str, device: Option<&str>) -> Option<KnownParticipant> {
        let state = self.inner.shared.lock();
        let mut all = state.manifest.participants.iter();
        let same = |known: &&Participant| {
            known.user_id.as_deref() == Some(user) && known.device_id.as_deref() == device
        };
        all.find(same).map(KnownParticipant::of)
    }

    /// Everyone who is or was in the session, with the tracks that a new connection of theirs goes on with.
    pub fn participants(&self) -> Vec<KnownParticipant> {
        KnownParticipant::all(&self.inner.shared.lock().manifest)
    }

    /// For a session of an earlier process, once it is known who is `there` now: the stays of all others ended while nobody
    /// looked, and are told to have ended where that process last knew of the session.
    pub fn end_stays_of_the_gone(&self, there: &[ParticipantId]) {
        let Some(cut_s) = self.inner.shared.cut_s else { return };
        let stays = |known: &Participant| {
            known.presence.last().is_some_and(|stay| stay.left_s.is_none() && stay.joined_s <= cut_s)
        };
        let gone: Vec<_> = {
            let state = self.inner.shared.lock();
            let known = state.manifest.participants.iter();
            known.filter(|known| stays(known) && !there.contains(&known.id)).map(|k| k.id.clone()).collect()
        };
        for participant in gone {
            let reason = Some(LeaveReason::Restarted.into());
            self.tell(Record::PresenceEnded { participant, at_s: cut_s, reason });
        }
    }

    /// Session time of an instant.
    pub fn session_s(&self, instant: BootTime) -> Seconds {
        self.inner.shared.clock.at(instant)
    }

    /// Session time now.
    pub fn now_s(&self) -> Seconds {
        self.session_s(self.inner.clock.now())
    }

    pub fn clock(&self) -> &SessionClock {
        &self.inner.shared.clock
    }

    /// The manifest as of now.
    pub fn manifest(&self) -> Manifest {
        self.inner.shared.lock().manifest.clone()
    }

    /// Looks at the manifest as of now. Nothing may be told meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Manifest) -> T) -> T {
        look(&self.inner.shared.lock().manifest)
    }

    /// What has been recorded so far, and of how many participants.
    pub fn saved(&self) -> (Saved, usize) {
        self.look(crate::snapshot::saved)
    }

    /// Facts refused so far.
    pub fn rejected(&self) -> u64 {
        self.inner.shared.lock().rejected
    }

    pub fn status(&self) -> watch::Receiver<SessionStatus> {
        self.inner.status.clone()
    }

    /// Resolves when every structural fact told so far is in the journal file. It waits as long as the disk
    /// refuses.
    pub async fn written(&self) -> Result<(), SessionError> {
        let told = self.told();
        self.wait(|status| status.written >= told).await
    }

    /// Ends the session and resolves when journal and manifest are on the disk; it waits as long as the disk
    /// refuses, so put a limit around it. What is told afterwards is refused. A second call only waits.
    pub async fn finish(&self, end: SessionEnd) -> Result<Manifest, SessionError> {
        let ended_s = self.now_s();
        {
            let mut state = self.inner.shared.lock();
            if !state.finishing {
                state.finish_events();
                // Refused only if the end was told before, which is as good.
                let _ = state.tell(Record::SessionEnded {
                    ended_s,
                    end_reason: end.reason.into(),
                    stopped_by: end.stopped_by,
                    state: end.state.into(),
                });
                state.finishing = true;
            }
        }
        self.inner.shared.nudge.notify_one();
        self.wait(|status| status.finished).await?;
        Ok(self.manifest())
    }

    /// Has all that was told on the disk and ends the recorder, but not the session: it stays `recording`, for the next
    /// process to take up. What is told afterwards is not written.
    pub async fn suspend(&self) -> Result<(), SessionError> {
        {
            let mut state = self.inner.shared.lock();
            state.finish_events();
            state.finishing = true;
        }
        self.inner.shared.nudge.notify_one();
        self.wait(|status| status.finished).await
    }

    async fn wait(&self, until: impl FnMut(&SessionStatus) -> bool) -> Result<(), SessionError> {
        let mut status = self.inner.status.clone();
        if status.wait_for(until).await.is_ok() {
            return Ok(());
        }
        let last_error = status.borrow().last_error.clone();
        let last_error = last_error.as_deref().unwrap_or("its task was dropped").to_owned();
        Err(SessionError::Stopped { last_error })
    }
}
