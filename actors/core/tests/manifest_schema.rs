//! The published schema says yes to every manifest of ours and no to broken ones.

mod manifest_support;

use jsonschema::Validator;
use manifest_support::{applied, ended, event, opened, session};
use proptest::prelude::*;
use recorder_core::ids::TrackId;
use recorder_core::manifest::{
    ClockPoint, OpenedBecause, Record, Seconds, SegmentOpened, SegmentProgress, media_file_name,
};
use recorder_core::media::{Codec, MediaKind, Source};
use serde_json::{Value, json};

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../docs/session.schema.json")).expect("JSON")
}

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema()).expect("a schema")
}

#[test]
fn the_schema_is_one_of_draft_2020_12() {
    assert!(jsonschema::draft202012::meta::is_valid(&schema()));
}

#[test]
fn every_manifest_is_valid() {
    let validator = validator();
    proptest!(ProptestConfig::with_cases(32), |(records in session())| {
        let manifest = serde_json::to_value(applied(&records)).expect("JSON");
        let errors = validator.iter_errors(&manifest);
        let errors: Vec<_> = errors.map(|error| format!("{} {error}", error.instance_path())).collect();
        prop_assert!(errors.is_empty(), "{:#?}", errors);
    });
}

/// A manifest in which every kind of object occurs.
fn rich() -> Value {
    let track = TrackId::from("p1-camera-1");
    let file = media_file_name("ada-p1", Source::Camera, 1, Codec::Vp8);
    let point = ClockPoint { session_s: Seconds::new(2.0), ..Default::default() };
    let records = [
        Record::SessionOpened(opened()),
        Record::ParticipantAdded {
            participant: "p1".into(),
            user_id: None,
            device_id: None,
            party_id: None,
            display_name: Some("Ada".to_owned()),
        },
        Record::PresenceBegan { participant: "p1".into(), at_s: Seconds::new(1.0) },
        Record::TrackAdded {
            participant: "p1".into(),
            track: track.clone(),
            source: Source::Camera.into(),
            kind: MediaKind::Video.into(),
        },
        Record::SegmentOpened(SegmentOpened {
            track,
            file: file.clone(),
            codec: Codec::Vp8.into(),
            start_s: Seconds::new(2.0),
            opened_because: OpenedBecause::First.into(),
            clock_uncertain_s: None,
            video: None,
            audio: None,
        }),
        Record::SegmentProgress(SegmentProgress {
            file: file.clone(),
            clock_map: Some(vec![point]),
            ..Default::default()
        }),
        Record::Event(event(Seconds::new(3.0), None)),
    ];
    let mut manifest = applied(&records);
    let segment = Box::new(manifest.segment(&file).expect("it was opened").clone());
    manifest.apply(&Record::SegmentClosed { file, segment }).expect("it is open");
    manifest.apply(&ended(Seconds::new(9.0))).expect("it is open");
    serde_json::to_value(manifest).expect("JSON")
}

#[test]
fn broken_manifests_are_refused() {
    let validator = validator();
    let good = rich();
    assert!(validator.is_valid(&good));
    let segment = "/participants/0/tracks/0/segments/0";
    let broken = [
        ("/schema", json!("matrix-call-recorder/session/2")),
        ("/session_id", json!("")),
        ("/epoch", json!("2026-11-22T15:04:05Z")),
        ("/state", json!("recording")),
        ("/ended_s", json!(null)),
        ("/ended_s", json!(-0.1)),
        ("/end_reason", json!(7)),
        ("/call_kind", json!("One To One")),
        ("/room/encrypted", json!("yes")),
        ("/participants/0/id", json!("ada")),
        ("/participants/0/presence/0/joined_s", json!(null)),
        ("/events/0/at_s", json!("now")),
        ("/events/0/detail", json!([])),
        ("/integrity/verified", json!("yes")),
        (&format!("{segment}/file"), json!("../escape_camera_0001.webm")),
        (&format!("{segment}/file"), json!("ada-p1_camera_1.webm")),
        (&format!("{segment}/start_s"), json!(-1)),
        (&format!("{segment}/sha256"), json!("abc")),
        (&format!("{segment}/clock_map"), json!([])),
        (&format!("{segment}/ledger/lost"), json!(-1)),
        (&format!("{segment}/ledger/received"), json!(1.5)),
        (&format!("{segment}/final"), json!(null)),
    ];
    for (pointer, value) in broken {
        let mut manifest = good.clone();
        *manifest.pointer_mut(pointer).expect(pointer) = value.clone();
        assert!(!validator.is_valid(&manifest), "{pointer} = {value} is taken for right");
    }
}

#[test]
fn a_manifest_lacking_a_field_is_refused() {
    let validator = validator();
    let good = rich();
    for (parent, field) in [
        ("", "epoch"),
        ("", "participants"),
        ("", "continues"),
        ("/participants/0", "user_id"),
        ("/participants/0/tracks/0", "segments"),
        ("/participants/0/tracks/0/segments/0", "ledger"),
        ("/participants/0/tracks/0/segments/0/ledger", "dropped_by_us"),
        ("/participants/0/tracks/0/segments/0/clock", "drift_ppm"),
    ] {
        let mut manifest = good.clone();
        let object = manifest.pointer_mut(parent).and_then(Value::as_object_mut).expect(parent);
        assert!(object.remove(field).is_some(), "{parent}/{field}");
        assert!(!validator.is_valid(&manifest), "{parent} without {field} is taken for right");
    }
}

#[test]
fn what_a_newer_version_adds_is_valid() {
    let validator = validator();
    let mut manifest = rich();
    manifest["mood"] = json!("good");
    manifest["end_reason"] = json!("hologram_failed");
    manifest["participants"][0]["tracks"][0]["segments"][0]["codec"] = json!("vvc");
    assert!(validator.is_valid(&manifest));
}
