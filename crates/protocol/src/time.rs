//! Time as machines are told it, and hybrid logical time as versions carry it.

use std::{fmt, ops::Add, time::Duration};

use serde::{Deserialize, Serialize};

/// A moment on a node's monotonic clock, in microseconds since some start of its own.
///
/// Machines never read a clock: every input comes with the moment at which it is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// How long after `earlier` this is; zero if it isn't.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, by: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// What a machine is told with every input: a clock that only goes forward, for delays, and the
/// wall clock, which may jump and is trusted by nobody, for versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timers and deadlines.
    pub moment: Moment,
    /// Milliseconds since the Unix epoch, as this node believes.
    pub wall_ms: u64,
}

/// A time of the hybrid logical clock (Kulkarni et al., 2014): 48 bits of milliseconds since the
/// Unix epoch, 16 bits that count events within one.
///
/// It orders the writes of a last-write-wins keyspace. It follows the wall clock, and where that is
/// behind what has already been seen it counts on from there: a write that was coordinated after
/// another was seen is later, however wrong the clocks are.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HybridTime(u64);

impl HybridTime {
    const LOGICAL_BITS: u32 = 16;

    /// From its 64 bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its 64 bits, in the order of time.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The first time of a millisecond.
    pub const fn from_wall_ms(wall_ms: u64) -> Self {
        Self(wall_ms << Self::LOGICAL_BITS)
    }

    /// The wall-clock part.
    pub const fn wall_ms(self) -> u64 {
        self.0 >> Self::LOGICAL_BITS
    }

    /// The next time to issue: the wall clock's, or the first after everything seen.
    pub fn after(seen: HybridTime, wall_ms: u64) -> Self {
        Self::from_wall_ms(wall_ms).max(Self(seen.0.saturating_add(1)))
    }
}

impl fmt::Debug for HybridTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall_ms(), self.0 & ((1 << Self::LOGICAL_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_event_is_later_however_wrong_the_clock() {
        let ahead = HybridTime::after(HybridTime::default(), 1_000_000);
        let behind = HybridTime::after(ahead, 10);
        assert!(behind > ahead);
        assert_eq!(behind.wall_ms(), 1_000_000);
        assert!(HybridTime::after(behind, 1_000_001).bits() == 1_000_001 << 16);
    }
}
