//! What a coordinator answered, as an HTTP response.
//!
//! Pure: no request is looked at but the form that its reader asked for. A `HEAD` is answered like a
//! `GET`, and the server below leaves the body out.

use std::{borrow::Cow, str};

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};
use anello_protocol::{
    message::client::{Answer, ContextToken, Found, FoundVersion, Receipt, Written},
    version::{Content, Value},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    accept::Form,
    error::{Effect, Failure},
    receipt::ReceiptBody,
};

/// The header with the context.
pub(crate) const CONTEXT: HeaderName = HeaderName::from_static("anello-context");
/// The header with the receipt.
pub(crate) const RECEIPT: HeaderName = HeaderName::from_static("anello-receipt");

/// How a value is spelled in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
pub(crate) enum Encoding {
    /// As the text that it is.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// In the standard alphabet, padded.
    #[serde(rename = "base64")]
    Base64,
}

/// The answer to a read that found one value.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValueBody<'a> {
    /// The value: itself where it is valid UTF-8, else in base64.
    #[schema(value_type = String)]
    value: Cow<'a, str>,
    /// Which of the two.
    encoding: Encoding,
    /// What the reader has seen: a write that carries it replaces exactly that.
    context: &'a str,
}

/// A value, spelled in JSON.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValueText<'a> {
    /// The value: itself where it is valid UTF-8, else in base64.
    #[schema(value_type = String)]
    value: Cow<'a, str>,
    /// Which of the two.
    encoding: Encoding,
}

impl<'a> From<&'a Value> for ValueText<'a> {
    fn from(value: &'a Value) -> Self {
        match str::from_utf8(value.bytes()) {
            Ok(text) => Self { value: text.into(), encoding: Encoding::Utf8 },
            Err(_) => {
                let text = STANDARD.encode(value.bytes());
                Self { value: text.into(), encoding: Encoding::Base64 }
            }
        }
    }
}

/// The answer to a read that found concurrent versions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SiblingsBody<'a> {
    /// The versions, none of which knew of another.
    versions: Vec<SiblingBody<'a>>,
    /// What the reader has seen: a write that carries it replaces them all.
    context: &'a str,
}

/// One of several concurrent versions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SiblingBody<'a> {
    /// A value.
    Value(ValueText<'a>),
    /// A deletion.
    Deleted {
        /// Always true.
        deleted: bool,
    },
}

impl<'a> From<&'a FoundVersion> for SiblingBody<'a> {
    fn from(version: &'a FoundVersion) -> Self {
        match &version.content {
            Content::Value(value) => Self::Value(value.into()),
            Content::Tombstone => Self::Deleted { deleted: true },
        }
    }
}

/// The answer to a write.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WrittenBody<'a> {
    /// What the writer has seen: its own write, and what that replaced.
    context: &'a str,
}

/// Answers a read.
pub(crate) fn found(answer: Answer<Found>, form: Form) -> HttpResponse {
    let response = match answer.result {
        Ok(found) => found_response(found, form),
        Err(error) => Failure::from_request(error, Effect::Reads).response(),
    };
    with_receipt(response, answer.receipt)
}

fn found_response(found: Found, form: Form) -> HttpResponse {
    let Found { versions, context: ContextToken(context) } = found;
    let response = match (&versions[..], form) {
        ([], _) => Failure::never_written().response(),
        (versions, _) if versions.iter().all(|version| version.content == Content::Tombstone) => {
            Failure::deleted(context.clone()).response()
        }
        ([FoundVersion { content: Content::Value(value), .. }], Form::Bytes) => {
            let mut response = HttpResponse::Ok();
            response.insert_header((header::CONTENT_TYPE, octet_stream()));
            response.body(value.bytes().clone())
        }
        ([FoundVersion { content: Content::Value(value), .. }], Form::Json) => {
            let ValueText { value, encoding } = value.into();
            HttpResponse::Ok().json(ValueBody { value, encoding, context: &context })
        }
        (versions, _) => {
            let versions = versions.iter().map(SiblingBody::from).collect();
            let body = SiblingsBody { versions, context: &context };
            HttpResponse::build(StatusCode::MULTIPLE_CHOICES).json(body)
        }
    };
    with_context(response, &context)
}

fn octet_stream() -> HeaderValue {
    HeaderValue::from_static("application/octet-stream")
}

/// Answers a `PUT`.
pub(crate) fn stored(answer: Answer<Written>) -> HttpResponse {
    write(answer, |context| HttpResponse::Ok().json(WrittenBody { context }))
}

/// Answers a `DELETE`.
pub(crate) fn deleted(answer: Answer<Written>) -> HttpResponse {
    write(answer, |_| HttpResponse::NoContent().finish())
}

