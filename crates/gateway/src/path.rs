//! Percent-encoded parts of a request target, as the bytes that they stand for.
//!
//! Keys are any bytes, so the target is taken as it came over the wire: a framework that hands out
//! decoded text has already lost `%2F`, `%00` and everything that is no UTF-8.

use std::borrow::Cow;

use anello_protocol::{
    id::{KeyspaceName, NodeId},
    key::{Key, MAX_KEY_BYTES},
};

use crate::error::{ErrorCode, Failure};

/// A `%` that two hexadecimal digits don't follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPercent;

/// Decodes `%XX`, and nothing else.
pub(crate) fn percent_decode(text: &str) -> Result<Cow<'_, [u8]>, BadPercent> {
    let bytes = text.as_bytes();
    if !bytes.contains(&b'%') {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = rest.next().and_then(hex).ok_or(BadPercent)?;
        let low = rest.next().and_then(hex).ok_or(BadPercent)?;
        decoded.push(high << 4 | low);
    }
    Ok(Cow::Owned(decoded))
}

fn hex(digit: &u8) -> Option<u8> {
    char::from(*digit).to_digit(16).map(|value| value as u8)
}

/// The key that a path segment or a query value spells.
pub(crate) fn key(encoded: &str) -> Result<Key, Failure> {
    // Every byte takes three characters at most, so what is longer need not be decoded.
    if encoded.len() > 3 * MAX_KEY_BYTES {
        let message = format!("a key is 1 to {MAX_KEY_BYTES} bytes, this one is longer");
        return Err(Failure::new(ErrorCode::BadKey, message));
    }
    if encoded.contains('/') {
        let message = "the key holds a bare '/': send it as %2F";
        return Err(Failure::new(ErrorCode::BadKey, message));
    }
    let bytes = percent_decode(encoded).map_err(|BadPercent| {
        let message = "the key is not percent-encoded: two hexadecimal digits follow every '%' \
                       (a '%' itself is %25)";
        Failure::new(ErrorCode::BadKey, message)
    })?;
    Key::new(bytes.into_owned()).map_err(|error| Failure::new(ErrorCode::BadKey, error.to_string()))
}

/// The node that a path segment names. What doesn't follow the grammar can't be a member.
pub(crate) fn node(encoded: &str) -> Result<NodeId, Failure> {
    let decoded = percent_decode(encoded).unwrap_or(Cow::Borrowed(encoded.as_bytes()));
    NodeId::new(&String::from_utf8_lossy(&decoded))
        .map_err(|error| Failure::no_such_node(error.to_string()))
}

/// The keyspace that a path segment or a query value names. What doesn't follow the grammar can't
/// exist.
pub(crate) fn keyspace(encoded: &str) -> Result<KeyspaceName, Failure> {
    if encoded == "default" {
        return Ok(KeyspaceName::default_keyspace());
    }
    let decoded = percent_decode(encoded).unwrap_or(Cow::Borrowed(encoded.as_bytes()));
    KeyspaceName::new(&String::from_utf8_lossy(&decoded))
        .map_err(|error| Failure::new(ErrorCode::NoSuchKeyspace, error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(result: Result<Key, Failure>) -> Option<ErrorCode> {
        result.err().map(|failure| failure.code())
    }

    #[test]
    fn keys_are_any_bytes() {
        for (encoded, bytes) in [
            ("cart:42", &b"cart:42"[..]),
            ("a%2Fb", b"a/b"),
            ("%00", b"\0"),
            ("%ff%FE", b"\xff\xfe"),
            ("%25", b"%"),
            ("a+b", b"a+b"),
            ("%2e%2e", b".."),
        ] {
            assert_eq!(key(encoded).unwrap().as_bytes(), bytes, "{encoded}");
        }
    }

    #[test]
    fn bad_keys_are_refused() {
        let long = "%41".repeat(MAX_KEY_BYTES + 1);
        for encoded in ["", "a/b", "%", "%4", "%zz", "%+1", "a%", &long] {
            assert_eq!(code(key(encoded)), Some(ErrorCode::BadKey), "{encoded}");
        }
        assert!(key(&"%41".repeat(MAX_KEY_BYTES)).is_ok());
        assert_eq!(code(key(&"a".repeat(MAX_KEY_BYTES + 1))), Some(ErrorCode::BadKey));
    }

    #[test]
    fn a_keyspace_out_of_grammar_does_not_exist() {
        assert_eq!(keyspace("carts-2_x").unwrap().as_str(), "carts-2_x");
        assert_eq!(keyspace("%63arts").unwrap().as_str(), "carts");
        for name in ["", "Carts", "9a", "a%2Fb", "%", "a%ff", &"x".repeat(64)] {
            assert_eq!(keyspace(name).unwrap_err().code(), ErrorCode::NoSuchKeyspace, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_key_survives_its_encoding(bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            let encoded: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
            let key = key(&encoded).unwrap();
            prop_assert_eq!(key.as_bytes(), &bytes[..]);
        }
    }
}
