//! Reading a request's body into its bound, and never past it.
//!
//! A length that is announced past the bound is refused before the first byte; a body of unknown
//! length, at the byte that passes it. For a value sent as it is, the bound is the value's own. JSON
//! may spend six characters on one byte (`\u0000`), so a JSON body has two bounds: its text
//! ([`MAX_JSON_BYTES`]), and within it every string once unescaped ([`MAX_STRING_BYTES`]), which is
//! watched while it arrives. What the string comes to as a value is checked when all is parsed.

use std::{
    cell::Cell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, RequestHead},
    error::PayloadError,
    http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use anello_protocol::{causality::MAX_TOKEN_BYTES, version::MAX_VALUE_BYTES};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::{
    budget::{Budget, FREE_BYTES, Share},
    error::{ErrorCode, Failure},
    gauge::StringGauge,
    options,
};

/// The longest JSON text with a value: each of its bytes escaped, a context, and what is around them.
pub(crate) const MAX_JSON_BYTES: usize = 6 * MAX_VALUE_BYTES + MAX_TOKEN_BYTES + 1024;
/// The longest string in it: a value in base64.
pub(crate) const MAX_STRING_BYTES: usize = MAX_VALUE_BYTES.div_ceil(3) * 4;
/// The longest body of a request for operators.
pub(crate) const MAX_ADMIN_BYTES: usize = 64 << 10;
/// How long a body may take to arrive: six times the time in which it has to get on.
const PACES_MAX: usize = 6;
const PACE: Duration = Duration::from_secs(5);
/// How much of a body that is not there yet has to arrive in that time: 16 KiB a second. Who uploads
/// more slowly would hold memory that is everybody's for little effort. A body within its free bytes
/// takes none of it, and has only to be there in time.
const PACE_MIN_BYTES: usize = 80 << 10;

/// What a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A value, byte for byte.
    Value,
    /// JSON with a value in it.
    ValueJson,
    /// JSON for operators.
    AdminJson,
    /// Nothing.
    Nothing,
}

impl Expected {
    /// What the body of a `PUT` of a value is, by its content type.
    pub(crate) fn of_value(head: &RequestHead) -> Result<Self, Failure> {
        let content_type = options::single(head.headers(), CONTENT_TYPE, ErrorCode::BadRequest)?;
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        if media.trim().eq_ignore_ascii_case("application/json") {
            Ok(Self::ValueJson)
        } else {
            Ok(Self::Value)
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Value => MAX_VALUE_BYTES,
            Self::ValueJson => MAX_JSON_BYTES,
            Self::AdminJson => MAX_ADMIN_BYTES,
            Self::Nothing => 0,
        }
    }

    fn past_limit(self) -> Failure {
        match self {
            Self::Value | Self::ValueJson => Failure::value_too_large(),
            Self::AdminJson => Failure::body_too_large(MAX_ADMIN_BYTES),
            Self::Nothing => Failure::bad_request(
                "this request takes no body; a context goes into the header Anello-Context",
            ),
        }
    }

    /// Judges a body by its announced length.
    pub(crate) fn check_announced(self, head: &RequestHead) -> Result<(), Failure> {
        match announced(head) {
            Some(length) if length > self.limit() as u64 => Err(self.past_limit()),
            _ => Ok(()),
        }
    }
}

