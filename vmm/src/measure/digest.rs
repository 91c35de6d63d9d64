//! Digests, and the algorithms that Realms measure with.

use std::fmt;

use sha2::{Digest as _, Sha256, Sha512};

/// The most bytes that a digest has.
const MOST: usize = 64;

/// A digest: at most 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    bytes: [u8; MOST],
    length: usize,
}

impl Digest {
    /// The digest with these bytes, cut to 64.
    #[must_use]
    pub fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; MOST];
        for (byte, value) in bytes.iter_mut().zip(digest) {
            *byte = *value;
        }
        Self {
            bytes,
            length: digest.len().min(MOST),
        }
    }

    /// The digest itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }

    /// The digest with zeros behind it, as the structures of an RMM hold it.
    #[must_use]
    pub const fn padded(&self) -> &[u8; MOST] {
        &self.bytes
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.as_bytes().iter();
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The algorithm of every measurement of a Realm, numbered as `RmiHashAlgorithm` is (DEN0137).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256 = 0,
    /// SHA-512.
    Sha512 = 1,
}

impl HashAlgorithm {
    /// The digest of all parts, one after the other.
    #[must_use]
    pub fn digest(self, parts: &[&[u8]]) -> Digest {
        match self {
            Self::Sha256 => digest(Sha256::new(), parts),
            Self::Sha512 => digest(Sha512::new(), parts),
        }
    }

    /// A measurement that nothing has gone into.
    #[must_use]
    pub fn zero(self) -> Digest {
        match self {
            Self::Sha256 => Digest::new(&[0; 32]),
            Self::Sha512 => Digest::new(&[0; 64]),
        }
    }

    /// Its name in the IANA registry of named information hash algorithms.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha512 => "sha-512",
        }
    }
}

fn digest<H: sha2::Digest>(mut hasher: H, parts: &[&[u8]]) -> Digest {
    for part in parts {
        hasher.update(part);
    }
    Digest::new(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_prints_as_hexadecimal_and_is_padded_with_zeros() {
        // FIPS 180-2, appendix B.1.
        let abc = HashAlgorithm::Sha256.digest(&[b"a", b"bc"]);
        assert_eq!(
            abc.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(abc.padded()[..32], *abc.as_bytes());
        assert_eq!(abc.padded()[32..], [0; 32]);
        assert_eq!(HashAlgorithm::Sha512.zero().as_bytes(), [0; 64]);
    }
}
