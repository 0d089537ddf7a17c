//! SRTP protection of single packets, to be timed: the ciphers of the library under the media loop (with the
//! framing of RFC 3711 and RFC 7714 around them, since the library keeps its own to itself), and the `webrtc`
//! crate's.

use recorder_core::media::RtpPacket;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;
use str0m::crypto::{
    AeadAes128Gcm, AeadAes128GcmCipher, AeadAes256GcmCipher, Aes128CmSha1_80, Aes128CmSha1_80Cipher,
    CryptoProvider, from_feature_flags,
};

use super::micro::MicroError;

const HEADER: usize = 12;
const SSRC: u32 = 0x5eed;
/// Any key and salt will do: their value costs nothing.
const KEY: [u8; 32] = [7; 32];
const SALT: [u8; 14] = [9; 14];

/// A protected packet.
pub struct Encrypted {
    /// Sequence number with its roll-overs above it (RFC 3711 §3.3.1).
    index: u64,
    bytes: Vec<u8>,
}

/// One way to protect packets. Keeps what it needs between packets, as a session does.
pub trait Cipher {
    fn name(&self) -> &'static str;
    /// It is of the library that the media loop uses.
    fn is_of_the_media_loop(&self) -> bool {
        true
    }
    fn encrypt(&mut self, packet: &RtpPacket) -> Result<Encrypted, MicroError>;
    /// Authenticates and decrypts; returns the length of the payload.
    fn decrypt(&mut self, packet: &Encrypted) -> Result<usize, MicroError>;
}

/// All that are compared.
pub fn ciphers() -> Result<Vec<Box<dyn Cipher>>, MicroError> {
    let provider = from_feature_flags();
    let key = first_16(KEY);
    let srtp = provider.srtp_provider;
    let counter = srtp.aes_128_cm_sha1_80();
    let gcm_128 = srtp.aead_aes_128_gcm();
    let gcm_256 = srtp.aead_aes_256_gcm();
    Ok(vec![
        Box::new(CounterMode {
            encrypt: counter.create_cipher(key, true),
            decrypt: counter.create_cipher(key, false),
            provider,
            scratch: Vec::new(),
        }),
        Box::new(Gcm {
            name: "decrypt, AEAD-AES-128-GCM, media loop",
            encrypt: AeadCipher::Short(gcm_128.create_cipher(key, true)),
            decrypt: AeadCipher::Short(gcm_128.create_cipher(key, false)),
            scratch: Vec::new(),
        }),
        Box::new(Gcm {
            name: "decrypt, AEAD-AES-256-GCM, media loop",
            encrypt: AeadCipher::Long(gcm_256.create_cipher(KEY, true)),
            decrypt: AeadCipher::Long(gcm_256.create_cipher(KEY, false)),
            scratch: Vec::new(),
        }),
        Box::new(Crate::new(
            "decrypt, AES-128-CM-HMAC-SHA1-80, webrtc",
            ProtectionProfile::Aes128CmHmacSha1_80,
        )?),
        Box::new(Crate::new("decrypt, AEAD-AES-128-GCM, webrtc", ProtectionProfile::AeadAes128Gcm)?),
    ])
}

fn first_16(key: [u8; 32]) -> [u8; 16] {
    std::array::from_fn(|n| key[n])
}

/// The packet with its fixed header (RFC 3550 §5.1) before the payload.
fn plain(packet: &RtpPacket, room: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + packet.payload.len() + room);
    bytes.push(0x80);
    bytes.push(packet.payload_type | u8::from(packet.marker) << 7);
    bytes.extend_from_slice(&(packet.sequence as u16).to_be_bytes());
    bytes.extend_from_slice(&packet.timestamp.to_be_bytes());
    bytes.extend_from_slice(&SSRC.to_be_bytes());
    bytes.extend_from_slice(&packet.payload);
    bytes
}

fn failed(name: &'static str) -> impl Fn(String) -> MicroError {
    move |reason| MicroError::Cipher { name, reason }
}

/// AES-128-CM-HMAC-SHA1-80 (RFC 3711 §4).
struct CounterMode {
    encrypt: Box<dyn Aes128CmSha1_80Cipher>,
    decrypt: Box<dyn Aes128CmSha1_80Cipher>,
    provider: CryptoProvider,
    scratch: Vec<u8>,
}

impl CounterMode {
    const NAME: &'static str = "decrypt, AES-128-CM-HMAC-SHA1-80, media loop";
    const HMAC_KEY: [u8; 20] = [5; 20];
    const TAG: usize = Aes128CmSha1_80::HMAC_TAG_LEN;
}

impl Cipher for CounterMode {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn encrypt(&mut self, packet: &RtpPacket) -> Result<Encrypted, MicroError> {
        let mut bytes = plain(packet, Self::TAG);
        let iv = Aes128CmSha1_80::rtp_iv(SALT, SSRC, packet.sequence);
        self.encrypt
            .encrypt(&iv, &packet.payload, &mut bytes[HEADER..])
            .map_err(|error| failed(Self::NAME)(error.to_string()))?;
        let end = bytes.len();
        bytes.resize(end + Self::TAG, 0);
        let hmac = |key: &[u8], data: &[&[u8]]| self.provider.sha1_hmac_provider.sha1_hmac(key, data);
        Aes128CmSha1_80::rtp_hmac(hmac, &Self::HMAC_KEY, &mut bytes, packet.sequence, end);
        Ok(Encrypted { index: packet.sequence, bytes })
    }

