//! Codec initialisation data made from the media itself, for Opus, VP9 and AV1. Input may be anything.

use super::bits::BitReader;

/// `OpusHead` (RFC 7845 §5.1). Pre-skip is 0: what the sender's encoder put first is shown, and file time is
/// the sender's clock. `sample_rate` is that of the original input, Hz, for information only.
pub fn opus_head(channels: u8, sample_rate: u32) -> Vec<u8> {
    let mut head = b"OpusHead\x01".to_vec();
    // Mapping family 0 knows mono and stereo; RTP carries nothing else (RFC 7587 §3.3).
    head.push(channels.clamp(1, 2));
    head.extend_from_slice(&0_u16.to_le_bytes());
    head.extend_from_slice(&sample_rate.to_le_bytes());
    head.extend_from_slice(&0_i16.to_le_bytes());
    head.push(0);
    head
}

/// `CodecPrivate` of VP9 (WebM project, "VP9 CodecPrivate"): profile, bit depth, chroma, from a key frame.
/// `None` if it is not one. The level is left out, since no frame states it.
pub fn vp9_codec_private(key_frame: &[u8]) -> Option<Vec<u8>> {
    let mut bits = BitReader::new(key_frame);
    if bits.take(2)? != 2 {
        return None;
    }
    let profile = bits.take(1)? | bits.take(1)? << 1;
    if profile == 3 && bits.flag()? {
        return None;
    }
    let (shows_existing, inter) = (bits.flag()?, bits.flag()?);
    bits.skip(2)?;
    if shows_existing || inter || bits.take(24)? != 0x49_8342 {
        return None;
    }
    let depth = match profile >= 2 {
        true if bits.flag()? => 12,
        true => 10,
        false => 8,
    };
    const RGB: u32 = 7;
    let chroma = if bits.take(3)? == RGB {
        Some(3)
    } else {
        bits.skip(1)?;
        match profile {
            1 | 3 => match (bits.flag()?, bits.flag()?) {
                (true, true) => Some(1),
                (true, false) => Some(2),
                (false, false) => Some(3),
                (false, true) => None,
            },
            _ => Some(1),
        }
    };
    let mut private = vec![1, 1, profile as u8, 3, 1, depth];
    if let Some(chroma) = chroma {
        private.extend_from_slice(&[4, 1, chroma]);
    }
    Some(private)
}

/// OBU types (AV1 §6.2.2).
const OBU_SEQUENCE_HEADER: u8 = 1;
/// OBUs looked at until a sequence header is found.
const MOST_OBUS: usize = 64;
/// Longest sequence header that is believed.
const LONGEST_SEQUENCE_HEADER: usize = 1024;

/// `av1C` ("Carriage of AV1 in Matroska"): made from the sequence header in `obus`, which is that OBU alone,
/// with or without a size field, or a temporal unit whose OBUs have sizes. `None` if there is none that can
/// be read.
pub fn av1c(obus: &[u8]) -> Option<Vec<u8>> {
    let header = sequence_header(obus)?;
    let config = Av1Config::parse(header)?;
    let mut record = vec![
        0x81,
        config.profile << 5 | config.level,
        u8::from(config.tier) << 7
            | u8::from(config.high_bitdepth) << 6
            | u8::from(config.twelve_bit) << 5
            | u8::from(config.monochrome) << 4
            | u8::from(config.subsampling_x) << 3
            | u8::from(config.subsampling_y) << 2
            | config.chroma_sample_position,
        0,
    ];
    record.push(OBU_SEQUENCE_HEADER << 3 | 0x02);
    let mut length = header.len();
    while length >= 0x80 {
        record.push(length as u8 | 0x80);
        length >>= 7;
    }
    record.push(length as u8);
    record.extend_from_slice(header);
    Some(record)
}

/// Payload of the first sequence header.
fn sequence_header(mut obus: &[u8]) -> Option<&[u8]> {
    for _ in 0..MOST_OBUS {
        let (&head, mut rest) = obus.split_first()?;
        if head & 0x80 != 0 {
            return None;
        }
        if head & 0x04 != 0 {
            rest = rest.get(1..)?;
        }
        let payload = if head & 0x02 != 0 {
            let (size, length) = leb128(rest)?;
            rest.get(length..)?.get(..size)?
        } else {
            rest
        };
        if head >> 3 & 0x0F == OBU_SEQUENCE_HEADER {
            return (payload.len() <= LONGEST_SEQUENCE_HEADER).then_some(payload);
        }
        if head & 0x02 == 0 {
            return None;
        }
        let (size, length) = leb128(rest)?;
        obus = rest.get(length.checked_add(size)?..)?;
    }
    None
}

fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, index + 1));
        }
    }
    None
}

