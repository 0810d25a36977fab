//! The body of a `PUT` as a value: byte for byte, or within JSON.

use std::borrow::Cow;

use anello_protocol::{message::client::ContextToken, version::Value};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    answer::Encoding,
    body::Expected,
    error::{ErrorCode, Failure},
    object, options,
};

/// The body of a `PUT` in JSON.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutBody<'a> {
    /// The value, spelled as `encoding` says.
    #[serde(borrow)]
    #[schema(value_type = String)]
    value: Cow<'a, str>,
    /// How the value is spelled; `utf-8` if left out.
    encoding: Option<Encoding>,
    /// What the writer had seen. Without it the value is concurrent with all that is there.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    context: Option<Cow<'a, str>>,
}

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The value.
    pub(crate) value: Value,
    /// What the writer had seen.
    pub(crate) context: Option<ContextToken>,
}

/// Reads a body that has arrived whole; `header` is the context that came in the header.
pub(crate) fn parse(
    expected: Expected,
    body: Bytes,
    header: Option<ContextToken>,
) -> Result<Stored, Failure> {
    if expected != Expected::ValueJson {
        return Ok(Stored { value: bounded(body)?, context: header });
    }
    let PutBody { value, encoding, context } = object::from_slice(&body).map_err(|error| {
        Failure::bad_request(format!(
            "the body is not {{\"value\", \"encoding\"?, \"context\"?}} in JSON: {error}"
        ))
    })?;
    let value = match encoding.unwrap_or_default() {
        Encoding::Utf8 => bounded(value.into_owned())?,
        Encoding::Base64 => {
            let bytes = STANDARD.decode(value.as_bytes()).map_err(|error| {
                let message = "the value is not base64 (standard alphabet, padded)";
                Failure::bad_request(format!("{message}: {error}"))
            })?;
            bounded(bytes)?
        }
    };
    let context = context.map(|token| options::context_token(&token)).transpose()?;
    match (context, header) {
        (Some(body), Some(header)) if body != header => {
            let message = "the body and the header Anello-Context carry different contexts";
            Err(Failure::new(ErrorCode::BadRequest, message))
        }
        (body, header) => Ok(Stored { value, context: body.or(header) }),
    }
}

fn bounded(bytes: impl Into<Bytes>) -> Result<Value, Failure> {
    Value::new(bytes).map_err(|_| Failure::value_too_large())
}

#[cfg(test)]
mod tests {
    use anello_protocol::version::MAX_VALUE_BYTES;

    use super::*;

    fn json(text: impl Into<Bytes>) -> Result<Stored, ErrorCode> {
        parse(Expected::ValueJson, text.into(), None).map_err(|failure| failure.code())
    }

    fn value(stored: Result<Stored, ErrorCode>) -> Bytes {
        stored.unwrap().value.into_bytes()
    }

    #[test]
    fn values_come_as_text_as_base64_and_as_they_are() {
        assert_eq!(value(json(r#"{"value":"h\u00e4"}"#)), "hä");
        assert_eq!(value(json(r#"{"value":"","encoding":"utf-8"}"#)), "");
        assert_eq!(value(json(r#" {"value":"a","encoding":null,"context":null}"#)), "a");
        assert_eq!(value(json(r#"{"encoding":"base64","value":"/wA="}"#)), &b"\xff\0"[..]);
        let raw = parse(Expected::Value, Bytes::from_static(b"{\xff"), None).unwrap();
        assert_eq!(raw.value.bytes(), &b"{\xff"[..]);
    }

    #[test]
    fn bodies_that_are_not_what_they_say_are_refused() {
        for body in [
            "",
            "{}",
            "[]",
            r#"["hi","utf-8",null]"#,
            r#" ["hi"]"#,
            "null",
            r#""hi""#,
            r#"{"value":1}"#,
            r#"{"value":null}"#,
            r#"{"value":"a"} x"#,
            r#"{"value":"a","ttl":1}"#,
            r#"{"value":"a","value":"b"}"#,
            r#"{"value":"a","encoding":"UTF-8"}"#,
            r#"{"value":"a","encoding":"hex"}"#,
            r#"{"value":"/wA","encoding":"base64"}"#,
            r#"{"value":"_w==","encoding":"base64"}"#,
            r#"{"value":"a b=","encoding":"base64"}"#,
            r#"{"value":"\ud800"}"#,
            r#"{"value":"a""#,
        ] {
            assert_eq!(json(body), Err(ErrorCode::BadRequest), "{body}");
        }
        assert_eq!(json(&b"{\"value\":\"\xff\"}"[..]), Err(ErrorCode::BadRequest));
        let long = "x".repeat(4097);
        let body = format!(r#"{{"value":"a","context":"{long}"}}"#);
        assert_eq!(json(body), Err(ErrorCode::BadContext));
    }

    #[test]
    fn the_bound_is_the_values_own() {
        let of = |bytes: usize| json(format!(r#"{{"value":"{}"}}"#, "\\u0041".repeat(bytes)));
        assert_eq!(value(of(MAX_VALUE_BYTES)).len(), MAX_VALUE_BYTES);
        assert_eq!(of(MAX_VALUE_BYTES + 1), Err(ErrorCode::ValueTooLarge));
        let encoded = STANDARD.encode(vec![7; MAX_VALUE_BYTES + 1]);
        let body = format!(r#"{{"value":"{encoded}","encoding":"base64"}}"#);
        assert_eq!(json(body), Err(ErrorCode::ValueTooLarge));
        let raw = parse(Expected::Value, vec![0; MAX_VALUE_BYTES + 1].into(), None);
        assert_eq!(raw.unwrap_err().code(), ErrorCode::ValueTooLarge);
    }

    #[test]
    fn two_contexts_must_be_one() {
        let token = |text: &str| Some(ContextToken(text.into()));
        let parsed = |body: &'static str, header| {
            let parsed = parse(Expected::ValueJson, body.into(), header);
            parsed.map(|stored| stored.context).map_err(|failure| failure.code())
        };
        let with = r#"{"value":"v","context":"a"}"#;
        assert_eq!(parsed(with, None), Ok(token("a")));
        assert_eq!(parsed(with, token("a")), Ok(token("a")));
        assert_eq!(parsed(with, token("b")), Err(ErrorCode::BadRequest));
        assert_eq!(parsed(r#"{"value":"v"}"#, token("b")), Ok(token("b")));
        assert_eq!(parsed(r#"{"value":"v","context":null}"#, None), Ok(None));
    }
}
