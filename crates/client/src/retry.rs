//! When to try again: the deadlines of an operation and its attempts, the pauses between them, and the
//! budget that keeps retries from multiplying the load of a cluster in trouble.
//!
//! Pure: told the time and the dice. Invariants: no attempt begins at or after the operation's
//! deadline or outlives it; once an attempt of a write may have been kept, so says the error; over any
//! span, the retries of a client are at most a share of its operations plus a trickle.

mod attempts;
mod budget;

pub(crate) use attempts::{Attempts, Failure, Retry, Verdict};
pub(crate) use budget::RetryBudget;

use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pause after the `failed`th attempt (from 1), with the dice in `0.0..1.0`: anywhere up to an
/// exponentially growing bound ("full jitter"), so that clients that failed together don't come back
/// together.
fn pause(failed: u32, dice: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failed.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE).mul_f64(dice.clamp(0.0, 1.0))
}
