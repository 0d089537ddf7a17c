//! What is said of power levels: ours, and how to give what is missing.

use super::super::input::Powers;
use super::super::{CALL_MEMBER_EVENT, limits};
use super::Words;
use crate::call::Announcement;
use crate::words::cut_to;

/// Which of our power levels is missing, and how to give it: at invite and at `start`.
pub fn permission_notice(bot: &str, powers: Powers) -> Announcement {
    let needed = powers.call_member;
    Words::of("I cannot join group calls in this room: sending the state event ")
        .text(&format!("`{CALL_MEMBER_EVENT}` needs power level {needed} here, and mine is {}. ", powers.own))
        .text("Somebody who may change permissions can give me that level (in Element: ")
        .typed(&format!("/op {} {needed}", cut_to(bot, limits::ID_BYTES)))
        .text("), or lower the level that the event needs ")
        .text(
            "(Room settings, Roles & Permissions, \"Join Element Call calls\"). Then `!record start` again.",
        )
        .notice()
}

/// For whoever runs the recorder: the same where we may not even speak.
pub(in super::super) fn cannot_speak(bot: &str, powers: Powers) -> String {
    let mut text = format!(
        "nothing is recorded, because nobody could be told: sending messages needs power level {} there, and the \
         recorder's is {}.",
        powers.message, powers.own
    );
    if !powers.may_join() {
        text.push_str(&format!(" The state event {CALL_MEMBER_EVENT} needs {}.", powers.call_member));
    }
    text.push_str(&format!(
        " Somebody who may change permissions can give it that level (in Element: /op {} {}), or lower what messages \
         need (Room settings, Roles & Permissions, \"Send messages\")",
        cut_to(bot, limits::ID_BYTES),
        powers.message.max(powers.call_member)
    ));
    text
}

/// Our power was taken away while we record: once, to everybody.
pub(in super::super) fn power_lost(bot: &str, powers: Powers) -> Announcement {
    let needed = powers.call_member;
    Words::of(&format!(
        "My power level in this room is {} now, and taking part in calls needs {needed} (`{CALL_MEMBER_EVENT}`). I record \
         on until my place in the call runs out, within an hour; who joins then is not recorded. Somebody who may change \
         permissions can give it back (in Element: ",
        powers.own
    ))
    .typed(&format!("/op {} {needed}", cut_to(bot, limits::ID_BYTES)))
    .text(").")
    .notice()
}

/// The same, as a line of the status message.
pub(in super::super) fn power_missing(powers: Powers) -> String {
    format!(
        "My power level is {} now, and calls need {} here: within an hour I drop out of this one.",
        powers.own, powers.call_member
    )
}

/// For whoever runs the recorder, where we lost our voice.
pub(in super::super) fn voice_lost(bot: &str, powers: Powers) -> String {
    format!(
        "the recorder may no longer send messages ({} is needed, its power level is {}), so the recording there ends when \
         somebody joins who could not be told. Somebody who may change permissions can give it back (in Element: /op {} {})",
        powers.message,
        powers.own,
        cut_to(bot, limits::ID_BYTES),
        powers.message.max(powers.call_member)
    )
}

/// For whoever runs the recorder: people are in the call who could not be told, so the recording ends.
pub(in super::super) fn not_announced(refused: bool) -> String {
    let why = if refused { "refused" } else { "did not take" };
    format!(
        "the recording is ended, because the homeserver {why} the message that tells people of it. Does the recorder \
         have the power level for sending messages there (Room settings, Roles & Permissions)?"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_level_is_named_with_both_numbers_and_the_way_to_give_it() {
        let told = permission_notice("@rec:hs", Powers { own: 0, call_member: 50, message: 0 });
        for part in ["org.matrix.msc3401.call.member", "needs power level 50", "mine is 0", "/op @rec:hs 50"]
        {
            assert!(told.plain.contains(part), "{part}: {}", told.plain);
        }
        assert!(told.html.contains("<code>/op @rec:hs 50</code>"), "{}", told.html);
    }

    #[test]
    fn where_nobody_can_be_told_the_level_for_messages_is_named_and_both_if_both_are_missing() {
        let told = cannot_speak("@rec:hs", Powers { own: 0, call_member: 0, message: 50 });
        assert!(
            told.contains("sending messages needs power level 50 there, and the recorder's is 0"),
            "{told}"
        );
        assert!(told.contains("/op @rec:hs 50") && !told.contains(CALL_MEMBER_EVENT), "{told}");
        let told = cannot_speak("@rec:hs", Powers { own: 0, call_member: 60, message: 50 });
        assert!(told.contains("org.matrix.msc3401.call.member needs 60"), "{told}");
        assert!(told.contains("/op @rec:hs 60"), "{told}");
    }
}
