//! Pre-encoded media: one second of Opus and three seconds of VP8, read once from the clips in `media/`.
//!
//! `camera.ivf` is `ffmpeg -f lavfi -i testsrc=size=320x180:rate=30 -t 3 -c:v libvpx -b:v 150k -g 9999
//! -auto-alt-ref 0 -error-resilient 1`, `microphone.ogg` is one second of a 440 Hz tone in stereo at 32
//! kbit/s in packets of 20 ms.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::CallingError;

static CAMERA: &[u8] = include_bytes!("media/camera.ivf");
static MICROPHONE: &[u8] = include_bytes!("media/microphone.ogg");

/// Width and height of the clip's pictures.
pub const PICTURE: (u16, u16) = (320, 180);

/// Encoded frames of both clips; the first VP8 frame is the only key frame.
#[derive(Debug)]
pub struct Clips {
    /// Opus packets of 20 ms each (RFC 6716).
    pub opus: Vec<Bytes>,
    /// VP8 frames (RFC 6386) of 1/30 s each.
    pub vp8: Vec<Bytes>,
}

impl Clips {
    /// The embedded clips, parsed once per process.
    pub fn embedded() -> Result<Arc<Self>, CallingError> {
        static PARSED: OnceLock<Arc<Clips>> = OnceLock::new();
        if let Some(clips) = PARSED.get() {
            return Ok(clips.clone());
        }
        let vp8 = ivf_frames(CAMERA)
            .ok_or(CallingError::BadClip { name: "camera.ivf", reason: "not an IVF file" })?;
        let opus = ogg_packets(MICROPHONE)
            .ok_or(CallingError::BadClip { name: "microphone.ogg", reason: "not an Ogg file" })?
            .into_iter()
            // RFC 7845 §3: the first two packets are the identification and comment headers.
            .skip(2)
            .collect::<Vec<_>>();
        if !vp8.first().is_some_and(|frame| is_key_frame(frame)) {
            return Err(CallingError::BadClip {
                name: "camera.ivf",
                reason: "it does not begin with a key frame",
            });
        }
        if opus.is_empty() {
            return Err(CallingError::BadClip { name: "microphone.ogg", reason: "it holds no audio" });
        }
        Ok(PARSED.get_or_init(|| Arc::new(Self { opus, vp8 })).clone())
    }
}

/// RFC 6386 §9.1: the lowest bit of a frame's first byte is 0 for a key frame.
pub fn is_key_frame(frame: &[u8]) -> bool {
    frame.first().is_some_and(|byte| byte & 1 == 0)
}

/// Width and height from a VP8 key frame's header (RFC 6386 §9.1), `None` for anything else.
pub fn key_frame_size(frame: &[u8]) -> Option<(u16, u16)> {
    let header =
        frame.get(..10).filter(|header| is_key_frame(header) && header[3..6] == [0x9d, 0x01, 0x2a])?;
    let width = u16::from_le_bytes([header[6], header[7]]) & 0x3fff;
    let height = u16::from_le_bytes([header[8], header[9]]) & 0x3fff;
    Some((width, height))
}

/// Length of an Opus packet in samples at 48 kHz (RFC 6716 §3.1 and §3.2), `None` if it is cut off.
pub fn opus_samples(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    let config = toc >> 3;
    let frame = match config {
        // SILK: 10, 20, 40, 60 ms.
        0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        // Hybrid: 10, 20 ms.
        12..=15 => [480, 960][usize::from(config & 1)],
        // CELT: 2.5, 5, 10, 20 ms.
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    match toc & 3 {
        0 => Some(frame),
        1 | 2 => Some(frame * 2),
        _ => packet.get(1).map(|count| frame * u32::from(count & 0x3f)),
    }
}

/// One VP8 frame as RTP payloads (RFC 7741 §4.2) of at most `payload_bytes` of picture data each, with a
/// 15-bit picture id.
pub fn vp8_payloads(frame: &[u8], payload_bytes: usize, picture_id: u16) -> impl Iterator<Item = Bytes> + '_ {
    frame.chunks(payload_bytes.max(1)).enumerate().map(move |(n, chunk)| {
        let mut payload = Vec::with_capacity(VP8_DESCRIPTOR + chunk.len());
        // X (extended control bits), S (start of partition) on the first packet only; then I (picture id
        // present).
        payload.push(if n == 0 { 0x90 } else { 0x80 });
        payload.push(0x80);
        payload.extend_from_slice(&(0x8000 | (picture_id & 0x7fff)).to_be_bytes());
        payload.extend_from_slice(chunk);
        Bytes::from(payload)
    })
}

