//! The tile's pictures: "● REC 00:00:07" as a VP8 key frame, cut into RTP payloads.
//!
//! A picture depends on nothing but the second it shows, so each is made once, on a thread of its own, and shared by all
//! connections. A lossy WebP file holds one bare VP8 key frame (RFC 9649 §2.5), hence libwebp is the encoder.

use std::collections::{HashMap, HashSet};
use std::ffi::c_int;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Pixels.
pub const WIDTH: u16 = 320;
pub const HEIGHT: u16 = 180;
/// Of libwebp, 0 to 100.
const QUALITY: f32 = 60.0;
/// Bytes of an RTP payload, its descriptor included: with all headers below 1,200.
const MAX_PAYLOAD: usize = 1_100;
/// Seconds that wait to be painted; those beyond are asked for again.
const MAX_ORDERS: usize = 64;
/// Pictures kept; beyond, none is made until old ones have gone.
const MAX_KEPT: usize = 1_024;
/// A picture is kept this long: connections ask for each one a second ahead.
const KEEP_FOR: Duration = Duration::from_secs(4);

const BACKGROUND: [u8; 3] = [22, 24, 29];
const INK: [u8; 3] = [255, 255, 255];
const RED: [u8; 3] = [230, 30, 40];

/// RTP payloads of one picture, in order; the last one ends the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub payloads: Vec<Arc<[u8]>>,
}

/// What there is of a second.
#[derive(Clone, Debug)]
pub enum Found {
    Ready(Arc<Picture>),
    /// It is being painted.
    Later,
    /// It cannot be painted.
    Never,
}

#[derive(Debug, Default)]
struct Kept {
    /// None for a picture that could not be encoded.
    pictures: HashMap<u64, (Option<Arc<Picture>>, Instant)>,
    ordered: HashSet<u64>,
    painted: u64,
}

/// Pictures by the second they show. Asking never waits.
#[derive(Debug, Default)]
pub struct Pictures {
    kept: Arc<Mutex<Kept>>,
    painter: OnceLock<Option<SyncSender<u64>>>,
}

impl Pictures {
    /// The picture of the `second`th second of a recording; ordered if it is not there.
    pub fn get(&self, second: u64) -> Found {
        let mut kept = match self.kept.try_lock() {
            Ok(kept) => kept,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Found::Later,
        };
        match kept.pictures.get(&second) {
            Some((Some(picture), _)) => return Found::Ready(picture.clone()),
            Some((None, _)) => return Found::Never,
            None => {}
        }
        if !kept.ordered.contains(&second) {
            let Some(painter) = self.painter.get_or_init(|| hire(self.kept.clone())) else {
                return Found::Never;
            };
            match painter.try_send(second) {
                Ok(()) => drop(kept.ordered.insert(second)),
                Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return Found::Never,
            }
        }
        Found::Later
    }

    /// How many were painted.
    pub fn painted(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).painted
    }
}

/// Starts the painter's thread; it ends with the [`Pictures`] it works for.
fn hire(kept: Arc<Mutex<Kept>>) -> Option<SyncSender<u64>> {
    let (orders, waiting) = sync_channel(MAX_ORDERS);
    match std::thread::Builder::new().name("tile".to_owned()).spawn(move || work(&kept, &waiting)) {
        Ok(_) => Some(orders),
        Err(error) => {
            tracing::error!(%error, "no thread for the tile, calls go on without it");
            None
        }
    }
}

fn work(kept: &Mutex<Kept>, orders: &Receiver<u64>) {
    while let Ok(second) = orders.recv() {
        let picture = paint(second);
        if let Err(error) = &picture {
            tracing::error!(%error, "a picture of the tile cannot be made");
        }
        let now = Instant::now();
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.ordered.remove(&second);
        kept.pictures.retain(|_, (_, made)| now.saturating_duration_since(*made) < KEEP_FOR);
        if kept.pictures.len() < MAX_KEPT {
            kept.pictures.insert(second, (picture.ok().map(Arc::new), now));
            kept.painted += 1;
        }
    }
}

/// Why there is no picture; all of them would be defects of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    #[error("the encoder gives nothing")]
    Refused,
    #[error("the encoder's file is not a lossy WebP file")]
    Container,
    #[error("the encoder's frame is no VP8 key frame of the right size")]
    Frame,
}

/// Draws, encodes and cuts up the picture of one second.
///
/// # Errors
/// [`PictureError`] when the encoder's output is not what it should be.
pub fn paint(second: u64) -> Result<Picture, PictureError> {
    let file = encode(&draw(second))?;
    Ok(Picture { payloads: packetise(key_frame(&file)?, second) })
}

