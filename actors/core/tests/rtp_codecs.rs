//! What the payload formats say, case by case.

mod rtp_support;

use recorder_core::rtp::{Malformed, av1, h264, h265, nal, opus, vp8, vp9};

type Payloads<'a> = &'a [&'a [u8]];

fn h264_error(payloads: Payloads<'_>) -> Option<Malformed> {
    h264::frame(payloads.iter().copied(), &mut h264::Memory::default()).err()
}

#[test]
fn opus_durations_are_those_of_the_table_of_contents() {
    for (packet, samples, channels) in [
        (&[0xfc, 1, 2][..], Some(960), 2),
        (&[0x00], Some(480), 1),
        (&[0x18], Some(2880), 1),
        (&[0x80], Some(120), 1),
        (&[0x79, 1], Some(1920), 1),
        (&[0xfb, 0x03], Some(2880), 1),
        (&[0x1b, 0x03], None, 1),
        (&[0xfb, 0x00], None, 1),
        (&[0xfb], None, 1),
    ] {
        assert_eq!((opus::duration(packet), opus::channels(packet)), (samples, Some(channels)), "{packet:?}");
    }
    assert!(opus::is_dtx(&[0xf8]) && !opus::is_dtx(&[0xf8, 1, 2]));
}

#[test]
fn stale_and_broken_h264_fragments_are_refused() {
    let cases: [(Payloads<'_>, Malformed); 7] = [
        (&[&[0x7c, 0x05, 1]], Malformed::Fragment),
        (&[&[0x7c, 0x85, 0x88], &[0x7c, 0x85, 0x88]], Malformed::Fragment),
        (&[&[0x7c, 0x85, 0x88], &[0x61, 0x88]], Malformed::Fragment),
        (&[&[0x7c, 0x85, 0x88]], Malformed::NotAtEnd),
        (&[&[0x78, 0xff, 0xff, 1]], Malformed::CutOff),
        (&[&[0x79, 0, 1, 1]], Malformed::Unsupported),
        (&[&[0x61, 0x18]], Malformed::NotAtStart),
    ];
    for (payloads, error) in cases {
        assert_eq!(h264_error(payloads), Some(error), "{payloads:?}");
    }
}

#[test]
fn delimiters_sei_and_filler_stay_in_an_h264_frame() {
    let payloads: Payloads<'_> = &[&[0x09, 0xf0], &[0x06, 5, 1, 0x80], &[0x61, 0x88, 1], &[0x0c, 0xff, 0x80]];
    let frame = h264::frame(payloads.iter().copied(), &mut h264::Memory::default()).map(|frame| frame.data);
    let units: Vec<Vec<u8>> = payloads.iter().map(|unit| unit.to_vec()).collect();
    assert_eq!(frame, Ok(rtp_support::avcc(&units)));
}

#[test]
fn picture_sizes_are_those_after_cropping() {
    assert_eq!(h264::sps_size(&rtp_support::SPS), Some((640, 480)));
    assert_eq!(h265::sps_size(&rtp_support::H265_SPS), Some((640, 480)));
    // 1920 × 1080: 1088 rows, eight cropped; High profile as x264 writes it.
    let high = [
        0x67, 0x64, 0x00, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x02, 0x27, 0xe5, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00,
        0x04, 0x00, 0x00, 0x03, 0x00, 0xf0, 0x3c, 0x60, 0xc6, 0x58,
    ];
    assert_eq!(h264::sps_size(&high), Some((1920, 1080)));
    assert_eq!(h264::sps_size(&high[..8]), None);
    assert_eq!(vp8::key_frame_size(&rtp_support::vp8_frame(1, true, 20)), Some((640, 480)));
    assert_eq!(vp9::key_frame_size(&rtp_support::vp9_frame(1, true, 20)), Some((640, 480)));
    assert_eq!(vp9::key_frame_size(&rtp_support::vp9_frame(1, false, 20)), None);
}

#[test]
fn a_vp8_fragment_of_one_byte_is_a_fragment() {
    let frame = vp8::frame([&[0x10, 0x11, 5][..], &[0x00, 7]].into_iter()).map(|frame| frame.data);
    assert_eq!(frame, Ok(vec![0x11, 5, 7]));
}

#[test]
fn a_vp9_picture_may_name_three_references() {
    let told = vp9::descriptor(&[0xdc, 5, 3, 5, 6, 0x86]);
    let references = told.and_then(|told| told.dependencies.references);
    assert_eq!(references.map(|all| all.iter().collect::<Vec<_>>()), Some(vec![1, 2, 3]));
    assert_eq!(told.map(|told| told.length), Some(5));
}

#[test]
fn spatial_layers_of_a_vp9_picture_get_a_superframe_index() {
    let (low, high) = (rtp_support::vp9_frame(1, true, 20), rtp_support::vp9_frame(2, false, 30));
    let packets = [[&[0xac, 5, 0x00, 0][..], &low].concat(), [&[0xac, 5, 0x03, 0][..], &high].concat()];
    let frame = vp9::frame(packets.iter().map(Vec::as_slice)).map(|frame| (frame.key, frame.data));
    let index = [0xd9, 20, 0, 0, 0, 30, 0, 0, 0, 0xd9];
    assert_eq!(frame, Ok((true, [&low[..], &high, &index].concat())));
}

#[test]
fn av1_units_lose_their_delimiter_and_gain_their_sizes() {
    let sequence = [&[0x08][..], &rtp_support::AV1_SEQUENCE].concat();
    let payload = [&[0x38, 2, 0x12, 0, sequence.len() as u8][..], &sequence, &[0x30, 0x10, 7]].concat();
    let frame = av1::frame([payload.as_slice()].into_iter()).map(|frame| (frame.key, frame.size, frame.data));
    let stored = [&[0x0a, 9][..], &rtp_support::AV1_SEQUENCE, &[0x32, 2, 0x10, 7]].concat();
    assert_eq!(frame, Ok((true, Some((640, 480)), stored)));
    let broken: [Payloads<'_>; 4] =
        [&[&[0x80, 1, 0x30]], &[&[0x00, 0xff, 0xff]], &[&[0x40, 1, 0x30]], &[&[0x10, 0x12, 0]]];
    for payloads in broken {
        assert!(av1::frame(payloads.iter().copied()).is_err(), "{payloads:?}");
    }
}

#[test]
fn length_prefixed_units_end_at_the_first_that_is_cut_off() {
    assert_eq!(nal::units(&[0, 0, 0, 1, 9, 0, 0, 0, 5, 1]).collect::<Vec<_>>(), [[9]]);
}
