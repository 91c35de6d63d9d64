//! `RSI_ATTESTATION_TOKEN_INIT` and `_CONTINUE`: a CCA token that has the right form and no worth.
//!
//! ```text
//!   init ──► Unread { token, read: 0 } ── continue, room for less ──► Unread { read: more }
//!    ▲                                  └─ continue, room for all ──► None
//!    └────────── from every state: the token before it is dropped
//! ```
//!
//! The form is that of draft-ffm-rats-cca-token: a collection (tag 399) of a platform token and a
//! Realm token, each a `COSE_Sign1` of a map of claims, bound together by the digest of the Realm's
//! key. Both keys are made when the first token is asked for, and die with the VM. No root of trust
//! stands behind them; the platform token says so in its implementation id and its verification
//! service.

use coset::cbor::Value;
use coset::{
    CborSerializable, CoseKeyBuilder, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable, iana,
};
use iommu::{Gpa, PAGE_SIZE};
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey};
use sha2::{Digest, Sha256};

use super::config::RealmConfig;
use super::measurement::Measurements;
use super::rsi::{self, Arguments, Failure, Reply};
use super::{Realm, RealmMemory};
use crate::random;

/// CBOR tag of a CCA token: a conceptual message wrapper collection.
const COLLECTION_TAG: u64 = 399;

/// What stands where a platform names its implementation: 32 bytes.
const IMPLEMENTATION: &[u8; 32] = b"emulated Realm, no root of trust";

/// Where a verifier would be asked.
const VERIFICATION_SERVICE: &str = "none: emulated Realm, no root of trust";

/// Keys of the maps in a CCA token.
mod claim {
    pub(super) const CHALLENGE: i64 = 10;
    pub(super) const INSTANCE_ID: i64 = 256;
    pub(super) const PROFILE: i64 = 265;
    pub(super) const LIFECYCLE: i64 = 2395;
    pub(super) const IMPLEMENTATION_ID: i64 = 2396;
    pub(super) const SOFTWARE_COMPONENTS: i64 = 2399;
    pub(super) const VERIFICATION_SERVICE: i64 = 2400;
    pub(super) const PLATFORM_CONFIG: i64 = 2401;
    pub(super) const PLATFORM_HASH: i64 = 2402;
    pub(super) const PLATFORM_TOKEN: i64 = 44234;
    pub(super) const PERSONALIZATION: i64 = 44235;
    pub(super) const REALM_HASH: i64 = 44236;
    pub(super) const PUBLIC_KEY: i64 = 44237;
    pub(super) const INITIAL_MEASUREMENT: i64 = 44238;
    pub(super) const EXTENSIBLE_MEASUREMENTS: i64 = 44239;
    pub(super) const PUBLIC_KEY_HASH: i64 = 44240;
    pub(super) const REALM_TOKEN: i64 = 44241;
    /// Of one software component.
    pub(super) const COMPONENT_TYPE: i64 = 1;
    pub(super) const COMPONENT_MEASUREMENT: i64 = 2;
    pub(super) const COMPONENT_VERSION: i64 = 4;
    pub(super) const COMPONENT_SIGNER: i64 = 5;
}

/// The token that a vCPU is reading, if any.
#[derive(Default)]
pub(super) enum TokenState {
    /// No token has been asked for, or the last one has been read to its end.
    #[default]
    None,
    /// A token of which the first `read` bytes have been read.
    Unread {
        /// The whole token.
        token: Vec<u8>,
        /// How much of it the guest has.
        read: usize,
    },
}

impl<M: RealmMemory> Realm<M> {
    /// x1 to x8: the challenge; returns an upper bound of the token's length.
    pub(super) fn token_init(&self, state: &mut TokenState, arguments: &Arguments) -> Reply {
        *state = TokenState::None;
        let challenge: [u8; 64] = rsi::bytes_of(arguments);
        let attester = self.attester.get_or_init(Attester::new);
        let measurements = self.measurements().clone();
        let token = attester
            .as_ref()
            .and_then(|attester| attester.token(&self.config, &measurements, &challenge));
        let Some(token) = token else {
            tracing::warn!("cannot make an attestation token: no random numbers or no encoding");
            return Failure::Unknown.into();
        };
        let bound = (token.len() as u64).next_multiple_of(PAGE_SIZE);
        *state = TokenState::Unread { token, read: 0 };
        Reply::success([bound])
    }

    /// x1: a granule of private memory, x2: where in it the buffer begins, x3: the buffer's size;
    /// returns how much of it was filled.
    pub(super) fn token_continue(&self, state: &mut TokenState, arguments: &Arguments) -> Reply {
        let [granule, offset, size, ..] = *arguments;
        let granule = Gpa::new(granule);
        let end = offset.checked_add(size);
        let within = offset < PAGE_SIZE && end.is_some_and(|end| end <= PAGE_SIZE);
        if !granule.is_page_aligned() || !within || !self.is_protected(granule) {
            return Failure::Input.into();
        }
        let TokenState::Unread { token, read } = state else {
            return Failure::State.into();
        };
        let rest = token.get(*read..).unwrap_or_default();
        let room = usize::try_from(size).unwrap_or(usize::MAX);
        let part = rest.get(..room).unwrap_or(rest);
        let buffer = Gpa::new(granule.raw() | offset);
        if self.memory.write_private(buffer, part).is_err() {
            return Failure::Input.into();
        }
        let (written, done) = (part.len() as u64, part.len() == rest.len());
        *read += part.len();
        if done {
            *state = TokenState::None;
            return Reply::success([written]);
        }
        Reply::incomplete([written])
    }
}