/// `hh:mm:ss`, with more digits from 100 hours on.
pub fn elapsed(second: u64) -> String {
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Red, green and blue of each pixel, row by row.
pub fn draw(second: u64) -> Vec<u8> {
    let mut canvas = Canvas(BACKGROUND.repeat(usize::from(WIDTH) * usize::from(HEIGHT)));
    canvas.disc(99, 55, 20);
    canvas.text("REC", 133, 34, 6);
    let time = elapsed(second);
    // A glyph is 5 wide with a gap of 1; the largest size that leaves a margin.
    let columns = time.len() * 6 - 1;
    let scale = ((usize::from(WIDTH) - 24) / columns).clamp(1, 6);
    canvas.text(&time, (usize::from(WIDTH) - columns * scale) / 2, 98 + (42 - 7 * scale) / 2, scale);
    canvas.0
}

struct Canvas(Vec<u8>);

impl Canvas {
    fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < usize::from(WIDTH) && y < usize::from(HEIGHT) {
            let at = (y * usize::from(WIDTH) + x) * 3;
            self.0[at..at + 3].copy_from_slice(&colour);
        }
    }

    fn disc(&mut self, x: usize, y: usize, radius: usize) {
        for dy in 0..=2 * radius {
            for dx in 0..=2 * radius {
                if dx.abs_diff(radius).pow(2) + dy.abs_diff(radius).pow(2) <= radius * radius {
                    self.set(x + dx - radius, y + dy - radius, RED);
                }
            }
        }
    }

    fn text(&mut self, text: &str, x: usize, y: usize, scale: usize) {
        for (index, letter) in text.bytes().enumerate() {
            for (row, bits) in glyph(letter).into_iter().enumerate() {
                for column in (0..5).filter(|column| bits & (0b10000 >> column) != 0) {
                    let (left, top) = (x + (index * 6 + column) * scale, y + row * scale);
                    for dot in 0..scale * scale {
                        self.set(left + dot % scale, top + dot / scale, INK);
                    }
                }
            }
        }
    }
}

