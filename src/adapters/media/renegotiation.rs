//! Descriptions taken over by a connection, and later offers.
//!
//! The stack changes its ICE session before it has understood the whole of an offer, and cannot go back. So a later offer is
//! tried on a stack of its own first: what fails there is refused before anything is touched.

use std::time::{Duration, Instant};

use recorder_actors::ports::MediaError;
use recorder_core::ids::Mid;
use str0m::change::SdpOffer;
use str0m::{Candidate, Rtc};

use super::answer::{self, Written};
use super::connection::Connection;
use super::continuity;
use super::intake::Agreed;
use super::net::{Moment, Outbox};
use super::offer::{Offer, stack_mid};

impl Connection {
    /// Applies a later offer.
    ///
    /// # Errors
    /// [`MediaError::BadOffer`] or [`MediaError::NothingToRecord`]; the connection then goes on as before.
    pub fn renegotiate(
        &mut self,
        mut offer: Offer,
        now: Moment,
        out: &mut dyn Outbox,
    ) -> Result<String, MediaError> {
        if self.over {
            return Err(MediaError::Gone);
        }
        if self.pending.is_some() {
            // Who placed the call is the impolite side: an offer that crosses ours is ignored.
            return Err(MediaError::BadOffer(
                "it crosses an offer of ours that has no answer yet".to_owned(),
            ));
        }
        self.place_tile(&mut offer);
        continuity::check(&self.offer.lines, &offer.lines)?;
        super::guarded(|| self.rehearse(&offer, now))?;
        let restarted = offer.ufrag.is_some() && offer.ufrag != self.offer.ufrag;
        let stack_answer = accept(&mut self.rtc, &offer)?;
        let fragment = self.local_fragment();
        for candidate in &mut self.local {
            candidate.set_ufrag(&fragment);
        }
        let texts: Vec<String> = self.local.iter().map(Candidate::to_sdp_string).collect();
        let written = answer::write(&stack_answer, &offer, &texts, self.shared.quality)?;
        if restarted {
            self.facts.ice_restarts += 1;
            self.remote_candidates = 0;
        }
        self.adopt(offer, &written);
        self.facts.changed = true;
        self.drive(now, out);
        self.retry_held(out);
        self.settle_state();
        Ok(written.sdp)
    }

    /// Whether the stack can answer `offer` after the description in force.
    fn rehearse(&self, offer: &Offer, now: Moment) -> Result<(), MediaError> {
        let mut rtc = stack(now.instant);
        // The one in force was taken once: what counts is what the stack makes of the next one after it.
        let _ = accept(&mut rtc, &self.offer);
        let stack_answer = accept(&mut rtc, offer)?;
        answer::write(&stack_answer, offer, &[], self.shared.quality).map(drop)
    }

    pub(super) fn adopt(&mut self, offer: Offer, written: &Written) {
        for text in self.trickle.adopt(offer.ufrag.as_deref()) {
            self.add_candidate(&text);
        }
        for text in &offer.candidates {
            self.add_candidate(text);
        }
        let agreed = offer.lines.iter().zip(&written.accepted).filter_map(|(line, codecs)| {
            let mid = line.mid.as_ref()?;
            Some(Agreed { mid: Mid::new(mid.as_str()), stack_mid: stack_mid(mid), codecs: codecs.clone() })
        });
        let repairs = offer.lines.iter().flat_map(|line| line.sources.iter());
        let repairs: Vec<(u32, u32)> =
            repairs.filter_map(|(main, repair)| Some((*main, (*repair)?))).collect();
        self.intake.agree(agreed.collect(), repairs.into_iter());
        self.accepted.clone_from(&written.accepted);
        self.offer = offer;
        if let Some(tile) = &mut self.tile {
            tile.settle(&self.offer, &self.accepted);
        }
    }
}

/// A stack as every connection has it.
pub fn stack(now: Instant) -> Rtc {
    Rtc::builder()
        .set_rtp_mode(true)
        .enable_raw_packets(true)
        .set_stats_interval(Some(Duration::from_secs(1)))
        .build(now)
}

/// Lets the stack answer; its text.
///
/// # Errors
/// [`MediaError::BadOffer`]; the stack may have begun to take the offer over then.
pub fn accept(rtc: &mut Rtc, offer: &Offer) -> Result<String, MediaError> {
    let parsed = SdpOffer::from_sdp_string(&offer.sdp)
        .map_err(|_| MediaError::BadOffer("its session description cannot be read".to_owned()))?;
    // The stack's words may quote the description, which is not to be logged.
    let refused =
        |_| MediaError::BadOffer("it lacks what a secure connection needs or contradicts itself".to_owned());
    let answer = rtc.sdp_api().accept_offer(parsed).map_err(refused)?;
    Ok(answer.to_sdp_string())
}
