//! The errors of the HTTP API: their codes, their statuses, and their one JSON shape.
//!
//! Every error answers `{"error": "<code>", "message": "<sentence>", …}`. `unavailable` and
//! `overloaded` promise that nothing was written, so whatever can't promise that is a `timeout`.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use anello_protocol::{
    id::KeyspaceName,
    message::{admin::AlterError, client::RequestError},
    version::MAX_VALUE_BYTES,
};
use anello_transport::CallError;
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    /// The key is empty, too long, or not percent-encoded.
    BadKey,
    /// The context is damaged, forged, or of another key or keyspace.
    BadContext,
    /// The consistency level can't be met, or makes no sense here.
    BadConsistency,
    /// Anything else that can never succeed as it is.
    BadRequest,
    /// There is nothing here.
    NotFound,
    /// There is no keyspace of that name.
    NoSuchKeyspace,
    /// Something else is under way that has to be through first.
    Conflict,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The value is past its bound.
    ValueTooLarge,
    /// The node sheds load; nothing was written.
    Overloaded,
    /// A part of the API that this version does not have.
    NotImplemented,
    /// Too few replicas are reachable to try; nothing was sent.
    Unavailable,
    /// The node does not serve requests yet.
    NotReady,
    /// Too few answered in time; a write, if it was one, may or may not have been kept.
    Timeout,
}

impl ErrorCode {
    fn status(self) -> StatusCode {
        match self {
            Self::BadKey | Self::BadContext | Self::BadConsistency | Self::BadRequest => {
                StatusCode::BAD_REQUEST
            }
            Self::NotFound | Self::NoSuchKeyspace => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ValueTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// The body of every error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What went wrong, for programs.
    error: ErrorCode,
    /// What went wrong, and what to do about it, for people.
    message: String,
    /// Of `value_too_large`: the most bytes that a value may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    /// Of `unavailable` and `timeout`: how many must answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<u16>,
    /// Of `unavailable`: how many of those that count can be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    alive: Option<u16>,
    /// Of `timeout`: how many answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<u16>,
    /// Of `not_found`: what the reader has seen, if a tombstone was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
}

/// A request that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    status: StatusCode,
    header: Option<FurtherHeader>,
    body: Box<ErrorBody>,
}

/// What some errors say in a header too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FurtherHeader {
    Allow(&'static str),
    RetryAfterSeconds(u32),
}

/// Whether what was asked for could have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It only reads.
    Reads,
    /// It may have written.
    Writes,
}