    fn decrypt(&mut self, packet: &Encrypted) -> Result<usize, MicroError> {
        let (body, tag) = packet.bytes.split_at(packet.bytes.len() - Self::TAG);
        let hmac = |key: &[u8], data: &[&[u8]]| self.provider.sha1_hmac_provider.sha1_hmac(key, data);
        if !Aes128CmSha1_80::rtp_verify(hmac, &Self::HMAC_KEY, body, packet.index, tag) {
            return Err(failed(Self::NAME)("not authentic".to_owned()));
        }
        let payload = &body[HEADER..];
        self.scratch.resize(payload.len(), 0);
        let iv = Aes128CmSha1_80::rtp_iv(SALT, SSRC, packet.index);
        self.decrypt
            .decrypt(&iv, payload, &mut self.scratch)
            .map_err(|error| failed(Self::NAME)(error.to_string()))?;
        Ok(payload.len())
    }
}

enum AeadCipher {
    Short(Box<dyn AeadAes128GcmCipher>),
    Long(Box<dyn AeadAes256GcmCipher>),
}

/// AEAD-AES-GCM with a tag of 16 bytes (RFC 7714 §8).
struct Gcm {
    name: &'static str,
    encrypt: AeadCipher,
    decrypt: AeadCipher,
    scratch: Vec<u8>,
}

impl Gcm {
    const TAG: usize = AeadAes128Gcm::TAG_LEN;

    /// Both key lengths share the nonce's form.
    fn iv(index: u64) -> [u8; 12] {
        AeadAes128Gcm::rtp_iv(std::array::from_fn(|n| SALT[n]), SSRC, (index >> 16) as u32, index as u16)
    }
}

impl Cipher for Gcm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn encrypt(&mut self, packet: &RtpPacket) -> Result<Encrypted, MicroError> {
        let mut bytes = plain(packet, Self::TAG);
        bytes.resize(bytes.len() + Self::TAG, 0);
        let (header, body) = bytes.split_at_mut(HEADER);
        let iv = Self::iv(packet.sequence);
        match &mut self.encrypt {
            AeadCipher::Short(cipher) => cipher.encrypt(&iv, header, &packet.payload, body),
            AeadCipher::Long(cipher) => cipher.encrypt(&iv, header, &packet.payload, body),
        }
        .map_err(|error| failed(self.name)(error.to_string()))?;
        Ok(Encrypted { index: packet.sequence, bytes })
    }

    fn decrypt(&mut self, packet: &Encrypted) -> Result<usize, MicroError> {
        let (header, body) = packet.bytes.split_at(HEADER);
        self.scratch.resize(body.len(), 0);
        let iv = Self::iv(packet.index);
        match &mut self.decrypt {
            AeadCipher::Short(cipher) => cipher.decrypt(&iv, &[header], body, &mut self.scratch),
            AeadCipher::Long(cipher) => cipher.decrypt(&iv, &[header], body, &mut self.scratch),
        }
        .map_err(|error| failed(self.name)(error.to_string()))
    }
}

/// The `webrtc` crate's own context.
struct Crate {
    name: &'static str,
    encrypt: Context,
    decrypt: Context,
}

impl Crate {
    fn new(name: &'static str, profile: ProtectionProfile) -> Result<Self, MicroError> {
        let provider = rtc::crypto::default_provider().map_err(|error| failed(name)(error.to_string()))?;
        let key = &KEY[..profile.key_len()];
        let salt = &SALT[..profile.salt_len()];
        let context = || {
            Context::new(key, salt, profile, None, None, provider.crypto())
                .map_err(|error| failed(name)(error.to_string()))
        };
        Ok(Self { name, encrypt: context()?, decrypt: context()? })
    }
}

impl Cipher for Crate {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_of_the_media_loop(&self) -> bool {
        false
    }

    fn encrypt(&mut self, packet: &RtpPacket) -> Result<Encrypted, MicroError> {
        let bytes = self
            .encrypt
            .encrypt_rtp(&plain(packet, 0))
            .map_err(|error| failed(self.name)(error.to_string()))?;
        Ok(Encrypted { index: packet.sequence, bytes: bytes.to_vec() })
    }

    fn decrypt(&mut self, packet: &Encrypted) -> Result<usize, MicroError> {
        let plain =
            self.decrypt.decrypt_rtp(&packet.bytes).map_err(|error| failed(self.name)(error.to_string()))?;
        Ok(plain.len().saturating_sub(HEADER))
    }
}

#[cfg(test)]
mod tests {
    use recorder_core::media::Skipped;
    use recorder_core::time::BootTime;

    use super::*;

    #[test]
    fn a_changed_bit_is_refused_by_every_cipher() {
        let packet = RtpPacket {
            arrival: BootTime::default(),
            ingress: 1,
            skipped: Skipped::default(),
            ssrc: SSRC,
            payload_type: 96,
            sequence: 70,
            timestamp: 1,
            marker: true,
            recovered: false,
            rotation: None,
            payload: vec![1; 100],
        };
        for mut cipher in ciphers().unwrap() {
            let mut encrypted = cipher.encrypt(&packet).unwrap();
            assert_ne!(encrypted.bytes[HEADER..HEADER + 100], packet.payload);
            assert_eq!(cipher.decrypt(&encrypted).unwrap(), 100, "{}", cipher.name());
            encrypted.bytes[HEADER + 3] ^= 1;
            assert!(cipher.decrypt(&encrypted).is_err(), "{}", cipher.name());
        }
    }
}
