//! The promise, through a real PeerActor: for any two plans, what the difference does not name is not touched, and what
//! runs afterwards is what was wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use recorder_core::ids::{Mid, StreamId};
use recorder_core::manifest::OpenedBecause;
use recorder_core::media::Codec;
use recorder_core::plan::{Change, Plan, diff};

use super::bench::{Bench, Leg, muted};
use super::support::*;
use crate::peer::Wanted;
use crate::ports::{Direction, DiskLevel, RemoteMedia};
use crate::ring::TrackRing;

/// Lines there may be, and streams that each may have.
const LINES: usize = 5;
const STREAMS: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Line {
    /// Which of its streams is the newest.
    stream: usize,
    sends: bool,
}

/// All that a plan is made of.
#[derive(Clone, Debug)]
struct Scene {
    lines: Vec<Option<Line>>,
    muted: (bool, bool),
    disk: DiskLevel,
    opted_out: bool,
}

fn any_scene() -> impl Strategy<Value = Scene> {
    let line = (0..STREAMS, prop::bool::weighted(0.7)).prop_map(|(stream, sends)| Line { stream, sends });
    let disks = prop::sample::select(vec![
        DiskLevel::Plenty,
        DiskLevel::Plenty,
        DiskLevel::VideoStopped,
        DiskLevel::AllStopped,
    ]);
    (
        prop::collection::vec(prop::option::weighted(0.8, line), LINES),
        any::<(bool, bool)>(),
        disks,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(lines, muted, disk, opted_out)| Scene { lines, muted, disk, opted_out })
}

/// The rings of every line: sound on the first two, pictures of two codecs on the others.
fn pool(bench: &Bench) -> Vec<Vec<Arc<TrackRing>>> {
    let codec = |line: usize, stream: usize| match (line, stream % 2) {
        (0 | 1, _) => Codec::Opus,
        (_, 0) => Codec::Vp8,
        _ => Codec::H264,
    };
    let ring = |line: usize, stream| bench.media.stream(&line.to_string(), codec(line, stream));
    (0..LINES).map(|line| (0..STREAMS).map(|stream| ring(line, stream)).collect()).collect()
}

fn play(bench: &Bench, leg: &Leg, pool: &[Vec<Arc<TrackRing>>], scene: &Scene) {
    let lines = scene.lines.iter().enumerate();
    let media = lines.filter_map(|(index, line)| {
        let line = (*line)?;
        let streams = pool[index][..=line.stream].to_vec();
        Some(RemoteMedia {
            mid: Mid::new(index.to_string()),
            kind: streams[0].info.kind,
            direction: if line.sends { Direction::SendRecv } else { Direction::RecvOnly },
            msid_stream: Some("user".into()),
            codecs: vec![streams[line.stream].info.codec],
            streams,
        })
    });
    let media: Vec<_> = media.collect();
    bench.disk.send_replace(scene.disk);
    leg.shared.set_opted_out(scene.opted_out);
    leg.want(|wanted| wanted.metadata = Some(muted(scene.muted.0, scene.muted.1)));
    leg.change(|facts| facts.media = media);
}

fn running(bench: &Bench) -> BTreeMap<Mid, StreamId> {
    let running = bench.segments.running();
    let map: BTreeMap<_, _> = running.iter().map(|segment| (segment.mid.clone(), segment.stream)).collect();
    assert_eq!(map.len(), running.len(), "one segment a track");
    map
}

fn wanted(plan: &Plan) -> BTreeMap<Mid, StreamId> {
    plan.iter().filter_map(|(mid, track)| Some((mid.clone(), track.run?.stream))).collect()
}

/// The plan that is in force when everything has come to rest.
async fn at_rest(bench: &Bench, leg: &Leg) -> Plan {
    let plan = || leg.shared.plan.lock().unwrap().clone();
    tokio::time::sleep(Duration::from_secs(3)).await;
    until("what runs to be what is wanted", || running(bench) == wanted(&plan())).await;
    plan()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn for_any_two_plans_children_that_the_difference_does_not_name_are_untouched(
        scenes in prop::collection::vec(any_scene(), 2..4),
    ) {
        on_paused_time(async move {
            let bench = Bench::start().await;
            let pool = pool(&bench);
            let participant = bench.join("p1");
            let leg = bench.connect(&participant, Vec::new(), OpenedBecause::First, Wanted::default());
            play(&bench, &leg, &pool, &scenes[0]);
            let mut before = at_rest(&bench, &leg).await;
            for scene in &scenes[1..] {
                let lives = generations(&bench.world.board);
                let segments = running(&bench);
                play(&bench, &leg, &pool, scene);
                let after = at_rest(&bench, &leg).await;
                let changes = diff(&before, &after);
                let touched: Vec<_> =
                    changes.iter().filter(|change| !matches!(change, Change::Update { .. })).collect();
                let now = generations(&bench.world.board);
                for track in leg.shared.tracks() {
                    let mid = &track.shared.mid;
                    if touched.iter().any(|change| change.mid() == mid) {
                        continue;
                    }
                    let path = track.slot.path();
                    assert_eq!(now.get(path), lives.get(path), "{path} is not named by {changes:?}");
                    assert_eq!(running(&bench).get(mid), segments.get(mid), "nor is its segment");
                }
                // Another look finds nothing to do.
                let begun = bench.segments.all.lock().unwrap().len();
                leg.slot.nudge();
                assert!(diff(&after, &at_rest(&bench, &leg).await).is_empty());
                assert_eq!(bench.segments.all.lock().unwrap().len(), begun);
                assert_eq!(generations(&bench.world.board), now);
                before = after;
            }
            leg.end().await;
        });
    }
}
