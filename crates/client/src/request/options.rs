//! What every operation can be told: how many replicas, how long, as part of which trace.

use std::time::{Duration, Instant};

use anello_protocol::message::client::{MAX_TIMEOUT_MS, RequestOptions};
use anello_transport::TraceContext;

/// How one operation is to be carried out.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The whole operation, retries and all.
    pub(crate) timeout: Duration,
    /// One attempt at one node.
    pub(crate) attempt_timeout: Duration,
    /// What the coordinator is told, but for the time.
    pub(crate) request: RequestOptions,
    /// The trace that the operation belongs to.
    pub(crate) trace: Option<TraceContext>,
}

impl Options {
    const LONGEST: Duration = Duration::from_secs(3600);
    const LONGEST_ATTEMPT: Duration = Duration::from_millis(MAX_TIMEOUT_MS as u64);
    const SHORTEST: Duration = Duration::from_millis(1);

    pub(crate) fn new(timeout: Duration, attempt_timeout: Duration) -> Self {
        let mut options = Self {
            timeout: Duration::ZERO,
            attempt_timeout: Duration::ZERO,
            request: RequestOptions::default(),
            trace: None,
        };
        options.set_timeout(timeout);
        options.set_attempt_timeout(attempt_timeout);
        options
    }

    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout.clamp(Self::SHORTEST, Self::LONGEST);
    }

    pub(crate) fn set_attempt_timeout(&mut self, timeout: Duration) {
        self.attempt_timeout = timeout.clamp(Self::SHORTEST, Self::LONGEST_ATTEMPT);
    }

    pub(crate) fn set_trace(&mut self, trace: TraceContext) {
        self.request.trace_id = Some(trace.trace_id);
        self.trace = Some(trace);
    }

    /// When an operation that begins at `now` is over.
    pub(crate) fn deadline(&self, now: Instant) -> Instant {
        now + self.timeout
    }

    /// What the coordinator is told in an attempt that is awaited for `left`: a little less, so that
    /// its own account of who answered arrives before the time is over.
    pub(crate) fn request(&self, left: Duration) -> RequestOptions {
        let margin = (left / 10).min(Duration::from_millis(50));
        let timeout_ms = u32::try_from((left - margin).as_millis()).unwrap_or(MAX_TIMEOUT_MS);
        RequestOptions { timeout_ms: timeout_ms.clamp(1, MAX_TIMEOUT_MS), ..self.request.clone() }
    }
}

/// The setters that all operations have; the operation has a field `options`.
macro_rules! common_setters {
    () => {
        /// How long the whole operation may take, retries and all; at most an hour.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.set_timeout(timeout);
            self
        }

        /// How long one attempt at one node may take before another one is tried; at most a
        /// minute.
        pub fn attempt_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.set_attempt_timeout(timeout);
            self
        }

        /// Whether stand-ins count towards the quorum. Without this they do.
        pub fn quorum(mut self, kind: crate::QuorumKind) -> Self {
            self.options.request.quorum = kind;
            self
        }

        /// Makes the operation part of a trace (W3C Trace Context).
        pub fn trace(mut self, trace: crate::TraceContext) -> Self {
            self.options.set_trace(trace);
            self
        }
    };
}
pub(crate) use common_setters;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coordinator_has_a_little_less_time_than_the_attempt() {
        let options = Options::new(Duration::from_secs(5), Duration::from_secs(2));
        let told = |left| options.request(Duration::from_millis(left)).timeout_ms;
        assert_eq!([told(2000), told(100), told(1), told(0)], [1950, 90, 1, 1]);
        assert_eq!(told(10_000_000), MAX_TIMEOUT_MS);
    }

    #[test]
    fn times_are_within_bounds() {
        let options = Options::new(Duration::MAX, Duration::MAX);
        assert_eq!(options.timeout, Options::LONGEST);
        assert_eq!(options.attempt_timeout, Options::LONGEST_ATTEMPT);
        let options = Options::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(options.timeout, Options::SHORTEST);
        assert_eq!(options.attempt_timeout, Options::SHORTEST);
    }
}
