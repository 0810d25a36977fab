//! Frames: how calls, replies and failures lie in a stream.
//!
//! ```text
//! frame    = length u32, of what follows it | kind u8 | call u64 | rest
//! request  = kind 1 | call | tag u16 | time left u32, in microseconds | trace | message
//! trace    = 0 u8, or 1 u8 | trace id 16 | parent id 8 | flags u8 | length u16 | tracestate
//! reply    = kind 2 | call | reply
//! failure  = kind 3 | call | code u8 | text
//! ```
//!
//! Numbers are little-endian; messages and replies are postcard's. The caller picks the number of a call,
//! and the answer carries it. Reading never panics, and never allocates by a number that a stranger wrote.

use std::{str, time::Duration};

use anello_protocol::message::Message;
use bytes::{BufMut, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use thiserror::Error;

use crate::{CallContext, CallError, MAX_TRACESTATE_BYTES, TraceContext};

/// Bytes of the length in front of a frame.
pub(crate) const LENGTH_BYTES: usize = 4;
/// Bytes of a request beside its message, outside of any trace.
pub const REQUEST_BYTES: usize = LENGTH_BYTES + 9 + 2 + 4 + 1;
/// Bytes of a reply's frame beside the reply.
pub const REPLY_BYTES: usize = LENGTH_BYTES + 9;
/// The most bytes that a frame has beside its message or reply: a request with the longest tracestate.
pub(crate) const MAX_OVERHEAD_BYTES: usize = LENGTH_BYTES + 9 + 2 + 4 + 28 + MAX_TRACESTATE_BYTES;
/// The longest text of a failure; more is cut off.
const MAX_TEXT_BYTES: usize = 512;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const FAILURE: u8 = 3;

/// A frame as it was read.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame<'a> {
    /// A call.
    Request {
        /// Its number.
        id: u64,
        /// What it is.
        request: Request<'a>,
    },
    /// The reply to a call.
    Reply {
        /// The call's number.
        id: u64,
        /// The encoded reply.
        body: &'a [u8],
    },
    /// That there is no reply, and why.
    Failure {
        /// The call's number.
        id: u64,
        /// Why.
        error: CallError,
    },
}

/// A call as it was read.
#[derive(Debug, PartialEq)]
pub(crate) struct Request<'a> {
    /// Which message it is.
    pub(crate) tag: u16,
    /// How long the caller waits from here on.
    pub(crate) time: Duration,
    /// The trace that it belongs to.
    pub(crate) trace: Option<TraceContext>,
    /// The encoded message.
    pub(crate) body: &'a [u8],
}

/// A frame that is none; what follows in its stream can't be trusted either.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum BadFrame {
    /// Longer than its stream may carry.
    #[error("a frame of {0} bytes, more than the stream may carry")]
    TooLong(usize),
    /// Shorter than its fields.
    #[error("a frame shorter than its fields")]
    TooShort,
    /// Of no known kind.
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    /// With a trace context that is none.
    #[error("a frame with a malformed trace context")]
    BadTrace,
}

/// Appends a request.
pub(crate) fn write_request<M: Message>(
    out: &mut BytesMut,
    id: u64,
    message: &M,
    context: &CallContext,
) {
    let start = begin(out, REQUEST, id);
    out.put_u16_le(M::TAG);
    let micros = context.remaining().as_micros();
    out.put_u32_le(u32::try_from(micros).unwrap_or(u32::MAX));
    write_trace(out, context.trace.as_ref());
    append(out, message);
    end(out, start);
}

/// Appends a reply, whose encoding `encode` appends.
pub(crate) fn write_reply(out: &mut BytesMut, id: u64, encode: &dyn Fn(&mut BytesMut)) {
    let start = begin(out, REPLY, id);
    encode(out);
    end(out, start);
}

/// Appends a failure.
pub(crate) fn write_failure(out: &mut BytesMut, id: u64, error: &CallError) {
    let start = begin(out, FAILURE, id);
    let (code, text) = match error {
        CallError::Timeout => (1, ""),
        CallError::Busy => (2, ""),
        CallError::Closed => (3, ""),
        CallError::Unreachable => (4, ""),
        CallError::Refused(why) => (5, &why[..why.floor_char_boundary(MAX_TEXT_BYTES)]),
    };
    out.put_u8(code);
    out.put_slice(text.as_bytes());
    end(out, start);
}

