//! The headers that say how a request is to be carried out, as the typed options of the protocol.
//!
//! Whatever can be judged without knowing the cluster is judged here; whether a level can be met is
//! the coordinator's to say. A header that comes twice must say the same thing both times.

use std::str;

use actix_web::http::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use anello_protocol::{
    causality::{BadToken, MAX_TOKEN_BYTES},
    consistency::{Consistency, QuorumKind},
    message::client::{ContextToken, MAX_TIMEOUT_MS, RequestOptions},
    version::WriteId,
};
use anello_transport::TraceContext;

use crate::{
    answer::CONTEXT,
    error::{ErrorCode, Failure},
};

const CONSISTENCY: HeaderName = HeaderName::from_static("anello-consistency");
const READ: HeaderName = HeaderName::from_static("r");
const WRITE: HeaderName = HeaderName::from_static("w");
const QUORUM: HeaderName = HeaderName::from_static("anello-quorum");
const TIMEOUT: HeaderName = HeaderName::from_static("anello-timeout-ms");
const EXPLAIN: HeaderName = HeaderName::from_static("anello-explain");
const IDEMPOTENCY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest idempotency key, in characters.
const MAX_IDEMPOTENCY_CHARS: usize = 64;

/// Reads what says how; the trace is none of it.
pub(crate) fn options(method: &Method, headers: &HeaderMap) -> Result<RequestOptions, Failure> {
    let mut options = RequestOptions::default();
    if let Some(level) = text(headers, CONSISTENCY, ErrorCode::BadConsistency)? {
        let level: Consistency =
            level.parse().map_err(|error: anello_protocol::consistency::BadConsistency| {
                Failure::new(ErrorCode::BadConsistency, error.to_string())
            })?;
        options.write = Some(level);
        // A delete without a context reads first; `each_quorum` says nothing of that read.
        options.read = match (level, method) {
            (Consistency::EachQuorum, &Method::PUT | &Method::DELETE) => None,
            _ => Some(level),
        };
    }
    if let Some(count) = count(headers, READ)? {
        options.read = Some(count);
    }
    if let Some(count) = count(headers, WRITE)? {
        options.write = Some(count);
    }
    if options.read == Some(Consistency::EachQuorum) {
        let message = "each_quorum is for writes; read with quorum, local_quorum or all";
        return Err(Failure::new(ErrorCode::BadConsistency, message));
    }
    if let Some(kind) = text(headers, QUORUM, ErrorCode::BadRequest)? {
        options.quorum = match kind {
            _ if kind.eq_ignore_ascii_case("sloppy") => QuorumKind::Sloppy,
            _ if kind.eq_ignore_ascii_case("strict") => QuorumKind::Strict,
            _ => return Err(Failure::bad_request("Anello-Quorum is sloppy or strict")),
        };
    }
    if let Some(timeout) = text(headers, TIMEOUT, ErrorCode::BadRequest)? {
        let timeout = decimal(timeout).filter(|ms| (1..=MAX_TIMEOUT_MS).contains(ms));
        options.timeout_ms = timeout.ok_or_else(|| {
            Failure::bad_request(format!(
                "Anello-Timeout-Ms is a number from 1 to {MAX_TIMEOUT_MS}"
            ))
        })?;
    }
    if let Some(explain) = text(headers, EXPLAIN, ErrorCode::BadRequest)? {
        options.explain = match explain {
            _ if explain.eq_ignore_ascii_case("true") => true,
            _ if explain.eq_ignore_ascii_case("false") => false,
            _ => return Err(Failure::bad_request("Anello-Explain is true or false")),
        };
    }
    Ok(options)
}

/// The context in its header, if there is one.
pub(crate) fn context(headers: &HeaderMap) -> Result<Option<ContextToken>, Failure> {
    text(headers, CONTEXT, ErrorCode::BadContext)?.map(context_token).transpose()
}

/// A context within its bound; whether it is one is the coordinator's to say.
pub(crate) fn context_token(token: &str) -> Result<ContextToken, Failure> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Failure::new(ErrorCode::BadContext, BadToken::TooLong.to_string()));
    }
    Ok(ContextToken(token.to_owned()))
}

/// The name that the client gave its write: what its idempotency key stands for.
pub(crate) fn write_id(headers: &HeaderMap) -> Result<Option<WriteId>, Failure> {
    let Some(value) = single(headers, IDEMPOTENCY, ErrorCode::BadRequest)? else {
        return Ok(None);
    };
    let key = str::from_utf8(value.as_bytes()).ok().filter(|key| {
        let printable = key.chars().all(|character| !character.is_control());
        printable && (1..=MAX_IDEMPOTENCY_CHARS).contains(&key.chars().count())
    });
    let key = key.ok_or_else(|| {
        let message =
            format!("Idempotency-Key is 1 to {MAX_IDEMPOTENCY_CHARS} printable characters");
        Failure::bad_request(message)
    })?;
    Ok(Some(WriteId::of_idempotency_key(key)))
}

/// The trace that a request joins. As the specification has it, a `traceparent` that is none is as good
/// as absent.
pub(crate) fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let parent = single(headers, TRACE_PARENT, ErrorCode::BadRequest).ok()??;
    let trace: TraceContext = parent.to_str().ok()?.trim().parse().ok()?;
    let states = headers.get_all(&TRACE_STATE).filter_map(|state| state.to_str().ok());
    Some(trace.with_state(&states.collect::<Vec<_>>().join(",")))
}

