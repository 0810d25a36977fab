//! Logs who was refused, a line each, but not so many lines that strangers could fill a disk.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines in one period; more are counted and not written.
const LINES_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// The log of refusals.
#[derive(Default)]
pub(crate) struct Refusals {
    period: Mutex<Period>,
}

#[derive(Default)]
struct Period {
    since: Option<Instant>,
    lines: u32,
    omitted: u64,
}

impl Refusals {
    /// Logs that a connection was refused, and why.
    pub(crate) fn warn(&self, peer: SocketAddr, why: &str) {
        let Some(omitted) = self.line(Instant::now()) else { return };
        if omitted > 0 {
            tracing::warn!(omitted, "refused connections that are not listed here");
        }
        tracing::warn!(%peer, %why, "refused a connection");
    }

    /// Whether there is a line left, and how many were left out before it.
    fn line(&self, now: Instant) -> Option<u64> {
        let mut period = self.period.lock().unwrap_or_else(PoisonError::into_inner);
        if period.since.is_none_or(|since| now.duration_since(since) >= PERIOD) {
            (period.since, period.lines) = (Some(now), 0);
        }
        if period.lines == LINES_MAX {
            period.omitted += 1;
            return None;
        }
        period.lines += 1;
        Some(std::mem::take(&mut period.omitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_bound_lines_are_counted_instead() {
        let (log, now) = (Refusals::default(), Instant::now());
        for _ in 0..LINES_MAX {
            assert_eq!(log.line(now), Some(0));
        }
        assert_eq!(log.line(now), None);
        assert_eq!(log.line(now), None);
        assert_eq!(log.line(now + PERIOD), Some(2));
        assert_eq!(log.line(now + PERIOD), Some(0));
    }
}
