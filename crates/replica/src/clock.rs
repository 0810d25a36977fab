//! The clocks of the shells: machines are told the time, and these are what it is read from. A call that
//! came too late is not passed on to them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anello_protocol::{
    message,
    time::{Moment, Now},
};
use anello_transport::{Call, CallError};

/// Translates between this process's clocks and the moments that a machine knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose moments count from here on.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        // A clock before 1970 is one of the many ways in which a wall clock can be wrong.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { moment: self.moment(Instant::now()), wall_ms: as_u64(wall.as_millis()) }
    }

    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        // Deadlines are at most a minute away, so the sum is far within what an instant can be.
        self.start + Duration::from_micros(moment.0)
    }

    fn moment(&self, instant: Instant) -> Moment {
        Moment(as_u64(instant.saturating_duration_since(self.start).as_micros()))
    }
}

/// How long a call may wait in a mailbox. A queue that is older than this is longer than what is taken
/// out of it can be worth: whoever asked is better off asking again later, or another.
pub(crate) const QUEUED_MAX: Duration = Duration::from_millis(500);

/// A call that is worth the work: somebody still waits for it, and it has not waited for too long. What
/// waited past its deadline is over; what only waited too long is sent back before anything is done.
pub(crate) fn in_time<M: message::Message>(call: Call<M>) -> Option<Call<M>> {
    if call.context.remaining().is_zero() {
        call.reply.fail(CallError::Timeout);
        return None;
    }
    if call.since.elapsed() > QUEUED_MAX {
        call.reply.fail(CallError::Busy);
        return None;
    }
    Some(call)
}

fn as_u64(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