fn announced(head: &RequestHead) -> Option<u64> {
    // The HTTP parser has refused whatever is no number.
    head.headers().get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// The body of a request, as far as it has been read.
pub(crate) struct Body {
    payload: Payload,
    ended: bool,
    /// What of it is in memory, until the request has been answered.
    memory: Share,
}

impl Body {
    /// The body of this request.
    pub(crate) fn new(head: &RequestHead, payload: Payload, budget: &Arc<Budget>) -> Self {
        let absent =
            announced(head).unwrap_or(0) == 0 && !head.headers().contains_key(TRANSFER_ENCODING);
        Self { payload, ended: absent, memory: budget.share() }
    }

    /// Reads it to its end, or to its bound.
    pub(crate) async fn read(
        &mut self,
        expected: Expected,
        head: &RequestHead,
    ) -> Result<Bytes, Failure> {
        expected.check_announced(head)?;
        if self.ended {
            return Ok(Bytes::new());
        }
        let arrived = Cell::new(0);
        tokio::select! {
            biased;
            read = self.collect(expected, head, &arrived) => read,
            () = too_slow(&arrived) => Err(Failure::body_too_slow()),
        }
    }

    async fn collect(
        &mut self,
        expected: Expected,
        head: &RequestHead,
        arrived: &Cell<usize>,
    ) -> Result<Bytes, Failure> {
        let limit = expected.limit();
        let Some(first) = self.next(arrived).await? else {
            return Ok(Bytes::new());
        };
        if first.len() > limit {
            return Err(expected.past_limit());
        }
        // Most bodies come in one piece, which need not be copied.
        let Some(second) = self.next(arrived).await? else {
            return Ok(first);
        };
        // What only claims to be long must not cost its whole length at once.
        let capacity = announced(head).map_or(0, |length| length.min(256 << 10) as usize);
        let mut body = BytesMut::with_capacity(capacity.max(first.len() + second.len()));
        body.extend_from_slice(&first);
        let mut gauge = StringGauge::default();
        let mut gauged = 0;
        let mut piece = Some(second);
        while let Some(bytes) = piece {
            if body.len() + bytes.len() > limit {
                return Err(expected.past_limit());
            }
            body.extend_from_slice(&bytes);
            // No string is longer than the text that it is in.
            if expected == Expected::ValueJson && body.len() > MAX_STRING_BYTES {
                if gauge.advance(&body[gauged..]) > MAX_STRING_BYTES {
                    return Err(expected.past_limit());
                }
                gauged = body.len();
            }
            piece = self.next(arrived).await?;
        }
        Ok(body.freeze())
    }

    async fn next(&mut self, arrived: &Cell<usize>) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.payload.next().await.transpose() {
                Ok(Some(piece)) if piece.is_empty() => continue,
                Ok(piece) => {
                    self.ended = piece.is_none();
                    let length = piece.as_ref().map_or(0, Bytes::len);
                    arrived.set(arrived.get() + length);
                    return match self.memory.grow(length) {
                        true => Ok(piece),
                        false => Err(Failure::too_many_bodies()),
                    };
                }
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    /// Gives an answer the rest of its request to hold.
    ///
    /// The server reads on, without bound, what comes of a chunked body that nobody holds; one that
    /// is held until its answer is out ends with its connection.
    pub(crate) fn leave_to(self, response: HttpResponse) -> HttpResponse {
        if self.ended { response } else { leave_to(response, self.payload) }
    }
}

/// Gives an answer the body of its request to hold: see [`Body::leave_to`].
pub(crate) fn leave_to(response: HttpResponse, rest: Payload) -> HttpResponse {
    response.map_body(|_, body| BoxBody::new(Held { body, _rest: rest }))
}

/// Returns when a body has got on by too little, or takes too long altogether.
async fn too_slow(arrived: &Cell<usize>) {
    let mut before = 0;
    for _ in 0..PACES_MAX {
        tokio::time::sleep(PACE).await;
        if arrived.get() > FREE_BYTES && arrived.get() - before < PACE_MIN_BYTES {
            return;
        }
        before = arrived.get();
    }
}

fn broken(error: &PayloadError) -> Failure {
    Failure::bad_request(format!("the body did not arrive whole: {error}"))
}

/// The body of an answer, and with it the rest of the request.
struct Held {
    body: BoxBody,
    _rest: Payload,
}

impl MessageBody for Held {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{http::header::HeaderMap, test::TestRequest};
    use futures_util::{FutureExt, stream};

    use super::*;

    fn head(pairs: &[(&'static str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        let mut headers = HeaderMap::new();
        let request = pairs.iter().fold(TestRequest::default(), |r, pair| r.insert_header(*pair));
        for (name, value) in request.to_http_request().headers() {
            headers.insert(name.clone(), value.clone());
        }
        *head.headers_mut() = headers;
        head
    }

    fn body(pieces: Vec<Bytes>, budget: usize) -> Body {
        let pieces = stream::iter(pieces.into_iter().map(Ok));
        let memory = Arc::new(Budget::new(budget)).share();
        Body { payload: Payload::Stream { payload: Box::pin(pieces) }, ended: false, memory }
    }

    fn read(expected: Expected, pieces: Vec<Bytes>) -> Result<usize, ErrorCode> {
        let head = head(&[]);
        let mut body = body(pieces, usize::MAX);
        let read = body
            .collect(expected, &head, &Cell::new(0))
            .now_or_never()
            .expect("all pieces are there");
        read.map(|bytes| bytes.len()).map_err(|failure| failure.code())
    }

    #[test]
    fn the_content_type_says_what_the_body_is() {
        for (content_type, expected) in [
            ("application/json", Expected::ValueJson),
            ("Application/JSON; charset=utf-8", Expected::ValueJson),
            ("application/json5", Expected::Value),
            ("text/plain", Expected::Value),
            ("", Expected::Value),
        ] {
            let head = head(&[("content-type", content_type)]);
            assert_eq!(Expected::of_value(&head), Ok(expected));
        }
        assert_eq!(Expected::of_value(&head(&[])), Ok(Expected::Value));
    }

    #[test]
    fn an_announced_length_past_the_bound_is_refused_unread() {
        let announced = |expected: Expected, length: usize| {
            let head = head(&[("content-length", &length.to_string())]);
            expected.check_announced(&head).map_err(|failure| failure.code())
        };
        assert_eq!(announced(Expected::Value, MAX_VALUE_BYTES), Ok(()));
        assert_eq!(announced(Expected::Value, MAX_VALUE_BYTES + 1), Err(ErrorCode::ValueTooLarge));
        assert_eq!(announced(Expected::ValueJson, MAX_JSON_BYTES), Ok(()));
        assert_eq!(
            announced(Expected::ValueJson, MAX_JSON_BYTES + 1),
            Err(ErrorCode::ValueTooLarge)
        );
        assert_eq!(announced(Expected::Nothing, 1), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn reading_ends_at_the_bound() {
        let piece = |len: usize| Bytes::from(vec![b'x'; len]);
        assert_eq!(read(Expected::Value, vec![]), Ok(0));
        assert_eq!(read(Expected::Value, vec![piece(0), piece(7)]), Ok(7));
        assert_eq!(read(Expected::Value, vec![piece(1 << 19), piece(1 << 19)]), Ok(1 << 20));
        let over = vec![piece(1 << 19), piece(1 << 19), piece(1)];
        assert_eq!(read(Expected::Value, over), Err(ErrorCode::ValueTooLarge));
        assert_eq!(read(Expected::Nothing, vec![piece(1)]), Err(ErrorCode::BadRequest));
        assert_eq!(read(Expected::AdminJson, vec![piece(65_537)]), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn there_is_memory_for_so_many_bodies() {
        let pieces = vec![Bytes::from(vec![b'x'; FREE_BYTES]); 2];
        let read = |budget| {
            let mut body = body(pieces.clone(), budget);
            let read = body.collect(Expected::Value, &head(&[]), &Cell::new(0)).now_or_never();
            let read = read.expect("all pieces are there");
            read.map(|bytes| bytes.len()).map_err(|failure| failure.code())
        };
        assert_eq!(read(FREE_BYTES), Ok(2 * FREE_BYTES));
        assert_eq!(read(FREE_BYTES - 1), Err(ErrorCode::Overloaded));
    }

    #[test]
    fn a_string_that_grows_past_the_bound_ends_the_reading() {
        let start = || Bytes::from_static(b"{\"value\":\"");
        let pieces = |text: &'static [u8]| {
            let many = std::iter::repeat_n(Bytes::from_static(text), MAX_STRING_BYTES / 4);
            std::iter::once(start()).chain(many).collect::<Vec<_>>()
        };
        let mut over = pieces(b"abcd");
        over.push(Bytes::from_static(b"e"));
        assert_eq!(read(Expected::ValueJson, over), Err(ErrorCode::ValueTooLarge));
        assert!(read(Expected::ValueJson, pieces(b"abcd")).is_ok());
        // Escaped, four times the text is still within.
        assert!(read(Expected::ValueJson, pieces(b"\\u0041\\n")).is_ok());
    }
}