/// Five columns by seven rows, the leftmost column in the highest of five bits.
fn glyph(letter: u8) -> [u8; 7] {
    match letter {
        b'0' => [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110],
        b'1' => [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
        b'2' => [0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111],
        b'3' => [0b01110, 0b10001, 0b00001, 0b00110, 0b00001, 0b10001, 0b01110],
        b'4' => [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
        b'5' => [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
        b'6' => [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
        b'7' => [0b11111, 0b00001, 0b00010, 0b00100, 0b00100, 0b01000, 0b01000],
        b'8' => [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
        b'9' => [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
        b':' => [0b00000, 0b00100, 0b00100, 0b00000, 0b00100, 0b00100, 0b00000],
        b'R' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001],
        b'E' => [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111],
        b'C' => [0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110],
        _ => [0; 7],
    }
}

/// The picture as a lossy WebP file.
fn encode(pixels: &[u8]) -> Result<Vec<u8>, PictureError> {
    let (width, height) = (usize::from(WIDTH), usize::from(HEIGHT));
    if pixels.len() != width * height * 3 {
        return Err(PictureError::Refused);
    }
    let mut file: *mut u8 = std::ptr::null_mut();
    // SAFETY: `pixels` holds `height` rows of `3 * width` bytes, as checked, and is only read; `file` may be written to.
    let size = unsafe {
        libwebp_sys::WebPEncodeRGB(
            pixels.as_ptr(),
            width as c_int,
            height as c_int,
            3 * width as c_int,
            QUALITY,
            &raw mut file,
        )
    };
    if file.is_null() {
        return Err(PictureError::Refused);
    }
    // SAFETY: the encoder returned a buffer of `size` bytes that is ours until it is freed, once, below.
    let copy = unsafe { std::slice::from_raw_parts(file, size) }.to_vec();
    // SAFETY: as above; nothing refers to the buffer any more.
    unsafe { libwebp_sys::WebPFree(file.cast()) };
    Ok(copy)
}

/// The bare VP8 key frame in a lossy WebP file (RFC 9649 §2.4 and §2.5), its header checked (RFC 6386 §9.1).
fn key_frame(file: &[u8]) -> Result<&[u8], PictureError> {
    let simple = file.len() >= 20 && &file[..4] == b"RIFF" && &file[8..16] == b"WEBPVP8 ";
    if !simple {
        return Err(PictureError::Container);
    }
    let size = u32::from_le_bytes([file[16], file[17], file[18], file[19]]) as usize;
    let frame = file.get(20..).and_then(|rest| rest.get(..size)).ok_or(PictureError::Container)?;
    match *frame {
        [tag, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]
            if tag & 1 == 0
                && u16::from_le_bytes([w0, w1]) == WIDTH
                && u16::from_le_bytes([h0, h1]) == HEIGHT =>
        {
            Ok(frame)
        }
        _ => Err(PictureError::Frame),
    }
}

/// Payloads with VP8 descriptors: extended, with a picture id of 15 bits (RFC 7741 §4.2).
fn packetise(frame: &[u8], second: u64) -> Vec<Arc<[u8]>> {
    let id = (second & 0x7fff) as u16 | 0x8000;
    let describe = |(index, chunk): (usize, &[u8])| {
        let start = if index == 0 { 0x10 } else { 0 };
        let mut payload = Vec::with_capacity(4 + chunk.len());
        payload.extend([0x80 | start, 0x80]);
        payload.extend(id.to_be_bytes());
        payload.extend(chunk);
        payload.into()
    };
    frame.chunks(MAX_PAYLOAD - 4).enumerate().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_a_key_frame_in_small_payloads() {
        let picture = paint(7).expect("painted");
        assert!((2..=5).contains(&picture.payloads.len()), "{} payloads", picture.payloads.len());
        for (index, payload) in picture.payloads.iter().enumerate() {
            assert!(payload.len() <= MAX_PAYLOAD);
            assert_eq!(payload[..4], [if index == 0 { 0x90 } else { 0x80 }, 0x80, 0x80, 7]);
        }
        let frame: Vec<u8> = picture.payloads.iter().flat_map(|payload| payload[4..].to_vec()).collect();
        assert!(frame.len() < 5_000, "{} bytes", frame.len());
        assert_eq!(frame[0] & 1, 0, "a key frame");
        assert_eq!(frame[3..10], [0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00], "320 by 180");
    }

    #[test]
    fn what_is_no_lossy_file_of_our_size_is_refused() {
        let good = encode(&draw(0)).expect("encoded");
        assert!(key_frame(&good).is_ok());
        for length in [0, 11, 19, 20, 29, good.len() - 2] {
            assert_eq!(key_frame(&good[..length]), Err(PictureError::Container), "{length} bytes");
        }
        let changed = |at: usize, to: u8| {
            let mut file = good.clone();
            file[at] = to;
            key_frame(&file).map(<[u8]>::len)
        };
        assert_eq!(changed(15, b'L'), Err(PictureError::Container), "lossless");
        assert_eq!(changed(19, 0xff), Err(PictureError::Container), "a size beyond the file");
        assert_eq!(changed(20, good[20] | 1), Err(PictureError::Frame), "no key frame");
        assert_eq!(changed(26, 0x41), Err(PictureError::Frame), "another width");
        assert_eq!(encode(&[0; 12]), Err(PictureError::Refused));
    }

    #[test]
    fn each_second_looks_different_and_fits() {
        let count = |pixels: &[u8], colour: [u8; 3]| {
            pixels.chunks(3).filter(|pixel| *pixel == colour.as_slice()).count()
        };
        let first = draw(0);
        assert_eq!(first.len(), 320 * 180 * 3);
        assert!(count(&first, RED) > 1_000 && count(&first, INK) > 5_000);
        for second in [1, 10, 59, 60, 3_599, 3_600, 359_999, 360_000, 36_000_000, u64::MAX] {
            let pixels = draw(second);
            assert_ne!(pixels, first, "{second}");
            assert!(count(&pixels, INK) > 1_000);
            let rim = |pixel: usize| pixels[pixel * 3..pixel * 3 + 3] == BACKGROUND;
            assert!((0..180).all(|y| rim(y * 320) && rim(y * 320 + 319)), "{second} touches the rim");
        }
        assert_eq!(elapsed(359_999), "99:59:59");
        assert_eq!(elapsed(360_000), "100:00:00");
    }

    #[test]
    fn a_second_is_painted_once_and_forgotten_later() {
        let pictures = Pictures::default();
        let wait_for = |second| {
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                match pictures.get(second) {
                    Found::Ready(picture) => break picture,
                    Found::Never => panic!("not painted"),
                    Found::Later if Instant::now() < deadline => std::thread::yield_now(),
                    Found::Later => panic!("not painted in time"),
                }
            }
        };
        let first = wait_for(5);
        assert!(Arc::ptr_eq(&first, &wait_for(5)));
        assert_eq!(pictures.painted(), 1);
        let long_ago = Instant::now().checked_sub(KEEP_FOR).expect("the machine runs longer than that");
        pictures.kept.lock().expect("lock").pictures.values_mut().for_each(|kept| kept.1 = long_ago);
        wait_for(6);
        assert_eq!(pictures.kept.lock().expect("lock").pictures.len(), 1, "the old one is gone");
    }

    #[test]
    fn ten_thousand_seconds_at_once_stay_bounded() {
        let pictures = Pictures::default();
        for second in 0..10_000 {
            let _ = pictures.get(second);
        }
        let kept = pictures.kept.lock().expect("lock");
        assert!(kept.ordered.len() + kept.pictures.len() <= MAX_KEPT + MAX_ORDERS + 1);
    }
}
