//! The delays and bounds of a purger.

use std::time::Duration;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeConfig {
    /// How long what was read or issued may still be on its way, default 90 s: more than the longest
    /// request with its lingering writes, an exchange, a delivery. **Less than that is unsafe** outside of
    /// a simulation whose messages live shorter; more makes purging slower.
    pub settle: Duration,
    /// How long an answer is waited for, default 5 s.
    pub call_timeout: Duration,
    /// After how long what failed is asked again, default 250 ms; twice as long each time, up to 32 times
    /// as long.
    pub backoff: Duration,
    /// How long a step of a batch asks again before what has no answer waits for the next pass, default
    /// 60 s. More keeps a silent replica's batches in memory for longer.
    pub persistence: Duration,
    /// The most messages under way, default 128. More gets in the way of requests.
    pub calls_max: usize,
    /// The most batches under way, those that settle included, default 256; each has up to 64 keys of up
    /// to a KiB.
    pub batches_max: usize,
}

impl Default for PurgeConfig {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(90),
            call_timeout: Duration::from_secs(5),
            backoff: Duration::from_millis(250),
            persistence: Duration::from_secs(60),
            calls_max: 128,
            batches_max: 256,
        }
    }
}

impl PurgeConfig {
    /// When to try again after so many failures.
    pub(super) fn backoff_after(&self, failures: u32) -> Duration {
        self.backoff.saturating_mul(1 << failures.saturating_sub(1).min(5))
    }

    /// How much longer than the grace other replicas than the first let a tombstone wait, so that most
    /// often only one of them does the work.
    pub(super) fn patience(&self, grace: Duration) -> Duration {
        (grace / 2).max(self.settle * 6)
    }
}
