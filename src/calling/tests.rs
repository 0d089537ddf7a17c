//! Callers and receivers against each other on loopback.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use recorder_core::media::MediaKind;
use rtc::rtp;
use tokio::sync::mpsc;

use super::load::crc32;
use super::media::{PICTURE, key_frame_size, opus_samples, vp8_picture_data};
use super::peer::{OPUS_PAYLOAD_TYPE, VP8_PAYLOAD_TYPE};
use super::receiver::ReceivedTotal;
use super::{CallerSettings, CallingError, ReceivingPeer, SyntheticCaller, VideoLoad};

const PATIENCE: Duration = Duration::from_secs(20);

/// Connects a caller to a receiver, candidates trickled in both directions.
async fn connect(settings: CallerSettings) -> (SyntheticCaller, ReceivingPeer, mpsc::Receiver<rtp::Packet>) {
    let (packets, arrived) = mpsc::channel(10_000);
    let (mut caller, offer) = SyntheticCaller::start(settings).await.unwrap();
    let total = Arc::new(ReceivedTotal::default());
    let address = "127.0.0.1:0".to_owned();
    let (mut receiver, answer) = ReceivingPeer::answer(offer, address, total, Some(packets)).await.unwrap();
    let (mut ours, mut theirs) = (caller.take_candidates(), receiver.take_candidates());
    // The receiver's candidate before its answer: the caller must keep it.
    caller.add_candidate(theirs.recv().await.unwrap()).await.unwrap();
    receiver.add_candidate(ours.recv().await.unwrap()).await.unwrap();
    caller.accept_answer(answer).await.unwrap();
    caller.connected(PATIENCE).await.unwrap();
    receiver.connected(PATIENCE).await.unwrap();
    (caller, receiver, arrived)
}

/// Takes packets until all that were sent have come.
async fn collect(arrived: &mut mpsc::Receiver<rtp::Packet>, count: u64) -> Vec<rtp::Packet> {
    let mut packets = Vec::new();
    while (packets.len() as u64) < count {
        packets.push(tokio::time::timeout(PATIENCE, arrived.recv()).await.unwrap().unwrap());
    }
    packets
}

#[tokio::test]
async fn every_frame_sent_arrives_as_it_was() {
    let video = Some(VideoLoad::packets_per_second(90));
    let settings = CallerSettings { video, log_frames: true, ..CallerSettings::default() };
    let (mut caller, receiver, mut arrived) = connect(settings).await;
    let sent = caller.run(Duration::from_secs(1)).await.unwrap();
    let packets = collect(&mut arrived, sent.iter().map(|stream| stream.packets).sum()).await;

    let of = |payload_type| packets.iter().filter(move |packet| packet.header.payload_type == payload_type);
    let audio = of(OPUS_PAYLOAD_TYPE).collect::<Vec<_>>();
    assert_eq!(audio.len(), 50);
    assert!(audio.iter().all(|packet| opus_samples(&packet.payload) == Some(960)));

    let mut frames = BTreeMap::<u32, BTreeMap<u16, &[u8]>>::new();
    let first = sent[1].log[0].timestamp;
    for packet in of(VP8_PAYLOAD_TYPE) {
        let frame = frames.entry(packet.header.timestamp.wrapping_sub(first)).or_default();
        let sequence = packet.header.sequence_number.wrapping_sub(packets[0].header.sequence_number);
        frame.insert(sequence, vp8_picture_data(&packet.payload).unwrap());
    }
    assert_eq!(sent[1].kind, MediaKind::Video);
    assert_eq!(frames.len(), sent[1].log.len());
    for (payloads, record) in frames.into_values().zip(&sent[1].log) {
        let frame = payloads.into_values().collect::<Vec<_>>().concat();
        assert_eq!((frame.len(), crc32(&frame)), (record.bytes, record.crc32));
        assert_eq!(key_frame_size(&frame), record.key_frame.then_some(PICTURE));
    }
    caller.hang_up().await.unwrap();
    receiver.close().await.unwrap();
}

#[tokio::test]
async fn a_caller_of_audio_alone_sends_audio_alone() {
    let settings = CallerSettings { video: None, ..CallerSettings::default() };
    let (mut caller, receiver, mut arrived) = connect(settings).await;
    let sent = caller.run(Duration::from_millis(200)).await.unwrap();
    assert_eq!(sent.len(), 1);
    let packets = collect(&mut arrived, sent[0].packets).await;
    assert!(packets.iter().all(|packet| packet.header.ssrc == sent[0].ssrc));
    caller.hang_up().await.unwrap();
    receiver.close().await.unwrap();
}

#[tokio::test]
async fn a_key_frame_request_is_answered_by_a_key_frame() {
    let settings = CallerSettings { audio: false, log_frames: true, ..CallerSettings::default() };
    let (mut caller, receiver, mut arrived) = connect(settings).await;
    caller.run(Duration::from_millis(300)).await.unwrap();
    collect(&mut arrived, 1).await;
    receiver.request_key_frames().await.unwrap();
    let mut sent = caller.sent();
    for _ in 0..50 {
        sent = caller.run(Duration::from_millis(100)).await.unwrap();
        if sent[0].key_frames > 1 {
            break;
        }
    }
    assert_eq!(sent[0].key_frame_requests, 1);
    assert_eq!(sent[0].key_frames, 2);
    caller.hang_up().await.unwrap();
    receiver.close().await.unwrap();
}

#[tokio::test]
async fn a_caller_with_nothing_to_send_is_refused() {
    let settings = CallerSettings { audio: false, video: None, ..CallerSettings::default() };
    assert!(matches!(SyntheticCaller::start(settings).await, Err(CallingError::NothingToSend)));
}

#[tokio::test]
async fn an_answer_that_is_no_sdp_is_an_error() {
    let (caller, _offer) = SyntheticCaller::start(CallerSettings::default()).await.unwrap();
    let error = caller.accept_answer("v=9\r\nnonsense".to_owned()).await.unwrap_err();
    assert!(matches!(error, CallingError::Refused { .. }));
    caller.hang_up().await.unwrap();
}