impl Failure {
    /// A failure with nothing to it but its code and a sentence.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status: code.status(),
            header: None,
            body: Box::new(ErrorBody {
                error: code,
                message: message.into(),
                limit: None,
                required: None,
                alive: None,
                received: None,
                context: None,
            }),
        }
    }

    /// A request that can never succeed.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// A key that nobody has written.
    pub(crate) fn never_written() -> Self {
        Self::new(ErrorCode::NotFound, "nobody has written the key")
    }

    /// A key of which a tombstone was read.
    pub(crate) fn deleted(context: String) -> Self {
        let mut failure = Self::new(ErrorCode::NotFound, "the key was deleted");
        failure.body.context = Some(context);
        failure
    }

    /// A keyspace that nobody has created.
    pub(crate) fn no_such_keyspace(name: KeyspaceName) -> Self {
        let message = RequestError::NoSuchKeyspace(name).to_string();
        Self::new(ErrorCode::NoSuchKeyspace, message)
    }

    /// A node that was never a member.
    pub(crate) fn no_such_node(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// A value past its bound.
    pub(crate) fn value_too_large() -> Self {
        let message = format!("a value is at most {MAX_VALUE_BYTES} bytes");
        let mut failure = Self::new(ErrorCode::ValueTooLarge, message);
        failure.body.limit = Some(MAX_VALUE_BYTES as u32);
        failure
    }

    /// Another body than a value past its bound.
    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the body of this request is at most {limit} bytes");
        let mut failure = Self::bad_request(message);
        failure.status = StatusCode::PAYLOAD_TOO_LARGE;
        failure
    }

    /// A body that did not arrive in time.
    pub(crate) fn body_too_slow() -> Self {
        let mut failure = Self::bad_request("the body did not arrive in time; nothing was written");
        failure.status = StatusCode::REQUEST_TIMEOUT;
        failure
    }

    /// A method that the path does not have.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this path takes {allow}");
        let mut failure = Self::new(ErrorCode::MethodNotAllowed, message);
        failure.header = Some(FurtherHeader::Allow(allow));
        failure
    }

    /// Bodies of other requests take all the memory that there is for them.
    pub(crate) fn too_many_bodies() -> Self {
        Self::overloaded(
            "too many large requests are under way; ask again in a second".into(),
            1000,
        )
    }

    fn overloaded(message: String, retry_after_ms: u32) -> Self {
        let mut failure = Self::new(ErrorCode::Overloaded, message);
        let seconds = retry_after_ms.div_ceil(1000).max(1);
        failure.header = Some(FurtherHeader::RetryAfterSeconds(seconds));
        failure
    }

    fn unavailable(message: String, required: u16, alive: u16) -> Self {
        let mut failure = Self::new(ErrorCode::Unavailable, message);
        failure.body.required = Some(required);
        failure.body.alive = Some(alive);
        failure
    }

    fn timeout(message: String, required: u16, received: u16) -> Self {
        let mut failure = Self::new(ErrorCode::Timeout, message);
        failure.body.required = Some(required);
        failure.body.received = Some(received);
        failure
    }

    /// A node that serves nothing of the kind at the moment; nothing was sent.
    pub(crate) fn not_serving(message: impl Into<String>) -> Self {
        Self::unavailable(message.into(), 1, 0)
    }

    /// A call within the node that brought no answer.
    ///
    /// How many replicas were needed is not known here: at least the one part of the node that was
    /// asked had to answer, and it did not, which is what `required` and `alive` or `received` say.
    pub(crate) fn from_call(error: CallError, effect: Effect) -> Self {
        if effect == Effect::Writes && error.may_have_been_handled() {
            let message = format!("{error}; the write may or may not have been kept");
            return Self::timeout(message, 1, 0);
        }
        match error {
            CallError::Busy => {
                Self::overloaded("the node has too much to do; ask again in a second".into(), 1000)
            }
            CallError::Timeout => Self::timeout(error.to_string(), 1, 0),
            CallError::Closed | CallError::Unreachable => {
                Self::not_serving("the node does not serve requests at the moment")
            }
            CallError::Refused(reason) => Self::not_serving(reason),
        }
    }

    /// The code.
    #[cfg(test)]
    pub(crate) fn code(&self) -> ErrorCode {
        self.body.error
    }

    /// The answer.
    pub(crate) fn response(self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        match self.header {
            Some(FurtherHeader::Allow(methods)) => {
                response.insert_header((header::ALLOW, methods));
            }
            Some(FurtherHeader::RetryAfterSeconds(seconds)) => {
                response.insert_header((header::RETRY_AFTER, seconds));
            }
            None => {}
        }
        response.json(self.body)
    }

    /// A request that its coordinator refused, or could not carry out.
    pub(crate) fn from_request(error: RequestError, effect: Effect) -> Self {
        match error {
            RequestError::Unavailable { required, alive } => {
                let can = match alive {
                    0 => "none".into(),
                    _ => format!("only {alive}"),
                };
                let must = replicas(required);
                let message =
                    format!("{must} must answer and {can} can be reached; nothing was sent");
                Self::unavailable(message, required, alive)
            }
            RequestError::DiskFull { required, alive } => {
                let room = match alive {
                    0 => "the disk of each is full".into(),
                    _ => format!("the disks of all but {alive} are full"),
                };
                let must = replicas(required);
                let message = format!(
                    "{must} must take the write and {room}; nothing was written: make room on the \
                     disks, and try again"
                );
                Self::unavailable(message, required, alive)
            }
            RequestError::Timeout { required, received } => {
                let must = replicas(required);
                let mut message = format!("{must} must answer and {received} did so in time");
                if effect == Effect::Writes {
                    message += "; the write may or may not have been kept";
                }
                Self::timeout(message, required, received)
            }
            RequestError::Overloaded { retry_after_ms } => {
                Self::overloaded(error.to_string(), retry_after_ms)
            }
            RequestError::NoSuchKeyspace(name) => Self::no_such_keyspace(name),
            RequestError::BadContext(message) => Self::new(ErrorCode::BadContext, message),
            RequestError::BadConsistency(message) => Self::new(ErrorCode::BadConsistency, message),
            RequestError::BadRequest(message) => Self::bad_request(message),
        }
    }

    /// A change of the cluster that did not come about; `majority` members had to agree.
    pub(crate) fn from_alter(error: AlterError, majority: u16) -> Self {
        let message = error.to_string();
        match error {
            AlterError::Invalid(_) => Self::bad_request(message),
            AlterError::NoSuchKeyspace(_) => Self::new(ErrorCode::NoSuchKeyspace, message),
            AlterError::Unavailable { required, alive } => {
                Self::unavailable(message, required, alive)
            }
            AlterError::Timeout => Self::timeout(message, majority, 0),
            AlterError::UnderWay(_) => Self::new(ErrorCode::Conflict, message),
        }
    }
}

