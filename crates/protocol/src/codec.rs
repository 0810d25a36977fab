//! Bytes on the wire and on disk: postcard, bounded, with nothing left over.

use postcard::ser_flavors::Size;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The most bytes that one encoded message may have: a key's versions with their values.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The format of what is stored; the first byte of every stored value.
const STORED_FORMAT: u8 = 1;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("{0} bytes are more than a message may have")]
    TooLong(usize),
    /// Not the encoding of what was expected.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Stored by a program that this one does not know.
    #[error("stored in format {0}, which this version does not know")]
    UnknownFormat(u8),
}

/// Encodes a message.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).expect("messages are plain data, which always encodes")
}

/// How many bytes [`encode`] makes of a message, without making them.
pub fn encoded_len<T: Serialize>(message: &T) -> usize {
    postcard::serialize_with_flavor(message, Size::default())
        .expect("messages are plain data, which always encodes")
}

/// Decodes a message; every byte must belong to it.
///
/// Never panics, and allocates no more than in proportion to the input.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(DecodeError::Malformed(format!("{} bytes left over", rest.len()))),
        Err(error) => Err(DecodeError::Malformed(error.to_string())),
    }
}

/// Encodes what goes to disk: a format byte, then as [`encode`].
pub fn encode_stored<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![STORED_FORMAT])
        .expect("stored values are plain data, which always encodes")
}

/// Decodes what [`encode_stored`] made.
pub fn decode_stored<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((&STORED_FORMAT, rest)) => decode(rest),
        Some((&format, _)) => Err(DecodeError::UnknownFormat(format)),
        None => Err(DecodeError::Malformed("no bytes".into())),
    }
}
