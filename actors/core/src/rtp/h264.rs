//! H.264 out of RTP (RFC 6184, packetisation modes 0 and 1) and its sequence parameter set (H.264 §7.3.2.1).
//!
//! Every NAL unit that was sent is kept, access unit delimiters, SEI and filler included, in order, each after its
//! length in four bytes. So a sender's Annex B frame, split at its start codes, compares byte for byte.

use std::sync::Arc;

use crate::rtp::bits::{Bits, unescape};
use crate::rtp::depacketise::{Depacketised, Dependencies, Malformed, ParameterSets, plausible};
use crate::rtp::nal::{LengthPrefixed, SetStore, aggregated, units};

const IDR_SLICE: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Parameter sets seen so far.
#[derive(Clone, Debug, Default)]
pub struct Memory {
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
        let &indicator = payload.first().ok_or(Malformed::CutOff)?;
        let kind = indicator & 0x1f;
        if fragment_open && kind != FU_A {
            return Err(Malformed::Fragment);
        }
        match kind {
            1..=23 => out.whole(payload)?,
            STAP_A => aggregated(&payload[1..], |nal| out.whole(nal))?,
            FU_A => {
                let &header = payload.get(1).ok_or(Malformed::CutOff)?;
                if header & 0x80 != 0 {
                    out.begin(&[indicator & 0xe0 | header & 0x1f])?;
                }
                out.append(&payload[2..])?;
                fragment_open = header & 0x40 == 0;
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
    let (mut idr, mut slices, mut own_sets, mut changed, mut referenced) =
        (false, false, false, false, false);
    for nal in units(&data) {
        let &header = nal.first().ok_or(Malformed::Empty)?;
        match header & 0x1f {
            kind @ 1..=5 => {
                // first_mb_in_slice = 0 is a single 1 bit. Partitions B and C (3, 4) have another syntax.
                if !slices && matches!(kind, 1 | 2 | 5) && nal.get(1).is_none_or(|byte| byte & 0x80 == 0) {
                    return Err(Malformed::NotAtStart);
                }
                slices = true;
                idr |= kind == IDR_SLICE;
                referenced |= header & 0x60 != 0;
            }
            SPS => {
                own_sets = true;
                changed |= sps_id(nal).is_some_and(|id| memory.sps.put(id, nal));
            }
            PPS => {
                own_sets = true;
                changed |= pps_id(nal).is_some_and(|id| memory.pps.put(id, nal));
            }
            _ => referenced = true,
        }
    }
    if changed || memory.shared.is_none() {
        memory.shared = (!memory.sps.is_empty() && !memory.pps.is_empty())
            .then(|| Arc::new(ParameterSets::H264 { sps: memory.sps.to_vec(), pps: memory.pps.to_vec() }));
        memory.size = memory.sps.first().and_then(sps_size);
    }
    let key = idr && memory.shared.is_some();
    Ok(Depacketised {
        data,
        key,
        size: memory.size.filter(|_| key),
        parameter_sets: memory.shared.clone().filter(|_| key),
        dependencies: Dependencies { discardable: slices && !referenced, ..Default::default() },
        leans_on_earlier_sets: idr && !own_sets,
        start_is_certain: true,
    })
}

/// What one packet tells of its access unit: with nal_ref_idc = 0 no other picture refers to it (H.264 §7.4.1).
pub fn dependencies(payload: &[u8]) -> Dependencies {
    let discardable = match payload.first() {
        Some(indicator) => match (indicator & 0x1f, indicator & 0x60) {
            (1, 0) => true,
            (FU_A, 0) => payload.get(1).is_some_and(|header| header & 0x1f == 1),
            _ => false,
        },
        None => false,
    };
    Dependencies { discardable, ..Default::default() }
}

fn sps_id(nal: &[u8]) -> Option<u32> {
    Bits::new(&unescape(nal.get(4..)?, 16)).ue()
}

fn pps_id(nal: &[u8]) -> Option<u32> {
    Bits::new(&unescape(nal.get(1..)?, 16)).ue()
}

/// Width and height after cropping of a sequence parameter set NAL unit.
pub fn sps_size(nal: &[u8]) -> Option<(u32, u32)> {
    let payload = unescape(nal.get(1..)?, 1024);
    let profile = *payload.first()?;
    let mut bits = Bits::new(payload.get(3..)?);
    bits.ue()?;
    let mut chroma = 1;
    let mut separate_planes = false;
    if matches!(profile, 44 | 83 | 86 | 100 | 110 | 118 | 122 | 128 | 134 | 135 | 138 | 139 | 244) {
        chroma = bits.ue()?;
        if chroma == 3 {
            separate_planes = bits.bit()?;
        }
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
        if bits.bit()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.bit()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue()?;
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.skip(1)?;
            bits.se()?;
            bits.se()?;
            for _ in 0..bits.ue()?.min(255) {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?;
    bits.skip(1)?;
    let width_in_blocks = bits.ue()?.checked_add(1)?;
    let height_in_units = bits.ue()?.checked_add(1)?;
    let frames_only = bits.bit()?;
    if !frames_only {
        bits.skip(1)?;
    }
    bits.skip(1)?;
    let units_per_row = if frames_only { 1 } else { 2 };
    let (mut across, mut down) = (0u64, 0u64);
    if bits.bit()? {
        let crop = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?].map(u64::from);
        let (unit_x, unit_y) = match chroma {
            1 if !separate_planes => (2, 2),
            2 if !separate_planes => (2, 1),
            _ => (1, 1),
        };
        across = (crop[0] + crop[1]) * unit_x;
        down = (crop[2] + crop[3]) * unit_y * units_per_row;
    }
    let width = (u64::from(width_in_blocks) * 16).checked_sub(across)?;
    let height = (u64::from(height_in_units) * 16 * units_per_row).checked_sub(down)?;
    plausible(u32::try_from(width).ok()?, u32::try_from(height).ok()?)
}

fn skip_scaling_list(bits: &mut Bits<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + i64::from(bits.se()?)).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}
