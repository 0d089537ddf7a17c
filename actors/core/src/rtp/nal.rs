//! NAL units: length-prefixed storage (ISO/IEC 14496-15, four-byte lengths) and the parameter sets seen so far.

use crate::rtp::depacketise::Malformed;

/// Parameter sets kept of one kind; more ids than this do not occur in calls.
const MAX_SETS: usize = 16;
/// Bytes of one parameter set; SPS with scaling lists stay below 1 kB.
const MAX_SET_BYTES: usize = 4096;

/// NAL units being put together, each after its length in four bytes, big endian.
#[derive(Debug)]
pub struct LengthPrefixed {
    data: Vec<u8>,
    open: Option<usize>,
}

impl LengthPrefixed {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { data: Vec::with_capacity(bytes), open: None }
    }

    /// A unit that came whole.
    pub fn whole(&mut self, nal: &[u8]) -> Result<(), Malformed> {
        self.begin(&[])?;
        self.append(nal)?;
        self.end()
    }

    /// The first fragment of a unit whose header has to be put together.
    pub fn begin(&mut self, header: &[u8]) -> Result<(), Malformed> {
        if self.open.is_some() {
            return Err(Malformed::Fragment);
        }
        self.open = Some(self.data.len());
        self.data.extend_from_slice(&[0; 4]);
        self.data.extend_from_slice(header);
        Ok(())
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.open.is_none() {
            return Err(Malformed::Fragment);
        }
        self.data.extend_from_slice(bytes);
        Ok(())
    }

    pub fn end(&mut self) -> Result<(), Malformed> {
        let start = self.open.take().ok_or(Malformed::Fragment)?;
        let length = u32::try_from(self.data.len() - start - 4).map_err(|_| Malformed::CutOff)?;
        self.data[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// All units, none of them open.
    pub fn finish(self) -> Result<Vec<u8>, Malformed> {
        match (self.open, self.data.is_empty()) {
            (Some(_), _) => Err(Malformed::NotAtEnd),
            (None, true) => Err(Malformed::Empty),
            (None, false) => Ok(self.data),
        }
    }
}

/// The units of an aggregation packet: two bytes of length before each (RFC 6184 §5.7.1, RFC 7798 §4.4.2).
pub fn aggregated(
    mut rest: &[u8],
    mut put: impl FnMut(&[u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<2>().ok_or(Malformed::CutOff)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length > after.len() {
            return Err(Malformed::CutOff);
        }
        let (nal, after) = after.split_at(length);
        if !nal.is_empty() {
            put(nal)?;
        }
        rest = after;
    }
    Ok(())
}

/// Walks over length-prefixed units; stops at the first that is cut off.
pub fn units(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let unit = rest.get(..length)?;
        data = &rest[length..];
        Some(unit)
    })
}

/// Parameter sets of one kind by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetStore(Vec<(u32, Vec<u8>)>);

impl SetStore {
    /// Keeps the newest of each id; says whether anything changed.
    pub fn put(&mut self, id: u32, nal: &[u8]) -> bool {
        if nal.len() > MAX_SET_BYTES {
            return false;
        }
        match self.0.binary_search_by_key(&id, |entry| entry.0) {
            Ok(at) if self.0[at].1 == nal => false,
            Ok(at) => {
                self.0[at].1 = nal.to_vec();
                true
            }
            Err(_) if self.0.len() >= MAX_SETS => false,
            Err(at) => {
                self.0.insert(at, (id, nal.to_vec()));
                true
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn to_vec(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|entry| entry.1.clone()).collect()
    }

    pub fn first(&self) -> Option<&[u8]> {
        self.0.first().map(|entry| entry.1.as_slice())
    }
}
