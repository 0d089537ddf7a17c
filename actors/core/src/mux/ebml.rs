//! Elements as bytes (EBML, RFC 8794): identifiers, sizes, values.

/// Element identifiers (RFC 8794 §11, RFC 9559 §5), marker bits included.
pub(super) mod id {
    pub(crate) const EBML: u32 = 0x1A45_DFA3;
    pub(crate) const EBML_VERSION: u32 = 0x4286;
    pub(crate) const EBML_READ_VERSION: u32 = 0x42F7;
    pub(crate) const EBML_MAX_ID_LENGTH: u32 = 0x42F2;
    pub(crate) const EBML_MAX_SIZE_LENGTH: u32 = 0x42F3;
    pub(crate) const DOC_TYPE: u32 = 0x4282;
    pub(crate) const DOC_TYPE_VERSION: u32 = 0x4287;
    pub(crate) const DOC_TYPE_READ_VERSION: u32 = 0x4285;
    pub(crate) const VOID: u32 = 0xEC;
    pub(crate) const CRC_32: u32 = 0xBF;
    pub(crate) const SEGMENT: u32 = 0x1853_8067;
    pub(crate) const SEEK_HEAD: u32 = 0x114D_9B74;
    pub(crate) const SEEK: u32 = 0x4DBB;
    pub(crate) const SEEK_ID: u32 = 0x53AB;
    pub(crate) const SEEK_POSITION: u32 = 0x53AC;
    pub(crate) const INFO: u32 = 0x1549_A966;
    pub(crate) const TIMESTAMP_SCALE: u32 = 0x2A_D7B1;
    pub(crate) const DURATION: u32 = 0x4489;
    pub(crate) const DATE_UTC: u32 = 0x4461;
    pub(crate) const TITLE: u32 = 0x7BA9;
    pub(crate) const MUXING_APP: u32 = 0x4D80;
    pub(crate) const WRITING_APP: u32 = 0x5741;
    pub(crate) const TRACKS: u32 = 0x1654_AE6B;
    pub(crate) const TRACK_ENTRY: u32 = 0xAE;
    pub(crate) const TRACK_NUMBER: u32 = 0xD7;
    pub(crate) const TRACK_UID: u32 = 0x73C5;
    pub(crate) const TRACK_TYPE: u32 = 0x83;
    pub(crate) const FLAG_LACING: u32 = 0x9C;
    pub(crate) const NAME: u32 = 0x536E;
    pub(crate) const LANGUAGE: u32 = 0x22_B59C;
    pub(crate) const CODEC_ID: u32 = 0x86;
    pub(crate) const CODEC_PRIVATE: u32 = 0x63A2;
    pub(crate) const CODEC_DELAY: u32 = 0x56AA;
    pub(crate) const SEEK_PRE_ROLL: u32 = 0x56BB;
    pub(crate) const VIDEO: u32 = 0xE0;
    pub(crate) const PIXEL_WIDTH: u32 = 0xB0;
    pub(crate) const PIXEL_HEIGHT: u32 = 0xBA;
    pub(crate) const AUDIO: u32 = 0xE1;
    pub(crate) const SAMPLING_FREQUENCY: u32 = 0xB5;
    pub(crate) const CHANNELS: u32 = 0x9F;
    pub(crate) const TAGS: u32 = 0x1254_C367;
    pub(crate) const TAG: u32 = 0x7373;
    pub(crate) const TARGETS: u32 = 0x63C0;
    pub(crate) const TARGET_TYPE_VALUE: u32 = 0x68CA;
    pub(crate) const SIMPLE_TAG: u32 = 0x67C8;
    pub(crate) const TAG_NAME: u32 = 0x45A3;
    pub(crate) const TAG_STRING: u32 = 0x4487;
    pub(crate) const CLUSTER: u32 = 0x1F43_B675;
    pub(crate) const TIMESTAMP: u32 = 0xE7;
    pub(crate) const POSITION: u32 = 0xA7;
    pub(crate) const PREV_SIZE: u32 = 0xAB;
    pub(crate) const SIMPLE_BLOCK: u32 = 0xA3;
    pub(crate) const CUES: u32 = 0x1C53_BB6B;
    pub(crate) const CUE_POINT: u32 = 0xBB;
    pub(crate) const CUE_TIME: u32 = 0xB3;
    pub(crate) const CUE_TRACK_POSITIONS: u32 = 0xB7;
    pub(crate) const CUE_TRACK: u32 = 0xF7;
    pub(crate) const CUE_CLUSTER_POSITION: u32 = 0xF1;
}

