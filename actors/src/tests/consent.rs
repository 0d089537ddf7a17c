//! Participants who do not want to be recorded, and those who want to again.

use recorder_core::manifest::OpenedBecause;
use recorder_core::media::Codec;
use serde_json::json;

use super::bench::{Bench, muted};
use super::support::*;
use crate::peer::Wanted;

fn out() -> Wanted {
    Wanted { opted_out: true, ..Wanted::default() }
}

#[test]
fn an_opt_out_ends_all_segments_of_that_participant_and_touches_no_other() {
    on_paused_time(async {
        let bench = Bench::start().await;
        let (ada, bob) = (bench.join("p1"), bench.join("p2"));
        let first = bench.connect(&ada, Vec::new(), OpenedBecause::First, Wanted::default());
        let second = bench.connect(&bob, Vec::new(), OpenedBecause::First, Wanted::default());
        until("all segments", || bench.segments.running().len() == 4).await;
        let generations = |leg: &super::bench::Leg| -> Vec<_> {
            leg.shared.tracks().iter().map(|track| track.slot.generation()).collect()
        };
        let before = generations(&second);
        first.shared.set_opted_out(true);
        let rings: Vec<_> =
            first.shared.connection.borrow().media.iter().map(|media| media.streams[0].clone()).collect();
        assert!(rings.iter().all(|ring| ring.is_withheld()), "at once, whatever the actor is doing");
        until("the end of hers", || bench.segments.running().len() == 2).await;
        assert!(bench.segments.running().iter().all(|segment| segment.track.starts_with("p2-")));
        // What is said of her meanwhile is not written down, and a stream that is new is not recorded.
        let at = tokio::time::Instant::now();
        first.want(|wanted| wanted.metadata = Some(muted(true, true)));
        let screen = bench.media.media("2", "screen", Codec::Vp8);
        first.change(|facts| facts.media.push(screen.clone()));
        until("the new stream to be withheld", || screen.streams[0].is_withheld()).await;
        tokio::time::sleep_until(at + std::time::Duration::from_secs(3)).await;
        assert_eq!(bench.segments.running().len(), 2);
        assert_eq!(bench.manifest().participants[0].tracks.len(), 2);
        assert_eq!(bench.states("p1-microphone-1"), [("opted_out".to_owned(), false)]);

        first.shared.set_opted_out(false);
        until("her return", || bench.segments.running().len() == 5).await;
        let begun = bench.begun();
        assert!(begun[4..].iter().all(|(track, because)| track.starts_with("p1-") && because == "opted_in"));
        until("the mute to be told", || bench.states("p1-microphone-1").len() == 2).await;
        assert_eq!(bench.states("p1-microphone-1")[0], ("opted_out".to_owned(), true));
        assert_eq!(generations(&second), before);
        assert_eq!(bench.events("consent"), ["opted_out", "opted_in"]);
        assert_eq!(bench.session.rejected(), 0);
        first.end().await;
        second.end().await;
    });
}

#[test]
fn who_opted_out_from_the_start_has_presence_and_no_tracks() {
    on_paused_time(async {
        let bench = Bench::start().await;
        let ada = bench.join_unnamed("p1");
        let leg = bench.connect(&ada, Vec::new(), OpenedBecause::First, out());
        until("the event", || bench.events("consent") == ["opted_out"]).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let manifest = serde_json::to_value(bench.manifest()).unwrap();
        let told = &manifest["participants"][0];
        assert_eq!(told["tracks"], json!([]));
        assert_eq!(told["presence"].as_array().unwrap().len(), 1);
        for name in ["user_id", "device_id", "party_id", "display_name"] {
            assert!(told[name].is_null(), "{name}");
        }
        assert_eq!(bench.begun(), []);

        // Her rings are full of what was not to be kept: nothing of it is the next segment's.
        bench.name("p1");
        leg.shared.set_opted_out(false);
        until("both segments", || bench.segments.running().len() == 2).await;
        assert!(bench.begun().iter().all(|(_, because)| because == "opted_in"));
        assert!(bench.manifest().participants[0].user_id.is_some());
        leg.end().await;
    });
}

#[test]
fn an_opted_out_participant_who_rejoins_stays_opted_out() {
    on_paused_time(async {
        let bench = Bench::start().await;
        let ada = bench.join("p1");
        let first = bench.connect(&ada, Vec::new(), OpenedBecause::First, Wanted::default());
        until("both segments", || bench.segments.running().len() == 2).await;
        first.shared.set_opted_out(true);
        until("their end", || bench.segments.running().is_empty()).await;
        first.end().await;
        let second = bench.connect(&ada, first.shared.heirloom(), OpenedBecause::Reconnected, out());
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_eq!(bench.begun().len(), 2);
        second.shared.set_opted_out(false);
        until("both segments", || bench.segments.running().len() == 2).await;
        assert_eq!(
            bench.begun()[2..],
            [
                ("p1-microphone-1".to_owned(), "opted_in".to_owned()),
                ("p1-camera-1".to_owned(), "opted_in".to_owned()),
            ]
        );
        assert_eq!(bench.session.rejected(), 0);
        second.end().await;
    });
}

#[test]
fn an_opt_out_that_is_over_before_anyone_looked_leaves_the_rings_fresh() {
    on_paused_time(async {
        let bench = Bench::start().await;
        let ada = bench.join("p1");
        let leg = bench.connect(&ada, Vec::new(), OpenedBecause::First, Wanted::default());
        until("both segments", || bench.segments.running().len() == 2).await;
        leg.shared.set_opted_out(true);
        leg.shared.set_opted_out(false);
        // The pumps end their files for it, and the writers begin the next.
        bench.segments.running().iter().for_each(|segment| segment.set(crate::segment::SegmentPhase::Closed));
        until("the next segments", || bench.segments.running().len() == 2).await;
        assert!(bench.begun()[2..].iter().all(|(_, because)| because == "opted_in"));
        leg.end().await;
    });
}