fn write(answer: Answer<Written>, done: impl FnOnce(&str) -> HttpResponse) -> HttpResponse {
    let response = match answer.result {
        Ok(Written { context: ContextToken(context) }) => with_context(done(&context), &context),
        Err(error) => Failure::from_request(error, Effect::Writes).response(),
    };
    with_receipt(response, answer.receipt)
}

fn with_context(mut response: HttpResponse, context: &str) -> HttpResponse {
    if let Ok(value) = HeaderValue::from_str(context) {
        response.headers_mut().insert(CONTEXT, value);
    }
    response
}

fn with_receipt(mut response: HttpResponse, receipt: Option<Receipt>) -> HttpResponse {
    let line = receipt.and_then(|receipt| serde_json::to_vec(&ReceiptBody::from(receipt)).ok());
    if let Some(value) = line.and_then(|line| HeaderValue::try_from(line).ok()) {
        response.headers_mut().insert(RECEIPT, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use anello_protocol::{message::client::RequestError, time::HybridTime};
    use futures_util::FutureExt;
    use serde_json::{Value as Json, json};

    use super::*;

    fn version(content: Content) -> FoundVersion {
        FoundVersion { content, time: HybridTime::default() }
    }

    fn value(bytes: &'static [u8]) -> FoundVersion {
        version(Content::Value(Value::new(bytes).unwrap()))
    }

    fn answer(versions: Vec<FoundVersion>) -> Answer<Found> {
        Ok(Found { versions, context: ContextToken("ctx".into()) }).into()
    }

    fn rendered(response: HttpResponse) -> (u16, Option<String>, Vec<u8>) {
        let (head, body) = response.into_parts();
        let context = head.headers().get(CONTEXT).map(|v| v.to_str().unwrap().to_owned());
        let body = to_bytes(body).now_or_never().unwrap().unwrap();
        (head.status().as_u16(), context, body.to_vec())
    }

    fn json_of(response: HttpResponse) -> (u16, Option<String>, Json) {
        let (status, context, body) = rendered(response);
        (status, context, serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn one_value_is_text_or_base64_or_itself() {
        let context = Some("ctx".to_owned());
        assert_eq!(
            json_of(found(answer(vec![value(b"hi")]), Form::Json)),
            (200, context.clone(), json!({"value": "hi", "encoding": "utf-8", "context": "ctx"}))
        );
        assert_eq!(
            json_of(found(answer(vec![value(b"\xff\x00")]), Form::Json)).2,
            json!({"value": "/wA=", "encoding": "base64", "context": "ctx"})
        );
        assert_eq!(
            rendered(found(answer(vec![value(b"\xff\x00")]), Form::Bytes)),
            (200, context, b"\xff\x00".to_vec())
        );
    }

    #[test]
    fn siblings_are_json_whatever_was_asked_for() {
        let versions = || vec![value(b"a"), version(Content::Tombstone), value(b"\xff")];
        for form in [Form::Json, Form::Bytes] {
            let (status, context, body) = json_of(found(answer(versions()), form));
            assert_eq!((status, context.as_deref()), (300, Some("ctx")));
            let expected = json!({
                "versions": [
                    {"value": "a", "encoding": "utf-8"},
                    {"deleted": true},
                    {"value": "/w==", "encoding": "base64"},
                ],
                "context": "ctx",
            });
            assert_eq!(body, expected);
        }
        let mixed = vec![value(b"a"), version(Content::Tombstone)];
        assert_eq!(json_of(found(answer(mixed), Form::Json)).0, 300);
    }

    #[test]
    fn nothing_and_deleted_differ_by_the_context_in_the_body() {
        let (status, context, body) = json_of(found(answer(vec![]), Form::Json));
        assert_eq!((status, context.as_deref()), (404, Some("ctx")));
        assert_eq!(body["error"], json!("not_found"));
        assert_eq!(body["message"], json!("nobody has written the key"));
        assert!(body.get("context").is_none());
        let tombstones = vec![version(Content::Tombstone), version(Content::Tombstone)];
        let (status, context, body) = json_of(found(answer(tombstones), Form::Bytes));
        assert_eq!((status, context.as_deref()), (404, Some("ctx")));
        assert_eq!(body["context"], json!("ctx"));
    }

    #[test]
    fn writes_give_their_context() {
        let written = || Answer::from(Ok(Written { context: ContextToken("ctx".into()) }));
        let expected = (200, Some("ctx".to_owned()), json!({"context": "ctx"}));
        assert_eq!(json_of(stored(written())), expected);
        assert_eq!(rendered(deleted(written())), (204, Some("ctx".to_owned()), vec![]));
        let failed = Answer::from(Err(RequestError::BadContext("damaged".into())));
        assert_eq!(json_of(stored(failed)).0, 400);
    }
}