/// A size that is not known, in eight bytes (RFC 8794 §6.2).
pub(super) const UNKNOWN_SIZE: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
/// Bytes of a cluster's identifier and size as the writer makes them.
pub(super) const CLUSTER_HEAD: u64 = 8;

pub(super) fn put_id(out: &mut Vec<u8>, id: u32) {
    let bytes = id.to_be_bytes();
    out.extend_from_slice(&bytes[(id.leading_zeros() / 8) as usize..]);
}

/// The shortest size that is not the unknown one.
pub(super) fn put_size(out: &mut Vec<u8>, size: u64) {
    let mut length = 1;
    while length < 8 && size >= (1 << (7 * length)) - 1 {
        length += 1;
    }
    put_size_in(out, size, length);
}

/// A size in exactly `length` bytes (1 to 8).
pub(super) fn put_size_in(out: &mut Vec<u8>, size: u64, length: usize) {
    let marked = size | 1 << (7 * length);
    out.extend_from_slice(&marked.to_be_bytes()[8 - length..]);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, id: u32, bytes: &[u8]) {
    put_id(out, id);
    put_size(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_unsigned(out: &mut Vec<u8>, id: u32, value: u64) {
    let bytes = value.to_be_bytes();
    let zeros = (value.leading_zeros() / 8).min(7) as usize;
    put_bytes(out, id, &bytes[zeros..]);
}

pub(super) fn put_float(out: &mut Vec<u8>, id: u32, value: f64) {
    put_bytes(out, id, &value.to_be_bytes());
}

/// A `Void` that fills exactly `total` bytes with its head; nothing if `total` is below 2.
pub(super) fn put_void(out: &mut Vec<u8>, total: usize) {
    if total < 2 {
        return;
    }
    out.push(id::VOID as u8);
    let body = if total < 128 {
        put_size_in(out, (total - 2) as u64, 1);
        total - 2
    } else {
        put_size_in(out, (total - 9) as u64, 8);
        total - 9
    };
    out.resize(out.len() + body, 0);
}

/// The head of an element as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub id: u32,
    /// Bytes of the body, `None` if unknown.
    pub size: Option<u64>,
    /// Bytes of identifier and size.
    pub length: u64,
}

/// Reads the head of an element; `None` if `bytes` does not begin with a whole valid one.
pub(super) fn read_head(bytes: &[u8]) -> Option<Head> {
    let first = *bytes.first()?;
    let id_length = first.leading_zeros() as usize + 1;
    if id_length > 4 {
        return None;
    }
    let id = bytes.get(..id_length)?.iter().fold(0_u32, |id, byte| id << 8 | u32::from(*byte));
    let (size, size_length) = read_size(bytes.get(id_length..)?)?;
    Some(Head { id, size, length: (id_length + size_length) as u64 })
}

fn read_size(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    let first = *bytes.first()?;
    let length = first.leading_zeros() as usize + 1;
    if length > 8 {
        return None;
    }
    let marked = bytes.get(..length)?.iter().fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
    let mask = (1_u64 << (7 * length)) - 1;
    let size = marked & mask;
    Some(((size != mask).then_some(size), length))
}

/// An unsigned value of up to eight bytes.
pub(super) fn read_unsigned(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_size_never_looks_unknown() {
        for size in [0, 126, 127, 128, 16_382, 16_383, (1 << 28) - 1] {
            let mut out = vec![0xA3];
            put_size(&mut out, size);
            assert_eq!(read_head(&out).unwrap().size, Some(size), "{size}");
        }
        let mut unknown = vec![0xA3];
        unknown.extend(UNKNOWN_SIZE);
        assert_eq!(read_head(&unknown).unwrap().size, None);
    }

    #[test]
    fn a_void_fills_exactly_what_it_is_given() {
        for total in 2..400 {
            let mut out = Vec::new();
            put_void(&mut out, total);
            assert_eq!(out.len(), total);
            let head = read_head(&out).unwrap();
            assert_eq!(head.length + head.size.unwrap(), total as u64);
        }
    }

    proptest! {
        #[test]
        fn any_head_reads_back(
            size in 0_u64..(1 << 56) - 1, id in prop::sample::select(vec![0xA3_u32, 0x4DBB, 0x2A_D7B1, 0x1F43_B675]),
        ) {
            let mut out = Vec::new();
            put_id(&mut out, id);
            put_size(&mut out, size);
            let length = out.len() as u64;
            prop_assert_eq!(read_head(&out), Some(Head { id, size: Some(size), length }));
        }

        #[test]
        fn any_bytes_give_a_head_or_none(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            if let Some(head) = read_head(&bytes) {
                prop_assert!(head.length as usize <= bytes.len());
            }
        }
    }
}
