//! Opus packets: what the table-of-contents byte says (RFC 6716 §3.1, §3.2). RTP carries them bare (RFC 7587 §4.2).

/// Samples at 48 kHz of the longest packet, 120 ms (RFC 6716 §3.2.5).
pub const MAX_DURATION: u32 = 5760;

/// Channels of the stereo bit.
pub fn channels(packet: &[u8]) -> Option<u8> {
    packet.first().map(|toc| if toc & 0x04 != 0 { 2 } else { 1 })
}

/// Samples at 48 kHz; `None` if the packet is malformed.
pub fn duration(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    let config = toc >> 3;
    let frame = match config {
        0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        12..=15 => [480, 960][usize::from(config & 1)],
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3f),
    };
    Some(frame * frames).filter(|duration| (1..=MAX_DURATION).contains(duration))
}

/// A packet that codes no sound: nothing beyond the table of contents (RFC 6716 §3.2.1; encoders send one or two
/// bytes while a pause begins).
pub fn is_dtx(packet: &[u8]) -> bool {
    packet.len() <= 2
}
