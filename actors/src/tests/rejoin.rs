//! Several connections of one participant, one after the other.

use recorder_core::manifest::{LeaveReason, OpenedBecause, Record};
use recorder_core::media::Codec;

use super::bench::{Bench, muted};
use super::support::*;
use crate::peer::Wanted;

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(track, because)| ((*track).to_owned(), (*because).to_owned())).collect()
}

#[test]
fn a_rejoin_goes_on_with_the_tracks_of_the_connection_before() {
    on_paused_time(async {
        let bench = Bench::start().await;
        let ada = bench.join("p1");
        let first = bench.connect(&ada, Vec::new(), OpenedBecause::First, Wanted::default());
        until("both segments", || bench.segments.running().len() == 2).await;
        first.want(|wanted| wanted.metadata = Some(muted(true, false)));
        until("the mute", || bench.states("p1-microphone-1") == [("muted".to_owned(), false)]).await;
        first.end().await;
        assert_eq!(bench.states("p1-microphone-1"), [("muted".to_owned(), true)]);
        let at_s = bench.session.now_s();
        let reason = Some(LeaveReason::ConnectionLost.into());
        bench.session.tell(Record::PresenceEnded { participant: ada.clone(), at_s, reason });

        bench.session.tell(Record::PresenceBegan { participant: ada.clone(), at_s });
        let wanted = Wanted { metadata: Some(muted(true, false)), ..Wanted::default() };
        let heirloom = first.shared.heirloom();
        let second = bench.connect(&ada, heirloom, OpenedBecause::Reconnected, wanted);
        until("both segments", || bench.segments.running().len() == 2).await;
        assert_eq!(
            bench.begun(),
            pairs(&[
                ("p1-microphone-1", "first"),
                ("p1-camera-1", "first"),
                ("p1-microphone-1", "reconnected"),
                ("p1-camera-1", "reconnected"),
            ])
        );
        assert_eq!(bench.manifest().participants[0].presence.len(), 2);
        assert_eq!(bench.manifest().participants[0].tracks.len(), 2);
        until("the mute", || bench.states("p1-microphone-1").len() == 2).await;
        assert_eq!(bench.session.rejected(), 0, "nothing was told twice");
        second.end().await;
    });
}

#[test]
fn a_second_camera_after_a_rejoin_is_a_track_of_its_own() {
    on_paused_time(async {
        let bench = Bench::start().await;
        let ada = bench.join("p1");
        let first = bench.connect(&ada, Vec::new(), OpenedBecause::First, Wanted::default());
        until("both segments", || bench.segments.running().len() == 2).await;
        first.end().await;
        let heirloom = first.shared.heirloom();
        let second = bench.connect(&ada, heirloom, OpenedBecause::Reconnected, Wanted::default());
        until("both segments", || bench.segments.running().len() == 2).await;
        let camera = bench.media.media("2", "user", Codec::Vp8);
        second.change(|facts| facts.media.push(camera));
        until("the camera", || bench.segments.running().len() == 3).await;
        assert_eq!(bench.begun()[4], ("p1-camera-2".to_owned(), "first".to_owned()));
        second.end().await;
        // What the second connection did not take up is left to the third.
        let third = second.shared.heirloom();
        let ids: Vec<_> = third.iter().map(|track| track.names.track.as_str()).collect();
        assert_eq!(ids, ["p1-camera-1", "p1-camera-2", "p1-microphone-1"]);
    });
}

#[test]
fn a_session_tells_whom_it_knows_and_which_tracks_they_go_on_with() {
    on_paused_time(async {
        let bench = Bench::start().await;
        let (ada, bob) = (bench.join("p1"), bench.join("p2"));
        let leg = bench.connect(&ada, Vec::new(), OpenedBecause::First, Wanted::default());
        until("both segments", || bench.segments.running().len() == 2).await;
        leg.end().await;
        let at_s = bench.session.now_s();
        bench.session.tell(Record::PresenceEnded { participant: bob, at_s, reason: None });
        let known = bench.session.participants();
        let told: Vec<_> =
            known.iter().map(|p| (p.participant.as_str(), p.present, p.tracks.len())).collect();
        assert_eq!(told, [("p1", true, 2), ("p2", false, 0)]);
        assert_eq!(
            (known[0].user_id.as_deref(), known[0].device_id.as_deref()),
            (Some("@p1:hs"), Some("LAPTOP"))
        );
        // As after a restart of the process.
        let tracks = known[0].tracks.clone();
        let leg = bench.connect(&ada, tracks, OpenedBecause::ProcessRestarted, Wanted::default());
        until("both segments", || bench.segments.running().len() == 2).await;
        assert_eq!(
            bench.begun()[2..],
            pairs(&[("p1-microphone-1", "process_restarted"), ("p1-camera-1", "process_restarted")])
        );
        leg.end().await;
    });
}
