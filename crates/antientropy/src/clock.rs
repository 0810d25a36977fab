//! The clocks of the shells: machines are told the time, and these are what it is read from.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anello_protocol::time::{Moment, Now};

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
        let moment = Moment(as_u64(self.start.elapsed().as_micros()));
        Now { moment, wall_ms: as_u64(wall.as_millis()) }
    }

    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        // Deadlines are seconds away, so the sum is far within what an instant can be.
        self.start + Duration::from_micros(moment.0)
    }
}

fn as_u64(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
