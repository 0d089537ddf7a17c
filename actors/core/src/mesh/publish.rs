//! Upkeep of our own membership: published before anything is signalled, refreshed, put back where it got lost.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{MeshAction, MeshSettings, content};
use crate::time::BootTime;

/// An answer of the homeserver that has not come by then never comes.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Refusals of the first membership before the call is given up.
const MOST_REFUSALS: u32 = 3;

#[derive(Clone, Debug)]
pub(super) struct Membership {
    /// Content of our user's member event, as the room has it.
    own: Option<Arc<Value>>,
    /// The room's state has been told of at all.
    told: bool,
    /// The room has had our newest entry.
    echoed: bool,
    /// When it is to be published next.
    due: BootTime,
    in_flight: Option<BootTime>,
    published: bool,
    refusals: u32,
}

impl Membership {
    pub(super) fn new() -> Self {
        Self {
            own: None,
            told: false,
            echoed: false,
            due: BootTime(0),
            in_flight: None,
            published: false,
            refusals: 0,
        }
    }

    /// It has been published at least once: we may signal.
    pub(super) fn is_published(&self) -> bool {
        self.published
    }

    /// It has been published or may yet turn out to be.
    pub(super) fn was_asked_for(&self) -> bool {
        self.published || self.in_flight.is_some()
    }

    pub(super) fn set_own(&mut self, own: Option<&Value>, settings: &MeshSettings, now: BootTime) {
        self.told = true;
        let ours = content::holds(own, &settings.conf_id, &settings.device, &settings.session_id);
        if self.echoed && !ours {
            // Somebody, or another device of ours, took it out.
            self.echoed = false;
            self.due = self.due.min(now + settings.retry);
        }
        self.echoed |= ours;
        if self.own.as_deref() != own {
            self.own = own.cloned().map(Arc::new);
        }
    }

    pub(super) fn tick(
        &mut self,
        settings: &MeshSettings,
        now: BootTime,
        utc_ms: i64,
        out: &mut Vec<MeshAction>,
    ) {
        if self.in_flight.is_some_and(|since| now.saturating_since(since) >= ANSWER_LIMIT) {
            self.answer(false, settings, now);
        }
        // Before that there is no content to build on.
        if !self.told || self.in_flight.is_some() || now < self.due || self.is_hopeless() {
            return;
        }
        self.in_flight = Some(now);
        let expires = i64::try_from(settings.expires.as_millis()).unwrap_or(i64::MAX);
        let content = content::with_device(
            self.own.as_deref(),
            &settings.conf_id,
            &settings.device,
            &settings.session_id,
            utc_ms.saturating_add(expires),
            utc_ms,
        );
        out.push(MeshAction::Publish { content });
    }

    /// False if nothing had been asked.
    pub(super) fn answer(&mut self, ok: bool, settings: &MeshSettings, now: BootTime) -> bool {
        let Some(since) = self.in_flight.take() else { return false };
        if ok {
            self.published = true;
            self.refusals = 0;
            self.due = since + settings.refresh;
        } else {
            let pause = settings.retry * 2_u32.saturating_pow(self.refusals.min(8));
            self.refusals = self.refusals.saturating_add(1);
            self.due = now + pause.min(LONGEST_PAUSE);
        }
        true
    }

    /// The homeserver does not let us in. A refresh is tried for ever instead: media that flows is recorded.
    pub(super) fn is_hopeless(&self) -> bool {
        !self.published && self.refusals >= MOST_REFUSALS
    }

    /// The content without our device.
    pub(super) fn without_us(&self, settings: &MeshSettings, utc_ms: i64) -> Value {
        content::rest(self.own.as_deref(), &settings.device, utc_ms)
    }
}
