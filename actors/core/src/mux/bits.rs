//! Bits of codec headers that came from a remote sender: every read may fail, none may panic.

/// Reads most significant bits first. Reads past the end give `None`.
#[derive(Clone, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    bit: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, bit: 0 }
    }

    /// `count` bits (at most 32) as a number.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0_u64;
        for _ in 0..count {
            let byte = self.bytes.get(self.bit / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.bit % 8) & 1);
            self.bit += 1;
        }
        u32::try_from(value).ok()
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        let bit = self.bit.checked_add(count)?;
        if bit > self.bytes.len() * 8 {
            return None;
        }
        self.bit = bit;
        Some(())
    }

    /// Exponential Golomb code (H.264 §9.1; AV1 §4.10.3 `uvlc` has the same shape), up to 32 bits.
    pub(super) fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.take(zeros)?;
        u32::try_from((1_u64 << zeros) - 1 + u64::from(rest)).ok()
    }
}

/// A NAL unit's bytes without emulation prevention (H.264 §7.4.1), at most `limit` of them.
pub(super) fn unescape(nal: &[u8], limit: usize) -> Vec<u8> {
    let mut plain = Vec::with_capacity(nal.len().min(limit));
    let mut zeros = 0;
    for &byte in nal {
        if plain.len() >= limit {
            break;
        }
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        plain.push(byte);
    }
    plain
}
