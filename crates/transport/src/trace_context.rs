//! The trace that a call belongs to, as W3C's Trace Context has it.

use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

/// The longest `tracestate` that is carried on; a longer one is dropped, as the specification allows.
pub const MAX_TRACESTATE_BYTES: usize = 512;

/// A trace, the span in it that is the parent of what a call does, and what tracing systems want carried.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace; not all zero.
    pub trace_id: [u8; 16],
    /// The calling span; not all zero.
    pub parent_id: [u8; 8],
    /// The trace flags; bit 0 says that the trace is sampled.
    pub flags: u8,
    /// The `tracestate` header's value, of printable ASCII, at most [`MAX_TRACESTATE_BYTES`].
    state: Option<Arc<str>>,
}

/// Not a `traceparent`.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a traceparent: expected 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")]
pub struct BadTraceContext;

impl TraceContext {
    /// A trace context without `tracestate`; `None` if an id is all zero, which the specification forbids.
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], flags: u8) -> Option<Self> {
        let valid = trace_id != [0; 16] && parent_id != [0; 8];
        valid.then_some(Self { trace_id, parent_id, flags, state: None })
    }

    /// The same with a `tracestate`; one that is empty, too long or not printable ASCII is left out.
    pub fn with_state(self, state: &str) -> Self {
        let fit = !state.is_empty()
            && state.len() <= MAX_TRACESTATE_BYTES
            && state.bytes().all(|b| matches!(b, b' '..=b'~'));
        Self { state: fit.then(|| state.into()), ..self }
    }

    /// The `tracestate` header's value.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The same trace, with another span as the parent of what follows.
    pub fn child(&self, parent_id: [u8; 8]) -> Self {
        Self { parent_id, ..self.clone() }
    }

    /// Whether the trace is sampled.
    pub fn sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

impl FromStr for TraceContext {
    type Err = BadTraceContext;

    /// Reads a `traceparent` header's value. Of versions after 00 the known part is read.
    fn from_str(text: &str) -> Result<Self, BadTraceContext> {
        let bytes = text.as_bytes();
        let version = hex::<1>(bytes.get(..2)).ok_or(BadTraceContext)?[0];
        let ends = match version {
            0 => bytes.len() == 55,
            0xff => false,
            _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
        if !ends || !dashes {
            return Err(BadTraceContext);
        }
        let trace_id = hex(bytes.get(3..35)).ok_or(BadTraceContext)?;
        let parent_id = hex(bytes.get(36..52)).ok_or(BadTraceContext)?;
        let [flags] = hex::<1>(bytes.get(53..55)).ok_or(BadTraceContext)?;
        Self::new(trace_id, parent_id, flags).ok_or(BadTraceContext)
    }
}

/// The `traceparent` header's value.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.parent_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state() {
            Some(state) => write!(f, "TraceContext({self}, {state:?})"),
            None => write!(f, "TraceContext({self})"),
        }
    }
}

/// Reads lower-case hexadecimal digits; upper case is not allowed in a `traceparent`.
fn hex<const N: usize>(digits: Option<&[u8]>) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let digits = digits.filter(|digits| digits.len() == 2 * N)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let trace: TraceContext = PARENT.parse().unwrap();
        assert_eq!(trace.to_string(), PARENT);
        assert_eq!(trace.trace_id[0], 0x4b);
        assert!(trace.sampled());
        assert_eq!(
            trace.child([1; 8]).to_string(),
            PARENT.replace("00f067aa0ba902b7", "0101010101010101")
        );
    }

    #[test]
    fn later_versions_are_read_as_far_as_known() {
        let later = PARENT.replacen("00", "01", 1);
        assert!(later.parse::<TraceContext>().is_ok());
        assert!(format!("{later}-more").parse::<TraceContext>().is_ok());
        assert!(format!("{later}.more").parse::<TraceContext>().is_err());
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for bad in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-00"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736+00f067aa0ba902b7-01",
            "ü0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(BadTraceContext), "{bad}");
        }
    }

    #[test]
    fn a_tracestate_past_its_bound_is_left_out() {
        let trace: TraceContext = PARENT.parse().unwrap();
        assert_eq!(trace.clone().with_state("a=1,b=2").state(), Some("a=1,b=2"));
        for bad in ["", "a=\n", "a=ü", &"x".repeat(MAX_TRACESTATE_BYTES + 1)] {
            assert_eq!(trace.clone().with_state(bad).state(), None);
        }
    }
}