fn replicas(count: u16) -> String {
    format!("{count} replica{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use futures_util::FutureExt;
    use serde_json::{Value as Json, json};

    use super::*;

    fn written(error: RequestError) -> Failure {
        Failure::from_request(error, Effect::Writes)
    }

    fn rendered(failure: Failure) -> (u16, Json, HttpResponse<()>) {
        let (response, body) = failure.response().into_parts();
        let body = to_bytes(body).now_or_never().unwrap().unwrap();
        (response.status().as_u16(), serde_json::from_slice(&body).unwrap(), response)
    }

    #[test]
    fn every_refusal_of_a_coordinator_has_its_row() {
        let too_large = rendered(Failure::value_too_large());
        assert_eq!((too_large.0, &too_large.1["limit"]), (413, &json!(1_048_576)));

        let (status, body, response) =
            rendered(written(RequestError::Overloaded { retry_after_ms: 1_001 }));
        assert_eq!((status, &body["error"]), (429, &json!("overloaded")));
        assert_eq!(response.headers().get("Retry-After").unwrap(), "2");
        let soon = rendered(written(RequestError::Overloaded { retry_after_ms: 5 })).2;
        assert_eq!(soon.headers().get("Retry-After").unwrap(), "1");

        let (status, body, _) =
            rendered(written(RequestError::Unavailable { required: 2, alive: 1 }));
        assert_eq!((status, &body["required"], &body["alive"]), (503, &json!(2), &json!(1)));
        assert!(body.get("received").is_none());

        let (status, body, _) =
            rendered(written(RequestError::Timeout { required: 2, received: 1 }));
        assert_eq!((status, &body["required"], &body["received"]), (504, &json!(2), &json!(1)));

        for (error, code) in [
            (RequestError::BadContext("x".into()), "bad_context"),
            (RequestError::BadConsistency("x".into()), "bad_consistency"),
            (RequestError::BadRequest("x".into()), "bad_request"),
        ] {
            let (status, body, _) = rendered(written(error));
            assert_eq!((status, &body["error"]), (400, &json!(code)));
        }
    }

    #[test]
    fn what_was_missing_is_said_in_a_sentence() {
        let said = |error, effect| Failure::from_request(error, effect).body.message;
        for (required, alive, sentence) in [
            (1, 0, "1 replica must answer and none can be reached; nothing was sent"),
            (2, 1, "2 replicas must answer and only 1 can be reached; nothing was sent"),
        ] {
            let error = RequestError::Unavailable { required, alive };
            assert_eq!(said(error, Effect::Reads), sentence);
        }
        assert_eq!(
            said(RequestError::DiskFull { required: 2, alive: 0 }, Effect::Writes),
            "2 replicas must take the write and the disk of each is full; nothing was written: \
             make room on the disks, and try again"
        );
        let timeout =
            |required, effect| said(RequestError::Timeout { required, received: 0 }, effect);
        assert_eq!(timeout(1, Effect::Reads), "1 replica must answer and 0 did so in time");
        assert_eq!(
            timeout(2, Effect::Writes),
            "2 replicas must answer and 0 did so in time; the write may or may not have been kept"
        );
    }

    #[test]
    fn only_what_surely_wrote_nothing_is_called_unavailable() {
        let status = |error, effect| rendered(Failure::from_call(error, effect)).0;
        assert_eq!(status(CallError::Closed, Effect::Reads), 503);
        assert_eq!(status(CallError::Closed, Effect::Writes), 504);
        assert_eq!(status(CallError::Unreachable, Effect::Writes), 503);
        assert_eq!(status(CallError::Timeout, Effect::Writes), 504);
        assert_eq!(status(CallError::Busy, Effect::Writes), 429);
    }
}