/// Two keys that nobody vouches for.
pub(super) struct Attester {
    platform: SigningKey,
    realm: SigningKey,
}

impl Attester {
    /// New keys, or `None` when the host gives no random numbers.
    fn new() -> Option<Self> {
        Some(Self {
            platform: random_key()?,
            realm: random_key()?,
        })
    }

    /// The token for `challenge`; `None` when it cannot be encoded.
    fn token(
        &self,
        config: &RealmConfig,
        measurements: &Measurements,
        challenge: &[u8; 64],
    ) -> Option<Vec<u8>> {
        let public_key = self.public_key()?;
        let platform = signed(&self.platform, platform_claims(&public_key))?;
        let realm = realm_claims(config, measurements, challenge, public_key);
        let collection = map([
            (claim::PLATFORM_TOKEN, Value::Bytes(platform)),
            (
                claim::REALM_TOKEN,
                Value::Bytes(signed(&self.realm, realm)?),
            ),
        ]);
        Value::Tag(COLLECTION_TAG, Box::new(collection))
            .to_vec()
            .ok()
    }

    /// The Realm's public key as a `COSE_Key`.
    fn public_key(&self) -> Option<Vec<u8>> {
        let point = self.realm.verifying_key().to_sec1_point(false);
        let (x, y) = (point.x()?.to_vec(), point.y()?.to_vec());
        CoseKeyBuilder::new_ec2_pub_key(iana::EllipticCurve::P_384, x, y)
            .build()
            .to_vec()
            .ok()
    }
}

fn realm_claims(
    config: &RealmConfig,
    measurements: &Measurements,
    challenge: &[u8; 64],
    public_key: Vec<u8>,
) -> Value {
    let extensible = measurements.extensible().iter();
    let extensible = extensible.map(|value| bytes(value.as_bytes())).collect();
    map([
        (claim::CHALLENGE, bytes(challenge)),
        (claim::PROFILE, text("tag:arm.com,2023:realm#1.0.0")),
        (claim::PERSONALIZATION, bytes(&config.personalization)),
        (claim::REALM_HASH, text(config.hash.name())),
        (claim::PUBLIC_KEY, Value::Bytes(public_key)),
        (
            claim::INITIAL_MEASUREMENT,
            bytes(measurements.initial().as_bytes()),
        ),
        (claim::EXTENSIBLE_MEASUREMENTS, Value::Array(extensible)),
        (claim::PUBLIC_KEY_HASH, text("sha-256")),
    ])
}

fn platform_claims(realm_public_key: &[u8]) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let component = map([
        (claim::COMPONENT_TYPE, text("ccvm emulated-realm")),
        (
            claim::COMPONENT_MEASUREMENT,
            bytes(&Sha256::digest(version)),
        ),
        (claim::COMPONENT_VERSION, text(version)),
        (claim::COMPONENT_SIGNER, bytes(&[0; 32])),
    ]);
    // An instance id begins with 1, for "random"; ours is the same everywhere.
    let mut instance = vec![1];
    instance.extend(IMPLEMENTATION);
    map([
        (claim::CHALLENGE, bytes(&Sha256::digest(realm_public_key))),
        (claim::INSTANCE_ID, Value::Bytes(instance)),
        (claim::PROFILE, text("tag:arm.com,2023:cca_platform#1.0.0")),
        // 0: unknown.
        (claim::LIFECYCLE, Value::from(0)),
        (claim::IMPLEMENTATION_ID, bytes(IMPLEMENTATION)),
        (claim::SOFTWARE_COMPONENTS, Value::Array(vec![component])),
        (claim::VERIFICATION_SERVICE, text(VERIFICATION_SERVICE)),
        (claim::PLATFORM_CONFIG, bytes(&[])),
        (claim::PLATFORM_HASH, text("sha-256")),
    ])
}

/// A tagged `COSE_Sign1` of the claims.
fn signed(key: &SigningKey, claims: Value) -> Option<Vec<u8>> {
    let header = HeaderBuilder::new().algorithm(iana::Algorithm::ES384);
    CoseSign1Builder::new()
        .protected(header.build())
        .payload(claims.to_vec().ok()?)
        .create_signature(&[], |message| {
            let signature: Signature = key.sign(message);
            signature.to_vec()
        })
        .build()
        .to_tagged_vec()
        .ok()
}

fn random_key() -> Option<SigningKey> {
    // All but a vanishing part of the 48-byte numbers are keys.
    (0..8).find_map(|_| {
        let scalar: [u8; 48] = random::bytes().ok()?;
        SigningKey::from_slice(&scalar).ok()
    })
}

fn map<const N: usize>(entries: [(i64, Value); N]) -> Value {
    Value::Map(entries.map(|(key, value)| (Value::from(key), value)).into())
}

fn bytes(value: &[u8]) -> Value {
    Value::Bytes(value.to_vec())
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}