/// Appends a value's encoding.
pub(crate) fn append<T: Serialize>(out: &mut BytesMut, value: &T) {
    postcard::serialize_with_flavor(value, Appending(out))
        .expect("messages are plain data, which always encodes");
}

/// Reads what follows a frame's length.
pub(crate) fn read(frame: &[u8]) -> Result<Frame<'_>, BadFrame> {
    let mut rest = Rest(frame);
    let [kind] = rest.take()?;
    let id = u64::from_le_bytes(rest.take()?);
    match kind {
        REQUEST => {
            let tag = u16::from_le_bytes(rest.take()?);
            let time = Duration::from_micros(u32::from_le_bytes(rest.take()?).into());
            let trace = read_trace(&mut rest)?;
            Ok(Frame::Request { id, request: Request { tag, time, trace, body: rest.0 } })
        }
        REPLY => Ok(Frame::Reply { id, body: rest.0 }),
        FAILURE => {
            let [code] = rest.take()?;
            let text = || String::from_utf8_lossy(&rest.0[..rest.0.len().min(MAX_TEXT_BYTES)]);
            let error = match code {
                1 => CallError::Timeout,
                2 => CallError::Busy,
                4 => CallError::Unreachable,
                5 => CallError::Refused(text().into_owned()),
                // Closed, and what later versions may add: the failure that promises least.
                _ => CallError::Closed,
            };
            Ok(Frame::Failure { id, error })
        }
        kind => Err(BadFrame::UnknownKind(kind)),
    }
}

fn write_trace(out: &mut BytesMut, trace: Option<&TraceContext>) {
    let Some(trace) = trace else { return out.put_u8(0) };
    let state = trace.state().unwrap_or_default();
    out.put_u8(1);
    out.put_slice(&trace.trace_id);
    out.put_slice(&trace.parent_id);
    out.put_u8(trace.flags);
    out.put_u16_le(u16::try_from(state.len()).expect("a tracestate is at most 512 bytes"));
    out.put_slice(state.as_bytes());
}

fn read_trace(rest: &mut Rest<'_>) -> Result<Option<TraceContext>, BadFrame> {
    match rest.take()? {
        [0] => return Ok(None),
        [1] => {}
        _ => return Err(BadFrame::BadTrace),
    }
    let (trace_id, parent_id, [flags]) = (rest.take()?, rest.take()?, rest.take()?);
    let length = u16::from_le_bytes(rest.take()?);
    let state = str::from_utf8(rest.split(length.into())?).map_err(|_| BadFrame::BadTrace)?;
    let trace = TraceContext::new(trace_id, parent_id, flags).ok_or(BadFrame::BadTrace)?;
    Ok(Some(trace.with_state(state)))
}

/// Begins a frame: leaves room for its length. Returns where it starts.
fn begin(out: &mut BytesMut, kind: u8, id: u64) -> usize {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind);
    out.put_u64_le(id);
    start
}

/// Ends the frame that starts there: fills in its length.
fn end(out: &mut BytesMut, start: usize) {
    let length = out.len() - start - LENGTH_BYTES;
    // A frame past 4 GiB is refused for its size before it is sent.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// What of a frame has not been read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadFrame> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BadFrame::TooShort)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn split(&mut self, len: usize) -> Result<&'a [u8], BadFrame> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(BadFrame::TooShort)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Lets postcard append to a buffer in place.
struct Appending<'a>(&'a mut BytesMut);