/// What `av1C` repeats of a sequence header (AV1 §5.5).
struct Av1Config {
    profile: u8,
    level: u8,
    tier: bool,
    high_bitdepth: bool,
    twelve_bit: bool,
    monochrome: bool,
    subsampling_x: bool,
    subsampling_y: bool,
    chroma_sample_position: u8,
}

impl Av1Config {
    fn parse(header: &[u8]) -> Option<Self> {
        let mut bits = BitReader::new(header);
        let profile = bits.take(3)?;
        bits.skip(1)?;
        let reduced = bits.flag()?;
        let (level, tier) =
            if reduced { (bits.take(5)?, false) } else { Self::first_operating_point(&mut bits)? };
        let (width_bits, height_bits) = (bits.take(4)? + 1, bits.take(4)? + 1);
        bits.skip((width_bits + height_bits) as usize)?;
        if !reduced && bits.flag()? {
            bits.skip(7)?;
        }
        bits.skip(3)?;
        if !reduced {
            Self::skip_tools(&mut bits)?;
        }
        bits.skip(3)?;
        Self::colour(&mut bits, profile as u8, level as u8, tier)
    }

    fn first_operating_point(bits: &mut BitReader<'_>) -> Option<(u32, bool)> {
        let mut delay_bits = None;
        if bits.flag()? {
            bits.skip(64)?;
            if bits.flag()? {
                bits.golomb()?;
            }
            if bits.flag()? {
                delay_bits = Some(bits.take(5)? + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let has_display_delay = bits.flag()?;
        let points = bits.take(5)? + 1;
        let mut first = None;
        for _ in 0..points {
            bits.skip(12)?;
            let level = bits.take(5)?;
            let tier = level > 7 && bits.flag()?;
            if let Some(delay_bits) = delay_bits
                && bits.flag()?
            {
                bits.skip(2 * delay_bits as usize + 1)?;
            }
            if has_display_delay && bits.flag()? {
                bits.skip(4)?;
            }
            first.get_or_insert((level, tier));
        }
        first
    }

    fn skip_tools(bits: &mut BitReader<'_>) -> Option<()> {
        bits.skip(4)?;
        let order_hint = bits.flag()?;
        if order_hint {
            bits.skip(2)?;
        }
        let screen_content = bits.flag()? || bits.flag()?;
        if screen_content && !bits.flag()? {
            bits.skip(1)?;
        }
        if order_hint {
            bits.skip(3)?;
        }
        Some(())
    }

    fn colour(bits: &mut BitReader<'_>, profile: u8, level: u8, tier: bool) -> Option<Self> {
        let high_bitdepth = bits.flag()?;
        let twelve_bit = profile == 2 && high_bitdepth && bits.flag()?;
        let monochrome = profile != 1 && bits.flag()?;
        let described = if bits.flag()? { Some((bits.take(8)?, bits.take(8)?, bits.take(8)?)) } else { None };
        // BT.709 primaries, sRGB transfer, identity matrix: RGB without a range bit.
        let srgb = described == Some((1, 13, 0));
        let (subsampling_x, subsampling_y) = if monochrome {
            bits.skip(1)?;
            (true, true)
        } else if srgb {
            (false, false)
        } else {
            bits.skip(1)?;
            match profile {
                0 => (true, true),
                1 => (false, false),
                _ if twelve_bit => {
                    let x = bits.flag()?;
                    (x, x && bits.flag()?)
                }
                _ => (true, false),
            }
        };
        let positioned = !monochrome && subsampling_x && subsampling_y;
        let chroma_sample_position = if positioned { bits.take(2)? as u8 } else { 0 };
        Some(Self {
            profile,
            level,
            tier,
            high_bitdepth,
            twelve_bit,
            monochrome,
            subsampling_x,
            subsampling_y,
            chroma_sample_position,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_opus_head_has_no_pre_skip() {
        assert_eq!(opus_head(2, 48_000), b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0");
        assert_eq!(opus_head(0, 48_000)[9], 1);
        assert_eq!(opus_head(255, 48_000)[9], 2);
    }

    #[test]
    fn a_vp9_inter_frame_gives_no_codec_private() {
        // Frame marker 2, profile 0, not existing, key frame, shown, sync code, 8 bit, colour space 2.
        let key = [0x82, 0x49, 0x83, 0x42, 0x40, 0, 0];
        assert_eq!(vp9_codec_private(&key), Some(vec![1, 1, 0, 3, 1, 8, 4, 1, 1]));
        assert_eq!(vp9_codec_private(&[0x86, 0x49, 0x83, 0x42, 0x40]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = vp9_codec_private(&bytes);
            let _ = av1c(&bytes);
            let mut obu = vec![0x08];
            obu.extend(bytes);
            let _ = av1c(&obu);
        }
    }
}