fn count(headers: &HeaderMap, name: HeaderName) -> Result<Option<Consistency>, Failure> {
    let Some(text) = text(headers, name, ErrorCode::BadConsistency)? else {
        return Ok(None);
    };
    let count =
        decimal(text).and_then(|count| u16::try_from(count).ok()).filter(|count| *count > 0);
    let bad = || {
        let message = "R and W are numbers, from 1 to the keyspace's number of replicas";
        Failure::new(ErrorCode::BadConsistency, message)
    };
    count.map(|count| Some(Consistency::Count(count))).ok_or_else(bad)
}

/// A number in digits only: no sign, no space.
fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn text(headers: &HeaderMap, name: HeaderName, code: ErrorCode) -> Result<Option<&str>, Failure> {
    let Some(value) = single(headers, name.clone(), code)? else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(Failure::new(code, format!("the header {name} is not plain text"))),
    }
}

/// A header that says one thing, however often.
pub(crate) fn single(
    headers: &HeaderMap,
    name: HeaderName,
    code: ErrorCode,
) -> Result<Option<&HeaderValue>, Failure> {
    let mut values = headers.get_all(&name);
    let first = values.next();
    if values.all(|value| Some(value) == first) {
        Ok(first)
    } else {
        let message = format!("the header {name} comes more than once, with different values");
        Err(Failure::new(code, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    fn read(pairs: &[(&'static str, &str)]) -> Result<RequestOptions, ErrorCode> {
        options(&Method::GET, &headers(pairs)).map_err(|failure| failure.code())
    }

    #[test]
    fn without_headers_the_defaults_hold() {
        assert_eq!(read(&[]), Ok(RequestOptions::default()));
    }

    #[test]
    fn levels_are_read_in_any_case_and_numbers_win() {
        let options = read(&[("anello-consistency", "Local_QUORUM"), ("w", "2")]).unwrap();
        assert_eq!(options.read, Some(Consistency::LocalQuorum));
        assert_eq!(options.write, Some(Consistency::Count(2)));
        let options = read(&[("r", "1"), ("anello-consistency", "all")]).unwrap();
        assert_eq!(options.read, Some(Consistency::Count(1)));
        assert_eq!(options.write, Some(Consistency::All));
    }

    #[test]
    fn bad_levels_are_refused() {
        for (name, value) in [
            ("anello-consistency", "most"),
            ("anello-consistency", ""),
            ("anello-consistency", "each_quorum"),
            ("anello-consistency", "ü"),
            ("r", "0"),
            ("r", "two"),
            ("r", "+1"),
            ("r", "-1"),
            ("r", "1.0"),
            ("w", "65536"),
            ("w", "99999999999999999999"),
            ("w", ""),
        ] {
            assert_eq!(read(&[(name, value)]), Err(ErrorCode::BadConsistency), "{name}: {value}");
        }
        assert_eq!(read(&[("r", "1"), ("r", "2")]), Err(ErrorCode::BadConsistency));
        assert!(read(&[("r", "1"), ("r", "1")]).is_ok());
    }

    #[test]
    fn each_quorum_is_for_writes() {
        let each = headers(&[("anello-consistency", "EACH_QUORUM")]);
        for method in [Method::PUT, Method::DELETE] {
            let options = options(&method, &each).unwrap();
            assert_eq!((options.read, options.write), (None, Some(Consistency::EachQuorum)));
        }
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(options(&method, &each).unwrap_err().code(), ErrorCode::BadConsistency);
        }
    }

    #[test]
    fn the_other_options_have_their_bounds() {
        let options = read(&[
            ("anello-quorum", "Strict"),
            ("anello-timeout-ms", "60000"),
            ("anello-explain", "true"),
        ])
        .unwrap();
        assert_eq!(options.quorum, QuorumKind::Strict);
        assert_eq!((options.timeout_ms, options.explain), (60_000, true));
        for (name, value) in [
            ("anello-quorum", "lazy"),
            ("anello-timeout-ms", "0"),
            ("anello-timeout-ms", "60001"),
            ("anello-timeout-ms", "1s"),
            ("anello-explain", "please"),
        ] {
            assert_eq!(read(&[(name, value)]), Err(ErrorCode::BadRequest), "{name}: {value}");
        }
    }

    #[test]
    fn an_idempotency_key_names_its_write() {
        let id = |key: &str| write_id(&headers(&[("idempotency-key", key)]));
        assert_eq!(id("order 42").unwrap(), id("order 42").unwrap());
        assert_ne!(id("order 42").unwrap(), id("order 43").unwrap());
        assert_eq!(write_id(&HeaderMap::new()).unwrap(), None);
        assert!(id(&"ü".repeat(64)).is_ok());
        for key in ["", &"x".repeat(65), "a\tb"] {
            assert_eq!(id(key).unwrap_err().code(), ErrorCode::BadRequest, "{key:?}");
        }
    }

    #[test]
    fn a_trace_is_joined_or_left_alone() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let joined =
            headers(&[("traceparent", parent), ("tracestate", "a=1"), ("tracestate", "b=2")]);
        let joined = trace(&joined).unwrap();
        assert_eq!((joined.to_string().as_str(), joined.state()), (parent, Some("a=1,b=2")));
        assert_eq!(trace(&headers(&[("traceparent", "00-xyz")])), None);
        assert_eq!(trace(&headers(&[("tracestate", "a=1")])), None);
    }

    #[test]
    fn contexts_have_a_bound() {
        let of = |token: &str| context(&headers(&[("anello-context", token)]));
        assert_eq!(of("abc").unwrap(), Some(ContextToken("abc".into())));
        assert!(of(&"x".repeat(4096)).is_ok());
        assert_eq!(of(&"x".repeat(4097)).unwrap_err().code(), ErrorCode::BadContext);
        assert_eq!(context(&HeaderMap::new()), Ok(None));
    }
}
