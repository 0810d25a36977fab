//! Context tokens: contexts as clients carry them, opaque, URL-safe, checked.
//!
//! `base64url(version byte ‖ 64-bit checksum ‖ postcard(context))`. The checksum runs over the
//! keyspace's life and the key too, so a token is good for its own key only, and none that was damaged
//! on its way passes. It is no signature: who can write a key can also damage its history.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3Default;

use super::context::Context;
use crate::key::DataKey;

/// The longest token that is read: that of 200 actors or gaps. Contexts are exact, so there can be
/// longer ones, which are refused when they come back; see `docs/consistency.md`.
pub const MAX_TOKEN_BYTES: usize = 4096;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// A token that is damaged, forged, or of another key or keyspace.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadToken {
    /// Past [`MAX_TOKEN_BYTES`].
    #[error(
        "a context is at most {MAX_TOKEN_BYTES} bytes; read the key, which closes the gaps between the writes \
         that this one has seen, and write with the context of that read"
    )]
    TooLong,
    /// Not base64url, or not a context below it, or made by a later version.
    #[error("the context is damaged or no context of this system")]
    Damaged,
    /// Whole, but of something else, or altered.
    #[error("the context belongs to another key or keyspace, or was altered")]
    Mismatch,
}

/// The token of what a reader of `key` has seen.
pub fn token_encode(key: &DataKey, context: &Context) -> String {
    let payload =
        postcard::to_stdvec(context).expect("a context is plain data, which always encodes");
    let mut bytes = Vec::with_capacity(1 + CHECKSUM_BYTES + payload.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&checksum(key, &payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The context of a token that was given out for `key`.
pub fn token_decode(key: &DataKey, token: &str) -> Result<Context, BadToken> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(BadToken::TooLong);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| BadToken::Damaged)?;
    let (version, rest) = bytes.split_first().ok_or(BadToken::Damaged)?;
    let (sum, payload) = rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or(BadToken::Damaged)?;
    if *version != VERSION {
        return Err(BadToken::Damaged);
    }
    if u64::from_le_bytes(*sum) != checksum(key, payload) {
        return Err(BadToken::Mismatch);
    }
    match postcard::take_from_bytes::<Context>(payload) {
        Ok((context, [])) => Ok(context),
        _ => Err(BadToken::Damaged),
    }
}

fn checksum(key: &DataKey, payload: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(b"anello context");
    hash.update(&key.keyspace.0.to_le_bytes());
    hash.update(&(key.key.as_bytes().len() as u64).to_le_bytes());
    hash.update(key.key.as_bytes());
    hash.update(payload);
    hash.digest()
}
