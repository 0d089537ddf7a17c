//! The only place that decides what starts, stops or is replaced below a participant: current plan × wanted plan →
//! changes, no more than needed. Actors obey it.

use std::collections::BTreeMap;

use crate::ids::{Mid, StreamId};
pub use crate::manifest::OpenedBecause;
use crate::media::{Codec, MediaKind, Source};

/// A track as wanted or as it is: one m-line of a participant's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackPlan {
    pub kind: MediaKind,
    pub source: Source,
    /// The stream that is (to be) written; `None` while the m-line does not send.
    pub run: Option<StreamPlan>,
    /// Why nothing is written, when `run` is `None`.
    pub pause: Option<Pause>,
    /// As signalled by the sender; media may flow all the same.
    pub muted: bool,
}

/// The stream that a segment is made of. Another stream means another segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    pub stream: StreamId,
    pub codec: Codec,
}

/// Why a track that exists is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pause {
    /// The m-line says that it does not send, or its stream has ended.
    SourceOff,
    /// Too little space on the disk.
    Disk,
    /// The participant does not want to be recorded.
    OptedOut,
}

/// All tracks of one participant, by m-line.
pub type Plan = BTreeMap<Mid, TrackPlan>;

/// One change to one track. Tracks that are not named stay as they are: same actor, same generation, same file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A track nobody knew: give it an id, and a writer if it runs.
    Add { mid: Mid },
    /// The track's writer starts a segment.
    Start { mid: Mid, run: StreamPlan, because: OpenedBecause },
    /// The track's writer ends its segment and goes on with another stream.
    Replace { mid: Mid, run: StreamPlan, because: OpenedBecause },
    /// The track's writer ends its segment.
    Stop { mid: Mid, pause: Pause },
    /// What is said of the track changed; no segment is concerned.
    Update { mid: Mid },
    /// The m-line is gone from the description; its segment, if any, ends.
    Remove { mid: Mid },
}

impl Change {
    /// The track that is concerned.
    pub fn mid(&self) -> &Mid {
        match self {
            Self::Add { mid }
            | Self::Start { mid, .. }
            | Self::Replace { mid, .. }
            | Self::Stop { mid, .. }
            | Self::Update { mid }
            | Self::Remove { mid } => mid,
        }
    }

    /// Notes in `plan` that this change on the way to `wanted` was made.
    pub fn note_in(&self, plan: &mut Plan, wanted: &Plan) {
        let Some(track) = wanted.get(self.mid()) else {
            plan.remove(self.mid());
            return;
        };
        let mut track = track.clone();
        if matches!(self, Self::Add { .. }) {
            // Its start, if it has one, is a change of its own.
            track.run = None;
        }
        plan.insert(self.mid().clone(), track);
    }
}