impl Flavor for Appending<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anello_protocol::message::{admin::DescribeNode, client::LocateKey};
    use anello_protocol::{id::KeyspaceName, key::Key};
    use proptest::prelude::*;

    use super::*;

    fn trace() -> TraceContext {
        TraceContext::new([0xab; 16], [0xcd; 8], 1).unwrap().with_state("a=1")
    }

    /// A request with a time of our own in place of what is left of its deadline.
    fn request(trace: Option<TraceContext>, micros: u32) -> BytesMut {
        let key = Key::new(&b"k"[..]).unwrap();
        let message = LocateKey { keyspace: KeyspaceName::default_keyspace(), key };
        let context = CallContext::within(Duration::from_secs(1)).traced(trace);
        let mut out = BytesMut::new();
        write_request(&mut out, 0x0102, &message, &context);
        out[15..19].copy_from_slice(&micros.to_le_bytes());
        out
    }

    #[test]
    fn the_bytes_of_a_request_are_frozen() {
        let head = b"\x1a\0\0\0\x01\x02\x01\0\0\0\0\0\0\x16\0\x10\x27\0\0";
        let body = b"\x07default\x01k";
        assert_eq!(request(None, 10_000), [&head[..], b"\0", body].concat());
        let traced = [&[1][..], &[0xab; 16], &[0xcd; 8], b"\x01\x03\0a=1"].concat();
        let mut head = head.to_vec();
        head[0] += 30;
        assert_eq!(request(Some(trace()), 10_000), [&head[..], &traced, body].concat());
    }

    #[test]
    fn the_bytes_of_answers_are_frozen() {
        let mut out = BytesMut::new();
        write_reply(&mut out, 3, &|out| append(out, &"ok"));
        assert_eq!(out, &b"\x0c\0\0\0\x02\x03\0\0\0\0\0\0\0\x02ok"[..]);
        let refused = CallError::Refused("no".into());
        for (error, tail) in [
            (CallError::Timeout, &b"\x01"[..]),
            (CallError::Busy, b"\x02"),
            (CallError::Closed, b"\x03"),
            (CallError::Unreachable, b"\x04"),
            (refused, b"\x05no"),
        ] {
            let mut out = BytesMut::new();
            write_failure(&mut out, 3, &error);
            let length = [9 + tail.len() as u8, 0, 0, 0];
            assert_eq!(out, [&length[..], b"\x03\x03\0\0\0\0\0\0\0", tail].concat());
            assert_eq!(read(&out[LENGTH_BYTES..]), Ok(Frame::Failure { id: 3, error }));
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let bytes = request(Some(trace()), 2_000);
        let Ok(Frame::Request { id, request }) = read(&bytes[LENGTH_BYTES..]) else {
            panic!("not a request");
        };
        assert_eq!((id, request.tag), (0x0102, LocateKey::TAG));
        assert_eq!(request.time, Duration::from_millis(2));
        assert_eq!(request.trace, Some(trace()));
        assert_eq!(request.body, b"\x07default\x01k");
    }

    #[test]
    fn the_overhead_is_bounded_as_said() {
        let state = "x".repeat(MAX_TRACESTATE_BYTES);
        let context =
            CallContext::within(Duration::MAX / 4).traced(Some(trace().with_state(&state)));
        let mut out = BytesMut::new();
        write_request(&mut out, u64::MAX, &DescribeNode {}, &context);
        assert_eq!(out.len(), MAX_OVERHEAD_BYTES);
    }

    #[test]
    fn an_unknown_failure_promises_least_and_a_long_text_is_cut() {
        let unknown = b"\x03\x03\0\0\0\0\0\0\0\xffwhat";
        assert_eq!(read(unknown), Ok(Frame::Failure { id: 3, error: CallError::Closed }));
        let mut out = BytesMut::new();
        write_failure(&mut out, 3, &CallError::Refused("ü".repeat(MAX_TEXT_BYTES)));
        let Ok(Frame::Failure { error: CallError::Refused(text), .. }) = read(&out[4..]) else {
            panic!("not a refusal");
        };
        assert_eq!(text, "ü".repeat(MAX_TEXT_BYTES / 2));
    }

    proptest! {
        #[test]
        fn nothing_makes_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }

        #[test]
        fn nor_does_a_damaged_request(at in 0usize..60, byte: u8, end in 0usize..=60) {
            let mut bytes = request(Some(trace()), 1);
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            let _ = read(&bytes[LENGTH_BYTES..end.clamp(LENGTH_BYTES, bytes.len())]);
        }
    }
}
