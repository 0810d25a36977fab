//! JSON that must be an object.
//!
//! Left to itself, serde takes an array for a struct whose fields come in their order.

use serde::{Deserialize, de::Error as _};

/// Reads a JSON object, and nothing else.
pub(crate) fn from_slice<'a, T: Deserialize<'a>>(text: &'a [u8]) -> serde_json::Result<T> {
    // What may come before a value is white space only.
    if matches!(text.trim_ascii_start().first(), Some(b'{') | None) {
        serde_json::from_slice(text)
    } else {
        Err(serde_json::Error::custom("it is no object"))
    }
}