/// Bytes of payload descriptor that [`vp8_payloads`] puts before the picture data.
pub const VP8_DESCRIPTOR: usize = 4;

/// Picture data of one such payload.
pub fn vp8_picture_data(payload: &[u8]) -> Option<&[u8]> {
    payload.get(VP8_DESCRIPTOR..)
}

/// Frames of an IVF file: a header whose length stands at byte 6, then size (u32), timestamp (u64), frame.
fn ivf_frames(file: &'static [u8]) -> Option<Vec<Bytes>> {
    if file.get(..4)? != b"DKIF" {
        return None;
    }
    let mut rest = file.get(usize::from(u16::from_le_bytes(file.get(6..8)?.try_into().ok()?))..)?;
    let mut frames = Vec::new();
    while let Some((header, after)) = rest.split_at_checked(12) {
        let size = u32::from_le_bytes(header.get(..4)?.try_into().ok()?) as usize;
        let (frame, next) = after.split_at_checked(size)?;
        frames.push(Bytes::from_static(frame));
        rest = next;
    }
    Some(frames)
}

/// Packets of a one-stream Ogg file (RFC 3533 §6).
fn ogg_packets(file: &[u8]) -> Option<Vec<Bytes>> {
    let mut packets = Vec::new();
    let mut open = Vec::new();
    let mut rest = file;
    while !rest.is_empty() {
        if rest.get(..4)? != b"OggS" {
            return None;
        }
        let lacing = rest.get(27..27 + usize::from(*rest.get(26)?))?;
        let mut body = rest.get(27 + lacing.len()..)?;
        for &length in lacing {
            let (segment, next) = body.split_at_checked(usize::from(length))?;
            open.extend_from_slice(segment);
            body = next;
            if length < 255 {
                packets.push(Bytes::from(std::mem::take(&mut open)));
            }
        }
        rest = body;
    }
    Some(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_opus_packets_are_twenty_milliseconds_each() {
        let clips = Clips::embedded().unwrap();
        assert!(clips.opus.len() >= 50);
        for packet in &clips.opus {
            assert_eq!(opus_samples(packet), Some(960));
        }
    }

    #[test]
    fn the_embedded_video_has_one_key_frame_and_it_comes_first() {
        let clips = Clips::embedded().unwrap();
        assert_eq!(clips.vp8.len(), 90);
        assert_eq!(key_frame_size(&clips.vp8[0]), Some(PICTURE));
        assert!(clips.vp8[1..].iter().all(|frame| !is_key_frame(frame)));
    }

    #[test]
    fn a_frame_cut_into_payloads_comes_together_again() {
        let frame = Clips::embedded().unwrap().vp8[0].clone();
        let payloads = vp8_payloads(&frame, 1000, 70).collect::<Vec<_>>();
        assert_eq!(payloads.len(), frame.len().div_ceil(1000));
        let joined = payloads.iter().flat_map(|p| vp8_picture_data(p).unwrap().to_vec()).collect::<Vec<_>>();
        assert_eq!(joined, frame);
        assert_eq!(payloads[0][0] & 0x10, 0x10);
        assert!(payloads[1..].iter().all(|p| p[0] & 0x10 == 0));
    }

    #[test]
    fn a_cut_off_clip_is_refused() {
        assert!(ogg_packets(&MICROPHONE[..MICROPHONE.len() - 1]).is_none());
        assert!(ivf_frames(&CAMERA[..CAMERA.len() - 1]).is_none());
        assert!(ivf_frames(b"RIFF").is_none());
    }
}