/// What leads from `current` to `wanted`, in the order of m-lines, stops before starts.
pub fn diff(current: &Plan, wanted: &Plan) -> Vec<Change> {
    let mut stops = Vec::new();
    let mut rest = Vec::new();
    for (mid, now) in current {
        match wanted.get(mid) {
            None => stops.push(Change::Remove { mid: mid.clone() }),
            Some(then) => match (now.run, then.run) {
                (Some(_), None) => {
                    stops.push(Change::Stop {
                        mid: mid.clone(),
                        pause: then.pause.unwrap_or(Pause::SourceOff),
                    });
                }
                (None, Some(run)) => {
                    let because = match now.pause {
                        Some(Pause::Disk) => OpenedBecause::DiskResumed,
                        Some(Pause::OptedOut) => OpenedBecause::OptedIn,
                        Some(Pause::SourceOff) => OpenedBecause::SourceOn,
                        None => OpenedBecause::First,
                    };
                    rest.push(Change::Start { mid: mid.clone(), run, because });
                }
                (Some(old), Some(new)) if old != new => {
                    let because = if old.codec == new.codec {
                        OpenedBecause::NewSsrc
                    } else {
                        OpenedBecause::CodecChanged
                    };
                    rest.push(Change::Replace { mid: mid.clone(), run: new, because });
                }
                (Some(_), Some(_)) | (None, None) => {
                    if now != then {
                        rest.push(Change::Update { mid: mid.clone() });
                    }
                }
            },
        }
    }
    for (mid, then) in wanted {
        if !current.contains_key(mid) {
            rest.push(Change::Add { mid: mid.clone() });
            if let Some(run) = then.run {
                rest.push(Change::Start { mid: mid.clone(), run, because: OpenedBecause::First });
            }
        }
    }
    stops.extend(rest);
    stops
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn track(run: Option<(u64, Codec)>) -> TrackPlan {
        TrackPlan {
            kind: MediaKind::Video,
            source: Source::Camera,
            run: run.map(|(stream, codec)| StreamPlan { stream: StreamId(stream), codec }),
            pause: run.is_none().then_some(Pause::SourceOff),
            muted: false,
        }
    }

    fn plan(tracks: &[(&str, TrackPlan)]) -> Plan {
        tracks.iter().map(|(mid, track)| (Mid::from(*mid), track.clone())).collect()
    }

    #[test]
    fn a_new_ssrc_replaces_only_the_segment_of_its_track() {
        let current = plan(&[("0", track(Some((1, Codec::Vp8)))), ("1", track(Some((2, Codec::Vp8))))]);
        let wanted = plan(&[("0", track(Some((1, Codec::Vp8)))), ("1", track(Some((3, Codec::Vp8))))]);
        let run = StreamPlan { stream: StreamId(3), codec: Codec::Vp8 };
        assert_eq!(
            diff(&current, &wanted),
            [Change::Replace { mid: "1".into(), run, because: OpenedBecause::NewSsrc }]
        );
    }

    #[test]
    fn another_codec_on_the_same_m_line_is_a_next_segment() {
        let current = plan(&[("1", track(Some((2, Codec::Vp8))))]);
        let wanted = plan(&[("1", track(Some((3, Codec::Av1))))]);
        let run = StreamPlan { stream: StreamId(3), codec: Codec::Av1 };
        assert_eq!(
            diff(&current, &wanted),
            [Change::Replace { mid: "1".into(), run, because: OpenedBecause::CodecChanged }]
        );
    }

    #[test]
    fn a_mute_touches_nobody() {
        let current = plan(&[("0", track(Some((1, Codec::Opus))))]);
        let mut wanted = current.clone();
        wanted.get_mut(&Mid::from("0")).unwrap().muted = true;
        assert_eq!(diff(&current, &wanted), [Change::Update { mid: "0".into() }]);
    }

    #[test]
    fn an_m_line_that_stops_sending_ends_its_segment_and_comes_back_as_source_on() {
        let on = plan(&[("1", track(Some((2, Codec::Vp8))))]);
        let off = plan(&[("1", track(None))]);
        assert_eq!(diff(&on, &off), [Change::Stop { mid: "1".into(), pause: Pause::SourceOff }]);
        let run = StreamPlan { stream: StreamId(2), codec: Codec::Vp8 };
        assert_eq!(
            diff(&off, &on),
            [Change::Start { mid: "1".into(), run, because: OpenedBecause::SourceOn }]
        );
    }

    #[test]
    fn a_full_disk_stops_a_track_and_space_brings_it_back_as_disk_resumed() {
        let on = plan(&[("1", track(Some((2, Codec::Vp8))))]);
        let mut off = plan(&[("1", track(None))]);
        off.get_mut(&Mid::from("1")).unwrap().pause = Some(Pause::Disk);
        assert_eq!(diff(&on, &off), [Change::Stop { mid: "1".into(), pause: Pause::Disk }]);
        assert!(matches!(diff(&off, &on)[..], [Change::Start { because: OpenedBecause::DiskResumed, .. }]));
    }

    #[test]
    fn an_opt_out_stops_every_track_and_an_opt_in_begins_the_next_segments() {
        let on = plan(&[("0", track(Some((1, Codec::Opus)))), ("1", track(Some((2, Codec::Vp8))))]);
        let mut out = plan(&[("0", track(None)), ("1", track(None))]);
        out.values_mut().for_each(|track| track.pause = Some(Pause::OptedOut));
        let stop = |mid: &str| Change::Stop { mid: mid.into(), pause: Pause::OptedOut };
        assert_eq!(diff(&on, &out), [stop("0"), stop("1")]);
        let back = diff(&out, &on);
        assert_eq!(back.len(), 2);
        assert!(
            back.iter().all(|change| matches!(change, Change::Start { because: OpenedBecause::OptedIn, .. }))
        );
    }

    prop_compose! {
        fn any_track()(
            run in prop::option::of((0_u64..4, prop::sample::select(vec![Codec::Vp8, Codec::H264]))),
            muted: bool,
            pause in prop::sample::select(vec![Pause::SourceOff, Pause::Disk, Pause::OptedOut]),
        ) -> TrackPlan {
            let mut track = track(run);
            track.muted = muted;
            track.pause = run.is_none().then_some(pause);
            track
        }
    }

    fn any_plan() -> impl Strategy<Value = Plan> {
        prop::collection::btree_map("[0-5]".prop_map(Mid::new), any_track(), 0..6)
    }

    proptest! {
        #[test]
        fn applying_the_diff_gives_the_wanted_plan(current in any_plan(), wanted in any_plan()) {
            let mut plan = current.clone();
            let changes = diff(&current, &wanted);
            for (done, change) in changes.iter().enumerate() {
                prop_assert_eq!(&diff(&plan, &wanted), &changes[done..], "what was made is not named again");
                change.note_in(&mut plan, &wanted);
            }
            prop_assert_eq!(plan, wanted);
        }

        #[test]
        fn only_a_track_that_was_opted_out_is_opted_in(current in any_plan(), wanted in any_plan()) {
            for change in diff(&current, &wanted) {
                if let Change::Start { mid, because, .. } = &change {
                    let out = current.get(mid).is_some_and(|track| track.pause == Some(Pause::OptedOut));
                    prop_assert_eq!(*because == OpenedBecause::OptedIn, out);
                }
                if let Change::Stop { mid, pause } = &change {
                    prop_assert_eq!(Some(*pause), wanted[mid].pause);
                }
            }
        }

        #[test]
        fn a_diff_of_equals_is_empty(plan in any_plan()) {
            prop_assert!(diff(&plan, &plan).is_empty());
        }

        #[test]
        fn only_tracks_that_differ_are_named(current in any_plan(), wanted in any_plan()) {
            for change in diff(&current, &wanted) {
                prop_assert_ne!(current.get(change.mid()), wanted.get(change.mid()));
            }
        }

        #[test]
        fn a_segment_is_touched_only_where_another_stream_is_to_be_written(current in any_plan(), wanted in any_plan()) {
            let run = |plan: &Plan, mid: &Mid| plan.get(mid).and_then(|track| track.run);
            for change in diff(&current, &wanted) {
                let (now, then) = (run(&current, change.mid()), run(&wanted, change.mid()));
                match change {
                    Change::Start { run, .. } => prop_assert_eq!((now, then), (None, Some(run))),
                    Change::Replace { run, .. } => {
                        prop_assert!(now.is_some() && now != then);
                        prop_assert_eq!(then, Some(run));
                    }
                    Change::Stop { .. } => prop_assert!(now.is_some() && then.is_none()),
                    Change::Update { .. } => prop_assert_eq!(now, then),
                    Change::Add { mid } => prop_assert!(!current.contains_key(&mid)),
                    Change::Remove { mid } => prop_assert!(!wanted.contains_key(&mid)),
                }
            }
        }
    }
}
