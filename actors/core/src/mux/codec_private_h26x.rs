//! Codec initialisation data of H.264 and H.265, made from parameter sets. Input may be anything.

use super::bits::{BitReader, unescape};

/// Longest parameter set that is written.
const LONGEST: usize = 4096;
/// Bytes of a sequence parameter set that hold what is read here.
const READ: usize = 512;

/// `avcC` (ISO/IEC 14496-15 §5.3.3.1) with four-byte lengths, from NAL units without start codes. `None` if
/// there is no sequence parameter set or no picture parameter set, too many, or one that cannot be read.
pub fn avcc(sps: &[&[u8]], pps: &[&[u8]]) -> Option<Vec<u8>> {
    let first = *sps.first()?;
    if pps.is_empty() || sps.len() > 31 || pps.len() > 255 || !all_fit(sps, 1) || !all_fit(pps, 1) {
        return None;
    }
    let (profile, compatibility, level) = (*first.get(1)?, *first.get(2)?, *first.get(3)?);
    let mut record = vec![1, profile, compatibility, level, 0xFC | 3, 0xE0 | sps.len() as u8];
    put_all(&mut record, sps);
    record.push(pps.len() as u8);
    put_all(&mut record, pps);
    if matches!(profile, 100 | 110 | 122 | 144) {
        let (chroma, luma_depth, chroma_depth) = avc_formats(first)?;
        record.extend_from_slice(&[0xFC | chroma, 0xF8 | luma_depth, 0xF8 | chroma_depth, 0]);
    }
    Some(record)
}

/// Chroma format and bit depths less 8, of a high profile (H.264 §7.3.2.1.1).
fn avc_formats(sps: &[u8]) -> Option<(u8, u8, u8)> {
    let plain = unescape(sps, READ);
    let mut bits = BitReader::new(plain.get(4..)?);
    bits.golomb()?;
    let chroma = bits.golomb()?;
    if chroma == 3 {
        bits.skip(1)?;
    }
    formats(chroma, &mut bits)
}

fn formats(chroma: u32, bits: &mut BitReader<'_>) -> Option<(u8, u8, u8)> {
    let (luma_depth, chroma_depth) = (bits.golomb()?, bits.golomb()?);
    let possible = chroma <= 3 && luma_depth <= 7 && chroma_depth <= 7;
    possible.then_some((chroma as u8, luma_depth as u8, chroma_depth as u8))
}

/// `hvcC` (ISO/IEC 14496-15 §8.3.3.1) with four-byte lengths, from NAL units without start codes. `None` as
/// for [`avcc`].
pub fn hvcc(vps: &[&[u8]], sps: &[&[u8]], pps: &[&[u8]]) -> Option<Vec<u8>> {
    let first = *sps.first()?;
    if vps.is_empty() || pps.is_empty() {
        return None;
    }
    for sets in [vps, sps, pps] {
        if sets.len() > 64 || !all_fit(sets, 2) {
            return None;
        }
    }
    let plain = unescape(first, READ);
    // Two bytes of NAL header, one of ids, then general profile, tier and level.
    let general = plain.get(3..15)?;
    let ids = *plain.get(2)?;
    let sub_layers = ids >> 1 & 0x07;
    let nested = ids & 1;
    let mut bits = BitReader::new(plain.get(15..)?);
    let (chroma, luma_depth, chroma_depth) = hevc_formats(&mut bits, u32::from(sub_layers))?;

    let mut record = vec![1];
    record.extend_from_slice(general);
    record.extend_from_slice(&[0xF0, 0, 0xFC, 0xFC | chroma, 0xF8 | luma_depth, 0xF8 | chroma_depth, 0, 0]);
    record.push((sub_layers + 1) << 3 | nested << 2 | 3);
    record.push(3);
    for (kind, sets) in [(32, vps), (33, sps), (34, pps)] {
        record.push(0x80 | kind);
        record.extend_from_slice(&(sets.len() as u16).to_be_bytes());
        put_all(&mut record, sets);
    }
    Some(record)
}

/// Reads on from the end of the general profile, tier and level (H.265 §7.3.2.2.1, §7.3.3).
fn hevc_formats(bits: &mut BitReader<'_>, sub_layers: u32) -> Option<(u8, u8, u8)> {
    let mut present = [(false, false); 8];
    for layer in present.iter_mut().take(sub_layers as usize) {
        *layer = (bits.flag()?, bits.flag()?);
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers as usize))?;
    }
    for (profile, level) in present {
        bits.skip(usize::from(profile) * 88 + usize::from(level) * 8)?;
    }
    bits.golomb()?;
    let chroma = bits.golomb()?;
    if chroma == 3 {
        bits.skip(1)?;
    }
    bits.golomb()?;
    bits.golomb()?;
    if bits.flag()? {
        for _ in 0..4 {
            bits.golomb()?;
        }
    }
    formats(chroma, bits)
}

fn all_fit(sets: &[&[u8]], least: usize) -> bool {
    sets.iter().all(|set| (least + 1..=LONGEST).contains(&set.len()))
}

fn put_all(record: &mut Vec<u8>, sets: &[&[u8]]) {
    for set in sets {
        record.extend_from_slice(&(set.len() as u16).to_be_bytes());
        record.extend_from_slice(set);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_baseline_record_repeats_profile_and_sets() {
        let (sps, pps) = ([0x67, 0x42, 0xC0, 0x1F, 0x8C], [0x68, 0xCE]);
        let record = avcc(&[&sps], &[&pps]).unwrap();
        assert_eq!(
            record,
            [1, 0x42, 0xC0, 0x1F, 0xFF, 0xE1, 0, 5, 0x67, 0x42, 0xC0, 0x1F, 0x8C, 1, 0, 2, 0x68, 0xCE]
        );
        assert_eq!(avcc(&[&sps], &[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(
            sets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 3),
        ) {
            let [a, b, c] = [&sets[0][..], &sets[1][..], &sets[2][..]];
            let _ = avcc(&[a], &[b]);
            let _ = hvcc(&[a], &[b], &[c]);
            let mut high = vec![0x67, 100, 0, 31];
            high.extend_from_slice(a);
            let _ = avcc(&[&high], &[b, c]);
        }
    }
}
