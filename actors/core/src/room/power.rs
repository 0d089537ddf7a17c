//! Our own power in the room against what recording a call there needs.

use serde_json::{Map, json};

use super::action::{MessageKind, Relation, RoomAction};
use super::input::Powers;
use super::lifecycle::Session;
use super::machine::Room;
use super::pace::Topic;
use super::{Refusal, texts};
use crate::manifest::EventKind;
use crate::time::BootTime;

impl Room {
    /// Whenever they may have changed. That of a recording which runs may be taken away: what flows is recorded on, and
    /// the room hears what will become of it.
    pub(super) fn have_powers(&mut self, powers: Powers, now: BootTime, out: &mut Vec<RoomAction>) {
        self.powers = Some(powers);
        let goes_on = |session: &&mut Session| !session.is_stopping() && !session.unsettled;
        let Some(session) = self.session.as_mut().filter(goes_on) else { return };
        let lost = !powers.suffice();
        if std::mem::replace(&mut session.power_lost, lost) == lost {
            return;
        }
        let what = if lost { "power_lost" } else { "power_regained" };
        let detail = Map::from_iter([
            ("what".to_owned(), json!(what)),
            ("own".to_owned(), json!(powers.own)),
            ("call_member".to_owned(), json!(powers.call_member)),
            ("message".to_owned(), json!(powers.message)),
        ]);
        out.push(RoomAction::ConsentEvent { kind: EventKind::Warning, user: None, detail });
        let own = self.settings.user.clone();
        if !lost || !self.told.first(&own, Topic::PowerLost, now) {
            return;
        }
        if powers.may_speak() {
            self.say(MessageKind::Notice, texts::power_lost(&own, powers), Relation::None, out);
        } else {
            out.push(RoomAction::Report { text: texts::voice_lost(&own, powers) });
        }
    }

    /// For the status message of the session that runs.
    pub(super) fn power_warning(&self) -> Option<String> {
        let powers = self.powers.filter(|powers| !powers.may_join())?;
        self.session.as_ref().filter(|session| session.power_lost)?;
        Some(texts::power_missing(powers))
    }

    /// Tells the room which power is missing, if one is; or whoever runs the recorder, if it is that of telling.
    pub(super) fn lacks_power(&mut self, powers: Powers, now: BootTime, out: &mut Vec<RoomAction>) {
        let own = self.settings.user.clone();
        if powers.suffice() || !self.told.first(&own, Topic::Refused(Refusal::OwnPower), now) {
            return;
        }
        if powers.may_speak() {
            let notice = texts::permission_notice(&own, powers);
            self.say(MessageKind::Notice, notice, Relation::None, out);
        } else {
            out.push(RoomAction::Report { text: texts::cannot_speak(&own, powers) });
        }
    }
}
