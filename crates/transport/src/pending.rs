//! The calls that were sent over one connection and are not answered: who waits for each, and until when.
//!
//! Pure: told the time, does no I/O. A call's number names its place in the table and which of the
//! place's tenants it is, so the answer to a call that was given up reaches nobody.

use std::{sync::Arc, time::Instant};

use crate::{CallError, slot::Complete};

/// Bits of a call's number that name its place.
const PLACE_BITS: u32 = 16;
/// The most calls that any table holds.
pub(crate) const MAX_CALLS: usize = 1 << PLACE_BITS;

/// The calls in flight.
pub(crate) struct Pending {
    places: Vec<Place>,
    free: Vec<usize>,
    /// How many calls there were ever.
    count: u64,
    bytes: usize,
    calls_max: usize,
    bytes_max: usize,
    /// No call's deadline is earlier.
    earliest: Option<Instant>,
}

struct Place {
    id: u64,
    call: Option<InFlight>,
}

struct InFlight {
    outcome: Arc<dyn Complete>,
    deadline: Instant,
    bytes: usize,
}

/// A call's number, before the call is made.
pub(crate) struct Ticket {
    place: usize,
    /// The number.
    pub(crate) id: u64,
    /// The most bytes that the call may have.
    pub(crate) room: usize,
}

impl Pending {
    pub(crate) fn new(calls_max: usize, bytes_max: usize) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            count: 0,
            bytes: 0,
            calls_max: calls_max.min(MAX_CALLS),
            bytes_max,
            earliest: None,
        }
    }

    /// The number of the next call, if there may be one more.
    pub(crate) fn next(&self) -> Option<Ticket> {
        let place = match self.free.last() {
            Some(&place) => place,
            None if self.places.len() < self.calls_max => self.places.len(),
            None => return None,
        };
        let room = self.bytes_max.saturating_sub(self.bytes);
        Some(Ticket { place, id: self.count << PLACE_BITS | place as u64, room })
    }

    /// Takes in the call that a ticket was for: the last one that was given out. Whether its deadline is
    /// the earliest of all.
    pub(crate) fn insert(
        &mut self,
        ticket: Ticket,
        outcome: Arc<dyn Complete>,
        deadline: Instant,
        bytes: usize,
    ) -> bool {
        let call = Some(InFlight { outcome, deadline, bytes });
        match self.places.get_mut(ticket.place) {
            Some(place) => {
                self.free.pop();
                *place = Place { id: ticket.id, call };
            }
            None => self.places.push(Place { id: ticket.id, call }),
        }
        self.count += 1;
        self.bytes += bytes;
        let first = self.earliest.is_none_or(|earliest| deadline < earliest);
        if first {
            self.earliest = Some(deadline);
        }
        first
    }

    /// Takes out the call that an answer is for, if it is still waited for.
    pub(crate) fn take(&mut self, id: u64) -> Option<Arc<dyn Complete>> {
        let place = (id & (MAX_CALLS as u64 - 1)) as usize;
        let call = self.places.get_mut(place).filter(|place| place.id == id)?.call.take()?;
        self.free.push(place);
        self.bytes -= call.bytes;
        Some(call.outcome)
    }

    /// Takes out the calls whose deadline has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Arc<dyn Complete>> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let due = |place: &Place| {
            place.call.as_ref().filter(|call| call.deadline <= now).map(|_| place.id)
        };
        let due: Vec<u64> = self.places.iter().filter_map(due).collect();
        let expired = due.into_iter().filter_map(|id| self.take(id)).collect();
        let calls = self.places.iter().filter_map(|place| place.call.as_ref());
        self.earliest = calls.map(|call| call.deadline).min();
        expired
    }

    /// No deadline comes before this.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    /// Takes out all calls.
    pub(crate) fn drain(&mut self) -> Vec<Arc<dyn Complete>> {
        let ids: Vec<u64> = self.places.iter().map(|place| place.id).collect();
        self.earliest = None;
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Whether a call is still waited for.
    pub(crate) fn awaits(&self, id: u64) -> bool {
        let place = (id & (MAX_CALLS as u64 - 1)) as usize;
        self.places.get(place).is_some_and(|place| place.id == id && place.call.is_some())
    }
}

/// Tells all of them.
pub(crate) fn fail_all(calls: Vec<Arc<dyn Complete>>, error: &CallError) {
    for call in calls {
        call.fail(error.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::slot::Slot;

    fn insert(pending: &mut Pending, deadline: Instant) -> Option<u64> {
        let ticket = pending.next()?;
        let id = ticket.id;
        pending.insert(ticket, Arc::new(Slot::<()>::new()), deadline, 10);
        Some(id)
    }

    #[test]
    fn each_call_is_taken_once_by_its_own_number() {
        let now = Instant::now();
        let mut pending = Pending::new(10, 1_000);
        let first = insert(&mut pending, now).unwrap();
        assert!(pending.awaits(first));
        assert!(pending.take(first).is_some());
        assert!(pending.take(first).is_none());
        let second = insert(&mut pending, now).unwrap();
        assert_ne!(first, second);
        assert!(pending.take(first).is_none(), "the place has another tenant");
        assert!(pending.take(second).is_some());
        assert!(pending.take(u64::MAX).is_none());
    }

    #[test]
    fn calls_and_bytes_are_bounded() {
        let now = Instant::now();
        let mut pending = Pending::new(3, 25);
        let ids: Vec<u64> = (0..3).filter_map(|_| insert(&mut pending, now)).collect();
        assert_eq!(ids.len(), 3);
        assert!(pending.next().is_none());
        pending.take(ids[1]).unwrap();
        assert_eq!(pending.next().unwrap().room, 5);
    }

    #[test]
    fn calls_expire_when_due_and_not_before() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut pending = Pending::new(10, 1_000);
        let [early, late, answered] = [30, 50, 10].map(|ms| insert(&mut pending, at(ms)).unwrap());
        assert_eq!(pending.earliest(), Some(at(10)));
        pending.take(answered).unwrap();
        assert!(pending.expire(at(20)).is_empty());
        assert_eq!(pending.earliest(), Some(at(30)));
        assert_eq!(pending.expire(at(40)).len(), 1);
        assert!(!pending.awaits(early) && pending.awaits(late));
        assert_eq!(pending.drain().len(), 1);
        assert_eq!(pending.earliest(), None);
    }
}
