//! H.265 out of RTP (RFC 7798: single units, aggregation packets, fragmentation units; no decoding order numbers) and
//! its sequence parameter set (H.265 §7.3.2.2). Every NAL unit that was sent is kept.

use std::sync::Arc;

use crate::rtp::bits::{Bits, unescape};
use crate::rtp::depacketise::{Depacketised, Malformed, ParameterSets, plausible};
use crate::rtp::nal::{LengthPrefixed, SetStore, aggregated, units};

const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;

/// Parameter sets seen so far.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    vps: SetStore,
    sps: SetStore,
    pps: SetStore,
    shared: Option<Arc<ParameterSets>>,
    size: Option<(u32, u32)>,
}

/// Joins the packets of one access unit.
pub fn frame<'a>(
    packets: impl Iterator<Item = &'a [u8]> + Clone,
    memory: &mut Memory,
) -> Result<Depacketised, Malformed> {
    let room = packets.clone().map(|payload| payload.len() + 8).sum();
    let mut out = LengthPrefixed::with_capacity(room);
    let mut fragment_open = false;
    for payload in packets {
        let (header, rest) = payload.split_first_chunk::<2>().ok_or(Malformed::CutOff)?;
        let kind = header[0] >> 1 & 0x3f;
        if fragment_open && kind != FRAGMENTATION {
            return Err(Malformed::Fragment);
        }
        match kind {
            0..=47 => out.whole(payload)?,
            AGGREGATION => aggregated(rest, |nal| out.whole(nal))?,
            FRAGMENTATION => {
                let (&fragment, rest) = rest.split_first().ok_or(Malformed::CutOff)?;
                if fragment & 0x80 != 0 {
                    out.begin(&[header[0] & 0x81 | (fragment & 0x3f) << 1, header[1]])?;
                }
                out.append(rest)?;
                fragment_open = fragment & 0x40 == 0;
                if !fragment_open {
                    out.end()?;
                }
            }
            _ => return Err(Malformed::Unsupported),
        }
    }
    describe(out.finish()?, memory)
}

fn describe(data: Vec<u8>, memory: &mut Memory) -> Result<Depacketised, Malformed> {
    let (mut entry_point, mut slices, mut own_sets, mut changed) = (false, false, false, false);
    for nal in units(&data) {
        let &header = nal.first().ok_or(Malformed::Empty)?;
        match header >> 1 & 0x3f {
            kind @ 0..=31 => {
                // first_slice_segment_in_pic_flag is the first bit after the header.
                if !slices && nal.get(2).is_none_or(|byte| byte & 0x80 == 0) {
                    return Err(Malformed::NotAtStart);
                }
                slices = true;
                // BLA, IDR and CRA pictures (H.265 table 7-1).
                entry_point |= (16..=21).contains(&kind);
            }
            VPS => {
                own_sets = true;
                changed |= nal.get(2).is_some_and(|byte| memory.vps.put(u32::from(byte >> 4), nal));
            }
            SPS => {
                own_sets = true;
                let told = sps(nal);
                changed |= told.is_some_and(|(id, _)| memory.sps.put(id, nal));
            }
            PPS => {
                own_sets = true;
                changed |= pps_id(nal).is_some_and(|id| memory.pps.put(id, nal));
            }
            _ => {}
        }
    }
    if changed || memory.shared.is_none() {
        let complete = !memory.vps.is_empty() && !memory.sps.is_empty() && !memory.pps.is_empty();
        memory.shared = complete.then(|| {
            Arc::new(ParameterSets::H265 {
                vps: memory.vps.to_vec(),
                sps: memory.sps.to_vec(),
                pps: memory.pps.to_vec(),
            })
        });
        memory.size = memory.sps.first().and_then(sps_size);
    }
    let key = entry_point && memory.shared.is_some();
    Ok(Depacketised {
        data,
        key,
        size: memory.size.filter(|_| key),
        parameter_sets: memory.shared.clone().filter(|_| key),
        leans_on_earlier_sets: entry_point && !own_sets,
        start_is_certain: true,
        ..Default::default()
    })
}

fn pps_id(nal: &[u8]) -> Option<u32> {
    Bits::new(&unescape(nal.get(2..)?, 16)).ue()
}

/// Width and height inside the conformance window of a sequence parameter set NAL unit.
pub fn sps_size(nal: &[u8]) -> Option<(u32, u32)> {
    sps(nal)?.1
}

fn sps(nal: &[u8]) -> Option<(u32, Option<(u32, u32)>)> {
    let payload = unescape(nal.get(2..)?, 1024);
    let mut bits = Bits::new(&payload);
    bits.skip(4)?;
    let sub_layers = bits.take(3)?;
    bits.skip(1)?;
    // profile_tier_level(1, sub_layers), H.265 §7.3.3.
    bits.skip(88 + 8)?;
    let mut present = 0;
    for _ in 0..sub_layers {
        present += if bits.bit()? { 88 } else { 0 };
        present += if bits.bit()? { 8 } else { 0 };
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers))?;
    }
    bits.skip(present)?;
    let id = bits.ue()?;
    Some((id, picture_size(&mut bits)))
}

fn picture_size(bits: &mut Bits<'_>) -> Option<(u32, u32)> {
    let chroma = bits.ue()?;
    let separate_planes = chroma == 3 && bits.bit()?;
    let width = u64::from(bits.ue()?);
    let height = u64::from(bits.ue()?);
    let (mut across, mut down) = (0, 0);
    if bits.bit()? {
        let window = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?].map(u64::from);
        let (unit_x, unit_y) = match chroma {
            1 if !separate_planes => (2, 2),
            2 if !separate_planes => (2, 1),
            _ => (1, 1),
        };
        across = (window[0] + window[1]) * unit_x;
        down = (window[2] + window[3]) * unit_y;
    }
    let width = width.checked_sub(across)?;
    let height = height.checked_sub(down)?;
    plausible(u32::try_from(width).ok()?, u32::try_from(height).ok()?)
}
